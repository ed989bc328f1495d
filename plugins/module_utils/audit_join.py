# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what sshd and the packet filter log to one record per event: who, from where, with which key, to where.

Pure: log entries in, records out. Sources:
- sshd's journal: logins with their key, and, through LogVerbose, each onward connection's target, beginning and end.
  The process that logs it belongs to exactly one login.
- the packet filter's log (ulogd, JSON): what the kernel really sent for that account, to which address.

What an account on the host could forge does not count: a login is what root's sshd says, and a connection belongs to
the process that root's sshd named as that login's.

Installed on the bastion beside audit_recorder.py and audit_words.py: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, Optional

try:
    import audit_words as words  # type: ignore[import-not-found]  # as installed
except ImportError:
    from ansible_collections.devnode.gpu.plugins.module_utils import audit_words as words

Record = dict[str, Any]

# Seconds between sshd's word and the packet that it is about.
APART = 5.0
# After so long a packet that no login explains is reported.
STRAY = 20.0
NAME_MAX = 64
PATH_MAX = 256


@dataclass
class Connection:
    """One onward connection of a login."""

    id: str
    to: str
    to_port: int
    since: float
    address: str = ""
    source_port: int = 0
    failed: bool = False


@dataclass
class Session:
    """One login."""

    id: str
    user: str
    source: str
    source_port: int
    since: float
    method: str
    key_type: str = ""
    key: str = ""
    certificate: str = ""
    ca: str = ""
    uid: int = -1
    child: int = 0
    asked: tuple[str, int] = ("", 0)  # sshd tells the target before the channel
    channels: dict[str, Connection] = field(default_factory=dict)  # by sshd's number
    traffic: tuple[int, int] = (-1, -1)


@dataclass
class Flow:
    """The first packet of a connection, as the kernel saw it."""

    time: float
    uid: int
    address: str
    port: int
    source_port: int
    allowed: bool


@dataclass
class Entry:
    """A line of sshd's in the journal. Its pid and uid are the journal's own knowledge."""

    time: float
    pid: int
    uid: int
    message: str


def stamp(seconds: float) -> str:
    """A time for people and programs, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_flow(data: Record) -> Optional[Flow]:
    """One object of ulogd's JSON output; None when it is none of ours."""
    prefix = str(data.get("oob.prefix", "")).strip()
    try:
        return Flow(
            time=int(data["oob.time.sec"]) + int(data.get("oob.time.usec", 0)) / 1e6,
            uid=int(data["oob.uid"]),
            address=str(data["dest_ip"]),
            port=int(data["dest_port"]),
            source_port=int(data["src_port"]),
            allowed=prefix == "devnode-allow",
        )
    except (KeyError, TypeError, ValueError):
        return None


class Joiner:
    """What is known at the moment; its state goes to disk between two runs."""

    def __init__(self, host: str, state: Optional[Record] = None) -> None:
        self.host = host
        self.sessions: dict[int, Session] = {}  # by the pid of root's process
        self.early: list[Entry] = []  # of processes that nobody has named yet
        self.partial: dict[int, dict[str, Any]] = {}  # keys of logins that are not done yet, by the same pid
        self.flows: list[Flow] = []
        for pid, session in (state or {}).get("sessions", {}).items():
            channels = {number: Connection(**one) for number, one in session.pop("channels").items()}
            pairs: dict[str, Any] = {name: tuple(session.pop(name)) for name in ("asked", "traffic")}
            self.sessions[int(pid)] = Session(**session, channels=channels, **pairs)
        self.flows = [Flow(**flow) for flow in (state or {}).get("flows", [])]

    def state(self) -> Record:
        """What the next run has to know."""
        return {
            "sessions": {str(pid): asdict(session) for pid, session in self.sessions.items()},
            "flows": [asdict(flow) for flow in self.flows],
        }

    # Records

    def _record(self, time: float, event: str, session: Optional[Session], **more: Any) -> Record:
        record: Record = {"time": stamp(time), "host": self.host, "event": event}
        if session:
            record.update(
                session=session.id,
                user=session.user,
                uid=session.uid,
                source=session.source,
                source_port=session.source_port,
                method=session.method,
                key_type=session.key_type,
                key=session.key,
            )
            if session.certificate:
                record.update(certificate=session.certificate, ca=session.ca)
        record.update(more)
        return record

    def _connection(self, time: float, event: str, session: Session, one: Connection, **more: Any) -> Record:
        target = {"connection": one.id, "to": one.to, "to_port": one.to_port, "address": one.address}
        return self._record(time, event, session, **target, **more)

    # What sshd says

    def entry(self, entry: Entry) -> list[Record]:
        """One line of sshd's."""
        if entry.uid == 0:
            found = self._of_root(entry)
            if found is not None:
                return found
        owner = self._owner(entry)
        if owner is None:
            if entry.uid != 0:
                self.early = [*self.early[-999:], entry]
            return []
        return self._of_login(entry, *owner)

    def _owner(self, entry: Entry) -> Optional[tuple[int, Session]]:
        """The login that a process serves. Root's own logins have no process of another account."""
        for pid, session in self.sessions.items():
            if entry.pid in (session.child, pid) and entry.uid == session.uid:
                return pid, session
        return None

    def _of_root(self, entry: Entry) -> Optional[list[Record]]:
        text = entry.message
        found = words.ACCEPTED.fullmatch(text)
        if found and found["how"] == "Partial":
            # A key, where a code is asked for as well: the login that may follow says nothing of the key.
            self.partial = {**dict(list(self.partial.items())[-999:]), entry.pid: found.groupdict()}
            return []
        if found:
            before = self.gone(entry.time, entry.pid)
            first = self.partial.pop(entry.pid, None)
            said = found.groupdict()
            if first and not said["key"] and (first["user"], first["source"]) == (said["user"], said["source"]):
                said = {**first, "method": f"{first['method']},{said['method']}"}
            self.sessions[entry.pid] = Session(
                id=f"{entry.time:.0f}-{entry.pid}",
                user=said["user"],
                source=said["source"],
                source_port=int(said["port"]),
                since=entry.time,
                method=said["method"],
                key_type=said["type"] or "",
                key=said["key"] or "",
                certificate=f"{said['id']} (serial {said['serial']})" if said["id"] else "",
                ca=said["ca"] or "",
            )
            return before  # the new login is told when the account's number is known
        session_of = self.sessions.get(entry.pid)
        opened = words.OPENED.match(text)
        if opened and session_of and session_of.uid < 0:
            session_of.uid = int(opened[1])
            return [self._record(session_of.since, "login", session_of)]
        child = words.CHILD.fullmatch(text)
        if child and session_of:
            session_of.child = int(child[1])
            return self._catch_up(session_of)
        if session_of and words.CLOSED.match(text):
            return self._logout(entry.time, entry.pid)
        failed = words.FAILED.fullmatch(text) or words.INVALID.fullmatch(text)
        if failed:
            facts = failed.groupdict()
            return [
                self._record(
                    entry.time,
                    "failed",
                    None,
                    user=facts["user"][:NAME_MAX],
                    source=facts["source"],
                    source_port=int(facts["port"]),
                    method=facts.get("method") or "unknown user",
                    key_type=facts.get("type") or "",
                    key=facts.get("key") or "",
                )
            ]
        return None

    def _catch_up(self, session: Session) -> list[Record]:
        """Lines that overtook root's word about their process."""
        mine = [entry for entry in self.early if entry.pid == session.child]
        self.early = [entry for entry in self.early if entry.pid != session.child]
        return [record for entry in mine for record in self.entry(entry)]

    def _of_login(self, entry: Entry, pid: int, session: Session) -> list[Record]:
        text, time = entry.message, entry.time
        asked = words.ASKED.fullmatch(text)
        if asked:
            session.asked = (asked["host"], int(asked["port"]))
            return []
        refused = words.DENIED.match(text) or words.REFUSED.fullmatch(text)
        if refused:
            target = {"to": refused["host"], "to_port": int(refused["port"])}
            return [self._record(time, "denied", session, **target, what="connection")]
        socket = words.SOCKET.fullmatch(text)
        if socket:
            return [self._record(time, "denied", session, to=socket["path"][:PATH_MAX], what="socket")]
        told = words.TOLD.fullmatch(text)
        if told:
            what = words.REFUSALS.get(told["words"])
            return [self._record(time, "denied", session, what=what)] if what else []
        if words.UNKNOWN_HOST.match(text):
            host, port = session.asked
            return [self._record(time, "denied", session, to=host, to_port=port, what="unknown host")]
        new = words.NEW.match(text)
        if new and session.asked[1]:
            (host, port), session.asked = session.asked, ("", 0)
            one = Connection(f"{session.id}-{time:.3f}-{new[1]}", host, port, time)
            session.channels[new[1]] = one
            self._claim(session, one)
            return [self._connection(time, "open", session, one)]
        unreached = words.UNREACHED.match(text)
        if unreached:
            for one in session.channels.values():
                one.failed |= (one.to, one.to_port) == (unreached["host"], int(unreached["port"]))
        free = words.FREE.match(text)
        if free and free[1] in session.channels:
            return [self._close(time, session, session.channels.pop(free[1]))]
        if words.NO_SESSIONS.match(text):
            return [self._record(time, "denied", session, what="shell, command or subsystem")]
        moved = words.TRANSFERRED.match(text)
        if moved:
            session.traffic = (int(moved[1]), int(moved[2]))
        return []

    def _close(self, time: float, session: Session, one: Connection) -> Record:
        if not one.address:
            self._claim(session, one)
        seconds = round(max(0.0, time - one.since), 3)
        return self._connection(
            time, "close", session, one, since=stamp(one.since), seconds=seconds, reached=not one.failed
        )

    def _logout(self, time: float, pid: int, **why: Any) -> list[Record]:
        session = self.sessions.pop(pid)
        found = [self._close(time, session, one) for one in session.channels.values()]
        moved = {} if session.traffic[0] < 0 else {"sent": session.traffic[0], "received": session.traffic[1]}
        seconds = round(max(0.0, time - session.since), 3)
        since = stamp(session.since)
        return [*found, self._record(time, "logout", session, since=since, seconds=seconds, **moved, **why)]

    def gone(self, time: float, pid: int) -> list[Record]:
        """A login's process is not there any more, and nobody said so."""
        return self._logout(time, pid, why="ended without a word") if pid in self.sessions else []

    def restarted(self, time: float) -> list[Record]:
        """The host was restarted: nobody is logged in any more."""
        found = [record for pid in list(self.sessions) for record in self._logout(time, pid, why="restart of the host")]
        self.early, self.flows = [], []
        return found

    # What the packet filter says

    def flow(self, flow: Flow) -> list[Record]:
        """A connection that the kernel began for an account, or refused."""
        if flow.allowed:
            self.flows = [*self.flows[-9999:], flow]
            return []
        return [self._foreign(flow, "blocked")]

    def _claim(self, session: Session, one: Connection) -> None:
        """Find the packet of a connection. Packets that were sent again are the same connection's."""
        fitting = [flow for flow in self.flows if self._fits(flow, session, one)]
        if fitting:
            first = min(fitting, key=lambda flow: abs(flow.time - one.since))
            one.address, one.source_port = first.address, first.source_port
            self.flows = [flow for flow in self.flows if flow.source_port != first.source_port or flow not in fitting]

    @staticmethod
    def _fits(flow: Flow, session: Session, one: Connection) -> bool:
        named = not _is_address(one.to)
        near = abs(flow.time - one.since) <= APART
        return flow.uid == session.uid and flow.port == one.to_port and near and (named or _same(flow.address, one.to))

    def tick(self, now: float) -> list[Record]:
        """Packets that no login explains for too long."""
        old = [flow for flow in self.flows if now - flow.time > STRAY]
        self.flows = [flow for flow in self.flows if now - flow.time <= STRAY]
        self.early = [entry for entry in self.early if now - entry.time <= STRAY]
        return [self._foreign(flow, "unexplained") for flow in old if not self._repeated(flow)]

    def _repeated(self, flow: Flow) -> bool:
        """Sent again, or the next address of a name whose first one did not answer."""
        return any(
            session.uid == flow.uid
            and one.to_port == flow.port
            and flow.time >= one.since - APART
            and (one.source_port == flow.source_port or not _is_address(one.to))
            for session in self.sessions.values()
            for one in session.channels.values()
        )

    def _foreign(self, flow: Flow, event: str) -> Record:
        """By its account alone; with one login of that account, it is clear whose it is."""
        logins = [session for session in self.sessions.values() if session.uid == flow.uid]
        session = logins[0] if len(logins) == 1 else None
        who: Record = {} if session else {"uid": flow.uid, "user": logins[0].user if logins else ""}
        return self._record(flow.time, event, session, **who, address=flow.address, to_port=flow.port)


def _is_address(text: str) -> bool:
    return ":" in text or bool(re.fullmatch(r"[0-9.]+", text))


def _same(left: str, right: str) -> bool:
    return left == right or (":" in left and left.replace("::ffff:", "") == right)
