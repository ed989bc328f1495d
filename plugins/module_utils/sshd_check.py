#!/usr/bin/python3
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does this host's sshd do what one of its configuration files asks for?

sshd takes the first value that it finds for a keyword, so another file, a line above the Include, a Match block
or an option on the command line can undo a policy without any error. This compares the effective configuration
(sshd -T, once per class of user) with the file, and names the file and the line behind every difference.

The roles install this file on hosts as a program: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import argparse
import glob
import os
import pwd
import re
import shlex
import subprocess  # nosec
import sys
import time
from dataclasses import dataclass
from typing import Optional

SSHD_CONFIG = "/etc/ssh/sshd_config"
# Options that the distribution's unit puts on sshd's command line. They win over every file.
OPTION_FILES = {"/etc/default/ssh": "SSHD_OPTS", "/etc/sysconfig/sshd": "OPTIONS"}
# One keyword under two names, and one value under two names.
SAME_KEYWORD = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "skeyauthentication": "kbdinteractiveauthentication",
}
SAME_VALUE = {"prohibit-password": "without-password"}
# Every line of these counts, not only the first.
CUMULATIVE = ("port", "listenaddress", "hostkey")


@dataclass(frozen=True)
class Setting:
    """One line of a configuration file."""

    path: str
    line: int
    keyword: str
    value: str
    match: str = ""  # the criteria of the Match block that it stands in

    @property
    def where(self) -> str:
        """For messages."""
        inside = f" (inside Match {self.match})" if self.match else ""
        return f"{self.path}:{self.line}{inside}"


def canonical(keyword: str) -> str:
    """One name for a keyword, in lower case."""
    lowered = keyword.lower()
    return SAME_KEYWORD.get(lowered, lowered)


def _value(text: str) -> str:
    lowered = " ".join(text.replace('"', "").split()).lower()
    return SAME_VALUE.get(lowered, lowered)


def read_settings(path: str, match: str = "", root: str = "", depth: int = 0) -> list[Setting]:
    """Every setting in the order in which sshd reads them, Includes followed."""
    try:
        with open(root + path, encoding="utf-8", errors="replace") as handle:
            lines = handle.read().splitlines()
    except OSError:
        return []
    found: list[Setting] = []
    for number, text in enumerate(lines, 1):
        parsed = re.match(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*?)\s*$", text)
        if not parsed:
            continue
        keyword, value = canonical(parsed.group(1)), re.sub(r"\s+#.*$", "", parsed.group(2))
        if keyword == "match":
            match = "" if value.lower() == "all" else value
        elif keyword == "include" and depth < 16:
            for pattern in value.replace('"', "").split():
                absolute = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
                for name in sorted(glob.glob(root + absolute)):
                    found += read_settings(name[len(root) :], match, root, depth + 1)
        else:
            found.append(Setting(path, number, keyword, value, match))
    return found


def is_ours(path: str) -> bool:
    """Another role of this collection wrote the file: its Match blocks are meant."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.readline().startswith("# Managed by devnode.gpu ")
    except OSError:
        return False


def parse_effective(text: str) -> dict[str, list[str]]:
    """What sshd -T prints: keyword → values, in its order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _space, value = line.strip().partition(" ")
        if keyword:
            found.setdefault(canonical(keyword), []).append(_value(value))
    return found


def differences(
    asked: list[Setting], effective: dict[str, list[str]], others: list[Setting], who: str
) -> list[str]:
    """What is not as asked, in words, with the lines that may be to blame."""
    found = []
    for keyword in dict.fromkeys(setting.keyword for setting in asked):
        want = [_value(setting.value) for setting in asked if setting.keyword == keyword]
        if keyword not in CUMULATIVE:
            want = want[:1]
        have = effective.get(keyword)
        if keyword == "listenaddress" and have:
            want = [_with_port(value, asked) for value in want]
        if have is None or sorted(have) == sorted(want):
            continue
        blame = [setting for setting in others if setting.keyword == keyword]
        because = "; ".join(f"{setting.where} says {setting.value}" for setting in blame)
        found.append(
            f"{keyword} is {' '.join(have)!r} for {who}, asked: {' '.join(want)!r}. "
            f"{because or 'No other file says so: an option on the command line of sshd?'}"
        )
    return found


def _with_port(address: str, asked: list[Setting]) -> str:
    port = next((setting.value for setting in asked if setting.keyword == "port"), "22")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def loosened(asked: list[Setting], others: list[Setting], allowed: frozenset[str]) -> list[str]:
    """Match blocks of other files that change for somebody what the policy sets for everybody."""
    mine = {setting.keyword for setting in asked}
    return [
        f"{setting.where} sets {setting.keyword} {setting.value}, which the policy sets for everybody"
        for setting in others
        if setting.match and setting.keyword in mine and setting.keyword not in allowed
    ]


def not_read(policy: str, settings: list[Setting], config: str) -> list[str]:
    """The policy stands in a file that sshd does not read."""
    if any(setting.path == policy for setting in settings):
        return []
    directory = os.path.dirname(policy)
    return [
        f"{config} does not include {policy}, so it has no effect. "
        f"Put this line at the top of {config}: Include {directory}/*.conf"
    ]


def command_line_options(root: str = "") -> list[str]:
    """What the distribution's unit adds to sshd's command line."""
    for path, name in OPTION_FILES.items():
        try:
            with open(root + path, encoding="utf-8", errors="replace") as handle:
                lines = handle.read().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _equals, value = line.strip().partition("=")
            if key.strip() == name:
                try:
                    return [word for part in shlex.split(value) for word in shlex.split(part)]
                except ValueError:
                    return []
    return []


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


def _effective(sshd: str, options: list[str], user: str) -> tuple[dict[str, list[str]], str]:
    spec = f"user={user},host=unknown.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"
    run = subprocess.run(  # noqa: S603
        [sshd, "-T", *options, "-C", spec], capture_output=True, text=True, check=False
    )
    if run.returncode:
        return {}, f"sshd refuses its configuration: {(run.stderr or run.stdout).strip()}"
    return parse_effective(run.stdout), ""


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _wait_for(ports: set[int], seconds: float) -> set[int]:
    end = time.monotonic() + seconds
    while ports - listening_ports() and time.monotonic() < end:
        time.sleep(0.1)
    return ports - listening_ports()


def check(arguments: argparse.Namespace) -> list[str]:
    """Every problem found, in words."""
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd -T wants it; under ssh.socket it may not be there yet
    options = command_line_options()
    settings = read_settings(SSHD_CONFIG)
    problems = not_read(arguments.policy, settings, SSHD_CONFIG)
    mine = [setting for setting in settings if setting.path == arguments.policy]
    ours = {setting.path for setting in settings if is_ours(setting.path)} | {arguments.policy}
    others = [setting for setting in settings if setting.path not in ours]
    for_all = [setting for setting in mine if not setting.match]
    for_members = [setting for setting in mine if setting.match]
    classes = [("nobody", for_all), ("root", for_all)] if for_all else []
    classes += [(user, for_members) for user in arguments.user if _exists(user)]
    effective: dict[str, list[str]] = {}
    for user, asked in classes:
        effective, failure = _effective(arguments.sshd, options, user)
        if failure:
            return [failure]
        problems += differences(asked, effective, others, user)
    if not classes:
        _nothing, failure = _effective(arguments.sshd, options, "nobody")
        problems += [failure] if failure else []
    problems += loosened(for_all, others, frozenset(canonical(word) for word in arguments.allow))
    if arguments.listening and not problems:
        ports = {int(setting.value) for setting in for_all if setting.keyword == "port"}
        for port in sorted(_wait_for(ports, 5)):
            problems.append(f"nothing listens on port {port}: see journalctl -u ssh -u sshd -u ssh.socket")
    return list(dict.fromkeys(problems))


def main(argv: Optional[list[str]] = None) -> int:
    """0: as asked. 1: not, and standard error says what and where."""
    parser = argparse.ArgumentParser(description="Compare sshd's effective configuration with one of its files.")
    parser.add_argument("policy", help="the file that says what is asked")
    parser.add_argument("--user", action="append", default=[], help="a member of the group in the file's Match block")
    parser.add_argument("--allow", action="append", default=[], help="a keyword that other files' Match blocks may set")
    parser.add_argument("--listening", action="store_true", help="something must listen on the policy's port, too")
    parser.add_argument("--sshd", default="/usr/sbin/sshd", help="the program to ask")
    problems = check(parser.parse_args(argv))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
