# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory means for a host; see `ansible-doc -t module devnode.gpu.plan`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.module_utils import (
    client_check,
    host_certificates,
    ssh_keygen,
    topology,
    topology_plan,
    topology_view,
    totp,
)
from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import Problem, TopologyError
from ansible_collections.devnode.gpu.plugins.module_utils.topology_types import Topology
from ansible_collections.devnode.gpu.plugins.plugin_utils import on_controller
from ansible_collections.devnode.gpu.plugins.plugin_utils.inventory import BASTIONS, CLIENTS, NODES, Inventory


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller only; needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _checks, args = self.validate_argument_spec(
            argument_spec={
                "kind": {"type": "str", "required": True, "choices": ["bastion", "node", "client", "fleet"]},
                "host_keys": {"type": "str", "default": "hosts", "choices": ["none", "hosts", "all"]},
            }
        )
        variables = task_vars or {}
        try:
            return self._plan(args["kind"], args["host_keys"], Inventory(variables))
        except TopologyError as error:
            return {"failed": True, "changed": False, "msg": _report(error.problems)}
        except ssh_keygen.NoSshKeygenError as error:
            return {"failed": True, "changed": False, "msg": f"Public keys cannot be checked: {error}."}

    def _plan(self, kind: str, host_keys: str, inventory: Inventory) -> dict[str, Any]:
        host = inventory.name
        group = {"bastion": BASTIONS, "node": NODES, "client": CLIENTS}.get(kind)
        if group is not None and host not in inventory.group(group):
            raise TopologyError([Problem(f"group {group}", f'"{host}"', f"is not in it, so it has no {kind} plan")])
        loaded = topology.load(inventory.source(kind))
        _check_with_ssh_keygen(loaded)
        if kind in ("bastion", "node"):
            _check_signer(loaded.host_ca)
        result: dict[str, Any] = {"changed": False, "warnings": list(loaded.warnings)}
        if kind == "bastion":
            plan = topology_plan.bastion_plan(loaded, host)
            _check_secrets(plan, inventory)
            return {**result, **plan}
        if kind == "node":
            return {**result, **topology_plan.node_plan(loaded, host)}
        return {**result, **self._views(loaded, host_keys, inventory, kind)}

    def _views(self, loaded: Topology, host_keys: str, inventory: Inventory, kind: str) -> dict[str, Any]:
        if host_keys != "none":
            _require_host_keys(loaded, inventory.known_hosts)
        machine = loaded.machine[inventory.name] if kind == "client" else None
        views, left_out = topology_view.views(loaded, machine)
        if host_keys != "none":
            errors = client_check.parse_views(views, "client views")[1]
            if errors:
                raise TopologyError([Problem("devnode_workspaces", "", error) for error in errors])
        found: dict[str, Any] = {"views": views, "left_out": left_out}
        if kind == "fleet":
            found["kits_dir"] = str(inventory.kits)
            if host_keys != "none" and not self._task.check_mode:
                _require_places(
                    {"devnode_kits_dir": inventory.kits, "devnode_known_hosts": inventory.known_hosts.parent}
                )
        if host_keys == "all" and left_out and not self._task.check_mode:
            found["warnings"] = [
                *loaded.warnings,
                f"No host key is on record yet for {', '.join(left_out)}: left out of people's configurations until "
                "a run of the node's play has recorded it.",
            ]
        return found


def _report(problems: list[Problem]) -> str:
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = "\n".join(f"- {problem}" for problem in problems)
    return f"The inventory cannot be used ({count}), and nothing was changed:\n{lines}"


def _check_secrets(plan: dict[str, Any], inventory: Inventory) -> None:
    """Who will be asked for a code has a secret, before the first role changes anything. A secret is never shown."""
    bastion = plan["bastion"]
    asked = [person["name"] for person in bastion["relay_users"]] if bastion["totp"] else []
    asked += bastion["totp_operators"]
    if asked:
        given = inventory.get(inventory.reference, "devnode_totp_secrets") or {}
        found = [line.partition(": ") for line in totp.bad_secrets(asked, given, "devnode_totp_secrets")]
        if found:
            raise TopologyError([Problem(where, "", why) for where, _colon, why in found])


def _check_with_ssh_keygen(loaded: Topology) -> None:
    owners = {key: person.name for person in loaded.people for key in (*person.bastion_keys, *person.workspace_keys)}
    for project in loaded.projects:
        for git in project.git_hosts:
            owners.update(dict.fromkeys(git.keys, f"{git.name} (project {project.name})"))
    found = [
        Problem(f"key of {owners[key]}", f'"{key.line[:60]}…"', "is rejected by ssh-keygen -l", "a sound public key")
        for key in ssh_keygen.rejected(owners)
    ]
    if found:
        raise TopologyError(found)


def _check_signer(authority: str) -> None:
    """What signs host keys is there, before the first role changes anything. Who makes kits only does without."""
    if authority and not on_controller.installed(host_certificates.SIGNER):
        why = "needs the collection community.crypto, which is not installed where Ansible runs"
        raise TopologyError([Problem("devnode_host_ca", f'"{authority}"', why, host_certificates.INSTALL)])


def _require_places(folders: dict[str, Path]) -> None:
    """What is written at the end of a run must have a place, before the run changes hosts."""
    found = []
    for variable, folder in folders.items():
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            why = f"cannot be written by the account that runs Ansible, because of {there}"
            found.append(Problem(variable, f'"{folder}"', why, "a folder of that account's, on this machine"))
    if found:
        raise TopologyError(found)


def _require_host_keys(loaded: Topology, known_hosts: Path) -> None:
    missing = topology_view.missing_hosts(loaded)
    if missing:
        problem = Problem(
            "devnode_known_hosts",
            f'"{known_hosts}"',
            f"has no host key for {', '.join(missing)}, so nobody could connect safely",
            "run playbooks/enroll.yml, which records them after a comparison of fingerprints",
        )
        raise TopologyError([problem])
