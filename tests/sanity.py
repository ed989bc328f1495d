#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`ansible-test sanity` on what is shipped: the files of the built collection, where ansible-test wants them.

Its environments are kept in .cache/sanity, so that they are made once. Each line of tests/sanity/ignore-*.txt has its
reason.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".cache" / "sanity"
# ansible-test fetches a script that installs this pip from a server of its project. Not every network reaches that, and
# every Python 3 brings the same thing along.
BOOTSTRAP = "import ensurepip\nensurepip.bootstrap(default_pip=True)\n"


def shipped(folder: Path) -> Path:
    """The built collection, unpacked below ansible_collections/, with the list of what sanity may ignore."""
    place = folder / "ansible_collections" / "devnode" / "gpu"
    place.mkdir(parents=True)
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    build = [galaxy, "collection", "build", "--output-path", folder, ROOT]
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


def main() -> int:
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / bootstrap_name()).write_text(BOOTSTRAP)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    argv = [Path(sys.executable).with_name("ansible-test"), "sanity", "--venv", "--python", python, "--color", "no"]
    with tempfile.TemporaryDirectory(prefix="devnode-sanity-") as folder:
        return subprocess.run(
            argv, cwd=shipped(Path(folder)), env={**os.environ, "HOME": str(HOME), "LC_ALL": "C.UTF-8"}, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
