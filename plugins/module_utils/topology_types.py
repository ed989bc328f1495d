# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as the inventory describes it. Everything here has been checked: see topology_parse."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Dict, List, Optional, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey
from ansible_collections.devnode.gpu.plugins.module_utils.workspace_web import Web


@dataclass(frozen=True)
class Host:
    """A bastion or a node."""

    name: str  # inventory name; also its ssh alias and HostKeyAlias
    address: str  # HostName and permitopen, letter for letter
    ip: str
    private_ip: str  # what the other side of it sees
    ssh_port: int = 22
    bastion: str = ""  # nodes: the bastion in front
    ssh_ports_also: Tuple[int, ...] = ()  # while everybody moves from one port to another

    @property
    def ssh_ports(self) -> Tuple[int, ...]:
        """Where its sshd listens, the one that kits name first."""
        return tuple(dict.fromkeys((self.ssh_port, *self.ssh_ports_also)))


@dataclass(frozen=True)
class Client:
    """The machine that a person sits at; what is empty is left to the role's defaults."""

    platform: str = ""
    openssh: str = ""
    account: str = ""
    base_dir: str = ""
    control_dir: str = ""
    home: str = ""
    multiplexing: str = ""
    bastion_identity_files: Tuple[str, ...] = ()
    workspace_identity_files: Tuple[str, ...] = ()
    project_keys: Dict[str, str] = field(default_factory=dict)
    identities_outside_home: bool = False
    tmux: bool = False  # a further name for every workspace that attaches to tmux there


@dataclass(frozen=True)
class Machine:
    """A managed machine that people work at: their configuration is installed into their homes there."""

    name: str
    people: Optional[Tuple[str, ...]] = None  # None: everybody
    client: Client = Client()  # for all of them; what they say about a machine of their own does not hold here


@dataclass(frozen=True)
class Person:
    """Somebody who may enter."""

    name: str
    uid: int
    bastion_keys: Tuple[PublicKey, ...] = ()
    workspace_keys: Tuple[PublicKey, ...] = ()
    operator: bool = False
    present: bool = True
    client: Client = Client()


@dataclass(frozen=True)
class GitHost:
    """A git server that a project's key is for."""

    name: str
    port: int
    keys: Tuple[PublicKey, ...]

    @property
    def known_hosts(self) -> Tuple[str, ...]:
        """Its lines of a known_hosts file."""
        name = self.name if self.port == 22 else f"[{self.name}]:{self.port}"
        return tuple(f"{name} {key.bare}" for key in self.keys)


@dataclass(frozen=True)
class Project:
    """What a workspace is for: its git servers, and whether an agent may be forwarded for them."""

    name: str
    agent_forwarding: bool = False
    git_hosts: Tuple[GitHost, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A directory of the node in a workspace."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Forward:
    """A port of a workspace's loopback that people get on their own machine."""

    name: str
    port: int


@dataclass(frozen=True)
class Workspace:
    """One person's or team's container, on one or several nodes."""

    name: str
    nodes: Tuple[str, ...]
    owner: str
    port: int
    members: Tuple[str, ...] = ()
    gpus: Tuple[str, ...] = ()  # ("all",), indices, UUIDs; () is none
    gpu_shared: bool = False
    image: str = ""
    cpus: str = ""
    memory: str = ""
    pids: int = 4096
    shm_size: str = "8g"
    stop_grace: int = 1
    ulimits: Dict[str, str] = field(default_factory=dict)
    sudo: bool = False
    tmux: bool = False
    mounts: Tuple[Mount, ...] = ()
    forwards: Tuple[Forward, ...] = ()
    project: str = ""
    env: Dict[str, str] = field(default_factory=dict)
    jupyter: bool = True
    web: Optional[Web] = None
    default: bool = False
    agent_forwarding_shared: bool = False

    @property
    def people(self) -> Tuple[str, ...]:
        """Everybody with a login in it, the owner first."""
        return (self.owner, *self.members)

    def host_key_alias(self, node: str) -> str:
        """The name its host keys are known by."""
        return f"{self.name}.{node}"


@dataclass(frozen=True)
class Topology:
    """The whole fleet. Lists are sorted by name, people who left are in none of them."""

    bastions: Tuple[Host, ...] = ()
    nodes: Tuple[Host, ...] = ()
    machines: Tuple[Machine, ...] = ()
    people: Tuple[Person, ...] = ()
    workspaces: Tuple[Workspace, ...] = ()
    projects: Tuple[Project, ...] = ()
    allowed_networks: Tuple[str, ...] = ()
    controllers: Tuple[str, ...] = ()
    operator_networks: Tuple[str, ...] = ()
    automation_networks: Tuple[str, ...] = ()
    bastion_rate: str = ""
    user_ca_keys: Tuple[PublicKey, ...] = ()  # authorities whose certificates for people count
    revoked_keys: Tuple[PublicKey, ...] = ()
    host_ca: str = ""  # path on the controller of the key that signs host keys
    host_ca_keys: Tuple[PublicKey, ...] = ()
    totp: bool = False  # bastions ask people who pass through for a one-time code
    totp_operators: bool = False  # and operators
    host_keys: Dict[str, Tuple[PublicKey, ...]] = field(default_factory=dict)
    warnings: Tuple[str, ...] = ()

    @cached_property
    def person(self) -> Dict[str, Person]:
        """People by name."""
        return {person.name: person for person in self.people}

    @cached_property
    def bastion(self) -> Dict[str, Host]:
        """Bastions by name."""
        return {host.name: host for host in self.bastions}

    @cached_property
    def node(self) -> Dict[str, Host]:
        """Nodes by name."""
        return {host.name: host for host in self.nodes}

    @cached_property
    def machine(self) -> Dict[str, Machine]:
        """Managed machines of people by name."""
        return {machine.name: machine for machine in self.machines}

    @cached_property
    def project(self) -> Dict[str, Project]:
        """Projects by name; "" is a project without anything."""
        return {"": Project(""), **{project.name: project for project in self.projects}}

    @cached_property
    def workspaces_on(self) -> Dict[str, Tuple[Workspace, ...]]:
        """The workspaces of each node."""
        found: Dict[str, List[Workspace]] = {host.name: [] for host in self.nodes}
        for workspace in self.workspaces:
            for node in workspace.nodes:
                found.setdefault(node, []).append(workspace)
        return {node: tuple(workspaces) for node, workspaces in found.items()}

    @property
    def operators(self) -> Tuple[Person, ...]:
        """People with an account on the hosts themselves."""
        return tuple(person for person in self.people if person.operator)
