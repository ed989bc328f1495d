# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one person sees of the fleet: the typed input of the role ssh_client_config.

A view is plain data: who the person is, which machine they sit at, which hosts they may reach and how. It says nothing
about how an ssh_config is written; that is client_render.py. The model makes views from the topology; somebody without
our topology writes them by hand (`ssh_client_config_views`).

`ClientView.from_dict` does not raise for a wrong value: it adds one sentence per error to the list it is given, so that
all errors of an input are seen at once. `check` then looks at what only the whole view can tell (names that collide, a
jump that does not exist, a circle). `parse_views` does both for a list.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import MISSING, dataclass, fields
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

T = TypeVar("T")

PLATFORMS = ("linux", "macos", "windows")
KINDS = ("workspace", "host")
MARKERS = ("", "@cert-authority", "@revoked")
TTY = ("no", "yes", "force", "auto")

# Name of a profile -> seconds that a shared connection stays after its last use; None: connections are not shared.
PROFILES: Dict[str, Optional[int]] = {"interactive": 1800, "ci": 60, "high_security": None, "no": None}
MAX_PERSIST = 24 * 3600  # a shared connection that outlives a day is one that nobody remembers
MAX_LIFETIME = 7 * 24 * 3600

# A client whose version is not declared is taken to be at least this: Debian 11, RHEL 9, supported macOS and Windows.
UNDECLARED_OPENSSH = (8, 4)
OLDEST_OPENSSH = (8, 0)

# sun_path: how many bytes a socket's path has, with its end mark. Windows shares no connections.
SOCKET_LIMIT = {"linux": 108, "macos": 104, "windows": 108}
TEMPORARY_SUFFIX = 17  # "." and 16 characters, while ssh makes the socket
HASH_LENGTH = 40  # of %C
POLICY_LENGTH = 6  # of policy_id
UNKNOWN_LOGIN = 16  # length of a login that is not known


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
        read = _Reader(cls, raw, where, errors)
        return cls(
            name=read.one("name", validators.name, "unknown"),
            port=read.one("port", validators.port, 1),
            host=read.one("host", validators.host),
            local_port=read.one("local_port", lambda value: validators.integer(value, 0, 65535)),
            path=read.one("path", _url_path),
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
        read = _Reader(cls, raw, where, errors)
        return cls(
            name=read.one("name", validators.name, "unknown"),
            socket=read.one("socket", home_path, "~/.ssh/agent"),
            key_file=read.one("key_file", home_path),
            destinations=read.many("destinations", _destination),
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

    @classmethod
    def from_dict(cls, raw: Any, where: str, errors: List[str], pattern: bool = False) -> "Host":
        read = _Reader(cls, raw, where, errors)
        alias = _pattern if pattern else validators.host_alias
        return cls(
            aliases=read.many("aliases", alias, required=True),
            hostname=read.one("hostname", _pattern_hostname if pattern else validators.host, "unknown"),
            user=read.one("user", _login, "unknown"),
            host_key_alias=read.one("host_key_alias", validators.host_alias, None if pattern else "unknown"),
            port=read.one("port", validators.port),
            jump=read.one("jump", validators.host_alias),
            kind=read.one("kind", lambda value: validators.choice(value, KINDS)),
            identity_files=read.many("identity_files", home_path),
            multiplexing=read.one("multiplexing", multiplexing),
            agent=read.one("agent", validators.name),
            own_agent=read.one("own_agent", validators.boolean),
            shared=read.one("shared", validators.boolean),
            agent_on_shared=read.one("agent_on_shared", validators.boolean),
            forwards=read.objects("forwards", Forward.from_dict),
            compression=read.one("compression", validators.boolean),
            request_tty=read.one("request_tty", lambda value: validators.choice(_yes_no(value), TTY)),
            tmux=read.one("tmux", validators.boolean),
            mosh_ports=read.one("mosh_ports", _port_range),
            mosh_address=read.one("mosh_address", validators.host),
            reason=read.one("reason", validators.line),
            login=read.one("login", validators.boolean),
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
        read = _Reader(cls, raw, where, errors)
        marker = read.one("marker", lambda value: validators.choice(value, MARKERS))
        return cls(
            names=read.many("names", _known_name if marker else validators.host_alias, required=True),
            keys=read.many("keys", lambda value: public_key(value).bare, required=True),
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
        read = _Reader(cls, raw, where, errors)
        return cls(
            person=read.one("person", validators.login, "unknown"),
            jumps=read.objects("jumps", Host.from_dict),
            hosts=read.objects("hosts", Host.from_dict),
            patterns=read.objects("patterns", _pattern_host),
            known_hosts=read.objects("known_hosts", KnownHost.from_dict),
            agents=read.objects("agents", Agent.from_dict),
            platform=read.one("platform", lambda value: validators.choice(value, PLATFORMS)),
            openssh=read.one("openssh", _openssh),
            source=read.one("source", validators.line),
            contact=read.one("contact", validators.line),
            account=read.one("account", _login),
            base_dir=read.one("base_dir", home_path),
            control_dir=read.one("control_dir", home_path),
            home=read.one("home", validators.path),
            identity_files=read.many("identity_files", home_path),
            identities_outside_home=read.one("identities_outside_home", validators.boolean),
            multiplexing=read.one("multiplexing", multiplexing),
            add_keys_to_agent=read.one("add_keys_to_agent", _lifetime),
            server_alive_interval=read.one("server_alive_interval", lambda value: validators.integer(value, 1, 3600)),
            server_alive_count=read.one("server_alive_count", lambda value: validators.integer(value, 1, 100)),
            connect_timeout=read.one("connect_timeout", lambda value: validators.integer(value, 1, 600)),
            fast_algorithms=read.one("fast_algorithms", validators.boolean),
        )

    def to_dict(self) -> Dict[str, Any]:
        """Plain data that from_dict reads back to an equal view. What is at its default is left out."""
        plain: Dict[str, Any] = _plain(self)
        return plain

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
        return version(self.openssh) if self.openssh else UNDECLARED_OPENSSH

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
    return PROFILES[wanted] if wanted in PROFILES else seconds(wanted)


def policy_id(host: Host, view: ClientView) -> str:
    """Short name of what a shared connection was opened with: stands in the socket's name, in front of ssh's %C.

    %C is made of host, port, user and, in newer versions, the jump. Two entries that differ in key or agent, or that
    reach the same inner address behind different bastions, must never use each other's connection.
    """
    agent = next((agent.socket for agent in view.agents if agent.name == host.agent), "own" if host.own_agent else "")
    behind = next((jump for jump in view.entries if host.jump in jump.aliases), None)
    way = (behind.hostname, behind.port, behind.host_key_alias) if behind else ()
    parts = (view.source, view.base_dir, host.identity_files or view.identity_files, agent, host.compression, way)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:POLICY_LENGTH]


def parse_views(raw: Any, where: str = "ssh_client_config_views") -> Tuple[List[ClientView], List[str]]:
    """All the views in a list, and all the errors in them. The views are usable only when there is no error."""
    errors: List[str] = []
    if not isinstance(raw, (list, tuple)):
        return [], [f"{where}: {show(raw)} is no list. It must be a list of views, one for each person."]
    views: List[ClientView] = []
    for index, item in enumerate(raw):
        at = f"{where}[{index}]"
        found: List[str] = []
        view = ClientView.from_dict(item, at, found)
        errors.extend(found or check(view, at))
        if not found and view.person in [other.person for other in views]:
            errors.append(f"{at}.person: {show(view.person)} has a view already. There can be one for each person.")
        views.append(view)
    return views, errors


# ---- what only the whole view shows --------------------------------------------------------------------------------


def check(view: ClientView, where: str) -> List[str]:
    """The errors that only the whole view shows. Expects a view that from_dict took without errors."""
    groups = (("jumps", view.jumps), ("hosts", view.hosts), ("patterns", view.patterns))
    located = [(f"{where}.{group}[{index}]", host) for group, hosts in groups for index, host in enumerate(hosts)]
    return [
        *_check_aliases(located),
        *_check_jumps(located, view),
        *_check_agents(located, view, where),
        *_check_forwards(located),
        *_check_known(located, view),
        *_check_identities(located, view, where),
        *_check_extras(located, view),
        *_check_sockets(view, where),
    ]


_Located = List[Tuple[str, Host]]


def _check_aliases(located: _Located) -> List[str]:
    errors: List[str] = []
    owner: Dict[str, str] = {}
    for at, host in located:
        for alias in host.names:
            if alias in owner:
                errors.append(
                    f"{at}.aliases: {show(alias)} is already a name of {owner[alias]}. ssh takes the first of two, so "
                    "the other could never be reached: give one of them another name."
                )
            owner.setdefault(alias, at)
    return errors


def _check_jumps(located: _Located, view: ClientView) -> List[str]:
    errors: List[str] = []
    names = {alias: host for host in view.jumps + view.hosts for alias in host.aliases}
    for at, host in located:
        chain = [host.aliases[0]]
        jump = host.jump
        while jump:
            if jump not in names:
                if len(chain) == 1:
                    known = ", ".join(sorted(names)) or "none"
                    errors.append(f"{at}.jump: {show(jump)} is no entry of this view. There are: {known}.")
                break
            chain.append(names[jump].aliases[0])
            if chain[-1] in chain[:-1]:
                errors.append(
                    f"{at}.jump: the way there goes in a circle ({' > '.join(chain)}). One of them must be reached "
                    "directly."
                )
                break
            jump = names[jump].jump
    return errors


def _check_agents(located: _Located, view: ClientView, where: str) -> List[str]:
    errors: List[str] = []
    agents = [agent.name for agent in view.agents]
    led_through = {host.jump: host.aliases[0] for host in view.entries if host.jump}
    for index, name in enumerate(agents):
        if name in agents[:index]:
            errors.append(f"{where}.agents[{index}].name: {show(name)} is there twice.")
    for at, host in located:
        if host.agent and host.agent not in agents:
            known = ", ".join(agents) or "none"
            errors.append(f"{at}.agent: {show(host.agent)} is no agent of this view. There are: {known}.")
        elif (host.agent or host.own_agent) and host.shared and not host.agent_on_shared:
            field = "agent" if host.agent else "own_agent"
            errors.append(
                f"{at}.{field}: {show(host.agent or True)} would be forwarded to a host that several people log in to. "
                "Whoever is root there can sign with it while it is connected. Leave it out, or set agent_on_shared: "
                "true."
            )
        if host.agent and host.own_agent:
            errors.append(
                f"{at}.own_agent: one agent can be forwarded, and agent names another: leave out one of them."
            )
        behind = next((led_through[alias] for alias in host.aliases if host.agent and alias in led_through), "")
        if behind:
            errors.append(
                f"{at}.agent: {show(host.agent)} would be forwarded to the jump of {show(behind)}. ssh gives up on a "
                "jump whose agent is not running (measured): let the jump be an entry of its own, without an agent."
            )
    return errors


def _check_forwards(located: _Located) -> List[str]:
    errors: List[str] = []
    taken: Dict[int, str] = {}
    for at, host in located:
        for index, forward in enumerate(host.forwards):
            here = f"{at}.forwards[{index}]"
            if forward.name in [other.name for other in host.forwards[:index]]:
                errors.append(f"{here}.name: {show(forward.name)} is there twice.")
            if forward.local_port and forward.local_port in taken:
                errors.append(
                    f"{here}.local_port: {forward.local_port} is already taken by {taken[forward.local_port]}. Only "
                    "one of them could open it: choose another, or 0 to have one chosen."
                )
            taken.setdefault(forward.local_port, here)
    return errors


def _check_known(located: _Located, view: ClientView) -> List[str]:
    """A host without a known key could only be refused by ssh, or trusted blindly."""
    exact = {name for known in view.known_hosts if known.marker != "@revoked" for name in known.names}
    wild = [re.compile(_glob(name)) for name in exact if "*" in name or "?" in name]

    def is_known(name: str) -> bool:
        return name in exact or any(pattern.fullmatch(name) for pattern in wild)

    return [
        f"{at}.host_key_alias: known_hosts has no key for {show(host.host_key_alias)}, so ssh would refuse to connect. "
        "Record its key first (playbooks/enroll.yml for machines, site.yml for workspaces), or leave this entry out."
        for at, host in located
        if host.host_key_alias and not is_known(host.host_key_alias)
    ]


def _check_identities(located: _Located, view: ClientView, where: str) -> List[str]:
    """A key outside of the home is nobody's, or everybody's. A kit that is used where it lies says itself where."""
    if view.identities_outside_home or not view.base_dir.startswith("~/"):
        return []
    inside = ("~/", view.home.rstrip("/") + "/") if view.home else ("~/",)
    files = [(f"{where}.identity_files[{index}]", path) for index, path in enumerate(view.identity_files)]
    files += [(f"{at}.identity_files[{i}]", path) for at, host in located for i, path in enumerate(host.identity_files)]
    files += [(f"{where}.agents[{index}].key_file", agent.key_file) for index, agent in enumerate(view.agents)]
    return [
        f'{at}: {show(path)} lies outside of the home. Write it as "~/…", or set identities_outside_home: true.'
        for at, path in files
        if path and not path.startswith(inside)
    ]


def _check_extras(located: _Located, view: ClientView) -> List[str]:
    """Ways of working that not every entry can have."""
    errors: List[str] = []
    for at, host in located:
        pattern = host in view.patterns
        for field, given in (("tmux", host.tmux), ("mosh_ports", bool(host.mosh_ports))):
            if pattern and given:
                errors.append(f"{at}.{field}: a pattern has no name of its own to type. Give it to an entry of hosts.")
        if host.mosh_ports and host.jump and not host.mosh_address:
            errors.append(
                f"{at}.mosh_ports: mosh needs UDP, and the way through {show(host.jump)} carries none. Say in "
                "mosh_address where the ports are reached from outside, or leave mosh out and use tmux."
            )
        if host.mosh_address and not host.mosh_ports:
            errors.append(f"{at}.mosh_address: it stands alone. Say in mosh_ports which UDP ports are open there.")
        if host.mosh_ports and view.platform == "windows":
            errors.append(f"{at}.mosh_ports: there is no mosh on Windows. Leave it out.")
    return errors


def _check_sockets(view: ClientView, where: str) -> List[str]:
    """A path that does not fit into a socket's address ends every ssh, so it is refused here."""
    if all(persist(host, view) is None for host in view.entries):
        return []
    parent = "/Users/" if view.platform == "macos" else "/home/"
    home = view.home or parent + "x" * max(len(view.login), UNKNOWN_LOGIN)
    path = re.sub(r"^~", home, view.sockets) + "/" + "x" * (POLICY_LENGTH + 1 + HASH_LENGTH)
    limit = SOCKET_LIMIT[view.platform] - TEMPORARY_SUFFIX - 1
    if len(path) <= limit:
        return []
    assumed = "" if view.home or not view.sockets.startswith("~/") else f" (a home such as {home} taken as given)"
    return [
        f"{where}.control_dir: {show(view.sockets)} is too long{assumed}: the sockets of shared connections would have "
        f"paths of {len(path)} bytes, and {limit} fit on {view.platform} ({SOCKET_LIMIT[view.platform]} less the "
        f"end mark and the {TEMPORARY_SUFFIX} that ssh adds while it makes one). Choose a shorter one, like ~/.ssh/cm."
    ]


def _glob(pattern: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)


# ---- values --------------------------------------------------------------------------------------------------------

_VERSION = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})(?:p[0-9]{1,2})?")
_DURATION = re.compile(r"(?:[0-9]{1,6}[smh]?)+")
_DURATION_PART = re.compile(r"([0-9]{1,6})([smh]?)")
_PATTERN = re.compile(r"[a-z0-9?*._-]{1,253}")
_PATTERN_HOSTNAME = re.compile(r"(?:[a-z0-9.-]|%h){1,253}")


def seconds(text: str) -> Optional[int]:
    """The seconds in a time as ssh writes it ("1800", "30m", "1h30m"), or None when it is no time."""
    if not _DURATION.fullmatch(text):
        return None
    unit = {"": 1, "s": 1, "m": 60, "h": 3600}
    return sum(int(number) * unit[letter] for number, letter in _DURATION_PART.findall(text))


def version(text: str) -> Tuple[int, int]:
    """(9, 2) for "9.2" or "9.2p1"."""
    found = _VERSION.fullmatch(text)
    if not found:
        raise InvalidError("is no OpenSSH version", 'such as "9.2", in quotes')
    return int(found.group(1)), int(found.group(2))


def home_path(value: Any) -> str:
    """An absolute path, or one below the home ("~/…")."""
    if isinstance(value, str) and value.startswith("~/") and len(value) > 2:
        return "~" + validators.path(value[1:])
    try:
        return validators.path(value)
    except InvalidError as error:
        raise InvalidError(error.why, error.allowed + '; or one below the home, beginning with "~/"') from None


def multiplexing(value: Any) -> str:
    """A profile's name or how long a shared connection stays."""
    allowed = f"{', '.join(PROFILES)}, or a time from 1 second to {MAX_PERSIST // 3600} hours such as 600 or 10m"
    return _time(value, tuple(PROFILES), MAX_PERSIST, allowed)


def _lifetime(value: Any) -> str:
    return _time(value, ("no",), MAX_LIFETIME, "no, or a time of at most a week such as 4h")


def _time(value: Any, words: Tuple[str, ...], most: int, allowed: str) -> str:
    if value is False:  # an unquoted `no` in YAML
        value = "no"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and value in words:
        return value
    length = seconds(value) if isinstance(value, str) else None
    if length is None:
        raise InvalidError("is no time", allowed)
    if not 1 <= length <= most:
        raise InvalidError("would keep it open without an end" if length == 0 else "is too long", allowed)
    return str(value)


def _yes_no(value: Any) -> Any:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value  # an unquoted `yes` in YAML


def _port_range(value: Any) -> str:
    allowed = 'two UDP ports from 1024, the lower one first, such as "60001:60010"'
    found = re.fullmatch(r"([0-9]{4,5}):([0-9]{4,5})", value) if isinstance(value, str) else None
    if not found or not 1024 <= int(found.group(1)) <= int(found.group(2)) <= 65535:
        raise InvalidError("is no range of ports", allowed)
    return str(value)


def _openssh(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidError("is not text", 'a version in quotes such as "9.2"')
    if version(value) < OLDEST_OPENSSH:
        raise InvalidError("is too old", "{}.{} and newer".format(*OLDEST_OPENSSH))
    return value


def _login(value: Any) -> str:
    """A login on a host; unlike a person's name it may be one that systems have by themselves."""
    if isinstance(value, str) and value in validators.RESERVED_LOGINS:
        return value
    return validators.login(value)


def _pattern(value: Any) -> str:
    """A name with wildcards that cannot take in hosts of others."""
    allowed = 'a-z 0-9 . _ - with * and ?, at least three letters or digits before the first wildcard, such as "gpu-*"'
    if not isinstance(value, str) or not _PATTERN.fullmatch(value):
        raise InvalidError("is no pattern", allowed)
    if len(re.sub(r"[^a-z0-9]", "", re.split(r"[*?]", value)[0])) < 3:
        raise InvalidError("would also take in hosts that are not ours, with their keys and agents", allowed)
    return value


def _known_name(value: Any) -> str:
    """Names that a CA vouches for. The file is read for our hosts only, so any pattern will do."""
    if not isinstance(value, str) or not _PATTERN.fullmatch(value):
        raise InvalidError("is no host key alias", "a-z 0-9 . _ - with * and ?")
    return value


def _pattern_hostname(value: Any) -> str:
    if not isinstance(value, str) or not _PATTERN_HOSTNAME.fullmatch(value):
        raise InvalidError("is no host name", "a host name, in which %h stands for what was typed")
    validators.host(value.replace("%h", "x"))
    return value


def _destination(value: Any) -> str:
    hops = value.split(">") if isinstance(value, str) else []
    if not 1 <= len(hops) <= 8:
        raise InvalidError("is no chain of hosts", 'host key aliases joined by ">"')
    return ">".join(validators.host_alias(hop) for hop in hops)


def _url_path(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[A-Za-z0-9/._~?=&-]{0,200}", value):
        raise InvalidError("is no path of an address", "a / and then letters, digits and /._~?=&-")
    return value


# ---- reading -------------------------------------------------------------------------------------------------------


def _pattern_host(raw: Any, where: str, errors: List[str]) -> Host:
    return Host.from_dict(raw, where, errors, pattern=True)


def _default(spec: Any) -> Any:
    return None if spec.default is MISSING else spec.default


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not hasattr(type(value), "__dataclass_fields__"):
        return value
    return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if getattr(value, f.name) != _default(f)}


class _Reader:
    """Reads the fields of one mapping; a wrong one becomes a sentence in `errors` and a harmless value."""

    def __init__(self, cls: Any, raw: Any, where: str, errors: List[str]) -> None:
        self.where = where
        self.errors = errors
        self.defaults = {spec.name: _default(spec) for spec in fields(cls)}
        self.readable = isinstance(raw, dict)
        self.raw: Dict[Any, Any] = raw if self.readable else {}
        if not self.readable:
            errors.append(f"{where}: {show(raw)} is no mapping. Its fields are: {', '.join(self.defaults)}.")
        for key in self.raw:
            if key not in self.defaults:
                errors.append(f"{where}: {show(key)} is no field. There are: {', '.join(self.defaults)}.")

    def one(self, name: str, validate: Callable[[Any], T], required: Optional[T] = None) -> T:
        """The field's value. `required`: it has to be there, and this stands for it after an error."""
        default: Any = self.defaults[name] if required is None else required
        value = self.raw.get(name)
        if value is None or (value == "" and default == ""):
            if required is not None and self.readable:
                self.errors.append(f"{self.where}.{name}: it is missing.")
            return default  # type: ignore[no-any-return]
        return self._valid(f"{self.where}.{name}", value, validate, default)

    def many(self, name: str, validate: Callable[[Any], T], required: bool = False) -> Tuple[T, ...]:
        """The field's list of values."""
        values = self._list(name, required)
        if values is None:
            return self.defaults[name] or ()
        at = f"{self.where}.{name}"
        found = [self._valid(f"{at}[{index}]", value, validate, None) for index, value in enumerate(values)]
        return tuple(value for value in found if value is not None)

    def objects(self, name: str, build: Callable[[Any, str, List[str]], T]) -> Tuple[T, ...]:
        """The field's list of mappings."""
        values = self._list(name, False) or ()
        return tuple(build(item, f"{self.where}.{name}[{index}]", self.errors) for index, item in enumerate(values))

    def _list(self, name: str, required: bool) -> Optional[List[Any]]:
        value = self.raw.get(name)
        if value is None or (required and value in ([], ())):
            if required and self.readable:
                self.errors.append(f"{self.where}.{name}: it is missing. There must be at least one.")
            return None
        if isinstance(value, (list, tuple)):
            return list(value)
        self.errors.append(f"{self.where}.{name}: {show(value)} is no list.")
        return None

    def _valid(self, at: str, value: Any, validate: Callable[[Any], T], default: Any) -> T:
        try:
            return validate(value)
        except InvalidError as error:
            allowed = f" Allowed: {error.allowed}." if error.allowed else ""
            self.errors.append(f"{at}: {show(value)} {error.why}.{allowed}")
            return default  # type: ignore[no-any-return]
