# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task asks of a set: the wanted states and their contents, or every mistake together."""

from __future__ import annotations

import base64
import grp
import json
import pwd
import re
import zlib
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Mapping

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import secrets_of
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import FileSetError, sha256
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_manifest import SET_NAME
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_plan import State, check_wanted

MODE = re.compile(r"0?[0-7]{3,4}")


@dataclass
class Wanted:
    states: List[State] = field(default_factory=list)
    contents: Dict[str, bytes] = field(default_factory=dict)  # by path
    guard_program: bytes = b""


@dataclass
class Reader:
    """Reads the module's parameters. `check`: accounts may be missing, as an earlier task would make them."""

    params: Mapping[str, Any]
    check: bool
    warn: Callable[[str], None]
    hide: Callable[[Iterable[str]], None]
    errors: List[str] = field(default_factory=list)

    def read(self, owners: Callable[[str], Mapping[str, str]]) -> Wanted:
        """`owners`: what sets of other names on this host own."""
        name = self.params["name"]
        if not SET_NAME.fullmatch(name):
            self.errors.append(f"name: {name!r} has to match {SET_NAME.pattern}; it becomes a file name on the host.")
        guard = self.params["guard"]
        if guard:
            if not 5 <= guard["window"] <= 3600:
                self.errors.append(f"guard.window: {guard['window']} s is not between 5 and 3600.")
            if not 0 <= guard["port"] <= 65535:
                self.errors.append(f"guard.port: {guard['port']} is not a port.")
        packed = self.params["rendered"]
        if packed is None:
            raise FileSetError("file_set works through its action plugin only: write `devnode.gpu.file_set` in a task.")
        payload = json.loads(zlib.decompress(base64.b64decode(packed)).decode("utf-8"))
        contents = {int(index): base64.b64decode(text) for index, text in payload["contents"].items()}
        wanted = Wanted(guard_program=base64.b64decode(payload.get("guard_program", "")))
        listed = self.params["files"] if self.params["state"] == "present" else []
        for index, item in enumerate(listed):
            state = self._state(index, item)
            if state["type"] == "file":
                data = contents.get(index, b"")
                state["sha256"] = sha256(data)
                wanted.contents[state["path"]] = data
                if state["sensitive"]:
                    self.hide(secrets_of(data))
            wanted.states.append(state)
        errors = self.errors or check_wanted(wanted.states, owners(name), name)
        if errors:
            raise FileSetError("\n".join([f"file_set {name!r} cannot be put on this host:", *errors]))
        return wanted

    def _state(self, index: int, item: Mapping[str, Any]) -> State:
        kind = item["state"]
        state: State = {"path": item["path"], "type": kind}
        for flag in ("sensitive", "seed", "shared", "never_restore"):
            state[flag] = item[flag]
        if kind == "absent":
            return state
        state["uid"] = self._number(index, "owner", item["owner"])
        state["gid"] = self._number(index, "group", item["group"])
        mode = item["mode"]
        if mode is None:
            mode = "0755" if kind == "directory" else "0644"
        if not isinstance(mode, str) or not MODE.fullmatch(mode):
            self.errors.append(f'files[{index}].mode: {mode!r} has to be octal and in quotes, such as "0644".')
            mode = "0644"
        state["mode"] = int(mode, 8)
        if kind == "link":
            state["target"] = item["target"]
            if not item["target"]:
                self.errors.append(f"files[{index}].target: a link needs one.")
        return state

    def _number(self, index: int, key: str, value: str) -> int:
        if value.isdigit():
            return int(value)
        try:
            return pwd.getpwnam(value).pw_uid if key == "owner" else grp.getgrnam(value).gr_gid
        except KeyError:
            kind = "user" if key == "owner" else "group"
            text = f"files[{index}].{key}: there is no {kind} {value!r} on this host."
            if self.check:
                self.warn(text + " In a real run an earlier task has to have made it.")
            else:
                self.errors.append(text + " Make it in an earlier task.")
            return 0
