# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also a program of the host, which prints and exits
"""Does this host's sshd do what one of its configuration files asks for?

sshd takes the first value that it finds for a keyword, so another file, a line above the Include, a Match block
or an option on the command line can undo a policy without any error. This compares the effective configuration
(sshd -T, once per class of user) with the file, and names the file and the line behind every difference.

The roles install this file on hosts as a program, with a first line that makes it one: standard library only, and
nothing of Ansible.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import getopt
import glob
import grp
import ipaddress
import os
import pwd
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

SSHD_CONFIG = "/etc/ssh/sshd_config"
USER_LISTS = ("denyusers", "allowusers", "denygroups", "allowgroups")
# What a unit puts on sshd's command line wins over every file. The first of them that is there is the host's; what
# several directories have counts from the first.
UNITS = ("ssh.service", "sshd.service")
UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
# Options of sshd: of these, the ones that say something about its configuration go to sshd -T.
OPTIONS = "C:E:b:c:f:g:h:k:o:p:u:46DGQRTdeiqrtV"
CONFIGURING = ("-o", "-p", "-h", "-c", "-f", "-4", "-6")
# One keyword under two names, and one value under two names.
SAME_KEYWORD = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "skeyauthentication": "kbdinteractiveauthentication",
}
SAME_VALUE = {"prohibit-password": "without-password"}
# sshd from 9.8 hands its configuration on in one message of at most 256 KiB. Above, every login dies, and sshd -t says
# nothing; so stay well below.
SIZE_LIMIT = 200 * 1024
# Whoever comes from nowhere that any file mentions.
SOMEWHERE = ("192.0.2.1", "2001:db8::1")
# Every line of these counts, not only the first.
CUMULATIVE = ("port", "listenaddress", "hostkey", "hostcertificate")
# Says several things, of which a file may say some; sshd prints all.
PARTIAL = frozenset({"persourcepenalties"})


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


@dataclass(frozen=True)
class Source:
    """One file that sshd reads: its bytes, and the Match block (if any) in which it is included."""

    size: int
    match: str


def canonical(keyword: str) -> str:
    """One name for a keyword, in lower case."""
    lowered = keyword.lower()
    return SAME_KEYWORD.get(lowered, lowered)


def _value(text: str) -> str:
    lowered = " ".join(text.replace('"', "").split()).lower()
    return SAME_VALUE.get(lowered, lowered)


def read_settings(
    path: str, match: str = "", root: str = "", depth: int = 0, files: Optional[dict[str, Source]] = None
) -> list[Setting]:
    """Every setting in the order in which sshd reads them, Includes followed. `files` learns what was read."""
    try:
        with open(root + path, encoding="utf-8", errors="replace") as handle:
            text = handle.read()
    except OSError:
        return []
    lines = text.splitlines()
    if files is not None:
        files.setdefault(path, Source(len(text.encode("utf-8")), match))
    found: list[Setting] = []
    for number, line in enumerate(lines, 1):
        parsed = re.match(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*?)\s*$", line)
        if not parsed:
            continue
        keyword, value = canonical(parsed.group(1)), re.sub(r"\s+#.*$", "", parsed.group(2))
        if keyword == "match":
            match = "" if value.lower() == "all" else value
        elif keyword == "include" and depth < 16:
            for pattern in value.replace('"', "").split():
                absolute = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
                for name in sorted(glob.glob(root + absolute)):
                    found += read_settings(name[len(root) :], match, root, depth + 1, files)
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
    asked: list[Setting], effective: dict[str, list[str]], blamable: list[Setting]
) -> list[tuple[str, str]]:
    """What is not as asked, as "X is Y" and "asked: Z. Who says so"."""
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
        if keyword in PARTIAL and {word for one in want for word in one.split()} <= set(" ".join(have).split()):
            continue
        because = "; ".join(f"{one.where} says {one.value}" for one in blamable if one.keyword == keyword)
        found.append(
            (f"{keyword} is {' '.join(have)!r}", f"asked: {' '.join(want)!r}. {because or 'Nothing says why'}.")
        )
    return found


def blamable(settings: list[Setting], policy: str) -> list[Setting]:
    """Settings of other files that can win over the policy's: read earlier, in a Match block, or adding to it."""
    places = [index for index, setting in enumerate(settings) if setting.path == policy]
    first = places[0] if places else len(settings)
    return [
        setting
        for index, setting in enumerate(settings)
        if setting.path != policy and (index < first or setting.match or setting.keyword in CUMULATIVE)
    ]


def _with_port(address: str, asked: list[Setting]) -> str:
    port = next((setting.value for setting in asked if setting.keyword == "port"), "22")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def loosened(asked: list[Setting], others: list[Setting], allowed: frozenset[str]) -> list[str]:
    """Match blocks of other files that change for somebody what the policy sets for everybody."""
    mine: dict[str, set[str]] = {}
    for setting in asked:
        mine.setdefault(setting.keyword, set()).add(_value(setting.value))
    return [
        f"{setting.where} sets {setting.keyword} {setting.value}, which the policy sets for everybody"
        for setting in others
        if setting.match
        and setting.keyword in mine
        and setting.keyword not in allowed
        # One that says the same changes nothing.
        and mine[setting.keyword] != {_value(setting.value)}
    ]


def not_read(policy: str, files: dict[str, Source], config: str) -> list[str]:
    """The policy stands in a file that sshd does not read, or reads for some people only."""
    if policy in files and not files[policy].match:
        return []
    directory = os.path.dirname(policy)
    return [
        f"{config} does not include {policy}, so it has no effect. "
        f"Put this line at the top of {config}: Include {directory}/*.conf"
    ]


def too_large(files: dict[str, Source]) -> list[str]:
    """More than sshd can hand on to the process that answers a connection."""
    whole = sum(source.size for source in files.values())
    if whole <= SIZE_LIMIT:
        return []
    largest = sorted(files, key=lambda path: -files[path].size)[:3]
    return [
        f"sshd's whole configuration has {whole // 1024} KiB, most of it in {', '.join(largest)}. From 9.8 sshd takes "
        f"256 KiB, and above that every login dies; {SIZE_LIMIT // 1024} are allowed here. What differs from person to "
        "person belongs into their key files (permitopen=)."
    ]


def _matches(pattern: str, user: str, address: str) -> Optional[bool]:
    """Whether one word of AllowUsers or DenyUsers means somebody. None: it depends on where they come from."""
    name, at, host = pattern.partition("@")
    if not fnmatch.fnmatchcase(user, name.replace("[", "[[]")):
        return False
    if not at:
        return True
    if not address:
        return None
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(host, strict=False)
    except ValueError:
        if re.search("[g-z]", host):
            return None  # a host's name
        return fnmatch.fnmatchcase(address, host.replace("[", "[[]"))


def shut_out(user: str, address: str, groups: list[str], effective: dict[str, list[str]]) -> str:
    """The keyword that keeps somebody out who has a good key, if any. In sshd's order."""
    user, groups = user.lower(), [group.lower() for group in groups]  # what sshd -T says is compared in lower case
    words = {keyword: " ".join(effective.get(keyword, [])).split() for keyword in USER_LISTS}
    allowed = words["allowusers"]
    in_groups = {
        # No address stands behind a group's @: a directory's groups may have one in their names.
        keyword: any(
            fnmatch.fnmatchcase(group, word.replace("[", "[[]")) for group in groups for word in words[keyword]
        )
        for keyword in ("denygroups", "allowgroups")
    }
    if any(_matches(word, user, address) for word in words["denyusers"]):
        return "denyusers"
    if allowed and all(_matches(word, user, address) is False for word in allowed):
        return "allowusers"
    if in_groups["denygroups"]:
        return "denygroups"
    if words["allowgroups"] and not in_groups["allowgroups"]:
        return "allowgroups"
    return ""


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


@dataclass(frozen=True)
class Word:
    """One word of a command line, and the line that it comes from."""

    text: str
    path: str
    line: int


@dataclass(frozen=True)
class CommandLine:
    """What sshd was or will be started with: options for sshd -T, the settings among them, and the file it reads."""

    options: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    config: str = ""


def unit_lines(root: str = "") -> list[tuple[str, str, str, int]]:
    """KEY=VALUE of sshd's unit and of its drop-ins, in systemd's order, each with file and line."""
    found = [
        f"{place}/{unit}" for unit in UNITS for place in UNIT_DIRECTORIES if os.path.isfile(f"{root}{place}/{unit}")
    ]
    drop_ins: dict[str, str] = {}
    for place in UNIT_DIRECTORIES:
        # Debian's sshd.service is another name of ssh.service, and brings its drop-ins along.
        for unit in (*UNITS, "service"):
            for path in glob.glob(f"{root}{place}/{unit}.d/*.conf"):
                drop_ins.setdefault(os.path.basename(path), path[len(root) :])
    lines = []
    for path in [*found[:1], *(drop_ins[name] for name in sorted(drop_ins))] if found else []:
        lines += [(key, value, path, number) for number, key, value in _assignments(root + path)]
    return lines


def _assignments(path: str) -> list[tuple[int, str, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            lines = handle.read().splitlines()
    except OSError:
        return []
    found, whole, first = [], "", 0
    for number, line in enumerate(lines, 1):
        whole, first = (f"{whole} {line}", first) if whole else (line, number)
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        key, equals, value = whole.strip().partition("=")
        if equals and key[:1] not in ("#", ";", "["):
            found.append((first, key.strip(), value.strip()))
        whole = ""
    return found


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _variables(lines: list[tuple[str, str, str, int]], root: str) -> dict[str, Word]:
    """The environment that a unit gives; what comes from a file counts more."""
    found: dict[str, Word] = {}
    for key, value, path, number in lines:
        if key == "Environment":
            for pair in _split(value):
                name, _equals, text = pair.partition("=")
                found[name] = Word(text, path, number)
    for key, value, _path, _number in lines:
        if key == "EnvironmentFile":
            name = value.lstrip("-")
            for number, variable, text in _assignments(root + name):
                found[variable] = Word(" ".join(_split(text)), name, number)
    return found


def unit_command(root: str = "") -> list[Word]:
    """The words that the unit starts sshd with, where there is a unit."""
    lines = unit_lines(root)
    variables = _variables(lines, root)
    starts = [(value, path, number) for key, value, path, number in lines if key == "ExecStart"]
    if not starts or not starts[-1][0]:
        return []
    value, path, number = starts[-1]
    words = []
    for text in _split(value.lstrip("@-:+!")):
        whole = re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", text)
        known = variables.get(whole.group(1)) if whole else None
        if known:
            words += [Word(part, known.path, known.line) for part in _split(known.text)]
        elif not whole:
            text = re.sub(
                r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}",
                lambda name: variables.get(name.group(1), Word("", "", 0)).text,
                text,
            )
            words.append(Word(text.replace("%%", "%"), path, number))
    return words


def running_command(proc: str = "/proc") -> list[Word]:
    """The words that the sshd which listens now was started with, as its title shows them. Not that of a container."""
    for path in glob.glob(f"{proc}/[0-9]*/cgroup"):
        process = os.path.dirname(path)
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                units = [line.rstrip("\n").rsplit("/", 1)[-1] for line in handle]
            if not set(units) & set(UNITS) or os.readlink(f"{process}/ns/pid") != os.readlink(f"{proc}/self/ns/pid"):
                continue
            with open(f"{process}/cmdline", encoding="utf-8", errors="replace") as handle:
                title = handle.read().replace("\0", " ")
        except OSError:
            continue
        shown = re.match(r"sshd: (.*) \[listener\]", title)
        if shown:
            return [Word(text, f"{process}/cmdline", 1) for text in _rejoined(shown.group(1).split())]
    return []


def _rejoined(words: list[str]) -> list[str]:
    """Options with a space in them, which a title does not quote: the next word with a dash begins the next one."""
    found: list[str] = []
    for word in words:
        if len(found) > 1 and found[-2] == "-o" and not word.startswith("-"):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def understood(words: list[Word]) -> CommandLine:
    """What a command line says about the configuration."""
    try:
        pairs, _rest = getopt.getopt([word.text for word in words[1:]], OPTIONS)
    except getopt.GetoptError:
        pairs = []
    options: list[str] = []
    settings: list[Setting] = []
    config = ""
    for option, value in pairs:
        if option not in CONFIGURING:
            continue
        options += [option, value] if value else [option]
        config = value if option == "-f" else config
        parsed = re.match(r"([A-Za-z0-9]+)[=\s]\s*(.*)$", value if option == "-o" else f"port={value}")
        if option in ("-o", "-p") and parsed:
            source = next(word for word in words[1:] if word.text.endswith(value))
            settings.append(Setting(source.path, source.line, canonical(parsed.group(1)), parsed.group(2)))
    return CommandLine(tuple(options), tuple(settings), config)


def command_lines(root: str = "", proc: str = "/proc") -> list[CommandLine]:
    """How sshd will be started, and how the one that runs was, where that is something else."""
    unit, running = unit_command(root), running_command(proc)
    shown = [" ".join(word.text for word in words) for words in (unit, running)]
    return [understood(unit), *([understood(running)] if running and shown[0] != shown[1] else [])]


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


def ask(
    sshd: str, options: list[str], user: str, address: str = SOMEWHERE[0], port: str = "22"
) -> tuple[dict[str, list[str]], str]:
    """The configuration in effect for somebody, and why sshd does not say it."""
    spec = f"user={user},host=unknown.invalid,addr={address},laddr=192.0.2.2,lport={port}"
    run = subprocess.run([sshd, "-T", *options, "-C", spec], capture_output=True, text=True, check=False)
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
    time.sleep(0.3)  # what listened may have been the old sshd, on its way out
    return ports - listening_ports()


def criteria(match: str) -> Optional[dict[str, list[str]]]:
    """The users, groups and addresses that a Match line names. None: it asks for something else as well."""
    words = re.sub(r"\s*=\s*", " ", match).replace('"', "").split()
    found = {words[at].lower(): words[at + 1].split(",") for at in range(0, len(words) - 1, 2)}
    return found if len(words) == 2 * len(found) and set(found) <= {"user", "group", "address"} else None


def _fits(patterns: list[str], values: list[str]) -> bool:
    refused = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]

    def fits(pattern: str) -> bool:
        return any(fnmatch.fnmatchcase(value.lower(), pattern.lower().replace("[", "[[]")) for value in values)

    return any(fits(pattern) for pattern in wanted) and not any(fits(pattern) for pattern in refused)


def addresses_of(patterns: Iterable[str]) -> list[str]:
    """Addresses that stand for what a Match line's Address means: both ends of a network, one for a pattern."""
    found = []
    for pattern in (one for one in patterns if not one.startswith("!")):
        try:
            network = ipaddress.ip_network(pattern, strict=False)
            found += [str(network[0]), str(network[-1])]
        except ValueError:
            if ":" in pattern:
                found.append(pattern.replace("?", "1").replace("*", "1" if pattern.endswith("::*") else ":1"))
            elif pattern == "*":
                found += SOMEWHERE
            else:
                parts = pattern.replace("*", "1").replace("?", "1").split(".")
                found.append(".".join([*parts, "1", "1", "1"][:4]))
    return list(dict.fromkeys(found))


def lookalikes(
    asked: list[Setting], earlier: list[Setting], members: dict[str, list[str]]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Match blocks that sshd reads before the policy's own block win over it: whom to ask for because of them.

    (member, address) pairs, and in words what cannot be tried out from here. `members` are names with their groups.
    """
    mine = {setting.keyword: _value(setting.value) for setting in reversed(asked)}
    pairs: dict[tuple[str, str], None] = {}
    unclear = []
    for setting in earlier:
        if not setting.match or mine.get(setting.keyword, _value(setting.value)) == _value(setting.value):
            continue
        if setting.match.lower() == "invalid-user":
            continue
        block = criteria(setting.match)
        if block is None:
            unclear.append(
                f"{setting.where} sets {setting.keyword} {setting.value}, which may be for members of the policy's "
                f"group ({asked[0].where} and below). Say for whom it is: Match with User, Group or Address"
            )
            continue
        users = [name for name in members if _fits(block.get("user", ["*"]), [name])]
        users = [name for name in users if _fits(block.get("group", ["*"]), members[name])]
        for address in addresses_of(block.get("address", ["*"])):
            pairs.update(dict.fromkeys((user, address) for user in users))
    return list(pairs), unclear


def members_of(group: str) -> list[str]:
    """The accounts that are in a group of this host."""
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return []
    return sorted({one.pw_name for one in pwd.getpwall() if one.pw_gid == entry.gr_gid} | set(entry.gr_mem))


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


def check(arguments: argparse.Namespace) -> list[str]:
    """Every problem found, in words."""
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd -T wants it; under ssh.socket it may not be there yet
    found = [problem for command_line in command_lines() for problem in _check(arguments, command_line)]
    return list(dict.fromkeys(found))


def _check(arguments: argparse.Namespace, command_line: CommandLine) -> list[str]:
    config = command_line.config or SSHD_CONFIG
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
    wrong: dict[tuple[str, str], dict[str, str]] = {}
    for user, address, asked in classes:
        effective, failure = ask(arguments.sshd, list(command_line.options), user, address, lport)
        if failure:
            return [failure]
        who = user if address == SOMEWHERE[0] else f"{user} from {address}"
        for difference in differences(asked, effective, suspects):
            wrong.setdefault(difference, {}).setdefault(user, who)
    keep = [(user, address) for user, _at, address in (word.rpartition("@") for word in arguments.keep)]
    for user, address in keep + [(user, "") for user in named or members[:1]]:
        effective, failure = ask(arguments.sshd, list(command_line.options), user, address or SOMEWHERE[0], lport)
        keyword = "" if failure else shut_out(user, address, groups_of(user), effective)
        if keyword:
            lines = "; ".join(f"{one.where} says {one.value}" for one in settings if one.keyword == keyword)
            whence = f" from {address}" if address else ""
            problems.append(f"{user} could not log in{whence} any more, because of {keyword}: {lines}")
    for user, _at, address in (word.rpartition("@") for word in arguments.deny):
        effective, failure = ask(arguments.sshd, list(command_line.options), user, address, lport)
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


if __name__ == "__main__":
    sys.exit(main())
