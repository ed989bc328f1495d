# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of hosts that are made of several modules: one file, which a host's Python runs.

One file, so that it is replaced in one step. It is a zip archive behind a first line that names the interpreter; its
members are not compressed, so `less` shows what it does. The modules are only read here: every task that installs a
program would wait for their compilation.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "ansible_collections.devnode.gpu.plugins.module_utils"
FOLDER = Path(__file__).parent.parent / "module_utils"
# By name: the module whose main() it starts, and what that imports.
PROGRAMS = {"sshd_check": ("sshd_check", "sshd_compare", "sshd_command", "sshd_files")}
FIRST_LINE = b"#!/usr/bin/python3 -I\n"
# The same each time, so that the host sees whether the program is another one.
TIME = (2020, 1, 1, 0, 0, 0)
MAIN = """\
import sys

from {module} import main

sys.exit(main(sys.argv[1:]))
"""


def archive(parts: Sequence[str]) -> bytes:
    """The first module, which has main(), with the others; without the first line."""
    package = PACKAGE.split(".")
    folders = ["/".join(package[:depth]) for depth in range(1, len(package) + 1)]
    members = {f"{folder}/__init__.py": "" for folder in folders}
    for part in parts:
        members[f"{folders[-1]}/{part}.py"] = (FOLDER / f"{part}.py").read_text(encoding="utf-8")
    members["__main__.py"] = MAIN.format(module=f"{PACKAGE}.{parts[0]}")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as stream:
        for name, text in members.items():
            stream.writestr(zipfile.ZipInfo(name, TIME), text)
    return packed.getvalue()


def host_program(name: str) -> bytes:
    """One of PROGRAMS, as it lies on a host."""
    if name not in PROGRAMS:
        raise ValueError(f"program: {name!r} is none of this collection's. Allowed: {', '.join(sorted(PROGRAMS))}.")
    return FIRST_LINE + archive(PROGRAMS[name])
