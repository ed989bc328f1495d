#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units and syntax on the oldest and the newest ansible-core that the collection says it runs on.

Each core gets a venv of its own in .cache/cores, with the tools at the versions of .config/requirements.txt. The newest
needs a newer Python than the rest of the checks: one is looked for, also where pyenv keeps them; PYTHON_NEW names one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".cache" / "cores"
# What the unit tests import; ansible-core is each core's own.
TOOLS = ("pytest", "hypothesis", "pyyaml", "py-rattler", "requests", "docker", "pytest-testinfra")


@dataclass(frozen=True)
class Core:
    version: str
    oldest_python: tuple[int, int]
    newest_python: tuple[int, int]


# The ends of requires_ansible in meta/runtime.yml (tests/unit/test_galaxy.py compares). 2.18 lacks trust_as_template.
CORES = (Core("2.19.0", (3, 11), (3, 13)), Core("2.21.5", (3, 12), (3, 14)))


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


def pins() -> list[str]:
    locked = (ROOT / ".config/requirements.txt").read_text()
    return [found[0] for name in TOOLS for found in [re.search(rf"^{name}==[^ ]+", locked, re.MULTILINE)] if found]


def venv_for(core: Core, python: str) -> Path:
    """Made once; another set of tools or another Python makes it anew."""
    folder = PLACE / core.version
    mark = folder / "made-of"
    wanted = "\n".join([python, *pins()])
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
        subprocess.run([*pip, f"ansible-core=={core.version}", *pins()], check=True)
        # One test reads a run through a callback of ansible.posix, which the checkout's own venv has.
        ours = next(Path(sys.prefix).glob("lib/python3*/site-packages/ansible_collections"))
        next(folder.glob("lib/python3*/site-packages")).joinpath("ansible_collections").symlink_to(ours)
        mark.write_text(wanted)
    return folder / "bin"


def check(core: Core, bin_: Path) -> int:
    env = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
    }
    units = subprocess.run([bin_ / "python", "-m", "pytest", "tests/unit"], cwd=ROOT, env=env, check=False)
    books = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("playbooks/*.yml"))
    argv: list[str | Path] = [
        bin_ / "ansible-playbook",
        "--syntax-check",
        "-i",
        "inventory/example",
        "site.yml",
        *books,
    ]
    syntax = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    said = syntax.stdout + syntax.stderr
    # A deprecation that a newer core has made an error should be seen while it is still a warning.
    deprecated = [line for line in said.splitlines() if "DEPRECATION" in line or "does not support Ansible" in line]
    if syntax.returncode or deprecated:
        print(said)
    return 1 if units.returncode or syntax.returncode or deprecated else 0


def main() -> int:
    failed = 0
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
