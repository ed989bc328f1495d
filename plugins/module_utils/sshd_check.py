# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also a program of the host, which prints and exits
"""Does this host's sshd do what one of its configuration files asks for?

sshd takes the first value that it finds for a keyword, so another file, a line above the Include, a Match block
or an option on the command line can undo a policy without any error. This compares the effective configuration
(sshd -T, once per class of user) with the file, and names the file and the line behind every difference.

The roles install this module and what it imports on hosts, as one program (plugin_utils/host_program.py): standard
library only, and nothing of Ansible.
"""

from __future__ import annotations

import argparse
import contextlib
import grp
import os
import pwd
import re
import subprocess
import sys
import time
from typing import Optional

from ansible_collections.devnode.gpu.plugins.module_utils import sshd_files
from ansible_collections.devnode.gpu.plugins.module_utils.sshd_command import CommandLine, command_lines
from ansible_collections.devnode.gpu.plugins.module_utils.sshd_compare import (
    SOMEWHERE,
    blamable,
    differences,
    lookalikes,
    loosened,
    parse_effective,
    shut_out,
)
from ansible_collections.devnode.gpu.plugins.module_utils.sshd_files import (
    Setting,
    Source,
    canonical,
    is_ours,
    not_read,
    read_settings,
    too_large,
)


def ask(
    sshd: str, options: list[str], user: str, address: str = SOMEWHERE[0], port: str = "22"
) -> tuple[dict[str, list[str]], str]:
    """The configuration in effect for somebody, and why sshd does not say it."""
    spec = f"user={user},host=unknown.invalid,addr={address},laddr=192.0.2.2,lport={port}"
    run = subprocess.run([sshd, "-T", *options, "-C", spec], capture_output=True, text=True, check=False)
    if run.returncode:
        return {}, f"sshd refuses its configuration: {(run.stderr or run.stdout).strip()}"
    return parse_effective(run.stdout), ""


def groups_of(user: str) -> list[str]:
    """The names of somebody's groups; each asked for, since a directory's are not listed."""
    try:
        numbers = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return []
    found = []
    for number in numbers:
        with contextlib.suppress(KeyError):
            found.append(grp.getgrgid(number).gr_name)
    return found


def members_of(group: str) -> list[str]:
    """The accounts that are in a group of this host."""
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return []
    return sorted({one.pw_name for one in pwd.getpwall() if one.pw_gid == entry.gr_gid} | set(entry.gr_mem))


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _block_of(mine: list[Setting]) -> tuple[list[str], list[str], list[Setting]]:
    """The policy's block for a group, or for people by name, if there is one: for whom, who is not there, and what."""
    for setting in mine:
        found = re.fullmatch(r"(group|user)\s+([^\s!*?]+)", setting.match, re.IGNORECASE)
        if found:
            block = [one for one in mine if one.match == setting.match]
            names = found.group(2).split(",")
            if found.group(1).lower() == "group":
                return [user for group in names for user in members_of(group)], [], block
            there = [user for user in names if _exists(user)]
            return there, [user for user in names if user not in there], block
    return [], [], []


def listening_ports(proc: str = "/proc") -> set[int]:
    """TCP ports that something on this host listens on."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"{proc}/net/{name}", encoding="ascii") as handle:
                rows = [line.split() for line in handle.read().splitlines()[1:]]
        except OSError:
            continue
        found |= {int(row[1].rsplit(":", 1)[1], 16) for row in rows if len(row) > 3 and row[3] == "0A"}
    return found


def _wait_for(ports: set[int], seconds: float) -> set[int]:
    end = time.monotonic() + seconds
    while ports - listening_ports() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.3)  # what listened may have been the old sshd, on its way out
    return ports - listening_ports()


def check(arguments: argparse.Namespace) -> list[str]:
    """Every problem found, in words."""
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd -T wants it; under ssh.socket it may not be there yet
    found = [problem for command_line in command_lines() for problem in _check(arguments, command_line)]
    return list(dict.fromkeys(found))


def _check(arguments: argparse.Namespace, command_line: CommandLine) -> list[str]:
    config = command_line.config or sshd_files.SSHD_CONFIG
    files: dict[str, Source] = {}
    in_files = read_settings(config, files=files)
    problems = not_read(arguments.policy, files, config) + too_large(files)
    settings = [*command_line.settings, *in_files]
    mine = [setting for setting in in_files if setting.path == arguments.policy]
    for_all = [setting for setting in mine if not setting.match]
    people, missing, for_members = _block_of(mine)
    # Other roles of this collection win on purpose.
    suspects = [setting for setting in blamable(settings, arguments.policy) if not is_ours(setting.path)]
    lport = next((setting.value for setting in for_all if setting.keyword == "port"), "22")
    addresses = list(dict.fromkeys([*SOMEWHERE, "127.0.0.1", *arguments.address]))
    named = [user for user in arguments.user if _exists(user)]
    members = list(dict.fromkeys([*named, *people]))
    first = next((index for index, setting in enumerate(settings) if setting in for_members), len(settings))
    earlier = [setting for setting in settings[:first] if setting.match and not is_ours(setting.path)]
    pairs, unclear = lookalikes(for_members, earlier, {user: groups_of(user) for user in members} if earlier else {})
    classes = [(user, address, for_all) for user in ("nobody", "root") for address in addresses]
    # What counts for one member counts for all, where no other file's block is in between.
    asked_for = [(user, SOMEWHERE[0]) for user in named] + [
        (user, address) for user in members[:1] for address in addresses
    ]
    classes += [(user, address, for_members) for user, address in dict.fromkeys(asked_for + pairs)]
    answers: dict[tuple[str, str], tuple[dict[str, list[str]], str]] = {}

    def effective_for(user: str, address: str) -> tuple[dict[str, list[str]], str]:
        if (user, address) not in answers:
            answers[user, address] = ask(arguments.sshd, list(command_line.options), user, address, lport)
        return answers[user, address]

    wrong: dict[tuple[str, str], dict[str, str]] = {}
    for user, address, asked in classes:
        effective, failure = effective_for(user, address)
        if failure:
            return [failure]
        who = user if address == SOMEWHERE[0] else f"{user} from {address}"
        for difference in differences(asked, effective, suspects):
            wrong.setdefault(difference, {}).setdefault(user, who)
    keep = [(user, address) for user, _at, address in (word.rpartition("@") for word in arguments.keep)]
    for user, address in keep + [(user, "") for user in named or members[:1]]:
        effective, failure = effective_for(user, address or SOMEWHERE[0])
        keyword = "" if failure else shut_out(user, address, groups_of(user), effective)
        if keyword:
            lines = "; ".join(f"{one.where} says {one.value}" for one in settings if one.keyword == keyword)
            whence = f" from {address}" if address else ""
            problems.append(f"{user} could not log in{whence} any more, because of {keyword}: {lines}")
    for user, _at, address in (word.rpartition("@") for word in arguments.deny):
        effective, failure = effective_for(user, address)
        if not failure and not shut_out(user, address, groups_of(user), effective):
            lines = "; ".join(f"{one.where} says {one.keyword} {one.value}" for one in earlier) or "nothing says why"
            problems.append(f"{user} could log in from {address}, where its keys must not count: {lines}")
    problems += [f"{what} for {_some(list(users.values()))}, {rest}" for (what, rest), users in wrong.items()]
    allowed = frozenset(canonical(word) for word in arguments.allow)
    problems += loosened(for_all, suspects, allowed) + unclear
    if arguments.there:
        problems += [f"{arguments.policy} is for {user}, who has no account on this host" for user in missing]
    if arguments.listening and not problems:
        ports = {int(setting.value) for setting in for_all if setting.keyword == "port"}
        for port in sorted(_wait_for(ports, 5)):
            problems.append(f"nothing listens on port {port}: see journalctl -u ssh -u sshd -u ssh.socket")
    return problems


def _some(users: list[str]) -> str:
    return ", ".join(users) if len(users) <= 5 else f"{', '.join(users[:5])} and {len(users) - 5} more"


def main(argv: Optional[list[str]] = None) -> int:
    """0: as asked. 1: not, and standard error says what and where."""
    parser = argparse.ArgumentParser(description="Compare sshd's effective configuration with one of its files.")
    parser.add_argument("policy", help="the file that says what is asked")
    parser.add_argument("--user", action="append", default=[], help="a member of the group in the file's Match block")
    parser.add_argument("--address", action="append", default=[], help="an address to ask for as well")
    parser.add_argument("--keep", action="append", default=[], help="USER@ADDRESS that must not be shut out")
    parser.add_argument("--deny", action="append", default=[], help="USER@ADDRESS that must not get in")
    parser.add_argument("--allow", action="append", default=[], help="a keyword that other files' Match blocks may set")
    parser.add_argument("--listening", action="store_true", help="something must listen on the policy's port, too")
    parser.add_argument("--there", action="store_true", help="whom the file's Match User names must have an account")
    parser.add_argument("--sshd", default="/usr/sbin/sshd", help="the program to ask")
    problems = check(parser.parse_args(argv))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0
