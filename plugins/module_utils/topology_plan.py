# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the topology means for one bastion and for one node: the inputs of their roles, as plain data.

Everything is sorted, so that the same inventory gives the same plan and a second run changes nothing.
"""

from __future__ import annotations

import ipaddress
from dataclasses import asdict
from typing import Any, Dict, Iterable, List, Optional, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import client_values as values
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey
from ansible_collections.devnode.gpu.plugins.module_utils.topology_types import (
    Host,
    Person,
    Topology,
    Workspace,
)

Plain = Dict[str, Any]
# As role ssh_server calls their group (a test compares).
OPERATORS = "devnode-operators"


def bastion_plan(topology: Topology, name: str) -> Plain:
    """Who may log in to this bastion, who may pass through it, and to where."""
    bastion = topology.bastion[name]
    reach = _reach(topology, name)
    relayed = [person for person in topology.people if not person.operator and person.name in reach]
    return {
        "ssh_server": {
            "operators": [_account(person, person.bastion_keys) for person in topology.people if person.operator],
            "operator_networks": list(topology.operator_networks),
            "automation_networks": list(topology.automation_networks),
            "port": bastion.ssh_port,
            "ports_also": list(bastion.ssh_ports_also),
            "exempt_networks": list(topology.controllers),
            "host_ca": topology.host_ca,
            "client_persist": _persist(topology),
        },
        "firewall": {
            "services": _bastion_services(topology, bastion),
            "egress": _egress(relayed, reach),
            "egress_resolvers": _resolvers(relayed, reach),
        },
        "bastion": {
            "relay_users": [
                {
                    **_account(person, person.bastion_keys),
                    "targets": [{"host": node.address, "port": port} for node, port in reach[person.name]],
                }
                for person in relayed
            ],
            "user_ca_keys": [key.line for key in topology.user_ca_keys],
            "revoked_keys": [key.line for key in topology.revoked_keys],
            "totp": topology.totp,
            "totp_operators": [person.name for person in topology.operators] if topology.totp_operators else [],
            "totp_operators_group": OPERATORS if topology.totp_operators else "",
        },
    }


def node_plan(topology: Topology, name: str) -> Plain:
    """Who may log in to this node, which workspaces it carries, and from where it is reached."""
    node = topology.node[name]
    doors = [_one_host(topology.bastion[node.bastion].private_ip)]
    workspaces = topology.workspaces_on[name]
    ssh = _ssh_services(node, "ssh", doors)
    published = [
        {"name": workspace.name, "address": node.ip, "port": workspace.port, "sources": doors}
        for workspace in workspaces
    ]
    return {
        "ssh_server": {
            "operators": [_account(person, person.workspace_keys) for person in topology.people if person.operator],
            # Ansible comes through the bastion, and so from its address.
            "automation_networks": sorted(
                {*doors, *topology.automation_networks} if topology.automation_networks else ()
            ),
            "port": node.ssh_port,
            "ports_also": list(node.ssh_ports_also),
            "exempt_networks": doors,
            "host_ca": topology.host_ca,
            "client_persist": _persist(topology),
        },
        # A node whose workspaces ask for no GPU needs no driver.
        "nvidia_driver": {"optional": not any(workspace.gpus for workspace in workspaces)},
        "firewall": {
            "services": [*ssh, *_web_services(workspaces)],
            "containers": {"published": published, "outbound": True},
        },
        "workspaces": [_workspace(topology, workspace, node, doors) for workspace in workspaces],
        "people": [person.name for person in topology.people],
    }


def _persist(topology: Topology) -> int:
    """For how many seconds somebody's client keeps a connection that nobody uses, at most."""
    clients = [person.client for person in topology.people] + [machine.client for machine in topology.machines]
    wanted = {client.multiplexing or "interactive" for client in clients}
    found = (values.PROFILES[name] if name in values.PROFILES else values.seconds(name) for name in wanted)
    return max((time for time in found if time is not None), default=0)


def _reach(topology: Topology, bastion: str) -> Dict[str, List[Tuple[Host, int]]]:
    """For every person the places behind this bastion: the workspaces they own or share, and nothing else."""
    reach: Dict[str, List[Tuple[Host, int]]] = {}
    for node in topology.nodes:
        for workspace in topology.workspaces_on[node.name] if node.bastion == bastion else ():
            for person in workspace.people:
                reach.setdefault(person, []).append((node, workspace.port))
    return {name: sorted(targets, key=lambda at: (at[0].address, at[1])) for name, targets in reach.items()}


def _egress(people: Iterable[Person], reach: Dict[str, List[Tuple[Host, int]]]) -> List[Plain]:
    """The same places as addresses, for the firewall: access is enforced twice, from one source."""
    return [
        {
            "uid": person.uid,
            "name": person.name,
            "targets": sorted(
                ({"address": node.ip, "port": port} for node, port in reach[person.name]),
                key=lambda target: (str(target["address"]), int(str(target["port"]))),
            ),
        }
        for person in people
    ]


def _resolvers(people: Iterable[Person], reach: Dict[str, List[Tuple[Host, int]]]) -> List[str]:
    """A name that somebody may connect to is looked up with that person's rights."""
    names = any(node.address != node.ip for person in people for node, _port in reach[person.name])
    return ["host"] if names else []


def _bastion_services(topology: Topology, bastion: Host) -> List[Plain]:
    """sshd for controllers without a limit, for everybody allowed with one."""
    services: List[Plain] = []
    if topology.controllers:
        services += _ssh_services(bastion, "controllers", topology.controllers)
    if topology.allowed_networks:
        services += _ssh_services(bastion, "people", topology.allowed_networks, topology.bastion_rate)
    return services


def _ssh_services(host: Host, name: str, sources: Iterable[str], rate: str = "") -> List[Plain]:
    """A host's own sshd, on each of its ports."""
    return [
        {
            "name": name if port == host.ssh_port else f"{name}-{port}",
            "port": port,
            "protocol": "tcp",
            "sources": list(sources),
            "rate": rate,
        }
        for port in host.ssh_ports
    ]


def _workspace(topology: Topology, workspace: Workspace, node: Host, doors: List[str]) -> Plain:
    """One workspace on one node, as the role pytorch_sshd takes it."""
    project = topology.project[workspace.project]
    people = [topology.person[name] for name in workspace.people]
    return {
        "name": workspace.name,
        "state": "present",
        "port": workspace.port,
        "bind_address": node.ip,
        "host_key_alias": workspace.host_key_alias(node.name),
        "owner": {"name": people[0].name, "uid": people[0].uid},
        "members": [{"name": person.name, "uid": person.uid} for person in _by_name(people[1:])],
        "keys": {person.name: _lines(person.workspace_keys) for person in _by_name(people)},
        "user_ca_keys": _lines(topology.user_ca_keys),
        "revoked_keys": _lines(topology.revoked_keys),
        "gpus": [f"nvidia.com/gpu={gpu}" for gpu in sorted(workspace.gpus)],
        "gpu_shared": workspace.gpu_shared,
        "image": workspace.image,
        "cpus": workspace.cpus,
        "memory": workspace.memory,
        "pids": workspace.pids,
        "shm_size": workspace.shm_size,
        "stop_grace": workspace.stop_grace,
        "ulimits": dict(sorted(workspace.ulimits.items())),
        "sudo": workspace.sudo,
        "tmux": workspace.tmux,
        "mounts": [
            {"source": mount.source, "target": mount.target, "read_only": mount.read_only}
            for mount in sorted(workspace.mounts, key=lambda mount: mount.target)
        ],
        "env": dict(sorted(workspace.env.items())),
        "jupyter": workspace.jupyter,
        "web": _web(workspace),
        "project": workspace.project,
        "agent_forwarding": project.agent_forwarding,
        "known_hosts": sorted(line for git in project.git_hosts for line in git.known_hosts),
        "exempt_networks": doors,
    }


def _web(workspace: Workspace) -> Optional[Plain]:
    """What the role takes; no passwords, which the role gets by itself: plans are printed."""
    web = workspace.web
    if web is None:
        return None
    users = sorted(web.users or (workspace.owner,))
    return {**asdict(web), "networks": list(web.networks), "users": users}


def _web_services(workspaces: Iterable[Workspace]) -> List[Plain]:
    """nginx is a program of the node: its ports are opened to the networks named, and to nobody else."""
    return [
        {
            "name": f"web-{workspace.web.port}",
            "port": workspace.web.port,
            "protocol": "tcp",
            "sources": list(workspace.web.networks),
            "rate": "",
        }
        for workspace in workspaces
        if workspace.web is not None
    ]


def _account(person: Person, keys: Iterable[PublicKey]) -> Plain:
    return {"name": person.name, "uid": person.uid, "keys": _lines(keys)}


def _by_name(people: Iterable[Person]) -> List[Person]:
    return sorted(people, key=lambda person: person.name)


def _lines(keys: Iterable[PublicKey]) -> List[str]:
    return sorted(key.line for key in keys)


def _one_host(address: str) -> str:
    return str(ipaddress.ip_network(address))
