# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one person sees of the fleet: the typed input of the role ssh_client_config.

A view is plain data: who the person is, which machine they sit at, which hosts they may reach and how. It says nothing
about how an ssh_config is written; that is client_render.py. The model makes views from the topology; somebody without
our topology writes them by hand (`ssh_client_config_views`). client_check.py reads them and says all that is wrong.

`from_dict` does not raise for a wrong value: it adds one sentence per error to the list it is given, so that all errors
of an input are seen at once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, FrozenSet, List, Optional, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import client_values as values
from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.client_reader import Reader, once, plain
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key

POLICY_LENGTH = 6  # of policy_id

_address, _alias, _line, _name = map(once, (validators.host, validators.host_alias, validators.line, validators.name))
_login = once(values.login)
_key = once(lambda value: public_key(value).bare)


@dataclass(frozen=True)
class Forward:
    """A port on the far side that answers on the person's own machine."""

    name: str  # unique within the host: jupyter, tensorboard
    port: int  # where it listens on the far side
    host: str = "127.0.0.1"  # as the far side sees it
    local_port: int = 0  # 0: a stable one is chosen, never the same twice for one person
    path: str = "/"  # what the README puts behind http://127.0.0.1:<local port>

    @classmethod
    def from_dict(cls, raw: Any, where: str, errors: List[str]) -> "Forward":
        read = Reader(cls, raw, where, errors)
        return cls(
            name=read.one("name", _name, "unknown"),
            port=read.one("port", validators.port, 1),
            host=read.one("host", _address),
            local_port=read.one("local_port", lambda value: validators.integer(value, 0, 65535)),
            path=read.one("path", values.url_path),
        )


@dataclass(frozen=True)
class Agent:
    """An ssh-agent of its own for one project: the only kind of agent that is ever forwarded."""

    name: str  # the project; a Host names it in its `agent`
    socket: str  # path of the agent's socket on the person's machine ("~/…" or absolute)
    key_file: str = ""  # the project's private key on the person's machine, loaded into this agent by the kit's helper
    # What the key may be used for, hop by hop, in host key aliases: ["nlp.gpu-01>git.example.com"]; empty: anything
    destinations: Tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, raw: Any, where: str, errors: List[str]) -> "Agent":
        read = Reader(cls, raw, where, errors)
        return cls(
            name=read.one("name", _name, "unknown"),
            socket=read.one("socket", values.home_path, "~/.ssh/agent"),
            key_file=read.one("key_file", values.home_path),
            destinations=read.many("destinations", values.destination),
        )


@dataclass(frozen=True)
class Host:
    """One entry as the person types it: a jump host, a workspace, or another machine."""

    aliases: Tuple[str, ...]  # what a person types; the first is the main one. Patterns only in ClientView.patterns
    hostname: str  # letter for letter what the bastion's permitopen says (in patterns: may hold %h)
    user: str  # login there
    host_key_alias: str = ""  # name of its key in known_hosts; required except in patterns
    port: int = 22
    jump: str = ""  # alias of the entry that leads there; "": directly
    kind: str = "workspace"  # workspace or host: the section of the file it stands in (no effect in jumps and patterns)
    identity_files: Tuple[str, ...] = ()  # "~/…" or absolute; empty: the view's
    multiplexing: str = ""  # interactive, ci, high_security, no, or a time ("600", "10m"); "": the view's
    agent: str = ""  # name of the Agent that is forwarded there; "": none
    own_agent: bool = False  # forward the person's own agent instead: root there can use every key in it meanwhile
    shared: bool = False  # several people log in there, who could use a forwarded agent
    agent_on_shared: bool = False  # forward one there all the same
    forwards: Tuple[Forward, ...] = ()
    compression: bool = False  # pays on slow lines only: 10 times slower copies were measured on a LAN
    request_tty: str = ""  # no, yes, force, auto; "": left to ssh
    tmux: bool = False  # a further name, "<alias>-tmux", that attaches to a tmux session
    mosh_ports: str = ""  # "60001:60010": UDP ports of mosh there; "": no mosh
    mosh_address: str = ""  # where they are reached; needed behind a jump, which carries no UDP
    reason: str = ""  # one line above the block: what it is for
    login: bool = False  # jump hosts: the person gets a shell there too (operators); others only pass through
    code: bool = False  # a one-time code is asked for there besides the key

    @classmethod
    def from_dict(cls, raw: Any, where: str, errors: List[str], pattern: bool = False) -> "Host":
        read = Reader(cls, raw, where, errors)
        alias = values.pattern if pattern else _alias
        return cls(
            aliases=read.many("aliases", alias, required=True),
            hostname=read.one("hostname", values.pattern_hostname if pattern else _address, "unknown"),
            user=read.one("user", _login, "unknown"),
            host_key_alias=read.one("host_key_alias", _alias, None if pattern else "unknown"),
            port=read.one("port", validators.port),
            jump=read.one("jump", _alias),
            kind=read.one("kind", lambda value: validators.choice(value, values.KINDS)),
            identity_files=read.many("identity_files", values.home_path),
            multiplexing=read.one("multiplexing", values.multiplexing),
            agent=read.one("agent", _name),
            own_agent=read.one("own_agent", validators.boolean),
            shared=read.one("shared", validators.boolean),
            agent_on_shared=read.one("agent_on_shared", validators.boolean),
            forwards=read.objects("forwards", Forward.from_dict),
            compression=read.one("compression", validators.boolean),
            request_tty=read.one("request_tty", lambda value: validators.choice(values.yes_no(value), values.TTY)),
            tmux=read.one("tmux", validators.boolean),
            mosh_ports=read.one("mosh_ports", values.port_range),
            mosh_address=read.one("mosh_address", _address),
            reason=read.one("reason", _line),
            login=read.one("login", validators.boolean),
            code=read.one("code", validators.boolean),
        )

    @property
    def names(self) -> Tuple[str, ...]:
        """Everything that a person types for it."""
        return (*self.aliases, self.tmux_alias) if self.tmux else self.aliases

    @property
    def tmux_alias(self) -> str:
        """The name that attaches to tmux. One of its own: with a RemoteCommand, scp and editors would not work."""
        return f"{self.aliases[0]}-tmux"


@dataclass(frozen=True)
class KnownHost:
    """One line of known_hosts for each key. The names are host key aliases, never addresses."""

    names: Tuple[str, ...]
    keys: Tuple[str, ...]  # "ssh-ed25519 AAAA…"; a comment is dropped
    marker: str = ""  # "", @cert-authority (names may then be patterns) or @revoked

    @classmethod
    def from_dict(cls, raw: Any, where: str, errors: List[str]) -> "KnownHost":
        read = Reader(cls, raw, where, errors)
        marker = read.one("marker", lambda value: validators.choice(value, values.MARKERS))
        return cls(
            names=read.many("names", values.known_name if marker else _alias, required=True),
            keys=read.many("keys", _key, required=True),
            marker=marker,
        )


@dataclass(frozen=True)
class ClientView:
    """Everything that one person's configuration is made from."""

    person: str  # login name; names the kit's directory
    jumps: Tuple[Host, ...] = ()  # bastions and others that only lead somewhere
    hosts: Tuple[Host, ...] = ()
    patterns: Tuple[Host, ...] = ()  # like hosts, with * and ? in the aliases and %h (what was typed) in the hostname
    known_hosts: Tuple[KnownHost, ...] = ()
    agents: Tuple[Agent, ...] = ()
    platform: str = "linux"  # linux, macos, windows: what the person sits at
    openssh: str = ""  # version of the person's ssh ("9.2"); "": unknown, taken to be 8.4 or newer
    source: str = ""  # the inventory it is made from, for the header
    contact: str = ""  # whom to ask, for the README
    account: str = ""  # login on a managed machine that it is installed on; "": the person's name
    # Where the files lie on the person's machine, as ssh reads it: "~/…", or absolute for a kit used with ssh -F
    base_dir: str = "~/.ssh/devnode"
    control_dir: str = ""  # of the sockets; "": ~/.ssh/cm, or <base_dir>/cm when base_dir is absolute. Keep it short
    home: str = ""  # absolute path of the home where it is known: for the length of the sockets' paths
    identity_files: Tuple[str, ...] = ("~/.ssh/id_ed25519",)  # of every entry that names none
    identities_outside_home: bool = False  # let keys lie outside of the home
    multiplexing: str = "interactive"  # of every entry that names none
    add_keys_to_agent: str = "4h"  # how long an ordinary key stays in the person's own agent; "no": it is not added
    server_alive_interval: int = 15  # seconds between questions to a silent server …
    server_alive_count: int = 3  # … and how many go unanswered before the connection is given up
    connect_timeout: int = 20  # seconds
    fast_algorithms: bool = True  # cheap key exchange and AES-GCM first; for declared versions only

    @classmethod
    def from_dict(cls, raw: Any, where: str, errors: List[str]) -> "ClientView":
        """The view in `raw`; every error becomes a sentence in `errors`, with a harmless value in its place."""
        if validators.holds_private_key(raw):
            errors.append(
                f"{where}: it holds private key material. Kits are handed over and must hold no secret, and an "
                "inventory is read by many: take it out, and replace that key."
            )
            return cls(person="unknown")
        read = Reader(cls, raw, where, errors)
        return cls(
            person=read.one("person", validators.login, "unknown"),
            jumps=read.objects("jumps", _host),
            hosts=read.objects("hosts", _host),
            patterns=read.objects("patterns", _pattern_host),
            known_hosts=read.objects("known_hosts", _known_host),
            agents=read.objects("agents", Agent.from_dict),
            platform=read.one("platform", lambda value: validators.choice(value, values.PLATFORMS)),
            openssh=read.one("openssh", values.openssh),
            source=read.one("source", _line),
            contact=read.one("contact", _line),
            account=read.one("account", _login),
            base_dir=read.one("base_dir", values.home_path),
            control_dir=read.one("control_dir", values.home_path),
            home=read.one("home", validators.path),
            identity_files=read.many("identity_files", values.home_path),
            identities_outside_home=read.one("identities_outside_home", validators.boolean),
            multiplexing=read.one("multiplexing", values.multiplexing),
            add_keys_to_agent=read.one("add_keys_to_agent", values.lifetime),
            server_alive_interval=read.one("server_alive_interval", lambda value: validators.integer(value, 1, 3600)),
            server_alive_count=read.one("server_alive_count", lambda value: validators.integer(value, 1, 100)),
            connect_timeout=read.one("connect_timeout", lambda value: validators.integer(value, 1, 600)),
            fast_algorithms=read.one("fast_algorithms", validators.boolean),
        )

    def to_dict(self) -> Dict[str, Any]:
        """Plain data that from_dict reads back to an equal view. What is at its default is left out."""
        found: Dict[str, Any] = plain(self)
        return found

    @property
    def login(self) -> str:
        """The account on a managed machine."""
        return self.account or self.person

    @property
    def entries(self) -> Tuple[Host, ...]:
        """All of them, in the file's order."""
        return self.jumps + self.hosts + self.patterns

    @property
    def version(self) -> Tuple[int, int]:
        """The OpenSSH version that may be relied on."""
        return values.version(self.openssh) if self.openssh else values.UNDECLARED_OPENSSH

    @property
    def sockets(self) -> str:
        """Directory of the shared connections' sockets. Short, because a socket's path has 104 to 108 bytes."""
        if self.control_dir:
            return self.control_dir
        return "~/.ssh/cm" if self.base_dir.startswith("~/") else self.base_dir + "/cm"


def persist(host: Host, view: ClientView) -> Optional[int]:
    """Seconds that this host's shared connection stays, or None when its connections are not shared."""
    wanted = host.multiplexing or view.multiplexing
    if view.platform == "windows":
        return None
    return values.PROFILES[wanted] if wanted in values.PROFILES else values.seconds(wanted)


def contested(view: ClientView) -> FrozenSet[Tuple[str, int, str]]:
    """HostName, port and account that several entries lead to under different host keys: one address at two sites."""
    keys: Dict[Tuple[str, int, str], str] = {}
    places = [((host.hostname, host.port, host.user), host.host_key_alias) for host in view.entries]
    return frozenset(place for place, key in places if keys.setdefault(place, key) != key)


def policy_id(host: Host, view: ClientView, host_key: str = "") -> str:
    """Short name of what a shared connection was opened with: stands in the socket's name, in front of ssh's %C.

    %C is made of host, port, user and, in newer versions, the jump. Two entries that differ in key or agent, or that
    reach the same inner address behind different bastions, must never use each other's connection. Neither must two
    that expect different host keys at one place (`host_key`): the second would not look at the key at all.
    """
    agent = next((agent.socket for agent in view.agents if agent.name == host.agent), "own" if host.own_agent else "")
    behind = next((jump for jump in view.entries if host.jump in jump.aliases), None)
    way = (behind.hostname, behind.port, behind.host_key_alias) if behind else ()
    parts = (view.source, view.base_dir, host.identity_files or view.identity_files, agent, host.compression, way)
    return hashlib.sha256(repr((*parts, host_key) if host_key else parts).encode()).hexdigest()[:POLICY_LENGTH]


# In a large fleet many people's views hold the same entries, but for the account. Sound ones are read once; whatever is
# wrong is read in its own place, which its message names.


def _host(raw: Any, where: str, errors: List[str]) -> Host:
    try:
        common = _sound(Host, json.dumps({**raw, "user": "anybody"}))
        if common is not None:
            return _as(common, _login(raw["user"]))
    except (TypeError, ValueError, KeyError):
        pass
    return Host.from_dict(raw, where, errors)


def _as(host: Host, user: str) -> Host:
    """The same entry under another account. dataclasses.replace would take eight times as long."""
    found = object.__new__(Host)
    found.__dict__.update(host.__dict__, user=user)
    return found


def _known_host(raw: Any, where: str, errors: List[str]) -> KnownHost:
    try:
        found: Optional[KnownHost] = _sound(KnownHost, json.dumps(raw))
    except (TypeError, ValueError):
        found = None
    return KnownHost.from_dict(raw, where, errors) if found is None else found


@lru_cache(maxsize=65536)
def _sound(cls: Any, text: str) -> Any:
    errors: List[str] = []
    found = cls.from_dict(json.loads(text), "", errors)
    return None if errors else found


def _pattern_host(raw: Any, where: str, errors: List[str]) -> Host:
    return Host.from_dict(raw, where, errors, pattern=True)
