# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh session that a module runs in: whom must a new policy never lock out?

sudo and su drop SSH_CONNECTION from the environment, so it is looked for in the processes above this one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Session:
    """Who is connected, from where, to which address of this host."""

    user: str
    client: str
    server: str
    server_port: int


def parse_connection(text: str) -> Optional[tuple[str, str, int]]:
    """SSH_CONNECTION, "client port server port", as (client, server, server port)."""
    words = text.split()
    if len(words) != 4 or not words[3].isdigit():
        return None
    return _plain(words[0]), _plain(words[2]), int(words[3])


def _plain(address: str) -> str:
    mapped = "::ffff:"
    address = address.split("%", 1)[0]
    return address[len(mapped) :] if address.startswith(mapped) and "." in address else address


def current(pid: Optional[int] = None, proc: str = "/proc") -> Optional[Session]:
    """The session above a process (this one), or None: a local run, or a connection that is not ssh."""
    pid = pid or os.getpid()
    while pid > 1:
        found = _from_environment(pid, proc)
        if found:
            return found
        pid = _parent(pid, proc)
    return None


def _from_environment(pid: int, proc: str) -> Optional[Session]:
    try:
        with open(f"{proc}/{pid}/environ", "rb") as handle:
            pairs = (pair.partition(b"=") for pair in handle.read().split(b"\0"))
    except OSError:
        return None
    environment = {name.decode("ascii", "replace"): value.decode("utf-8", "replace") for name, _equals, value in pairs}
    ends = parse_connection(environment.get("SSH_CONNECTION", ""))
    if ends is None:
        return None
    # sshd sets both. The owner of the process says less: it may have become sudo itself, and be root's.
    user = environment.get("LOGNAME") or environment.get("USER") or "root"
    return Session(user, *ends)


def _parent(pid: int, proc: str) -> int:
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            # The name of the program stands in brackets and may hold anything.
            return int(handle.read().rsplit(")", 1)[1].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
