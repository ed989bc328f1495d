# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the topology means for the people: one client view each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import client_view
from ansible_collections.devnode.gpu.plugins.module_utils.client_reader import plain
from ansible_collections.devnode.gpu.plugins.module_utils.topology_check import JUPYTER_PORT
from ansible_collections.devnode.gpu.plugins.module_utils.topology_types import (
    Client,
    Host,
    Machine,
    Person,
    Topology,
    Workspace,
)

Places = List[Tuple[Workspace, Host]]
# What many people's views have in common, made once: for a large fleet this is nearly all of them.
Shared = Dict[Tuple[Any, ...], Dict[str, Any]]


# Somebody with one key for bastions and another for what lies behind has two files.
BASTION_KEY = "~/.ssh/id_ed25519_bastion"


def views(topology: Topology, machine: Optional[Machine] = None) -> Tuple[List[Dict[str, Any]], List[str]]:
    """The views of everybody who may reach something, and what had to be left out.

    With a machine: of those who work there, for their homes on it; else for the machine that each of them sits at.

    A workspace without a recorded host key is left out, because ssh could only refuse it: its node's play records it.
    """
    places = _places(topology)
    found: List[Dict[str, Any]] = []
    left_out: List[str] = []
    shared: Shared = {}
    for person in topology.people:
        if not (person.name in places or person.operator):
            continue
        if machine is not None:
            if machine.people is not None and person.name not in machine.people:
                continue
            person = replace(person, client=_at(machine, person))
        reached = places.get(person.name, [])
        left_out.extend(_alias(place) for place in reached if _alias(place) not in topology.host_keys)
        found.append(_view(topology, person, reached, shared))
    return found, sorted(set(left_out))


def _at(machine: Machine, person: Person) -> Client:
    """The client of a person on a managed machine: of their own one, only what goes wherever they go."""
    own = person.client
    return replace(
        machine.client,
        account=own.account,
        multiplexing=own.multiplexing or machine.client.multiplexing,
        tmux=own.tmux or machine.client.tmux,
    )


def missing_hosts(topology: Topology) -> List[str]:
    """Bastions and nodes whose keys are not on record."""
    return sorted(host.name for host in (*topology.bastions, *topology.nodes) if host.name not in topology.host_keys)


def _alias(place: Tuple[Workspace, Host]) -> str:
    return place[0].host_key_alias(place[1].name)


def _places(topology: Topology) -> Dict[str, Places]:
    """For every person their workspaces, each with its node."""
    places: Dict[str, Places] = {}
    for workspace in topology.workspaces:
        for node in workspace.nodes:
            for person in workspace.people:
                places.setdefault(person, []).append((workspace, topology.node[node]))
    return places


def _view(topology: Topology, person: Person, reached: Places, shared: Shared) -> Dict[str, Any]:
    """Everything one person may reach, and how."""
    base = _base(person)
    places = [place for place in reached if _alias(place) in topology.host_keys]
    by_node: Dict[str, List[Workspace]] = {}
    for workspace, node in reached:
        by_node.setdefault(node.name, []).append(workspace)
    machines = list(topology.nodes) if person.operator else []
    every = {door.name for door in topology.bastions if person.operator}
    doors = sorted({topology.node[name].bastion for name in by_node} | every)
    # Chosen among all of them, so that a name does not move when a workspace's key becomes known.
    defaults = {name: _default(person, workspaces) for name, workspaces in by_node.items()}
    projects = sorted({workspace.project for workspace, _node in places})
    agents = [
        _agent(topology, person, name, places, base.sockets)
        for name in projects
        if topology.project[name].agent_forwarding
    ]
    asked = topology.totp_operators if person.operator else topology.totp
    jumps = tuple(_jump(person, topology.bastion[name], asked) for name in doors)
    view = replace(base, jumps=jumps, agents=tuple(agents))
    hosts = []
    for workspace, node in places:
        default = workspace is defaults[node.name]
        key = (workspace.name, node.name, default, person.client.tmux)
        if key not in shared:
            shared[key] = plain(_workspace(topology, (workspace, node), default, person.client.tmux))
        hosts.append({**shared[key], "user": person.name})
    hosts += [plain(_machine(person, node)) for node in machines]
    known = _known_hosts(topology, [host["host_key_alias"] for host in hosts], doors, projects, shared)
    return {**view.to_dict(), **({"hosts": hosts} if hosts else {}), **({"known_hosts": known} if known else {})}


def _base(person: Person) -> client_view.ClientView:
    """What the person says about their own machine; the rest is at the role's defaults."""
    client = person.client
    given = {
        "person": person.name,
        "platform": client.platform,
        "openssh": client.openssh,
        "account": client.account,
        "base_dir": client.base_dir,
        "control_dir": client.control_dir,
        "home": client.home,
        "multiplexing": client.multiplexing,
        "identity_files": client.workspace_identity_files,
        "identities_outside_home": client.identities_outside_home,
    }
    return client_view.ClientView.from_dict({key: value for key, value in given.items() if value}, "", [])


def _default(person: Person, workspaces: Iterable[Workspace]) -> Workspace:
    """What a node's bare name leads this person to: the marked one, else the first that is theirs, else the first."""
    return min(workspaces, key=lambda item: (not item.default, item.owner != person.name, item.name))


def _jump(person: Person, bastion: Host, asked: bool) -> client_view.Host:
    return client_view.Host(
        aliases=(bastion.name,),
        hostname=bastion.address,
        port=bastion.ssh_port,
        user=person.name,
        host_key_alias=bastion.name,
        identity_files=person.client.bastion_identity_files or _bastion_key(person),
        kind="host",
        login=person.operator,
        code=asked,
        reason="the bastion itself, for operators" if person.operator else "only leads on: nobody gets a shell there",
    )


def _bastion_key(person: Person) -> Tuple[str, ...]:
    """Where the key for the bastion lies by default: beside the one for workspaces when it is another one."""
    one_for_both = {key.bare for key in person.bastion_keys} & {key.bare for key in person.workspace_keys}
    return () if one_for_both or person.client.workspace_identity_files else (BASTION_KEY,)


def _machine(person: Person, node: Host) -> client_view.Host:
    return client_view.Host(
        aliases=(f"{node.name}-host",),
        hostname=node.address,
        port=node.ssh_port,
        user=person.name,
        host_key_alias=node.name,
        jump=node.bastion,
        kind="host",
        reason=f"the machine {node.name} itself, for operators",
    )


def _workspace(topology: Topology, place: Tuple[Workspace, Host], default: bool, tmux: bool) -> client_view.Host:
    """The entry of a workspace, the same for everybody but for the account."""
    workspace, node = place
    aliases = [workspace.name] if workspace.nodes[0] == node.name else []
    aliases.append(workspace.host_key_alias(node.name))
    if default:
        aliases.append(node.name)
    jupyter = [client_view.Forward(name="jupyter", port=JUPYTER_PORT)] if workspace.jupyter else []
    declared = [client_view.Forward(name=item.name, port=item.port) for item in workspace.forwards]
    forwarding = topology.project[workspace.project].agent_forwarding
    return client_view.Host(
        aliases=tuple(aliases),
        hostname=node.address,
        port=workspace.port,
        user="",
        host_key_alias=_alias(place),
        jump=node.bastion,
        agent=workspace.project if forwarding else "",
        shared=bool(workspace.members),
        agent_on_shared=workspace.agent_forwarding_shared,
        tmux=tmux,
        forwards=tuple(jupyter + sorted(declared, key=lambda item: item.name)),
        reason=f"workspace of {workspace.owner} on {node.name}",
    )


def _agent(topology: Topology, person: Person, project: str, places: Places, sockets: str) -> client_view.Agent:
    """The agent of one project: its key works from the project's workspaces to its git servers, nowhere else."""
    return client_view.Agent(
        name=project,
        socket=f"{sockets}/agent-{project}",
        key_file=person.client.project_keys.get(project, f"~/.ssh/id_ed25519_{project}"),
        destinations=tuple(
            f"{_alias(place)}>{git.name}"
            for place in places
            if place[0].project == project
            for git in topology.project[project].git_hosts
        ),
    )


def _known_hosts(
    topology: Topology, aliases: Iterable[str], doors: Iterable[str], projects: Iterable[str], shared: Shared
) -> List[Dict[str, Any]]:
    found: Dict[str, Dict[str, Any]] = {}
    ours = sorted({*aliases, *doors} & set(topology.host_keys))
    for name in ours:
        if (name,) not in shared:
            shared[(name,)] = _known_host(name, topology.host_keys[name])
        found[name] = shared[(name,)]
    for project in projects:
        for git in topology.project[project].git_hosts:
            # By its bare name: it is what a project key's destinations are checked against.
            found.setdefault(git.name, _known_host(git.name, git.keys))
    # By name, and never by a pattern: the authority speaks for our hosts, not for git servers or anybody else's.
    signed = [
        {"names": ours, "keys": [key.bare for key in topology.host_ca_keys], "marker": "@cert-authority"}
        for _dummy in topology.host_ca_keys[:1]
        if ours
    ]
    return signed + [found[name] for name in sorted(found)]


def _known_host(name: str, keys: Sequence[Any]) -> Dict[str, Any]:
    return {"names": [name], "keys": sorted(key.bare for key in keys)}
