# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The accounts of this host as they are, and the processes of those that go."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from typing import Dict, List, Optional, Set

from ansible_collections.devnode.gpu.plugins.module_utils.accounts_plan import Account, Live
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import COMMAND_ENV, run_command

PATIENCE = 3.0
# What runs for an account without anybody logging in; userdel leaves it. By name: Debian's cron, others', units that go
# on. By the owner's number: jobs of at.
BY_NAME = ("/var/spool/cron/crontabs/{}", "/var/spool/cron/{}", "/var/lib/systemd/linger/{}")
BY_NUMBER = ("/var/spool/cron/atjobs", "/var/spool/at")


def read_live() -> Live:
    """The local files only: what a directory service adds is not ours to change."""
    passwords: Dict[str, List[str]] = {}
    for line in _lines("/etc/shadow"):
        fields = line.split(":")
        passwords[fields[0]] = fields
    gids: Dict[str, int] = {}
    names: Dict[int, str] = {}
    member_of: Dict[str, List[str]] = {}
    for line in _lines("/etc/group"):
        name, _password, gid, members = [*line.split(":"), "", "", ""][:4]
        gids[name] = int(gid)
        names.setdefault(int(gid), name)
        for member in filter(None, members.split(",")):
            member_of.setdefault(member, []).append(name)
    accounts: Dict[str, Account] = {}
    for line in _lines("/etc/passwd"):
        fields = line.split(":")
        if len(fields) < 7:
            continue
        name = fields[0]
        shadow = passwords.get(name, [])
        accounts[name] = Account(
            name=name,
            uid=int(fields[2]),
            group=names.get(int(fields[3]), fields[3]),
            groups=tuple(member_of.get(name, [])),
            comment=fields[4],
            home=fields[5],
            shell=fields[6],
            password=shadow[1] if len(shadow) > 1 else "",
            expires=shadow[7] if len(shadow) > 7 else "",
        )
    return Live(accounts, gids)


def _lines(path: str) -> List[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return [line.rstrip("\n") for line in stream if line.strip() and not line.startswith(("#", "+", "-"))]


def scheduled_for(name: str, uid: int, root: str = "") -> List[str]:
    """Files by which something would start for an account, also for the next one of that name or number."""
    found = [root + path.format(name) for path in BY_NAME]
    for directory in BY_NUMBER:
        try:
            entries = sorted(os.listdir(root + directory))
        except OSError:
            continue
        found += [f"{root}{directory}/{entry}" for entry in entries if _owner(f"{root}{directory}/{entry}") == uid]
    return [path for path in found if _owner(path) is not None]


def _owner(path: str) -> Optional[int]:
    """Whose file it is; None for what is no file."""
    try:
        state = os.lstat(path)
    except OSError:
        return None
    return state.st_uid if stat.S_ISREG(state.st_mode) else None


def processes_of(uids: Set[int]) -> List[int]:
    """Processes of these numbers on the host itself. A container's have the same numbers but are somebody's work."""
    own = os.readlink("/proc/self/ns/pid")
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/status", encoding="ascii", errors="replace") as stream:
                line = next(text for text in stream if text.startswith("Uid:"))
            if uids & {int(word) for word in line.split()[1:]} and os.readlink(f"/proc/{entry}/ns/pid") == own:
                found.append(int(entry))
        except (OSError, StopIteration):
            continue
    return found


def end_processes(uids: Set[int]) -> int:
    """Ask, wait a little, insist."""
    ended: Set[int] = set()
    if shutil.which("loginctl", path=COMMAND_ENV["PATH"]) and os.path.isdir("/run/systemd/users"):
        logged_in = [str(uid) for uid in sorted(uids) if os.path.exists(f"/run/systemd/users/{uid}")]
        ended.update(processes_of(uids))
        if logged_in:
            run_command({"argv": ["loginctl", "terminate-user", *logged_in], "timeout": 20})
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + PATIENCE
        pids = processes_of(uids)
        for pid in pids:
            try:
                os.kill(pid, number)
                ended.add(pid)
            except ProcessLookupError:
                continue
        while pids and time.monotonic() < end:
            time.sleep(0.05)
            pids = processes_of(uids)
        if not pids:
            break
    return len(ended)
