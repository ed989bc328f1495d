# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a host's keys for a comparison; see `ansible-doc -t module devnode.gpu.host_keys_offered`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.module_utils import enroll, known_hosts, validators
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs ssh-keyscan where the task runs: on the controller, or on the bastion that it is delegated to."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        _checks, args = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "address": {"type": "str", "required": True},
                "port": {"type": "int", "default": 22},
                "expected": {"type": "list", "elements": "str", "default": []},
                "record": {"type": "path", "required": True},
                "replace": {"type": "bool", "default": False},
                "timeout": {"type": "int", "default": 10},
            }
        )
        try:
            name = _valid("name", validators.host_alias, args["name"])
            address = _valid("address", validators.host, args["address"])
            port = _valid("port", validators.port, args["port"])
            expected = [_valid(f"expected[{at}]", enroll.fingerprint, item) for at, item in enumerate(args["expected"])]
        except InvalidError as error:
            return _failed(str(error))
        record = Path(str(variables.get("inventory_dir") or ".")) / Path(args["record"]).expanduser()
        text = record.read_text(encoding="utf-8") if record.is_file() else ""
        scan = ["ssh-keyscan", "-T", str(args["timeout"]), "-p", str(port), address]
        answer = self._low_level_execute_command(shlex.join(scan), sudoable=False)
        if answer["rc"] == 127:
            return _failed(
                f"ssh-keyscan is not there, so the host keys of {name} cannot be read: install openssh-client."
            )
        verdict = enroll.compare(
            enroll.read_scan(answer["stdout"]),
            expected,
            known_hosts.parse(text).keys.get(name, ()),
            args["replace"],
        )
        if verdict.status == "wrong":
            reason = verdict.reason.replace("<name>", name)
            return _failed(f"The host key of {name} ({address}, port {port}) was not recorded: {reason}.")
        return {
            "changed": False,
            "status": verdict.status,
            "keys": [key.bare for key in verdict.keys],
            "fingerprints": [f"{name} {key.type} {key.fingerprint}" for key in verdict.keys],
        }


def _valid(field: str, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except InvalidError as error:
        raise InvalidError(f"{field}: {show(value)} {error.why}", error.allowed) from None


def _failed(message: str) -> dict[str, Any]:
    return {"failed": True, "changed": False, "msg": message}
