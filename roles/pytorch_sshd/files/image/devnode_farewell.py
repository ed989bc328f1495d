# SPDX-License-Identifier: GPL-3.0-or-later
"""How a workspace ends: whoever has something to save is asked first, and what holds their terminals last.

SIGTERM to all at once would lose checkpoints: tmux and sshd end at once, the kernel then hangs up their terminals, and
a job dies of that before its own handler has run. The same goes for a shell that ends before the job it waits for. So:

- tmux, sshd, an editor's server and all that they run under are left alone until the jobs have ended;
- a process that would just end, but has a descendant with a handler, is paused until that one has ended;
- everybody else is asked, and those with a handler are waited for.

Standard library only.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK = 0.02
LAST_MOMENT = 0.4  # for what is left when the jobs have ended
TERM_BIT = 1 << (signal.SIGTERM - 1)


@dataclass(frozen=True)
class Process:
    """One living process."""

    pid: int
    parent: int
    session: int
    terminal: int
    name: str
    stopped: bool
    ignores: bool
    catches: bool


def processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Everybody who lives in this container."""
    found = {}
    for folder in proc.glob("[0-9]*"):
        try:
            name, _dummy, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            lines = (folder / "status").read_text().splitlines()
        except (OSError, ValueError):
            continue
        state, parent, _dummy, session, terminal, *_rest = rest.split()
        if state in "ZX":
            continue
        pid = int(folder.name)
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        ignores, catches = (bool(int(status.get(key, "0"), 16) & TERM_BIT) for key in ("SigIgn", "SigCgt"))
        stopped = state in "Tt"
        found[pid] = Process(pid, int(parent), int(session), int(terminal), name, stopped, ignores, catches)
    return found


def ancestors(found: Mapping[int, Process], pid: int) -> list[int]:
    """Parent, its parent and so on."""
    line: list[int] = []
    while pid in found and found[pid].parent and found[pid].parent not in line:
        pid = found[pid].parent
        line.append(pid)
    return line


def holders(found: Mapping[int, Process]) -> set[int]:
    """Whose end would cut others off: what holds a terminal that a session runs on, sshd, and what these run under."""
    direct = {one.parent for one in found.values() if one.terminal and one.session == one.pid}
    direct |= {one.pid for one in found.values() if one.name.startswith("sshd")}
    return direct.union(*(ancestors(found, pid) for pid in direct))


def ask(found: Mapping[int, Process], jobs: set[int], done: Mapping[int, set[int]]) -> list[tuple[int, int]]:
    """The signals to send now. `jobs` are those to end first; `done` says who got which signal already."""
    waits_for_handler = {
        above for one in found.values() if one.pid in jobs and one.catches for above in ancestors(found, one.pid)
    }
    signals = []
    for pid in sorted(jobs & set(found)):
        one = found[pid]
        if pid in waits_for_handler and not one.catches and not one.ignores:
            if signal.SIGSTOP not in done.get(pid, set()):
                signals.append((pid, int(signal.SIGSTOP)))
        elif signal.SIGTERM not in done.get(pid, set()):
            signals.append((pid, int(signal.SIGTERM)))
            if signal.SIGSTOP in done.get(pid, set()):
                signals.append((pid, int(signal.SIGCONT)))
    return signals


def end_everybody(grace: float, look: Callable[[], dict[int, Process]] = processes) -> None:
    """Ask the jobs and wait for them, `grace` seconds at most; then the rest. The container's end does what is left."""
    found, end = look(), time.monotonic() + grace
    apart = {1, os.getpid()}
    jobs = set(found) - holders(found) - apart
    done: dict[int, set[int]] = {}
    while True:
        for pid, number in ask(found, jobs, done):
            done.setdefault(pid, set()).add(number)
            _send(pid, number)
        # Who ignores the request (an interactive shell) is not waited for.
        if not any(not one.ignores for pid, one in found.items() if pid in jobs) or time.monotonic() > end:
            break
        time.sleep(TICK)
        found = look()
    _send(-1, signal.SIGTERM)
    end = time.monotonic() + LAST_MOMENT
    while time.monotonic() < end and any(not one.stopped for pid, one in look().items() if pid not in apart):
        time.sleep(TICK)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
