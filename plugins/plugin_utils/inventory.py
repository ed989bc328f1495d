# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory as an action sees it on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.devnode.gpu.plugins.module_utils import topology
from ansible_collections.devnode.gpu.plugins.module_utils.topology_parse import HOST_KEYS, MACHINE_HOST_KEYS
from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import Problem, TopologyError

BASTIONS, NODES, CLIENTS = "devnode_bastions", "devnode_nodes", "devnode_clients"
LISTS = (
    *("users", "workspaces", "projects", "allowed_networks", "controllers", "bastion_rate"),
    *("operator_networks", "automation_networks"),
    *("user_ca_keys", "revoked_keys", "totp", "totp_operators"),
)


class Inventory:
    """The few variables of the inventory that matter here, templated one by one and only when they are needed."""

    def __init__(self, task_vars: dict[str, Any]) -> None:
        self.name = str(task_vars["inventory_hostname"])
        self.groups: dict[str, list[str]] = task_vars["groups"]
        self.hostvars = task_vars["hostvars"]
        self._variables: dict[str, Any] = {}
        # On a host outside our groups (localhost), the fleet's variables are those of its first bastion or node.
        ours = [*self.group(BASTIONS), *self.group(NODES), *self.group(CLIENTS)]
        self.reference = self.name if self.name in ours or not ours else ours[0]
        self.known_hosts = self._known_hosts()
        self.kits = self._kits()

    def group(self, name: str) -> list[str]:
        """The hosts of a group."""
        return [str(host) for host in self.groups.get(name, [])]

    def get(self, host: str, name: str) -> Any:
        """One variable of a host, or None."""
        # Gathering a host's variables is what costs; templating one of them is cheap.
        variables = self._variables.get(host)
        if variables is None:
            variables = self._variables[host] = self.hostvars[host]
        if name not in variables:
            return None
        try:
            return variables[name]
        except AnsibleError as error:
            why = " ".join(str(error).split())
            raise TopologyError([Problem(f"{name} (host {host})", "", f"cannot be evaluated: {why}")]) from error

    def source(self, kind: str) -> topology.Source:
        """What the topology is made from. A plan needs the variables of no other host of its kind."""
        read = {name for name in self.group(NODES) if kind != "node" or name == self.name}
        machines = {"fleet": self.group(CLIENTS), "client": [self.name]}.get(kind, [])
        return topology.Source(
            bastions={name: self._host(name) for name in self.group(BASTIONS)},
            nodes={name: self._host(name) if name in read else None for name in self.group(NODES)},
            machines={name: {key: self.get(name, key) for key in MACHINE_HOST_KEYS} for name in machines},
            groups={name: tuple(map(str, hosts)) for name, hosts in self.groups.items() if name not in ("all",)},
            known_hosts=self.known_hosts.read_text(encoding="utf-8") if self.known_hosts.is_file() else "",
            host_ca=self.get(self.reference, "devnode_host_ca"),
            host_ca_key=self._host_ca_key(),
            connects_as=self._connects_as(),
            **{name: self.get(self.reference, f"devnode_{name}") for name in LISTS},
        )

    def bastion_of(self, node: str) -> str:
        """The bastion in front of a node; the first by name when it names none."""
        first = sorted(self.group(BASTIONS))[:1]
        return str(self.get(node, "devnode_bastion") or "".join(first))

    def _host(self, name: str) -> dict[str, Any]:
        return {key: self.get(name, key) for key in HOST_KEYS}

    def _connects_as(self) -> tuple[str, ...]:
        """Who Ansible is on the bastions. Only where operators are asked for codes does that matter."""
        if not self.get(self.reference, "devnode_totp_operators"):
            return ()
        return tuple(str(self.get(name, "ansible_user") or "") for name in self.group(BASTIONS))

    def _known_hosts(self) -> Path:
        return self._path(self.get(self.reference, "devnode_known_hosts") or "known_hosts")

    def _kits(self) -> Path:
        """Beside the inventory, not in it: Ansible would run the programs in them as inventory scripts."""
        given = self.get(self.reference, "devnode_kits_dir")
        return Path(str(given or f"{self.get(self.reference, 'inventory_dir') or 'inventory'}-kits")).expanduser()

    def _host_ca_key(self) -> str:
        given = str(self.get(self.reference, "devnode_host_ca") or "")
        try:
            return self._path(given if given.endswith(".pub") else f"{given}.pub").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def _path(self, given: Any) -> Path:
        """A path of the inventory's variables; a relative one counts from the inventory."""
        folder = self.get(self.reference, "inventory_dir") or "."
        return Path(str(folder)) / Path(str(given)).expanduser()
