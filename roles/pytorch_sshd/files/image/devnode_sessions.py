# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the sessions that a removed key had opened, and no others.

sshd looks at keys at the login and never again. Which key a session was opened with says its log, which passes through
the container's main process: "Accepted publickey for ada … SHA256:…", then "User child is on pid 25". Several people
may log in at once; where the lines do not tell two of them apart, all their keys are noted, and each must be there yet.

Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ACCEPTED = re.compile(
    r"Accepted publickey for (\S+) from \S+ port \d+ ssh2: \S+ (SHA256:[A-Za-z0-9+/]+)"
    # Of a certificate, whose identity (ID …) may hold anything: the authority that signed it.
    r"(?: ID .* CA \S+ (SHA256:[A-Za-z0-9+/]+)\s*$)?"
)
CHILD = re.compile(r"User child is on pid (\d+)\s*$")
LOGIN_SECONDS = 10.0  # longer than it takes from the first line to the second
PATIENCE = 3.0
REVOKED = ""
Keys = dict[str, list[str]]  # fingerprints by login; of a session by a certificate: its key, then the authority


@dataclass
class Logins:
    """What sshd's log has said so far: for each session's process whose it may be, and by which keys."""

    sessions: dict[int, Keys] = field(default_factory=dict)
    waiting: list[tuple[float, str, str]] = field(default_factory=list)
    arrived: int = 0

    def read(self, line: str, now: float) -> bool:
        """Take in one line; whether it was of interest."""
        self.waiting = [one for one in self.waiting if now - one[0] < LOGIN_SECONDS]
        if accepted := ACCEPTED.match(line):
            key, authority = accepted.group(2), accepted.group(3)
            self.waiting.append((now, accepted.group(1), f"{key} {authority}" if authority else key))
        elif child := CHILD.match(line):
            found: Keys = {}
            for _dummy, login, key in self.waiting:
                found.setdefault(login, []).append(key)
            self.sessions[int(child.group(1))] = {login: sorted(set(keys)) for login, keys in found.items()}
            self.arrived += 1
            if self.arrived >= len(self.waiting):
                self.waiting, self.arrived = [], 0
            return True
        return False


def follow(stream: IO[bytes], note: Path) -> None:
    """Pass sshd's log on to this process's own, and note who logs in."""
    logins = Logins()
    for raw in stream:
        # sshd waits once nobody reads what it says, and nobody could log in any more. So whatever happens, read on.
        try:
            sys.stderr.buffer.write(raw)
            sys.stderr.buffer.flush()
            if logins.read(raw.decode("utf-8", "replace").rstrip("\r\n"), time.monotonic()):
                logins.sessions = {pid: keys for pid, keys in logins.sessions.items() if Path(f"/proc/{pid}").exists()}
                _put(note, {str(pid): keys for pid, keys in logins.sessions.items()})
        except (OSError, MemoryError):
            continue


def start(stream: IO[bytes], note: Path) -> None:
    """Follow in the background."""
    threading.Thread(target=follow, args=(stream, note), daemon=True).start()


def must_end(login: str, keys: list[str], now: Keys, before: Keys) -> bool:
    """Whether a session of this login, opened by one of these keys, has lost it. Unknown: if anything was lost."""
    counting, revoked = set(now.get(login, [])), set(now.get(REVOKED, []))
    if not keys:
        return bool(set(before.get(login, [])) - counting or revoked - set(before.get(REVOKED, [])))
    return any(set(words) & revoked or words[-1] not in counting for words in map(str.split, keys))


def end_lost(people: Mapping[str, int], now: Keys, notes: Path, applied: Path, everything: bool = False) -> list[str]:
    """End what the keys of now would not give any more (or everything); whose sessions were ended.

    Under the name REVOKED, which is no login, stand the keys that count for nobody.
    """
    before, sessions = _get(applied), _get(notes)
    names = {uid: login for login, uid in people.items()}
    found = _processes()
    ended: dict[int, str] = {}
    for pid, (parent, uid, name) in found.items():
        monitor = found.get(parent)
        if uid not in names or not name.startswith("sshd") or not monitor:
            continue
        login = names[uid]
        keys = sessions.get(str(pid), {}).get(login, [])
        below_sshd = monitor[1] == 0 and monitor[2].startswith("sshd")
        if below_sshd and (everything or must_end(login, keys, now, before)):
            ended.update(dict.fromkeys([parent, pid, *_below(pid, found)], login))
    _end(set(ended))
    if before != now:
        _put(applied, now)
    return sorted(set(ended.values()))


def _processes(proc: Path = Path("/proc")) -> dict[int, tuple[int, int, str]]:
    """Parent, uid and name of everything that lives here."""
    found = {}
    for folder in proc.glob("[0-9]*"):
        try:
            name, _dummy, rest = (folder / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
            if rest.split()[0] not in "ZX":
                found[int(folder.name)] = (int(rest.split()[1]), folder.stat().st_uid, name)
        except (OSError, ValueError, IndexError):
            continue
    return found


def _below(pid: int, found: Mapping[int, tuple[int, int, str]]) -> list[int]:
    below = [child for child, (parent, *_dummy) in found.items() if parent == pid]
    return below + [further for child in below for further in _below(child, found)]


def _end(left: set[int]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + PATIENCE
        for pid in left:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        while left and time.monotonic() < end:
            left = left & set(_processes())
            time.sleep(0.05 if left else 0)


def _get(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _put(path: Path, content: Mapping[str, Any]) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(content))
    new.chmod(0o600)
    new.replace(path)
