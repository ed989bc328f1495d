# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The topology: everything the inventory says about who may reach what, checked as a whole.

    topology = load(Source(bastions=…, nodes=…, users=…, workspaces=…))

raises TopologyError with every problem, or returns a Topology that the plans (topology_plan) can be made from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import known_hosts, topology_check, validators
from ansible_collections.devnode.gpu.plugins.module_utils import topology_parse as parse
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey, public_key
from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import Entry, Problems, TopologyError
from ansible_collections.devnode.gpu.plugins.module_utils.topology_types import (
    Host,
    Person,
    Topology,
    Workspace,
)
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

# Generous on purpose: 200 people behind one address (NAT) get in within seconds, a flood does not.
BASTION_RATE = "120/minute burst 300"
_NETWORKS = tuple(
    f"devnode_{name}" for name in ("allowed_networks", "controllers", "operator_networks", "automation_networks")
)


@dataclass(frozen=True)
class Source:
    """The inventory's plain values. A node whose variables are None is known by name only."""

    bastions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nodes: Mapping[str, Optional[Mapping[str, Any]]] = field(default_factory=dict)
    machines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # those of people (devnode_clients)
    groups: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)  # other groups, for `nodes:`
    users: Any = None
    workspaces: Any = None
    projects: Any = None
    allowed_networks: Any = None
    controllers: Any = None
    operator_networks: Any = None
    automation_networks: Any = None  # None: the controllers
    bastion_rate: Any = None
    user_ca_keys: Any = None
    revoked_keys: Any = None
    host_ca: Any = None  # where the private key lies, or the .pub file of one in an agent
    totp: Any = None
    totp_operators: Any = None
    connects_as: Tuple[str, ...] = ()  # who Ansible is on the bastions, where the inventory says it
    host_ca_key: str = ""  # what the .pub file says
    known_hosts: str = ""


def load(source: Source) -> Topology:
    """Check the whole inventory and return the topology."""
    problems = Problems()
    hosts = _hosts(problems, source)
    _defined(problems, source)
    users = parse.parse_users(problems, source.users or [])
    projects = parse.parse_projects(problems, source.projects or [])
    workspaces = parse.parse_workspaces(problems, source.workspaces or [], _node_names(source))
    machines = [parse.parse_machine(problems, name, source.machines[name]) for name in sorted(source.machines)]
    given = {name: getattr(source, name[len("devnode_") :]) for name in _NETWORKS}
    networks = Entry(problems, "", given, _NETWORKS)
    allowed_networks = networks.each(_NETWORKS[0], validators.network)
    controllers = networks.each(_NETWORKS[1], validators.network)
    operator_networks = networks.each(_NETWORKS[2], validators.network)
    automation_networks = networks.each(_NETWORKS[3], validators.network)
    if source.automation_networks is None:
        automation_networks = controllers
    rate = Entry(problems, "", {"devnode_bastion_rate": source.bastion_rate}, ("devnode_bastion_rate",))
    bastion_rate = rate.get("devnode_bastion_rate", validators.rate, BASTION_RATE)

    given = {"devnode_user_ca_keys": source.user_ca_keys, "devnode_revoked_keys": source.revoked_keys}
    trust = Entry(problems, "", given, tuple(given))
    user_ca_keys, revoked_keys = (trust.each(name, public_key) for name in given)

    host_ca_keys = _host_ca(problems, source)
    given = {"devnode_totp": source.totp, "devnode_totp_operators": source.totp_operators}
    codes = Entry(problems, "", given, tuple(given))
    totp, totp_operators = (codes.get(name, validators.boolean, False) for name in given)

    topology_check.check_hosts(problems, list(source.bastions), list(source.nodes), hosts)
    topology_check.check_users(users)
    if totp_operators:
        topology_check.check_codes(problems, users, source.connects_as, automation_networks)
    topology_check.check_machines(users, machines)
    topology_check.check_projects(projects)
    topology_check.check_names(problems, source.bastions, source.nodes, workspaces)
    topology_check.check_workspaces(users, projects, workspaces, hosts)
    host_keys = _known_keys(problems, source.known_hosts)
    if problems.found:
        raise TopologyError(problems.found)

    warnings: List[str] = []
    if source.automation_networks is None and not controllers:
        warnings.append(
            "devnode_controllers names no network, so the key of the account that Ansible connects as counts from "
            "everywhere that a packet filter lets in. Name where Ansible comes from; or say that it is meant: "
            "devnode_automation_networks: []"
        )
    revoked_keys = _with_leavers(revoked_keys, [person for _entry, person in users if person])
    gone = {key.bare for key in revoked_keys}
    known = [_without_revoked(entry, person, gone, warnings) for entry, person in users if person]
    people = sorted(known, key=lambda person: person.name)
    present = {person.name: person for person in people if person.present}
    kept = [_without_leavers(entry, workspace, present, warnings) for entry, workspace in workspaces if workspace]
    return Topology(
        bastions=tuple(hosts[name] for name in sorted(source.bastions)),
        nodes=tuple(hosts[name] for name in sorted(source.nodes) if name in hosts),
        machines=tuple(machine for _entry, machine in machines),
        people=tuple(present.values()),
        workspaces=tuple(sorted((item for item in kept if item), key=lambda item: item.name)),
        projects=tuple(sorted((item for _entry, item in projects if item), key=lambda item: item.name)),
        allowed_networks=_sorted(allowed_networks),
        controllers=_sorted(controllers),
        operator_networks=_sorted(operator_networks),
        automation_networks=_sorted(automation_networks),
        bastion_rate=bastion_rate,
        user_ca_keys=user_ca_keys,
        revoked_keys=revoked_keys,
        host_ca=str(source.host_ca or ""),
        host_ca_keys=host_ca_keys,
        totp=totp,
        totp_operators=totp_operators,
        host_keys=host_keys,
        warnings=tuple(warnings),
    )


def _hosts(problems: Problems, source: Source) -> Dict[str, Host]:
    """Every host whose variables are given; a node without a bastion of its own gets the first."""
    first = sorted(source.bastions)[0] if source.bastions else ""
    found: Dict[str, Host] = {}
    for name, variables in {**source.nodes, **source.bastions}.items():
        host = parse.parse_host(problems, name, variables) if variables is not None else None
        if host is not None:
            is_node = name in source.nodes and not host.bastion
            found[name] = replace(host, bastion=first) if is_node else host
    return found


def _host_ca(problems: Problems, source: Source) -> Tuple[PublicKey, ...]:
    """The authority that signs host keys, if there is one."""
    if not source.host_ca:
        return ()
    allowed = "the path of a private key whose .pub file lies beside it, or of the .pub file of a key in an agent"
    if not isinstance(source.host_ca, str) or not source.host_ca.isprintable():
        problems.add("devnode_host_ca", source.host_ca, "is not a path", allowed)
    elif not source.host_ca_key.strip():
        problems.add("devnode_host_ca", source.host_ca, "has no public key that can be read", allowed)
    else:
        try:
            return (public_key(source.host_ca_key.strip()),)
        except InvalidError as error:
            problems.add("devnode_host_ca", source.host_ca, f"has a public key that {error.why}", allowed)
    return ()


def _defined(problems: Problems, source: Source) -> None:
    """An undefined list is not an empty one: taking it as empty would take everybody's access away."""
    for name in ("users", "workspaces", "allowed_networks"):
        if getattr(source, name) is None:
            problems.missing(
                f"devnode_{name}", "is not defined for this host", "a list, in group_vars/all (it may be empty: [])"
            )


def _node_names(source: Source) -> Dict[str, Tuple[str, ...]]:
    """What `node` and `nodes` may say: nodes, and groups with nodes in them."""
    names = {
        group: tuple(name for name in sorted(members) if name in source.nodes)
        for group, members in source.groups.items()
    }
    names = {group: members for group, members in names.items() if members}
    names.update({name: (name,) for name in source.nodes})
    return names


def _known_keys(problems: Problems, text: str) -> Dict[str, Any]:
    record = known_hosts.parse(text)
    for number, why in record.errors:
        problems.missing(f"devnode_known_hosts, line {number}", why)
    return record.keys


def _sorted(networks: Tuple[str, ...]) -> Tuple[str, ...]:
    return tuple(sorted(networks))


def _with_leavers(revoked: Tuple[PublicKey, ...], people: List[Person]) -> Tuple[PublicKey, ...]:
    """The revoked keys with those of who left: a certificate of theirs must not open the login's next account.

    Not those that somebody who is here lists, as after a change of login.
    """
    present, gone = (
        {
            key.bare: replace(key, comment="")
            for one in people
            if one.present is here
            for key in (*one.bastion_keys, *one.workspace_keys)
        }
        for here in (True, False)
    )
    more = {bare: key for bare, key in gone.items() if bare not in present}
    return (*revoked, *(more[bare] for bare in sorted(set(more) - {key.bare for key in revoked})))


def _without_revoked(entry: Entry, person: Person, gone: Set[str], warnings: List[str]) -> Person:
    """The person without the keys that are revoked: they count nowhere, also where only listed keys are looked at."""
    for key in dict.fromkeys((*person.bastion_keys, *person.workspace_keys)):
        if key.bare in gone and person.present:
            warnings.append(f"{entry.path}.keys: a key of {person.name} is revoked ({key.fingerprint}) and left out.")
    return replace(
        person,
        bastion_keys=tuple(key for key in person.bastion_keys if key.bare not in gone),
        workspace_keys=tuple(key for key in person.workspace_keys if key.bare not in gone),
    )


def _without_leavers(
    entry: Entry, workspace: Workspace, present: Mapping[str, Person], warnings: List[str]
) -> Optional[Workspace]:
    """The workspace with the people who are still here, or None when nobody is.

    Taking somebody's access away is one change in the inventory and must never wait for a second one. So a shared
    workspace whose owner left goes on under its first member, and the run says so.
    """
    here = [name for name in workspace.people if name in present]
    if not here:
        return None
    if here[0] != workspace.owner:
        warnings.append(
            f'{entry.path}.owner: "{workspace.owner}" is absent. {here[0]} stands in as the owner of '
            f"{workspace.name} until you name one."
        )
    web = workspace.web
    if web and web.users:
        users = tuple(user for user in web.users if user in present)
        web = replace(web, users=users) if users else None
        if web is None:
            warnings.append(f"{entry.path}.web: nobody of its users is here any more, so it is switched off.")
    return replace(workspace, owner=here[0], members=tuple(here[1:]), web=web)
