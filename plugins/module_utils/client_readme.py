# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one page that comes with a kit: this person's own names and commands, nothing general."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.client_view import ClientView, Host, persist

Ports = Dict[Tuple[str, str], int]


def readme(view: ClientView, ports: Ports, generator: str) -> str:
    """The page, as Markdown that also reads well as plain text."""
    origin = f"Made by {generator}" + (f" from {view.source}" if view.source else "")
    paragraphs = [
        f"# Your ssh access ({view.person})",
        f"{origin}. There is nothing secret in this directory: your private key stays where it is.",
        *_install(view),
        *_hosts(view),
        *_forwards(view, ports),
        *_agents(view),
        *_sharing(view),
        *_trouble(view),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _ssh(view: ClientView, program: str = "ssh") -> str:
    """The command as this person types it."""
    return program if view.base_dir.startswith("~/") else f"{program} -F {view.base_dir}/config"


def _tool(view: ClientView) -> str:
    return f"{view.base_dir}/devnode-ssh"


def _commands(*lines: str) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _install(view: ClientView) -> List[str]:
    if not view.base_dir.startswith("~/"):
        return [f"Used where it lies, with `-F {view.base_dir}/config`; nothing has to be installed."]
    if view.platform == "windows":
        commands = _commands(
            "powershell -ExecutionPolicy Bypass -File install.ps1",
            "powershell -ExecutionPolicy Bypass -File install.ps1 -Remove",
        )
    else:
        commands = _commands("sh install.sh", "sh install.sh --remove")
    return [
        "## Install, and take away again",
        commands,
        f"It copies these files to `{view.base_dir}` and puts one line at the top of `~/.ssh/config`. "
        "On a machine that is managed for you this has been done already.",
        "Your key is expected at " + " or ".join(f"`{path}`" for path in _keys(view)) + ".",
    ]


def _keys(view: ClientView) -> List[str]:
    return sorted({path for host in view.entries for path in (host.identity_files or view.identity_files)})


def _hosts(view: ClientView) -> List[str]:
    if not view.hosts and not view.patterns:
        return ["## Your hosts", "None yet. You get names here when somebody makes you owner or member of a workspace."]
    table = ["| type | and you are |", "|---|---|"]
    for host in (*(jump for jump in view.jumps if jump.login), *view.hosts, *view.patterns):
        names = " or ".join(f"`{_ssh(view)} {alias}`" for alias in host.aliases)
        machine = host.kind == "host" or host in view.jumps
        what = host.reason or ("on a machine" if machine else "in a workspace")
        table.append(f"| {names} | {what}, as {host.user} |")
        if host.tmux:
            table.append(
                f"| `{_ssh(view)} {host.tmux_alias}` | there, in tmux: what runs in it outlives the connection |"
            )
        if host.mosh_ports:
            table.append(
                f"| `{_tool(view)} mosh {host.aliases[0]}` | there, by mosh: for bad lines (needs mosh here) |"
            )
    example = next((host.aliases[0] for host in view.hosts), "")
    paragraphs = ["## Your hosts", "\n".join(table)]
    if example:
        commands = [f"{_ssh(view, 'scp')} FILE {example}:", f"{_ssh(view, 'sftp')} {example}"]
        if view.platform != "windows":
            commands.append(
                f"rsync -e '{_ssh(view)}' -a DIRECTORY {example}:"
                if _ssh(view) != "ssh"
                else f"rsync -a DIRECTORY {example}:"
            )
        commands.append(f"code --remote ssh-remote+{example} .")
        paragraphs += ["They serve every program that uses ssh:", _commands(*commands)]
    closed = [host.aliases[0] for host in view.jumps if not host.login]
    if closed:
        names = ", ".join(f"`{name}`" for name in closed)
        paragraphs.append(
            f"The way there leads through {names}, by itself. Logging in to it is refused, and meant to be: "
            f"`{_ssh(view)} {closed[0]}` ends with an error."
        )
    return paragraphs


def _forwards(view: ClientView, ports: Ports) -> List[str]:
    lines: List[str] = []
    for host in view.entries:
        for forward in host.forwards:
            port = ports[(host.aliases[0], forward.name)]
            lines.append(f"- {forward.name} on {host.aliases[0]}: http://127.0.0.1:{port}{forward.path}")
    if not lines:
        return []
    return ["## On your own machine", "While you are logged in there:", "\n".join(lines)]


def _agents(view: ClientView) -> List[str]:
    if not view.agents or view.platform == "windows":
        return []
    users: Dict[str, List[str]] = {}
    for host in view.entries:
        if host.agent:
            users.setdefault(host.agent, []).append(host.aliases[0])
    commands = [
        f"{_tool(view)} agent {agent.name}    # for {', '.join(users.get(agent.name, ['nothing yet']))}"
        for agent in view.agents
    ]
    return [
        "## Git from there with a key that stays here",
        "A project has an ssh-agent of its own, which is lent to its workspaces while you are connected. Nothing else "
        "of yours is. Start it and load the project's key:",
        _commands(*commands),
    ]


def _sharing(view: ClientView) -> List[str]:
    if view.platform == "windows":
        return ["## Connections", "ssh on Windows cannot share connections: each command opens its own."]
    shared = [host for host in view.hosts if persist(host, view) is not None]
    if not shared:
        return ["## Connections", "Every command opens its own connection; that is this kit's setting."]
    return [
        "## Connections",
        "The first command to a host opens a connection, the next ones use it and start at once. See and close them:",
        _commands(_tool(view), f"{_tool(view)} close {shared[0].aliases[0]}", f"{_tool(view)} close --all"),
        "So that the first command of the day does not wait either, the way in can be opened when you log in to your "
        "own machine:",
        _commands(f"{_tool(view)} prewarm on", f"{_tool(view)} prewarm off"),
        "If your line falls silent, ssh notices after at most "
        f"{view.server_alive_interval * (view.server_alive_count + 1)} seconds, and the next command connects again.",
    ]


def _trouble(view: ClientView) -> List[str]:
    target: Optional[Host] = next(iter(view.hosts), None)
    whom = view.contact or "the people who gave you this kit"
    rows = [
        ("Permission denied (publickey)", "your key is not the one that was registered, or your access has ended"),
        ("Host key verification failed", "the host is not the one we know. Do not work around it: tell " + whom),
        (
            "open failed: administratively prohibited",
            "you have no access to that host: it is not one of the names above, or no longer",
        ),
        ("Connection timed out", "the network you are in is not allowed, or the way in is down"),
    ]
    if any(host.forwards for host in view.entries):
        rows.append(("Address already in use", "another ssh holds that local port; the login works all the same"))
    if any(host.agent for host in view.entries) and view.platform != "windows":
        rows.append(("Cannot forward agent socket path", "the project's agent is not running; see above"))
    table = ["| ssh says | it means |", "|---|---|", *(f"| {says} | {means} |" for says, means in rows)]
    paragraphs = ["## When it does not work", "\n".join(table)]
    if target is not None:
        paragraphs.append(f"What is tried, step by step: `{_ssh(view)} -v {target.aliases[0]}`. Ask: {whom}.")
    return paragraphs
