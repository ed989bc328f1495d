# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the controller's record of host keys; see `ansible-doc -t module devnode.gpu.known_hosts_record`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.module_utils import known_hosts, validators, whole_file
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey, public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show
from ansible_collections.devnode.gpu.plugins.plugin_utils.controller_lock import locked

SCOPE_RE = re.compile(r"[a-z][a-z0-9@._-]{0,300}")
Entries = dict[str, list[PublicKey]]


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller only; needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        _checks, args = self.validate_argument_spec(
            argument_spec={
                "entries": {"type": "dict", "required": True},
                "scope": {"type": "str", "default": f"workspaces@{variables.get('inventory_hostname', '')}"},
                "path": {"type": "path"},
                "replace": {"type": "list", "elements": "str", "default": []},
                "prune": {"type": "bool", "default": True},
                "rotation": {"type": "bool", "default": False},
            }
        )
        if not SCOPE_RE.fullmatch(args["scope"]):
            return _failed(f"scope: {show(args['scope'])} is no scope. Allowed: a-z 0-9 @ . _ -, a letter first.")
        entries, errors = read_entries(args["entries"])
        if errors:
            return _failed("Host keys cannot be recorded:\n" + "\n".join(f"- {error}" for error in errors))
        path = self._path(args["path"], variables)
        try:
            return self._record(path, args, entries)
        except known_hosts.ChangedKeyError as error:
            return _failed(_changed_report(path, error))
        except OSError as error:
            return _failed(f"The record of host keys, {path}, cannot be written: {error.strerror}.")

    def _path(self, given: str | None, variables: dict[str, Any]) -> Path:
        """Where the record lies; a relative path counts from the inventory, as in the plan."""
        path = given or self._templar.template(variables.get("devnode_known_hosts") or "known_hosts")
        folder = variables.get("inventory_dir") or "."
        return (Path(str(folder)) / Path(str(path)).expanduser()).resolve()

    def _record(self, path: Path, args: dict[str, Any], entries: Entries) -> dict[str, Any]:
        with locked(path.parent):
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            record = known_hosts.parse(before)
            if args["rotation"]:
                after = known_hosts.rotate(record, args["scope"], entries)
            else:
                after = known_hosts.merge(record, args["scope"], entries, args["replace"], args["prune"])
            text = after.text()
            result: dict[str, Any] = {
                "changed": text != before,
                "path": str(path),
                "added": sorted(set(after.keys) - set(record.keys)),
                "removed": sorted(set(record.keys) - set(after.keys)),
            }
            if self._task.diff:
                header = {"before_header": str(path), "after_header": str(path)}
                result["diff"] = [{"before": before, "after": text, **header}]
            if result["changed"] and not self._task.check_mode:
                whole_file.rewrite(str(path), text)
        return result


def read_entries(raw: Mapping[str, Any]) -> tuple[Entries, list[str]]:
    """The keys to record, or one sentence for each that cannot be."""
    entries: Entries = {}
    errors: list[str] = []
    for alias, keys in raw.items():
        try:
            name = validators.host_alias(alias)
        except InvalidError as error:
            errors.append(f"entries: {show(alias)} {error}")
            continue
        if not isinstance(keys, list) or not keys:
            errors.append(f"entries[{name}]: {show(keys)} is no list of keys")
            continue
        for at, key in enumerate(keys):
            try:
                entries.setdefault(name, []).append(public_key(key))
            except InvalidError as error:
                errors.append(f"entries[{name}][{at}]: {show(key)} {error}")
    return entries, errors


def _failed(message: str) -> dict[str, Any]:
    return {"failed": True, "changed": False, "msg": message}


def _changed_report(path: Path, error: known_hosts.ChangedKeyError) -> str:
    lines = "\n".join(f"- {alias}: {old} on record, {new} now" for alias, old, new in error.changed)
    return (
        f"Host keys differ from the record {path}, which was left as it is:\n{lines}\n"
        "Somebody may stand in between, or the machine was made anew. If you know that it was, compare the new "
        "fingerprint there and record it on purpose (name it in replace, or take the old line out of the record)."
    )
