#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lint, sanity, units and one scenario on the oldest and the newest ansible-core that the collection says it runs on.

Each core gets a venv of its own in .cache/cores: the locked requirements, with another ansible-core. The newest needs a
newer Python than the rest of the checks: one is looked for, also where pyenv keeps them; PYTHON_NEW names one.
A deprecation is an error: what is one today is gone from the core after next.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".cache" / "cores"
OUTPUT = ROOT / "tests" / "output"
TAIL_LINES = 40
REQUIREMENTS = ROOT / ".config" / "requirements.txt"
# A role with modules, actions and filters of ours on both releases, in two minutes.
SCENARIO = "host_firewall"
DEPRECATED = ("DEPRECATION", "does not support Ansible")


@dataclass(frozen=True)
class Core:
    version: str
    oldest_python: tuple[int, int]
    newest_python: tuple[int, int]


# The ends of requires_ansible in meta/runtime.yml (tests/unit/test_galaxy.py compares). 2.18 lacks trust_as_template.
# The oldest: until 2.19.3 a run sometimes ends, or hangs, in a KeyError of the core itself (its issue 86027).
CORES = (Core("2.19.5", (3, 11), (3, 13)), Core("2.21.5", (3, 12), (3, 14)))


def python_for(core: Core) -> str:
    """A Python that this core runs on and that can make a venv; "" when there is none here."""
    minors = range(core.oldest_python[1], core.newest_python[1] + 1)
    named = [os.environ.get("PYTHON_NEW", ""), sys.executable, *(f"python3.{minor}" for minor in minors)]
    kept = sorted(str(path) for path in Path.home().glob(".pyenv/versions/3.*/bin/python3"))
    for name in [one for one in (*named, *kept) if one]:
        path = shutil.which(name)
        look = "import ensurepip, sys; print(sys.version_info[0], sys.version_info[1])"
        done = subprocess.run([path or "false", "-c", look], capture_output=True, text=True, check=False)
        if path and done.returncode == 0:
            found = tuple(int(word) for word in done.stdout.split())
            if core.oldest_python <= found <= core.newest_python:
                return path
    return ""


def venv_for(core: Core, python: str) -> Path:
    """Made once; other requirements or another Python make it anew."""
    folder = PLACE / core.version
    mark = folder / "made-of"
    wanted = f"{python}\n{REQUIREMENTS.read_text()}"
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        pip: list[str | Path] = [
            folder / "bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, "--require-hashes", "-r", REQUIREMENTS], check=True)
        # Alone: the `ansible` package beside it, which brings other collections, names another core.
        subprocess.run([*pip, "--no-deps", f"ansible-core=={core.version}"], check=True)
        mark.write_text(wanted)
    return folder / "bin"


def steps(bin_: Path) -> dict[str, list[str]]:
    """What is asked of each core, by name."""
    books = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("playbooks/*.yml"))
    found = {
        "syntax": [str(bin_ / "ansible-playbook"), "--syntax-check", "-i", "inventory/example", "site.yml", *books],
        "ansible-lint": [str(bin_ / "ansible-lint"), "-c", ".config/ansible-lint.yml", "--offline"],
        "sanity": [str(bin_ / "python"), "tests/sanity.py"],
        "unit": [str(bin_ / "python"), "-m", "pytest", "tests/unit"],
    }
    if os.environ.get("ENGINE") != "none":
        found[SCENARIO] = [str(bin_ / "molecule"), "test", "-s", SCENARIO]
    return found


def check(core: Core, bin_: Path) -> int:
    """How many of the steps failed. Their output is in tests/output/cores-VERSION-STEP.log."""
    env = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(bin_.parent),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "MOLECULE_EPHEMERAL_DIRECTORY": f"/tmp/devnode-mol-{core.version}",  # noqa: S108  short, for sockets
    }
    failed = 0
    for name, argv in steps(bin_).items():
        log = OUTPUT / f"cores-{core.version}-{name}.log"
        started = time.monotonic()
        with log.open("w") as out:
            status = subprocess.run(
                argv, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, check=False
            ).returncode
        said = log.read_text(errors="replace").splitlines()
        deprecated = [line for line in said if any(word in line for word in DEPRECATED)]
        good = status == 0 and not deprecated
        print(f"  {'ok ' if good else 'FAILED'} {name}  {time.monotonic() - started:.0f} s", flush=True)
        if not good:
            failed += 1
            print("\n".join(f"      | {line}" for line in [*deprecated[:5], *said[-TAIL_LINES:]]), flush=True)
    return failed


def main() -> int:
    failed = 0
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for core in CORES:
        python = python_for(core)
        needed = ".".join(map(str, core.oldest_python))
        if not python:
            print(f"skipped: ansible-core {core.version} needs Python {needed} or newer; none is here (see PYTHON_NEW)")
            continue
        print(f"==> ansible-core {core.version} on {python}", flush=True)
        failed += check(core, venv_for(core, python))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
