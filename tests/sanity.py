#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`ansible-test sanity` on what is shipped: the files of the built collection, where ansible-test wants them.

Its environments are kept in .cache/sanity, so that they are made once. Each line of tests/sanity/ignore-*.txt has its
reason. ansible-test only warns of a test that it leaves out because a program is missing: here it is counted as skipped
if nobody can have that program, and failed otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".cache" / "sanity"
# Programs that may be missing, and why. shellcheck comes with the locked requirements.
NOT_HERE = {"pwsh": "PowerShell is neither a package of Debian or Ubuntu nor one of the Python index"}
TEST = re.compile(r'Running sanity test "([^"]+)"')
MISSING = re.compile(r'Required program "([^"]+)" not found')
SKIPPING = re.compile(r'Skipping sanity test "([^"]+)".*')
# ansible-test fetches a script that installs this pip from a server of its project. Not every network reaches that, and
# every Python 3 brings the same thing along.
BOOTSTRAP = "import ensurepip\nensurepip.bootstrap(default_pip=True)\n"


def shipped(folder: Path) -> Path:
    """The built collection, unpacked below ansible_collections/, with the list of what sanity may ignore."""
    place = folder / "ansible_collections" / "devnode" / "gpu"
    place.mkdir(parents=True)
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    build: list[str | Path] = [galaxy, "collection", "build", "--output-path", folder, ROOT]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["tar", "-xzf", next(folder.glob("*.tar.gz")), "-C", place], check=True)
    # Made by the build; in a checkout galaxy.yml says the same.
    for name in ("MANIFEST.json", "FILES.json"):
        (place / name).unlink()
    shutil.copy(ROOT / "galaxy.yml", place)
    shutil.copytree(ROOT / "tests" / "sanity", place / "tests" / "sanity")
    return place


def bootstrap_name() -> str:
    """What this core's ansible-test calls that script: it carries the version of the pip that it asks for."""
    spec = importlib.util.find_spec("ansible_test._internal.python_requirements")
    assert spec
    assert spec.origin
    found = re.search(r"""\bpip=['"]([\d.]+)['"]""", Path(spec.origin).read_text())
    assert found, f"{spec.origin} names no version of pip"
    return f"get_pip_{found[1].replace('.', '_')}.py"


def left_out(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of ansible-test's output: what was skipped for a reason that is known here, and what for another."""
    known: list[str] = []
    other: list[str] = []
    test = ""
    for line in lines:
        if "Reviewing previous" in line:
            break  # the same warnings once more, at the end
        if found := TEST.search(line):
            test = found[1]
        elif found := MISSING.search(line):
            program = found[1]
            words = f"sanity test {test}: no {program} here"
            (known if program in NOT_HERE else other).append(f"{words}; {NOT_HERE.get(program, 'it should be')}")
        elif found := SKIPPING.search(line):
            other.append(found[0])
    return known, other


def main() -> int:
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / bootstrap_name()).write_text(BOOTSTRAP)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    tools = Path(sys.executable).parent
    argv: list[str | Path] = [
        tools / "ansible-test",
        "sanity",
        "--venv",
        "--python",
        python,
        "--color",
        "no",
        *sys.argv[1:],
    ]
    env = {**os.environ, "HOME": str(HOME), "LC_ALL": "C.UTF-8", "PATH": f"{tools}:{os.environ['PATH']}"}
    lines = []
    with (
        tempfile.TemporaryDirectory(prefix="devnode-sanity-") as folder,
        subprocess.Popen(
            argv,
            cwd=shipped(Path(folder)),
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as running,
    ):
        assert running.stdout
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    known, other = left_out(lines)
    # tests/run.py counts lines that begin so.
    print("\n".join([*(f"skipped: {one}" for one in known), *(f"FAILED: {one}" for one in other)]))
    return running.returncode or len(other)


if __name__ == "__main__":
    sys.exit(main())
