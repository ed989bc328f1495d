# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also a program of the host, which prints and exits
"""The guard: a change that the host makes by itself, and takes back unless a new connection confirms it in time.

`plugin_utils/guard_program.py` makes a program of this module and what it imports, which systemd runs on the host. So
nothing in them may import anything but the standard library, or lean on Ansible or on files that Ansible leaves in a
temporary directory.

What is on disk, all below ``/var/lib/devnode`` and readable by root only (except that directory itself):

``file_set/NAME.json``
    The manifest: what the set NAME owns here.
``transaction/NAME/``
    A change that is under way: both sides of it (old and new states with their contents) and the commands
    that belong to it.
``guard/NAME/state.json``
    How far a guarded change has come; afterwards, what the guard did, until somebody has read it.
``backup/NAME/STAMP/``
    The old sides of the last changes.
``original/NAME/SHA256``
    What was at a path before the set took it over: put back when the set gives the path up.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import secrets
import sys
import time
from typing import Any, Dict, List, Optional

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import run_command
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import (
    BASE,
    FileSetError,
    locked,
    read_json,
    write_atomic,
    write_json,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_transaction import Transaction

RUN = "/run/devnode-guard"
PROGRAM = "/usr/local/libexec/devnode/guard"
# Phases in which a guarded change is neither confirmed nor taken back.
ARMED_PHASES = ("armed", "applying", "waiting", "rolling_back")


def _clock() -> float:
    """Seconds that go on while the host sleeps and do not jump when its time is set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _guard_path(name: str, base: str) -> str:
    return os.path.join(base, "guard", name, "state.json")


def _marker(name: str) -> str:
    """Gone after a restart of the host."""
    return os.path.join(RUN, name)


def _confirmed(name: str) -> str:
    """Which change was confirmed last, should the answer to that get lost. (No set's name begins with a dot.)"""
    return os.path.join(RUN, ".confirmed-" + name)


def watched(name: str) -> bool:
    """Is the service there that makes the change and ends it?"""
    outcome = run_command({"argv": ["systemctl", "is-active", f"devnode-guard@{name}.service"]})
    return outcome["output"] in ("active", "activating", "reloading")


def guard_state(name: str, base: str = BASE) -> Optional[Dict[str, Any]]:
    value = read_json(_guard_path(name, base))
    return None if value is None else dict(value)


def save_guard(state: Dict[str, Any], base: str = BASE) -> None:
    write_json(_guard_path(state["name"], base), state)


def clear_guard(name: str, base: str = BASE) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_guard_path(name, base))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_marker(name))


def guard_names(base: str = BASE) -> List[str]:
    found = glob.glob(os.path.join(glob.escape(base), "guard", "*", "state.json"))
    return sorted(os.path.basename(os.path.dirname(path)) for path in found)


def armed(base: str = BASE) -> List[Dict[str, Any]]:
    states = (guard_state(name, base) for name in guard_names(base))
    return [state for state in states if state and state["phase"] in ARMED_PHASES]


def _say(text: str) -> None:
    print(text, flush=True)


def _roll_back(state: Dict[str, Any], reason: str, detail: Dict[str, Any], base: str, at_boot: bool = False) -> None:
    """Called with the lock held."""
    name = state["name"]
    _say(f"file set {name}: putting the old files back: {reason}")
    state.update(phase="rolling_back", reason=reason)
    # A full disk must not keep the old files away. What is on disk instead is also a phase that is taken back.
    with contextlib.suppress(OSError):
        save_guard(state, base)
    transaction = Transaction.load(name, base)
    report = transaction.rollback(at_boot) if transaction else {"errors": ["the old files are gone"]}
    state.update(phase="rolled_back", time=time.strftime("%Y-%m-%dT%H:%M:%S%z"), **report)
    state.update(detail)
    try:
        save_guard(state, base)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_marker(name))
    except OSError as error:
        # Nothing is left to take back, so nobody may try again: only the journal can tell.
        _say(f"file set {name}: could not keep the report: {error.strerror}")
        clear_guard(name, base)
    for problem in report["errors"]:
        _say(f"file set {name}: {problem}")
    _say(f"file set {name}: rolled back: " + ", ".join(report.get("restored", [])))


def run_guard(name: str, base: str = BASE) -> int:
    """The service: make the change, then wait for the confirmation or the end of the time."""
    with locked(base):
        state = guard_state(name, base)
        if state is None or state["phase"] not in ARMED_PHASES:
            return 0
        transaction = Transaction.load(name, base)
        if state["phase"] == "armed" and transaction is not None:
            state["phase"] = "applying"
            save_guard(state, base)
            bad = transaction.apply()
            transaction.save()
            if bad:
                text = bad.get("msg") or "`{0}` ended with {1}".format(
                    " ".join(bad["command"]["argv"]), bad["command"]["rc"]
                )
                _roll_back(state, f"{bad['reason']} failed: {text}", {"command": bad.get("command")}, base)
                return 0
            state.update(phase="waiting", nonce=secrets.token_hex(16), deadline=_clock() + state["window"])
            save_guard(state, base)
            _say(f"file set {name}: changed; waiting {state['window']} s for a new connection to confirm it")
        elif state["phase"] != "waiting":
            _roll_back(state, "the change was interrupted", {}, base)
            return 0
    while True:
        state = guard_state(name, base)
        if state is None or state["phase"] != "waiting":
            return 0
        left = state["deadline"] - _clock()
        if left > 0:
            time.sleep(min(left, 0.2))
            continue
        with locked(base):
            state = guard_state(name, base)
            if state is not None and state["phase"] == "waiting":
                _roll_back(state, f"no new connection confirmed it within {state['window']} s", {}, base)
        return 0


def confirm(name: str, nonce: str, base: str = BASE) -> Dict[str, Any]:
    """The new connection is there. Only who has seen the change applied knows the nonce, so a connection that was
    opened before cannot confirm."""
    with locked(base):
        state = guard_state(name, base)
        if state is None or state["phase"] != "waiting":
            return state or {"name": name, "phase": "none"}
        if not secrets.compare_digest(str(state["nonce"]), nonce):
            return {"name": name, "phase": "waiting", "error": "wrong nonce"}
        transaction = Transaction.load(name, base)
        backup = transaction.finish() if transaction else None
        with contextlib.suppress(OSError):
            write_atomic(_confirmed(name), str(state["id"]).encode(), 0o600)
        clear_guard(name, base)
        return {"name": name, "id": state["id"], "phase": "confirmed", "backup": backup}


def await_applied(name: str, identity: str, seconds: float, base: str = BASE) -> Dict[str, Any]:
    """Wait a little until the change has been made (or taken back) and say how it stands."""
    end = time.monotonic() + seconds
    while True:
        state = guard_state(name, base)
        if state is None or state["id"] != identity:
            return {"name": name, "phase": "confirmed" if _was_confirmed(name, identity) else "none"}
        if state["phase"] in ("waiting", "rolled_back") or time.monotonic() >= end:
            break
        time.sleep(0.05)
    if state["phase"] == "waiting":
        state["seconds_left"] = round(state["deadline"] - _clock(), 1)
    return state


def _was_confirmed(name: str, identity: str) -> bool:
    try:
        with open(_confirmed(name), encoding="utf-8") as stream:
            return stream.read() == identity
    except OSError:
        return False


def seen(name: str, identity: str, base: str = BASE) -> Dict[str, Any]:
    """Somebody has been told what the guard did; the next run need not say it again."""
    with locked(base):
        state = guard_state(name, base)
        if state is not None and state["id"] == identity and state["phase"] == "rolled_back":
            clear_guard(name, base)
    return {"name": name, "phase": "none"}


def recover(name: str, reason: str, base: str = BASE, at_boot: bool = False) -> None:
    """A change that nobody watches any more. Called with the lock held."""
    state = guard_state(name, base)
    if state is None or state["phase"] not in ARMED_PHASES:
        return
    if state["phase"] == "armed":
        transaction = Transaction.load(name, base)
        if transaction:
            transaction.discard()
        clear_guard(name, base)
        return
    _roll_back(state, reason, {}, base, at_boot)


def boot(base: str = BASE) -> int:
    """Take back what a restart interrupted. One set that cannot be helped does not keep the others from it."""
    code = 0
    for name in guard_names(base):
        try:
            # A finished one needs nothing, so no lock either: a run may hold it while it starts this service.
            unfinished = (guard_state(name, base) or {}).get("phase") in ARMED_PHASES
            # `systemctl soft-reboot` leaves the marker, and nobody who watches.
            if unfinished and not (os.path.exists(_marker(name)) and watched(name)):
                with locked(base):
                    recover(name, "the host restarted before the change was confirmed", base, at_boot=True)
        except Exception as error:  # whatever is wrong with this one
            _say(f"file set {name}: {error}")
            code = 1
    return code


def main(argv: List[str]) -> int:
    """The program: what systemd and the controller ask of it."""
    try:
        return _answer(argv)
    except FileSetError as problem:
        print(f"devnode-guard: {problem}", file=sys.stderr)
        return 1


def _answer(argv: List[str]) -> int:
    if len(argv) == 1 and argv[0] == "boot":
        return boot()
    if len(argv) == 2 and argv[0] == "run":
        return run_guard(argv[1])
    if len(argv) == 4 and argv[0] == "await":
        answer = await_applied(argv[1], argv[2], float(argv[3]))
    elif len(argv) == 3 and argv[0] == "confirm":
        answer = confirm(argv[1], argv[2])
    elif len(argv) == 3 and argv[0] == "seen":
        answer = seen(argv[1], argv[2])
    elif argv == ["status"]:
        answer = {"armed": armed(), "states": [guard_state(name) for name in guard_names()]}
    else:
        print(
            "usage: guard status | run NAME | boot | await NAME ID SECONDS | confirm NAME NONCE | seen NAME ID",
            file=sys.stderr,
        )
        return 2
    print("devnode-guard: " + json.dumps(answer, sort_keys=True))
    return 0
