# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also a program of the host, which prints and exits
"""Follows sshd's journal and the packet filter's log, and appends the bastion's audit records to a file.

Role bastion installs it as devnode-audit-recorder, with audit_join.py and audit_words.py beside it; the unit is
devnode-audit.service. Where it is in both sources is saved after the records are written: after a crash some may be
there twice, none is missing. Standard library, and python3-systemd for the journal.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, Optional

try:
    from audit_join import Entry, Joiner, parse_flow  # type: ignore[import-not-found]  # as installed
except ImportError:
    from ansible_collections.devnode.gpu.plugins.module_utils.audit_join import Entry, Joiner, parse_flow

# sshd's lines wait so long for the packets that they are about.
LAG = 1.5
FIRST_LOOK = 86400
# A login whose process is gone for so long, without a word in the journal, has ended.
GONE = 15.0
PROGRAMS = ("sshd", "sshd-session")


class FlowFile:
    """ulogd's output from where we were, also across a rotation."""

    def __init__(self, path: str, inode: int = 0, offset: int = 0) -> None:
        self.path, self.inode, self.offset = path, inode, offset
        self._rest = b""
        self._handle: Optional[Any] = None

    def _open(self) -> bool:
        for path in (self.path, f"{self.path}.1"):
            try:
                handle = open(path, "rb")  # noqa: SIM115  kept open until it is rotated away
            except OSError:
                continue
            if self.inode in (0, os.fstat(handle.fileno()).st_ino):
                self._handle = handle
                self.inode = os.fstat(handle.fileno()).st_ino
                handle.seek(min(self.offset, os.fstat(handle.fileno()).st_size))
                return True
            handle.close()
        self.inode, self.offset = 0, 0  # rotated away while we were not running
        return False

    def _rotated(self) -> bool:
        try:
            return os.stat(self.path).st_ino != self.inode
        except OSError:
            return False

    def _lines(self, handle: BinaryIO) -> Iterator[bytes]:
        data = self._rest + handle.read()
        *lines, self._rest = data.split(b"\n")
        self.offset = handle.tell() - len(self._rest)
        yield from lines

    def read(self) -> Iterator[dict[str, Any]]:
        """The objects that have come since."""
        while True:
            handle = self._handle if self._handle or self._open() else None
            if handle is None:
                return
            rotated = self._rotated()
            for line in self._lines(handle):
                try:
                    found = json.loads(line)
                except ValueError:
                    continue
                if isinstance(found, dict):
                    yield found
            if not rotated:
                return
            handle.close()
            self._handle, self._rest, self.inode, self.offset = None, b"", 0, 0


class Journal:
    """sshd's lines from where we were."""

    def __init__(self, cursor: str, since: float) -> None:
        from systemd import journal  # type: ignore[import-not-found]

        self._journal = journal
        self._reader = journal.Reader()
        # By the name that they give themselves: of a process that has ended by the time the journal looks, it knows no
        # other, only its number and account.
        for number, program in enumerate(PROGRAMS):
            if number:
                self._reader.add_disjunction()
            self._reader.add_match(SYSLOG_IDENTIFIER=program)
        if cursor:
            try:
                self._reader.seek_cursor(cursor)
                self._reader.get_next()
            except (OSError, ValueError):
                self._reader.seek_realtime(since)
        else:
            self._reader.seek_realtime(since)

    def wait(self, seconds: float) -> None:
        self._reader.wait(seconds)

    def read(self, until: float) -> Iterator[tuple[str, Entry]]:
        """What is older than a moment, with the place in the journal behind it."""
        while True:
            raw = self._reader.get_next()
            if not raw:
                return
            when = raw["__REALTIME_TIMESTAMP"].timestamp()
            if when > until:
                self._reader.get_previous()
                return
            if str(raw.get("_COMM", PROGRAMS[0])) not in PROGRAMS:
                continue  # somebody else, under that name
            try:
                entry = Entry(when, int(raw["_PID"]), int(raw["_UID"]), str(raw.get("MESSAGE", "")))
            except (KeyError, TypeError, ValueError):
                continue
            yield str(raw["__CURSOR"]), entry


def load(path: str) -> dict[str, Any]:
    """What the last run left; nothing when it left nothing that can be read."""
    try:
        with open(path, encoding="utf-8") as handle:
            found = json.load(handle)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def save(path: str, state: dict[str, Any]) -> None:
    """All of it or nothing, also after a loss of power: an empty one would have all who are logged in forgotten."""
    fresh = f"{path}.new"
    with open(fresh, "w", encoding="utf-8") as handle:
        json.dump(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(fresh, path)


def append(path: str, records: list[dict[str, Any]]) -> None:
    """One line each. The file is opened anew each time, so that it can be rotated at any time."""
    if not records:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write("".join(f"{json.dumps(record)}\n" for record in records))
        handle.flush()
        os.fsync(handle.fileno())


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return ""


class Recorder:
    """Both sources, the joiner, and the files."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.output: str = arguments.output
        self.state_path: str = arguments.state
        state = load(self.state_path)
        now = time.time()
        self.joiner = Joiner(socket.gethostname(), state.get("joiner"))
        # In a container the boot's number is the machine's, so the process that is number 1 has a say as well.
        self.boot = f"{boot_id()} {_started(1)}"
        self.flows = FlowFile(arguments.flows, state.get("inode", 0), state.get("offset", 0))
        self.cursor: str = state.get("cursor", "")
        # The first time, those who are logged in already should be known.
        self.journal = Journal(self.cursor, now - FIRST_LOOK)
        self.missing: dict[int, float] = {}
        if state and state.get("boot") != self.boot:
            append(self.output, self.joiner.restarted(now))

    def step(self, now: float) -> None:
        """What has come since, and then where we are."""
        before = (self.cursor, self.flows.offset)
        records: list[dict[str, Any]] = []
        for raw in self.flows.read():
            flow = parse_flow(raw)
            if flow:
                records += self.joiner.flow(flow)
        for cursor, entry in self.journal.read(now - LAG):
            self.cursor = cursor
            records += self.joiner.entry(entry)
        records += self.joiner.tick(now) + self._gone(now)
        append(self.output, records)
        if records or before != (self.cursor, self.flows.offset):
            self.save()

    def _gone(self, now: float) -> list[dict[str, Any]]:
        absent = [pid for pid in self.joiner.sessions if not os.path.exists(f"/proc/{pid}")]
        self.missing = {pid: self.missing.get(pid, now) for pid in absent}
        ended = [pid for pid, since in self.missing.items() if now - since > GONE]
        return [record for pid in ended for record in self.joiner.gone(now, pid)]

    def save(self) -> None:
        place = {"cursor": self.cursor, "inode": self.flows.inode, "offset": self.flows.offset, "boot": self.boot}
        save(self.state_path, {**place, "joiner": self.joiner.state()})


def _started(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as handle:
            return handle.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def main(argv: Optional[list[str]] = None) -> int:
    """Runs until it is told to stop."""
    parser = argparse.ArgumentParser(description="Append the bastion's audit records to a file.")
    parser.add_argument("--flows", default="/var/log/ulog/devnode-flows.json")
    parser.add_argument("--output", default="/var/log/devnode/audit.jsonl")
    parser.add_argument("--state", default="/var/lib/devnode-audit/state.json")
    recorder = Recorder(parser.parse_args(argv))
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    recorder.save()
    while not stopping:
        recorder.journal.wait(0.5)
        recorder.step(time.time())
        # A burst is handled in batches, not line by line.
        time.sleep(0.2)
    recorder.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
