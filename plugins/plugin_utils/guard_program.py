# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard's program: `fileset_guard` with what it imports, as one file that a host's Python runs.

One file, so that it is replaced in one step. It is a zip archive behind a first line that names the interpreter; its
members are not compressed, so `less` shows what it does.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from ansible_collections.devnode.gpu.plugins.module_utils import (
    fileset_commands,
    fileset_disk,
    fileset_guard,
    fileset_manifest,
    fileset_states,
    fileset_transaction,
)

PARTS = (fileset_guard, fileset_transaction, fileset_manifest, fileset_states, fileset_commands, fileset_disk)
# The same each time, so that the host sees whether the program is another one.
TIME = (2020, 1, 1, 0, 0, 0)
MAIN = """\
import sys

from {module} import main

sys.exit(main(sys.argv[1:]))
"""


def guard_program() -> bytes:
    """The archive, without the first line, which is the host's matter."""
    package = fileset_guard.__name__.split(".")[:-1]
    folders = ["/".join(package[:depth]) for depth in range(1, len(package) + 1)]
    members = {f"{folder}/__init__.py": "" for folder in folders}
    for part in PARTS:
        members[part.__name__.replace(".", "/") + ".py"] = Path(str(part.__file__)).read_text(encoding="utf-8")
    members["__main__.py"] = MAIN.format(module=fileset_guard.__name__)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as stream:
        for name, text in members.items():
            stream.writestr(zipfile.ZipInfo(name, TIME), text)
    return archive.getvalue()
