# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads hosts' keys for a comparison; see `ansible-doc -t module devnode.gpu.host_keys_offered`."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.module_utils import enroll, known_hosts, validators
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey
from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import TopologyError
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show
from ansible_collections.devnode.gpu.plugins.plugin_utils.inventory import BASTIONS, CLIENTS, NODES, Inventory

Places = dict[str, tuple[str, int]]


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs ssh-keyscan where the task runs: on the controller, or on a bastion."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _checks, args = self.validate_argument_spec(
            argument_spec={
                "of": {"type": "str", "required": True, "choices": ["direct", "nodes"]},
                "expected": {"type": "dict", "default": {}},
                "replace": {"type": "list", "elements": "str", "default": []},
                "timeout": {"type": "int", "default": 10},
            }
        )
        inventory = Inventory(task_vars or {})
        try:
            places = _places(inventory, args["of"])
            expected = _expected(args["expected"])
        except (InvalidError, TopologyError) as error:
            return _failed(f"Host keys cannot be read: {error}.")
        offered: dict[str, list[PublicKey]] = {}
        for port in sorted({port for _address, port in places.values()}):
            addresses = sorted({address for address, its in places.values() if its == port})
            scan = ["ssh-keyscan", "-T", str(args["timeout"]), "-p", str(port), *addresses]
            answer = self._low_level_execute_command(shlex.join(scan), sudoable=False)
            if answer["rc"] == 127:
                return _failed(f"ssh-keyscan is missing on {inventory.name}: install openssh-client there.")
            found = enroll.read_scan(answer["stdout"])
            offered.update({f"{address} {port}": keys for address, keys in found.items()})
        record = inventory.known_hosts
        recorded = known_hosts.parse(record.read_text(encoding="utf-8") if record.is_file() else "").keys
        verdicts = {
            name: enroll.compare(
                offered.get(f"{address} {port}", []),
                expected.get(name, []),
                recorded.get(name, ()),
                name in args["replace"],
            )
            for name, (address, port) in sorted(places.items())
        }
        return {"changed": False, "record": str(record), **_sorted_out(verdicts, places)}


def _places(inventory: Inventory, of: str) -> Places:
    """Address and port of the hosts to ask."""
    if of == "direct":
        names = [*inventory.group(BASTIONS), *inventory.group(CLIENTS)]
    else:
        names = [name for name in inventory.group(NODES) if inventory.bastion_of(name) == inventory.name]
    places: Places = {}
    for name in names:
        validators.host_alias(name)
        address = _valid(f"{name}: devnode_address", validators.host, inventory.get(name, "devnode_address"))
        given = inventory.get(name, "devnode_ssh_port")
        port = 22 if given is None else _valid(f"{name}: devnode_ssh_port", validators.port, given)
        places[name] = (address, port)
    return places


def _expected(raw: dict[str, Any]) -> dict[str, list[str]]:
    """The fingerprints that somebody vouches for, by name."""
    found: dict[str, list[str]] = {}
    for name, given in raw.items():
        items = given if isinstance(given, list) else [given]
        found[str(name)] = [_valid(f"devnode_host_fingerprints[{name}]", enroll.fingerprint, item) for item in items]
    return found


def _sorted_out(verdicts: dict[str, enroll.Verdict], places: Places) -> dict[str, Any]:
    """The verdicts in the form that tasks need."""

    def having(status: str) -> dict[str, enroll.Verdict]:
        return {name: verdict for name, verdict in verdicts.items() if verdict.status == status}

    def where(name: str) -> str:
        return f"{name} ({places[name][0]}, port {places[name][1]})"

    return {
        "recorded": sorted(having("recorded")),
        "expected": {name: [key.bare for key in verdict.keys] for name, verdict in having("expected").items()},
        "open": {name: [key.bare for key in verdict.keys] for name, verdict in having("open").items()},
        "fingerprints": [
            f"{name} {key.type} {key.fingerprint}" for name, verdict in having("open").items() for key in verdict.keys
        ],
        "wrong": [f"{where(name)}: {verdict.reason}" for name, verdict in having("wrong").items()],
        "warnings": [f"{where(name)} does not answer; its key on record stays." for name in having("silent")],
    }


def _valid(field: str, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except InvalidError as error:
        raise InvalidError(f"{field}: {show(value)} {error.why}", error.allowed) from None


def _failed(message: str) -> dict[str, Any]:
    return {"failed": True, "changed": False, "msg": message}
