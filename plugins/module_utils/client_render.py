# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a client view to the files of a person's kit. Pure: the same view gives the same text, everywhere.

How the ssh_config comes about: every host first gets all of its options, each with a value of its own, because what
we leave open a `Host *` in the person's own file would decide. Then the values that all hosts of a section share
move into a block for the section, and those that all hosts share into one block at the end. ssh takes the first value
that it finds, so what a host says itself wins over its section.

No keyword is written that the client might not know. `IgnoreUnknown` would not help: it only acts where its block
matches, while an unknown keyword ends ssh for every host (measured with 9.2), and outside of a block it would also hide
mistakes in the rest of the person's configuration.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Dict, List, Optional, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.client_options import (
    TMUX,
    Options,
    Ports,
    all_options,
    forward_line,
    local_ports,
)
from ansible_collections.devnode.gpu.plugins.module_utils.client_readme import readme
from ansible_collections.devnode.gpu.plugins.module_utils.client_view import (
    ClientView,
    Host,
)
from ansible_collections.devnode.gpu.plugins.module_utils.version import GENERATOR

# ssh takes quadratic time for a Host line: 6,000 names on one cost 130 ms more than on 60 lines (measured with 9.2).
# Only a pattern can have more: its line also holds the names that are taken out of it.
NAMES_PER_BLOCK = 100

_REPEATED = ("IdentityFile", "LocalForward")
# ssh keeps whether and which in two places, each with its first value: an earlier "yes" gets a later socket.
_TWO_PARTS, _FLAGS = ("ForwardAgent",), (("yes",), ("no",))
# "ProxyJump none" would do as well, but the ssh of Debian's updates (seen with 9.2p1-2+deb12u10 and 10.0p1-7+deb13u4)
# lets a later ProxyCommand through. This one keeps both away, in every version.
_DIRECTLY = "ProxyCommand none"
# What makes a host that host: never shared.
_OWN = ("HostName", "HostKeyAlias", "LocalForward", "RequestTTY", "RemoteCommand")
# What reads better beside the hosts of its section than at the end of the file.
_BY_SECTION = ("ProxyJump",)
# The file's last block: what it is for, and its options in this order.
_TOPICS: Tuple[Tuple[str, Tuple[str, ...]], ...] = (
    ("", ("HostName", "HostKeyAlias", "Port", "User", "ProxyJump", "Compression")),
    (
        "Host keys come from our own record only. Nothing is trusted because it was seen first.",
        ("UserKnownHostsFile", "GlobalKnownHostsFile", "StrictHostKeyChecking", "UpdateHostKeys", "CheckHostIP"),
    ),
    (
        "One key is offered, so that an agent full of others does not use up the attempts.",
        ("IdentityFile", "IdentitiesOnly", "PreferredAuthentications", "AddKeysToAgent"),
    ),
    ("An agent is lent to nobody, but where a project says so.", ("ForwardAgent",)),
    (
        "The first connection stays open and the next ones use it. Hosts with another key or agent get another one.",
        ("ControlMaster", "ControlPath", "ControlPersist"),
    ),
    ("A line that fell silent is noticed.", ("ServerAliveInterval", "ServerAliveCountMax", "ConnectTimeout")),
    ("Fastest first of what this ssh knows.", ("KexAlgorithms", "Ciphers")),
    ("", ("LocalForward", "RequestTTY", "RemoteCommand")),
)
_TOPIC = {name: topic for topic, names in _TOPICS for name in names}
_ORDER = {name: place for place, name in enumerate(_TOPIC)}


@dataclass(frozen=True)
class KitFile:
    """One file of a kit: either its text, or the name of one of the role's files."""

    name: str
    content: str = ""
    asset: str = ""
    mode: str = "0600"


def kit(view: ClientView, generator: str = GENERATOR) -> List[KitFile]:
    """All files of a person's kit, to hand over or to use where they lie."""
    files = installed(view, generator)
    if not view.base_dir.startswith("~/"):
        return files
    if view.platform == "windows":
        return [*files, KitFile("install.ps1", asset="install.ps1")]
    return [*files, KitFile("install.sh", asset="install.sh", mode="0700")]


def installed(view: ClientView, generator: str = GENERATOR) -> List[KitFile]:
    """The files that lie in base_dir once a kit is installed."""
    ports = local_ports(view)
    files = [
        KitFile("config", config(view, generator, ports)),
        KitFile("known_hosts", known_hosts(view, generator)),
        KitFile("README.md", readme(view, ports, generator)),
    ]
    if view.platform != "windows":
        files.append(KitFile("devnode-ssh", asset="devnode-ssh", mode="0700"))
        if view.agents:
            files.append(KitFile("agents", agents(view, generator)))
        if any(host.mosh_ports for host in view.entries):
            files.append(KitFile("mosh", mosh(view, generator)))
    return files


def agents(view: ClientView, generator: str = GENERATOR) -> str:
    """What `devnode-ssh agent` reads: name, socket, private key and destinations of each project's agent."""
    lines = [" ".join((agent.name, agent.socket, agent.key_file or "-", *agent.destinations)) for agent in view.agents]
    return "".join(f"{line}\n" for line in [f"# {_origin(view, generator)}", *lines])


def mosh(view: ClientView, generator: str = GENERATOR) -> str:
    """What `devnode-ssh mosh` reads: name, address and UDP ports."""
    lines = [
        f"{alias} {host.mosh_address or host.hostname} {host.mosh_ports}"
        for host in view.entries
        if host.mosh_ports
        for alias in host.aliases
    ]
    return "".join(f"{line}\n" for line in [f"# {_origin(view, generator)}", *lines])


def known_hosts(view: ClientView, generator: str = GENERATOR) -> str:
    """The person's own known_hosts: host key aliases and keys."""
    lines = [
        " ".join(part for part in (known.marker, ",".join(known.names), key) if part)
        for known in view.known_hosts
        for key in known.keys
    ]
    return "".join(f"{line}\n" for line in [f"# {_origin(view, generator)}", *sorted(set(lines))])


def config(view: ClientView, generator: str = GENERATOR, ports: Optional[Ports] = None) -> str:
    """The person's ssh_config."""
    ports = local_ports(view) if ports is None else ports
    sections = [
        ("Jump hosts: the way in. They only pass connections on.", view.jumps),
        ("Workspaces", tuple(host for host in view.hosts if host.kind == "workspace")),
        ("Machines", tuple(host for host in view.hosts if host.kind == "host")),
        ("Patterns: every name that fits, as it is typed", view.patterns),
    ]
    options = all_options(view, ports)
    for_all = _take_common([options[id(host)] for host in view.entries], (*_OWN, *_BY_SECTION), unanimous=True)

    text = [_header(view, generator)]
    for title, hosts in sections:
        if not hosts:
            continue
        own = [options[id(host)] for host in hosts]
        # What adds up stays in a pattern's own block, where names can be taken out.
        common = _take_common(
            own, (*_OWN, *_REPEATED, *_TWO_PARTS) if hosts is view.patterns else _OWN, unanimous=False
        )
        text.append(f"# ---- {title}\n")
        for host in hosts:
            names = (*host.names, *_more_exact(host, view)) if hosts is view.patterns else host.names
            text.append(_block(names, options[id(host)], host.reason, _forward_notes(host, ports)))
            if host.tmux:
                text.append(_block((host.tmux_alias,), TMUX, "A session that outlives the line: Ctrl-b d leaves it"))
        if common:
            text.extend(_block(names, common, "All of this section") for names in _aliases(hosts))
    if for_all:
        text.append('# ---- Everything above. A list of names and no "Host *": other hosts are none of our business.\n')
        text.extend(_block(names, for_all, topics=True) for names in _aliases(view.entries))
    return "\n".join(text)


def _take_common(hosts: Sequence[Options], never: Tuple[str, ...], unanimous: bool) -> Options:
    """Move out of the hosts' options what they share, and return it.

    Where not all need to agree, the most frequent value is shared and the others keep theirs, which stands before it.
    """
    common: Options = {}
    if len(hosts) < 2:
        return common
    for name in list(hosts[0]):
        if name in never or not all(name in host for host in hosts):
            continue
        (value, count), *others = Counter(host[name] for host in hosts).most_common(2)
        if others and (unanimous or count < 2 or name in _REPEATED or (name in _TWO_PARTS and value not in _FLAGS)):
            continue
        common[name] = value
        for host in hosts:
            if host[name] == value:
                del host[name]
    return common


def _more_exact(pattern: Host, view: ClientView) -> List[str]:
    """The names before a pattern that it fits as well and would add something to: these are taken out of it."""
    earlier = view.entries[: view.entries.index(pattern)]
    return [
        f"!{name}"
        for host in earlier
        if _adds(pattern, host, view)
        for name in host.names
        if any(_overlap(name, alias) for alias in pattern.aliases)
    ]


def _adds(pattern: Host, host: Host, view: ClientView) -> bool:
    """Whether a pattern has what adds up: of all other options ssh takes the first, which is the host's own."""
    keys, own = (set(entry.identity_files or view.identity_files) for entry in (pattern, host))
    return bool(pattern.forwards or keys - own or (pattern.agent and pattern.agent != host.agent))


def _overlap(name: str, pattern: str) -> bool:
    """Whether both may fit one name. Of two patterns only the beginnings count: to take out more does no harm."""
    if not re.search(r"[*?]", name):
        return fnmatchcase(name, pattern)
    first, second = (re.split(r"[*?]", text)[0] for text in (name, pattern))
    return first.startswith(second) or second.startswith(first)


def _aliases(hosts: Sequence[Host]) -> List[Tuple[str, ...]]:
    """The hosts' names, as many together as one Host line may have."""
    names = tuple(alias for host in hosts for alias in host.names)
    return [names[start : start + NAMES_PER_BLOCK] for start in range(0, len(names), NAMES_PER_BLOCK)]


def _block(
    aliases: Sequence[str],
    options: Options,
    reason: str = "",
    notes: Optional[Dict[str, str]] = None,
    topics: bool = False,
) -> str:
    lines = [f"# {reason}"] if reason else []
    # As one word for Match, ssh reads a long list in linear time.
    many = len(aliases) > NAMES_PER_BLOCK
    lines.append(f"Match originalhost {','.join(aliases)}" if many else f"Host {' '.join(aliases)}")
    topic = ""
    for name in sorted(options, key=_ORDER.__getitem__):
        if topics and topic != _TOPIC[name]:
            topic = _TOPIC[name]
            lines.append(f"    # {topic}")
        for value in options[name]:
            if notes and value in notes:
                lines.append(f"    # {notes[value]}")
            lines.append(f"    {_DIRECTLY if (name, value) == ('ProxyJump', 'none') else f'{name} {value}'}")
    return "\n".join(lines) + "\n"


def _forward_notes(host: Host, ports: Ports) -> Dict[str, str]:
    return {
        forward_line(host, forward, ports): (
            f"{forward.name}: http://127.0.0.1:{ports[(host.aliases[0], forward.name)]}{forward.path}"
        )
        for forward in host.forwards
    }


def _origin(view: ClientView, generator: str) -> str:
    return f"Made by {generator}" + (f" from {view.source}" if view.source else "") + f" for {view.person}."


def _header(view: ClientView, generator: str) -> str:
    names = {"linux": "Linux", "macos": "macOS", "windows": "Windows"}
    known = "OpenSSH " + (view.openssh if view.openssh else "{}.{} or newer".format(*view.version))
    return (
        f"# {_origin(view, generator)} {names[view.platform]}, {known}.\n"
        "# Do not edit: the next run replaces it. Something is wrong here? The inventory is where it is changed.\n"
        "# Settings of your own go to ~/.ssh/config, below its Include line.\n"
    )
