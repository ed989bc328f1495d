# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action ssh_kits: people's kits on the controller. Documented in plugins/modules/ssh_kits.py.

The controller is nobody's managed host: whoever runs Ansible is often not root there, so file_set with its records
under /var/lib is not for it. What was written is remembered in the directory of the kits itself.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.module_utils import whole_file
from ansible_collections.devnode.gpu.plugins.module_utils.client_check import parse_views
from ansible_collections.devnode.gpu.plugins.module_utils.client_render import KitFile, kit
from ansible_collections.devnode.gpu.plugins.module_utils.client_view import ClientView

RECORD = ".devnode-kits.json"


class Kits:
    """The kits below one directory: what is to be there, and what a former run left there."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(os.path.expanduser(directory))
        self.record = os.path.join(self.directory, RECORD)

    def place(self, view: ClientView) -> str:
        """Where a person's kit lies. One that is used where it lies says so itself."""
        return os.path.join(self.directory, view.person) if view.base_dir.startswith("~/") else view.base_dir

    def former(self) -> list[str]:
        """What a former run wrote."""
        try:
            with open(self.record, encoding="utf-8") as source:
                written = json.load(source)["files"]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise AnsibleActionFail(
                f"{self.record}: it cannot be read ({error}), so nobody knows which kits are ours. Remove it, and "
                "remove by hand the kits of people who have left."
            ) from error
        return [path for path in written if isinstance(path, str) and os.path.isabs(path)]

    def remember(self, paths: list[str]) -> None:
        """Note what was written; with nothing left the directory goes, if it is empty."""
        if paths:
            _write(self.record, json.dumps({"files": sorted(paths)}, indent=1) + "\n", 0o600)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.record)
        _remove_empty(self.directory)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read()
    except FileNotFoundError:
        return None


def _write(path: str, text: str, mode: int) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    whole_file.write(path, text, mode)


def _mode(path: str) -> int:
    return os.stat(path).st_mode & 0o7777


def _remove_empty(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(directory)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Writes the kits of the views it is given."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("views", "directory", "state"))

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        _dummy, args = self.validate_argument_spec(
            argument_spec={
                "views": {"type": "list", "elements": "dict", "default": []},
                "directory": {"type": "path", "required": True},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            },
        )
        views, errors = parse_views(args["views"])
        if errors:
            raise AnsibleActionFail("\n".join(errors))
        kits = Kits(args["directory"])
        check = bool(self._task.check_mode)
        diff: list[dict[str, str]] = []
        wanted: list[str] = []
        sockets: list[str] = []
        try:
            former = kits.former()
            for view in views if args["state"] == "present" else ():
                if view.base_dir[0] == view.sockets[0] == "/" and view.platform != "windows":
                    sockets.append(view.sockets)
                for found in kit(view):
                    path = os.path.join(kits.place(view), found.name)
                    wanted.append(path)
                    self._put(path, found, check, diff)
            for directory in sockets:
                self._put_directory(directory, check, diff)
            for path in sorted(set(former) - set(wanted)):
                self._remove(path, check, diff)
            if not check and sorted(former) != sorted(wanted):
                kits.remember(wanted)
        except OSError as error:
            raise AnsibleActionFail(
                f"{error.filename}: {error.strerror}. The kits are written by the person who runs Ansible, into "
                f"{kits.directory} (directory): choose one that they may write to."
            ) from error
        return {"changed": bool(diff), "diff": diff, "kits": {view.person: kits.place(view) for view in views}}

    def _put(self, path: str, found: KitFile, check: bool, diff: list[dict[str, str]]) -> None:
        text = self._asset(found.asset) if found.asset else found.content
        before = _read(path)
        mode = int(found.mode, 8)
        if before == text and _mode(path) == mode:
            return
        diff.append({"before_header": path, "after_header": path, "before": before or "", "after": text})
        if not check:
            _write(path, text, mode)
            os.chmod(os.path.dirname(path), 0o700)

    def _put_directory(self, path: str, check: bool, diff: list[dict[str, str]]) -> None:
        if os.path.isdir(path) and _mode(path) == 0o700 and os.stat(path).st_uid == os.getuid():
            return
        diff.append({"before_header": path, "after_header": path, "before": "", "after": "directory 0700\n"})
        if check:
            return
        os.makedirs(path, mode=0o700, exist_ok=True)
        if os.path.islink(path) or os.stat(path).st_uid != os.getuid():
            raise AnsibleActionFail(
                f"{path} belongs to somebody else or is a link. Whoever owns the sockets of shared connections can use "
                "them: choose another control_dir."
            )
        os.chmod(path, 0o700)

    def _remove(self, path: str, check: bool, diff: list[dict[str, str]]) -> None:
        before = _read(path)
        if before is None:
            return
        diff.append({"before_header": path, "after_header": path, "before": before, "after": ""})
        if not check:
            os.unlink(path)
            _remove_empty(os.path.dirname(path))

    def _asset(self, name: str) -> str:
        path = self._find_needle("files", name)
        with open(path, encoding="utf-8") as source:
            return source.read()
