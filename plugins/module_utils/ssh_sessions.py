# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also a program of the host, which prints and exits
"""Ends ssh sessions that the keys which are in place now would not give any more, and no others.

sshd decides at the login, and never again: who loses a key or a target would keep what their open connections have.
So after a change this looks at the open sessions of the people concerned. One ends when its key is gone, or when the
key had something at its login that it has no longer (a connection through a bastion may open its old targets at any
time). What it was logged in with says sshd's own log, which no user can write. What cannot be told counts as lost.

The roles install this file on hosts as a program, with a first line that makes it one: standard library only, and
nothing of Ansible.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import syslog
import time
from dataclasses import dataclass, field
from typing import Dict, FrozenSet, Iterable, List, Mapping, Optional, Set, Tuple

PROGRAMS = ("sshd", "sshd-session")  # the second from OpenSSH 9.8 on
PATIENCE = 3.0
SLACK = 2.0  # seconds by which the clocks of files and processes may differ
EVERYTHING = "*"
ACCEPTED = re.compile(
    # "Partial": a code was asked for as well, and the line that accepts that says nothing of the key.
    r"(?:Accepted|Partial) publickey for (?P<user>\S+) from (?P<address>\S+) port (?P<port>\d+) ssh2: "
    r"\S+ (?P<fingerprint>SHA256:[A-Za-z0-9+/]+)(?P<rest>.*)",
    re.DOTALL,
)
# One key of an authorized_keys line: its type, then the key itself.
_KEY = re.compile(r"(?:^|\s)(?:(?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.-]+)\s+([A-Za-z0-9+/]{20,}={0,2})(?:\s|$)")
# What follows for a certificate, whose identity (ID …) may hold anything.
_AUTHORITY = re.compile(r" ID .* CA \S+ (SHA256:[A-Za-z0-9+/]+)\s*$", re.DOTALL)
_OPEN = re.compile(r'permitopen="([^"]*)"', re.IGNORECASE)

# What each key of a person gives, by its fingerprint. An authority's key gives what its certificates give.
Rights = Dict[str, FrozenSet[str]]
# The key of a session, and what made it count: itself, or the authority that signed it.
Login = Tuple[str, str]


@dataclass(frozen=True)
class Session:
    """One open connection of somebody who has logged in."""

    user: str
    monitor: int  # sshd's process that stays root
    child: int  # the one that runs as the user
    started: float
    tail: Tuple[int, ...] = ()  # what hangs on it


@dataclass(frozen=True)
class Person:
    """Whose sessions are looked at: what their keys give now, what they gave before, and when that changed."""

    now: Rights = field(default_factory=dict)
    before: Optional[Rights] = None  # None: not known
    changed: float = float("inf")
    revoked: FrozenSet[str] = frozenset()  # keys that no longer count, listed or certified


def rights(text: str) -> Rights:
    """What the keys of an authorized_keys file give."""
    found: Dict[str, FrozenSet[str]] = {}
    for line in text.splitlines():
        key = None if line.lstrip().startswith("#") else _KEY.search(line)
        if not key:
            continue
        try:
            blob = base64.b64decode(key.group(1), validate=True)
        except (binascii.Error, ValueError):
            continue
        digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        given = targets(line[: key.start()])
        fingerprint = f"SHA256:{digest}"
        # sshd takes the first line that fits, so only what both give is sure.
        found[fingerprint] = found[fingerprint] & given if fingerprint in found else given
    return found


def targets(options: str) -> FrozenSet[str]:
    """The places that a key's options open."""
    words = {word.strip().lower() for word in re.sub(r'"[^"]*"', "", options).split(",")}
    if "restrict" in words and "port-forwarding" not in words:
        return frozenset()
    return frozenset(_OPEN.findall(options)) or frozenset({EVERYTHING})


def lost(before: Optional[FrozenSet[str]], now: FrozenSet[str]) -> FrozenSet[str]:
    """What a key gave and does not give any more."""
    if EVERYTHING in now:
        return frozenset()
    return frozenset({EVERYTHING}) if before is None else before - now


def reason(session: Session, login: Login, person: Person) -> str:
    """Why a session must end; nothing when it may stay."""
    if session.started > person.changed + SLACK:
        return ""  # sshd has read the present keys for it
    key, fingerprint = login
    if key in person.revoked:
        return f"its key {key} was revoked"
    if not fingerprint:
        shrunk = person.before is None or any(
            one not in person.now or lost(given, person.now[one]) for one, given in person.before.items()
        )
        return "nobody can tell its key, and keys or targets were taken away" if shrunk else ""
    if fingerprint not in person.now:
        return f"its key {fingerprint} was removed"
    before = None if person.before is None else person.before.get(fingerprint)
    gone = lost(before, person.now[fingerprint])
    return f"its key {fingerprint} may no longer reach {', '.join(sorted(gone))}" if gone else ""


def fingerprints(entries: Iterable[Mapping[str, object]], sessions: Iterable[Session]) -> Dict[int, Login]:
    """From sshd's log: the key of each session, by its process."""
    by_process = {session.monitor: session for session in sessions}
    found: Dict[int, Login] = {}
    for entry in entries:
        try:
            number, when = int(str(entry["_PID"])), int(str(entry["__REALTIME_TIMESTAMP"])) / 1e6
        except (KeyError, ValueError):
            continue
        session, said = by_process.get(number), ACCEPTED.match(str(entry.get("MESSAGE", "")))
        # A process of the same number may have been somebody else's before.
        if session and said and said.group("user") == session.user and when >= session.started - SLACK:
            signed = _AUTHORITY.match(said.group("rest"))
            key = said.group("fingerprint")
            found[number] = (key, signed.group(1) if signed else key)
    return found


# --- the host --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Process:
    number: int
    parent: int
    uid: int
    name: str
    started: float


def _processes(proc: str = "/proc") -> Dict[int, _Process]:
    with open(f"{proc}/uptime", encoding="ascii") as stream:
        boot = time.time() - float(stream.read().split()[0])
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            with open(f"{proc}/{entry}/stat", encoding="utf-8", errors="replace") as stream:
                text = stream.read()
            uid = os.stat(f"{proc}/{entry}").st_uid
        except OSError:
            continue
        # The name stands in brackets and may hold anything.
        name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        number = int(entry)
        found[number] = _Process(number, int(rest[1]), uid, name, boot + int(rest[19]) / ticks)
    return found


def find_sessions(processes: Mapping[int, _Process], users: Mapping[int, str]) -> List[Session]:
    """The open sessions of these people (uid → name): sshd's process of theirs below one of root's."""
    children: Dict[int, List[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.number)
    found = []
    for process in processes.values():
        monitor = processes.get(process.parent)
        if process.uid not in users or process.name not in PROGRAMS or monitor is None:
            continue
        if monitor.uid == 0 and monitor.name in PROGRAMS:
            tail = tuple(_below(process.number, children))
            found.append(Session(users[process.uid], monitor.number, process.number, monitor.started, tail))
    return sorted(found, key=lambda session: session.monitor)


def _below(number: int, children: Mapping[int, List[int]]) -> List[int]:
    found = []
    for child in children.get(number, []):
        found += [child, *_below(child, children)]
    return found


def _journal(sessions: Iterable[Session]) -> List[Mapping[str, object]]:
    matches = [f"_PID={session.monitor}" for session in sessions]
    argv = ["journalctl", "--quiet", "--no-pager", "--boot", "--output=json", *matches]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in done.stdout.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _load(path: str) -> Optional[Dict[str, Rights]]:
    """What everybody had; None when that is not known."""
    try:
        raw = json.loads(_read(path))
        return {user: {key: frozenset(given) for key, given in keys.items()} for user, keys in raw.items()}
    except (ValueError, AttributeError, TypeError):
        return None


def _save(path: str, people: Mapping[str, Person]) -> None:
    content = {name: {key: sorted(given) for key, given in person.now.items()} for name, person in people.items()}
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)
        json.dump(content, stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(f"{path}.new", path)


def people_of(directory: str, state: str) -> Dict[str, Person]:
    """Everybody who has or had a file of keys here. Beside it lie, where certificates count, their authorities."""
    known = _load(state)
    base = os.path.dirname(directory.rstrip("/"))
    common = [os.path.join(base, "user_ca"), os.path.join(base, "revoked_keys")]
    authorities, revoked = (frozenset(rights(_read(path))) for path in common)
    names = set(os.listdir(directory)) if os.path.isdir(directory) else set()
    found = {}
    for name in sorted(names | set(known or {})):
        path = os.path.join(directory, name)
        before = None if known is None else known.get(name, {})
        principals = os.path.join(base, "principals", name)
        now = rights(_read(path))
        for line in _read(principals).splitlines():
            if line.strip() and not line.startswith("#"):
                now.update(dict.fromkeys(authorities, targets(line)))
        now = {key: given for key, given in now.items() if key not in revoked}
        # A file that went has no time, but the directory that it went from has.
        places = (path, principals, *common, base, os.path.dirname(principals))
        times = [os.stat(one).st_mtime for one in places if os.path.exists(one)]
        changed = max(times) if os.path.isfile(path) else float("inf")
        found[name] = Person(now, before, changed, revoked)
    return found


def end(sessions: Iterable[Session]) -> Set[int]:
    """Ask, wait a little, insist. The processes that are still there."""
    left = {number for session in sessions for number in (session.monitor, session.child, *session.tail)}
    for word in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + PATIENCE
        for number in left:
            try:
                os.kill(number, word)
            except ProcessLookupError:
                continue
        while left and time.monotonic() < until:
            left = {number for number in left if _lives(number)}
            time.sleep(0.05 if left else 0)
    return left


def _lives(number: int) -> bool:
    text = _read(f"/proc/{number}/stat")
    return bool(text) and text[text.rindex(")") + 2 :][:1] not in ("Z", "X")


def run(directory: str, state: str) -> int:
    """Look at everybody, end what has to end, remember what everybody has now."""
    people = people_of(directory, state)
    users: Dict[int, str] = {}
    for name in people:
        try:
            users[pwd.getpwnam(name).pw_uid] = name
        except KeyError:
            continue
    old = [
        session
        for session in find_sessions(_processes(), users)
        if session.started <= people[session.user].changed + SLACK
    ]
    logged = fingerprints(_journal(old), old) if old else {}
    reasons = {session: reason(session, logged.get(session.monitor, ("", "")), people[session.user]) for session in old}
    doomed = [session for session, why in reasons.items() if why]
    for session in doomed:
        text = f"ending the session of {session.user} (pid {session.monitor}): {reasons[session]}"
        print(text)
        syslog.syslog(syslog.LOG_NOTICE | syslog.LOG_AUTH, text)
    left = end(doomed)
    if left:
        print(f"these processes could not be ended: {' '.join(map(str, sorted(left)))}", file=sys.stderr)
        return 1
    _save(state, people)
    return 0


def main(argv: Optional[List[str]] = None) -> int:
    """0: done. 1: something could not be ended."""
    parser = argparse.ArgumentParser(description="End the ssh sessions that the present keys would not give any more.")
    parser.add_argument("keys", help="directory with one authorized_keys file for each person")
    parser.add_argument("state", help="file that remembers what the keys gave")
    arguments = parser.parse_args(argv)
    syslog.openlog("devnode-sessions")
    return run(arguments.keys, arguments.state)


if __name__ == "__main__":
    sys.exit(main())
