# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the whole inventory can tell: references, things that exist twice, claims that exclude each other."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import Entry, Problems
from ansible_collections.devnode.gpu.plugins.module_utils.topology_types import (
    Host,
    Machine,
    Person,
    Project,
    Workspace,
)

JUPYTER_PORT = 8888
Users = Sequence[Tuple[Entry, Optional[Person]]]
Projects = Sequence[Tuple[Entry, Optional[Project]]]
Workspaces = Sequence[Tuple[Entry, Optional[Workspace]]]


class Unique:
    """Notes whatever is claimed a second time, naming the first who claimed it."""

    def __init__(self) -> None:
        self.claims: Dict[Any, str] = {}

    def claim(self, entry: Entry, field: str, what: Any, value: Any, because: str) -> None:
        """Claim `what`; `value` is what the person wrote."""
        first = self.claims.setdefault(what, entry.path)
        if first != entry.path:
            entry.bad(field, value, f"is taken by {first}: {because}")


def check_users(users: Users) -> None:
    """No two people with one name or one uid; people who left count."""
    names, uids = Unique(), Unique()
    for entry, person in users:
        if person is None:
            continue
        names.claim(entry, "name", person.name, person.name, "a person is listed once")
        uids.claim(entry, "uid", person.uid, person.uid, "files and rights go by this number, also those of who left")


def check_codes(problems: Problems, users: Users, connects_as: Sequence[str], networks: Sequence[Any]) -> None:
    """Operators may be asked for a code when Ansible, which cannot be, is somebody else, and is bound to networks."""
    variable = "devnode_totp_operators"
    if not networks:
        problems.add(
            variable,
            True,
            "asks operators for more than a key, while the key of the account that Ansible connects as would be root "
            "from everywhere",
            "with devnode_controllers, or devnode_automation_networks, that say where Ansible comes from",
        )
    for entry, person in users:
        if person is not None and person.present and person.operator and person.name in connects_as:
            entry.bad(
                "operator",
                person.name,
                f"is the account that Ansible connects as (ansible_user), and with {variable} a code is asked that no "
                "program can give",
                "with an account for Ansible alone",
            )


def check_machines(users: Users, machines: Sequence[Tuple[Entry, Machine]]) -> None:
    """Only people who are listed work at a machine; those who left may stay in its list."""
    listed = sorted(str(entry.data.get("name")) for entry, _person in users)
    for entry, machine in machines:
        for at, name in enumerate(machine.people or ()):
            if name is not None and name not in listed:
                allowed = ", ".join(listed[:20]) or "nobody: devnode_users is empty"
                entry.bad(f"devnode_client_people[{at}]", name, "is not in devnode_users", allowed)


def check_projects(projects: Projects) -> None:
    """Every project once."""
    names = Unique()
    for entry, project in projects:
        if project is not None:
            names.claim(entry, "name", project.name, project.name, "a project is listed once")


def check_hosts(problems: Problems, bastions: Sequence[str], nodes: Sequence[str], hosts: Dict[str, Host]) -> None:
    """Bastions and nodes are different machines with different addresses, and each node has its bastion."""
    if not bastions:
        problems.missing(
            "group devnode_bastions",
            "has no host: nodes are reached through a bastion only",
            "at least one host in the group",
        )
    addresses = Unique()
    for name in [*bastions, *nodes]:
        where = Entry(problems, f"host {name}", {}, ())
        if name in bastions and name in nodes:
            where.bad("", name, "is a bastion and a node at once", "one of the two groups")
        host = hosts.get(name)
        if host is None:
            continue
        addresses.claim(where, "devnode_address", host.address, host.address, "one address leads to one machine")
        if name in nodes and bastions and host.bastion not in bastions:
            where.bad("devnode_bastion", host.bastion, "is not in devnode_bastions", ", ".join(sorted(bastions)))


def check_names(problems: Problems, bastions: Iterable[str], nodes: Iterable[str], workspaces: Workspaces) -> None:
    """What a person types means one thing: hosts, operators' hosts and workspaces share one space of names."""
    taken: Dict[str, str] = {name: f"host {name}" for name in bastions}
    for name in nodes:
        taken[name] = f"host {name}"
        taken[f"{name}-host"] = f"host {name} (as operators reach it)"
    for entry, workspace in workspaces:
        if workspace is None:
            continue
        names = [workspace.name, *(workspace.host_key_alias(node) for node in workspace.nodes)]
        clash = next((name for name in names if taken.get(name, entry.path) != entry.path), None)
        if clash is not None:
            entry.bad("name", workspace.name, f"gives the name {clash}, which {taken[clash]} has", "another name")
        for name in names:
            taken.setdefault(name, entry.path)


def check_workspaces(users: Users, projects: Projects, workspaces: Workspaces, hosts: Dict[str, Host]) -> None:
    """References, ports, GPUs, forwards and defaults of all workspaces."""
    people = sorted(str(entry.data.get("name")) for entry, _person in users)
    known_projects = sorted(str(entry.data.get("name")) for entry, _project in projects)
    forwarding = {project.name for _entry, project in projects if project and project.agent_forwarding}
    ports, defaults, web_names = Unique(), Unique(), Unique()
    for entry, workspace in workspaces:
        if workspace is None:
            continue
        _check_references(entry, workspace, people, known_projects)
        if workspace.project in forwarding and workspace.members and not workspace.agent_forwarding_shared:
            entry.bad(
                "project",
                workspace.project,
                "forwards an agent, and whoever shares the workspace could use it",
                "a workspace without members, or agent_forwarding_shared: true",
            )
        _check_forwards(entry, workspace)
        for node in workspace.nodes:
            ports.claim(entry, "port", (node, workspace.port), workspace.port, f"on {node} a port leads to one place")
            if node in hosts and workspace.port in hosts[node].ssh_ports:
                entry.bad("port", workspace.port, f"is the port of {node}'s own sshd")
            _check_web_port(entry, workspace, node, ports, hosts)
            for person in workspace.people if workspace.default else ():
                defaults.claim(entry, "default", (node, person), True, f"{person} has one default workspace on {node}")
        _check_web(entry, workspace, web_names)
    _check_gpus(workspaces)


def _check_web_port(entry: Entry, workspace: Workspace, node: str, ports: Unique, hosts: Dict[str, Host]) -> None:
    """nginx listens at the node's address, as published ports do."""
    if workspace.web is None:
        return
    where, port = Entry(entry.problems, f"{entry.path}.web", {}, ()), workspace.web.port
    ports.claim(where, "port", (node, port), port, f"on {node} a port leads to one place")
    if node in hosts and port in hosts[node].ssh_ports:
        where.bad("port", port, f"is the port of {node}'s own sshd")


def _check_web(entry: Entry, workspace: Workspace, names: Unique) -> None:
    """A name leads to one workspace, whoever comes in is one of its people, and there is something to come to."""
    web = workspace.web
    if web is None:
        return
    where = Entry(entry.problems, f"{entry.path}.web", {}, ())
    if not workspace.jupyter:
        where.bad("", web.name, "leads to JupyterLab, which jupyter: false switches off", "jupyter: true")
    if len(workspace.nodes) > 1:
        nodes = ", ".join(workspace.nodes)
        where.bad("name", web.name, f"leads to one place, and this workspace is on {nodes}", "an entry for each node")
    because = "a browser gives its cookies to every port of a name, and so one workspace's to the other"
    names.claim(where, "name", web.name, web.name, because)
    for user in web.users:
        if user not in workspace.people:
            where.bad("users", user, "is none of its people", ", ".join(workspace.people))


def _check_references(entry: Entry, workspace: Workspace, people: List[str], projects: List[str]) -> None:
    allowed = ", ".join(people[:20]) or "nobody: devnode_users is empty"
    allowed += " (somebody who left: keep their entry there, with state: absent)"
    if workspace.owner not in people:
        entry.bad("owner", workspace.owner, "is not in devnode_users", allowed)
    for at, member in enumerate(workspace.members):
        if member not in people:
            entry.bad(f"members[{at}]", member, "is not in devnode_users", allowed)
        if member == workspace.owner:
            entry.bad(f"members[{at}]", member, "is the owner already")
    if workspace.project and workspace.project not in projects:
        entry.bad("project", workspace.project, "is not in devnode_projects", ", ".join(projects[:20]) or "none")


def _check_forwards(entry: Entry, workspace: Workspace) -> None:
    names, ports = Unique(), Unique()
    if workspace.jupyter:
        names.claims["jupyter"] = ports.claims[JUPYTER_PORT] = "JupyterLab (jupyter: true)"
    for at, forward in enumerate(workspace.forwards):
        where = Entry(entry.problems, f"{entry.path}.forwards[{at}]", {}, ())
        names.claim(where, "name", forward.name, forward.name, "a forward is listed once")
        ports.claim(where, "port", forward.port, forward.port, "a port is forwarded once")


def _overlap(one: str, other: str) -> bool:
    """Whether two names of GPUs may mean the same device, as far as the names tell."""
    if "all" in (one, other):
        return True
    return one == other or one.startswith(other + ":") or other.startswith(one + ":")


def _check_gpus(workspaces: Workspaces) -> None:
    claims: Dict[str, List[Tuple[str, Entry, Workspace]]] = {}
    for entry, workspace in workspaces:
        if workspace is None:
            continue
        told = False
        for node in workspace.nodes:
            on_node = claims.setdefault(node, [])
            for gpu in workspace.gpus:
                for other_gpu, other_entry, other in on_node:
                    if (
                        other is not workspace
                        and not (workspace.gpu_shared and other.gpu_shared)
                        and _overlap(gpu, other_gpu)
                        and not told
                    ):
                        told = True
                        entry.bad(
                            "gpus",
                            gpu,
                            f"is claimed on {node} by {other_entry.path} ({other.name}) already, and one of them "
                            "wants it alone",
                            "another GPU, or gpu_shared: true in both",
                        )
                on_node.append((gpu, entry, workspace))
