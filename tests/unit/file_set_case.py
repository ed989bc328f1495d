# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A place for the files of a set, and changes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import sha256
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_states import inspect
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_transaction import Transaction

State = dict[str, Any]


def tree(root: Path) -> dict[str, Any]:
    """What a person sees below `root`."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("directory", path.stat().st_mode & 0o7777)
        else:
            found[name] = ("file", path.stat().st_mode & 0o7777, path.read_bytes())
    return found


class Case:
    """A place for files, and the base directory of the engine beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "host"
        self.base = str(root / "lib")
        self.root.mkdir()

    def state(self, name: str, kind: str, content: bytes = b"", mode: int = 0o644) -> State:
        path = str(self.root / name)
        own: State = {"path": path, "type": kind, "uid": os.getuid(), "gid": os.getgid(), "mode": mode}
        if kind == "absent":
            return {"path": path, "type": "absent"}
        if kind == "link":
            return {**own, "target": content.decode()}
        if kind == "directory":
            return {**own, "mode": 0o755}
        return {**own, "sha256": sha256(content), "content": content}

    def transaction(self, wanted: list[State], **more: Any) -> Transaction:
        old = [inspect(state["path"]) for state in wanted]
        entries = {state["path"]: {"type": state["type"]} for state in wanted}
        data: dict[str, Any] = {
            "id": "1",
            "name": "demo",
            "phase": "prepared",
            "old": [],
            "new": [],
            "activate": [],
            "reactivate": None,
            "verify": [],
            "changed": [state["path"] for state in wanted],
            "backup": None,
            "manifest_before": {"version": 1, "name": "demo", "entries": {}},
            "manifest_after": {"version": 1, "name": "demo", "entries": entries},
        }
        data.update(more)
        transaction = Transaction(data, self.base)
        for side, states in (("old", old), ("new", wanted)):
            os.makedirs(os.path.join(transaction.directory, side))
            for number, state in enumerate(states):
                state = {key: value for key, value in state.items() if key != "children"}
                if state["type"] == "file":
                    content = state.pop("content", None)
                    state["blob"] = f"{side}/{number}"
                    data_of = Path(state["path"]).read_bytes() if content is None else content
                    Path(transaction.directory, state["blob"]).write_bytes(data_of)
                data[side].append(state)
        transaction.save()
        return transaction
