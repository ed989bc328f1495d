# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a client view can be used: what only the whole of it shows (names that collide, a jump in a circle)."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.client_values import LOCAL_PORTS
from ansible_collections.devnode.gpu.plugins.module_utils.client_view import POLICY_LENGTH, ClientView, Host, persist
from ansible_collections.devnode.gpu.plugins.module_utils.validators import show

# sun_path: how many bytes a socket's path has, with its end mark. Windows shares no connections.
SOCKET_LIMIT = {"linux": 108, "macos": 104, "windows": 108}
TEMPORARY_SUFFIX = 17  # "." and 16 characters, while ssh makes the socket
HASH_LENGTH = 40  # of %C
UNKNOWN_LOGIN = 16  # length of a login that is not known


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


def check(view: ClientView, where: str) -> List[str]:
    """The errors that only the whole view shows. Expects a view that from_dict took without errors."""
    groups = (("jumps", view.jumps), ("hosts", view.hosts), ("patterns", view.patterns))
    located = [(f"{where}.{group}[{index}]", host) for group, hosts in groups for index, host in enumerate(hosts)]
    return [
        *_check_aliases(located),
        *_check_jumps(located, view),
        *_check_agents(located, view, where),
        *_check_forwards(located, where),
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


def _check_forwards(located: _Located, where: str) -> List[str]:
    errors: List[str] = []
    taken: Dict[int, str] = {}
    many = sum(len(host.forwards) for _at, host in located)
    if many > LOCAL_PORTS:
        errors.append(
            f"{where}.hosts: {many} forwards in all, and each has a local port of its own, of which there are at most "
            f"{LOCAL_PORTS}. Leave some out."
        )
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
