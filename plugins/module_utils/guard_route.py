# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # runs on the controller, without a module
"""Controller side: make Ansible's own connection open a really new one.

A shared connection (``ControlMaster``) of any hop would prove nothing: it was opened before the change. OpenSSH
hands ``-F`` on to the hops of ``ProxyJump`` but not ``-o``, so the options that switch sharing off go into a
configuration file of our own, which includes the one that would have been used. A ``ProxyCommand`` that calls ssh
gets them as arguments.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

SSH_OPTIONS = ("ssh_args", "ssh_common_args", "ssh_extra_args")
SSH_WORD = re.compile(r"^\s*(?:exec\s+)?(?:\S*/)?ssh(?=\s)")
NO_SHARING = ("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ControlPersist=no")


def config_text(included: List[str], timeout: int) -> str:
    """First value wins in ssh's configuration, so ours stands at the top."""
    lines = [
        "ControlMaster no",
        "ControlPath none",
        "ControlPersist no",
        f"ConnectTimeout {timeout}",
        "ServerAliveInterval 1",
        "ServerAliveCountMax 3",
        *(f"Include {_config_word(path)}" for path in included),
    ]
    return "\n".join(lines) + "\n"


def _config_word(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def split_config(words: List[str]) -> Tuple[List[str], Optional[str]]:
    """Arguments without ``-F FILE``, ``-S PATH`` and ``-M``; and that file."""
    rest: List[str] = []
    config: Optional[str] = None
    pending = ""
    for word in words:
        if pending:
            if pending == "-F":
                config = word
            pending = ""
        elif word in ("-F", "-S"):
            pending = word
        elif word.startswith("-F"):
            config = word[2:]
        elif word != "-M" and not word.startswith("-S"):
            rest.append(word)
    return rest, config


def unshared_proxy(command: str, config: str) -> str:
    """A ``ProxyCommand`` whose ssh shares no connection. Other programs have nothing to share."""
    match = SSH_WORD.match(command)
    if not match:
        return command
    options = list(NO_SHARING)
    rest = command[match.end() :]
    if not re.search(r"(^|\s)-F", rest):
        options = ["-F", config, *options]
    return command[: match.end()] + " " + " ".join(shlex.quote(word) for word in options) + rest


def effective_proxy(words: List[str], executable: str, host: str) -> Optional[str]:
    """The ProxyCommand that ssh would use with these arguments, from arguments and configuration files."""
    done = subprocess.run(
        [executable, "-G", *words, "--", host],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=30,
        universal_newlines=True,
    )
    for line in done.stdout.splitlines():
        key, _space, value = line.partition(" ")
        if key.lower() == "proxycommand" and value.lower() != "none":
            return value
    return None


class Route:
    """Two ways to the host, each a context in which the connection plugin opens new connections only: the way the
    controller will come next time, and the way it came until now."""

    def __init__(self, new: Callable[[], Any], old: Callable[[], Any], directory: str = "") -> None:
        self.new = new
        self.old = old
        self.directory = directory

    def close(self) -> None:
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)


def new_route(connection: Any, guard: Dict[str, Any]) -> Route:
    changes: Dict[str, Any] = {}
    if guard.get("host"):
        changes["host"] = str(guard["host"])
    if guard.get("port"):
        changes["port"] = int(guard["port"])
    name = str(getattr(connection, "ansible_name", None) or getattr(connection, "_load_name", ""))
    if name.rpartition(".")[2] != "ssh":
        return Route(lambda: _reset(connection, changes), lambda: _reset(connection, {}))
    directory = tempfile.mkdtemp(prefix="devnode-guard-")
    return Route(lambda: _ssh(connection, changes, directory), lambda: _ssh(connection, {}, directory), directory)


@contextlib.contextmanager
def _options(connection: Any, changes: Dict[str, Any]) -> Iterator[None]:
    before = {key: connection.get_option(key) for key in changes}
    try:
        for key, value in changes.items():
            connection.set_option(key, value)
        yield
    finally:
        for key, value in before.items():
            connection.set_option(key, value)


@contextlib.contextmanager
def _reset(connection: Any, changes: Dict[str, Any]) -> Iterator[None]:
    """Any other connection plugin: close what it holds, so that the next command opens a new one."""
    renamed = {"remote_addr" if key == "host" else key: value for key, value in changes.items()}
    with _options(connection, renamed):
        with contextlib.suppress(AttributeError):
            connection.reset()
        yield
    with contextlib.suppress(AttributeError):
        connection.reset()


@contextlib.contextmanager
def _ssh(connection: Any, changes: Dict[str, Any], directory: str) -> Iterator[None]:
    timeout = min(int(connection.get_option("timeout") or 10), 5)
    words: Dict[str, List[str]] = {}
    config: Optional[str] = None
    for option in SSH_OPTIONS:
        words[option], found = split_config(shlex.split(connection.get_option(option) or ""))
        config = found or config
    if config is None:
        included = [os.path.expanduser("~/.ssh/config"), "/etc/ssh/ssh_config"]
    else:
        included = [] if config == "none" else [os.path.abspath(os.path.expanduser(config))]
    path = os.path.join(directory, "config")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(config_text([name for name in included if os.path.exists(name)], timeout))
    first = ["-F", path, *NO_SHARING, "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3"]
    host = str(changes.get("host") or connection.get_option("host") or connection._play_context.remote_addr)
    everything = [*first, *words["ssh_args"], *words["ssh_common_args"], *words["ssh_extra_args"]]
    port = changes.get("port") or connection.get_option("port")
    resolve = [*everything, "-p", str(port)] if port else everything
    proxy = effective_proxy(resolve, connection.get_option("ssh_executable") or "ssh", host)
    if proxy:
        first += ["-o", "ProxyCommand=" + unshared_proxy(proxy, path)]
    text = {option: " ".join(shlex.quote(word) for word in words[option]) for option in SSH_OPTIONS}
    text["ssh_args"] = " ".join(shlex.quote(word) for word in first) + " " + text["ssh_args"]
    with _options(connection, {**changes, **text, "timeout": timeout, "reconnection_retries": 0}):
        yield
