# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a client view to ssh's options: all of every host's, each with a value of its own; ports of forwards."""

from __future__ import annotations

import hashlib
from operator import attrgetter
from typing import Dict, FrozenSet, Iterator, Set, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.client_values import FIRST_LOCAL_PORT, LOCAL_PORTS
from ansible_collections.devnode.gpu.plugins.module_utils.client_view import (
    ClientView,
    Forward,
    Host,
    contested,
    persist,
    policy_id,
)

# An option's value, or several for an option that may be repeated (each adds to the others, so the first does not win).
Options = Dict[str, Tuple[str, ...]]
# (first alias, forward) -> local port
Ports = Dict[Tuple[str, str], int]
# What "<alias>-tmux" does.
TMUX: Options = {"RequestTTY": ("yes",), "RemoteCommand": ("tmux new-session -A -s main",)}


def all_options(view: ClientView, ports: Ports) -> Dict[int, Options]:
    """id of an entry -> all of its options. What many entries share is worked out once: fleets are large."""
    ways: Dict[object, Options] = {}
    found: Dict[int, Options] = {}
    twice = contested(view)
    for host in view.entries:
        way = _WAY(host)
        if way not in ways:
            ways[way] = _way(host, view)
        found[id(host)] = {**ways[way], **_place(host, view, ports, twice)}
    return found


def _place(host: Host, view: ClientView, ports: Ports, twice: FrozenSet[Tuple[str, int, str]]) -> Options:
    """What is different for nearly every host."""
    options: Options = {"HostName": (host.hostname,), "Port": (str(host.port),)}
    if host.host_key_alias:
        options["HostKeyAlias"] = (host.host_key_alias,)
    if (host.hostname, host.port, host.user) in twice and persist(host, view) is not None:
        options["ControlPath"] = (f"{view.sockets}/{policy_id(host, view, host.host_key_alias)}-%C",)
    if host.forwards:
        options["LocalForward"] = tuple(forward_line(host, forward, ports) for forward in host.forwards)
    return options


def forward_line(host: Host, forward: Forward, ports: Ports) -> str:
    """The value of LocalForward."""
    there = f"[{forward.host}]" if ":" in forward.host else forward.host
    return f"127.0.0.1:{ports[(host.aliases[0], forward.name)]} {there}:{forward.port}"


# What _way looks at in a host.
_WAY = attrgetter(
    "user", "jump", "compression", "identity_files", "agent", "own_agent", "multiplexing", "request_tty", "tmux"
)


def _way(host: Host, view: ClientView) -> Options:
    """How a host is reached: nothing in here is about which host it is."""
    stays = persist(host, view)
    agent = next((agent for agent in view.agents if agent.name == host.agent), None)
    forwardable = view.platform != "windows" and view.version >= (8, 2)
    options: Options = {
        "User": (host.user,),
        "ProxyJump": (host.jump or "none",),
        "Compression": ("yes" if host.compression else "no",),
        "UserKnownHostsFile": (f"{view.base_dir}/known_hosts",),
        "GlobalKnownHostsFile": ("none" if view.platform == "windows" else "/dev/null",),
        "StrictHostKeyChecking": ("yes",),
        "UpdateHostKeys": ("no",),
        # Before 8.5 it was on, and would have added addresses to our file.
        "CheckHostIP": ("no",) if view.version < (8, 5) else (),
        "IdentityFile": host.identity_files or view.identity_files,
        "IdentitiesOnly": ("yes",),
        "PreferredAuthentications": ("publickey,keyboard-interactive" if host.code else "publickey",),
        "AddKeysToAgent": (_add_keys(host, view),),
        "ForwardAgent": (agent.socket if agent and forwardable else "yes" if host.own_agent else "no",),
        "ControlMaster": ("no" if stays is None else "auto",),
        "ControlPath": ("none" if stays is None else f"{view.sockets}/{policy_id(host, view)}-%C",),
        "ControlPersist": ("no" if stays is None else str(stays),),
        "ServerAliveInterval": (str(view.server_alive_interval),),
        "ServerAliveCountMax": (str(view.server_alive_count),),
        "ConnectTimeout": (str(view.connect_timeout),),
        **_algorithms(view),
        "RequestTTY": (host.request_tty,) if host.request_tty and not host.tmux else (),
    }
    return {name: values for name, values in options.items() if values}


def local_ports(view: ClientView) -> Ports:
    """The local port of every forward.

    A port follows from the names alone, so that it stays when other workspaces come and go; where two would get the
    same, the later name looks on. The model may also say a port itself.
    """
    wanted = [(host.aliases[0], forward) for host in view.entries for forward in host.forwards]
    wanted.sort(key=lambda pair: (pair[0], pair[1].name))
    ports = {(alias, forward.name): forward.local_port for alias, forward in wanted if forward.local_port}
    taken: Set[int] = set(ports.values())
    for alias, forward in wanted:
        if forward.local_port:
            continue
        port = next(port for port in _candidates(f"{alias}/{forward.name}") if port not in taken)
        ports[(alias, forward.name)] = port
        taken.add(port)
    return ports


def _candidates(name: str) -> Iterator[int]:
    attempt = 0
    while True:
        digest = hashlib.sha256(f"{name}/{attempt}".encode()).digest()
        yield FIRST_LOCAL_PORT + int.from_bytes(digest[:4], "big") % LOCAL_PORTS
        attempt += 1


def _add_keys(host: Host, view: ClientView) -> str:
    # A project's key is for its own agent, with its destinations; added here it would have none.
    if {agent.key_file for agent in view.agents} & set(host.identity_files or view.identity_files):
        return "no"
    # A lifetime came with 8.4. Windows' agent keeps what it is given for good, on the disk.
    return "no" if view.platform == "windows" or view.version < (8, 4) else view.add_keys_to_agent


def _algorithms(view: ClientView) -> Options:
    """Cheaper algorithms in front of ssh's own list. An unknown name ends an older ssh: only for a declared version."""
    if not view.openssh:
        return {}
    options: Options = {}
    # From 8.5 on it knows what our servers ask for, and offers it by itself from 9.0 on only.
    if (8, 5) <= view.version < (9, 0) and view.platform != "windows":
        options["KexAlgorithms"] = ("^sntrup761x25519-sha512@openssh.com",)
    if not view.fast_algorithms:
        return options
    if view.version >= (9, 9):
        options["KexAlgorithms"] = ("^mlkem768x25519-sha256",)
    if view.version >= (8, 1):
        options["Ciphers"] = ("^aes128-gcm@openssh.com,aes256-gcm@openssh.com",)
    return options
