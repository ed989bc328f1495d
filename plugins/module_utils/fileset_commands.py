# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # run_command has no time limit
"""The commands of a change: run without a shell, kept short, and without what sensitive files say.

Part of the guard's program, so: the standard library and its other parts only (see `plugin_utils/guard_program.py`).
"""

from __future__ import annotations

import fnmatch
import subprocess
import time
from typing import Any, Dict, Iterable, List, Optional

OUTPUT_KEPT = 4000
BETWEEN_LOOKS = 0.5  # seconds
COMMAND_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/root",
}

Command = Dict[str, Any]
Outcome = Dict[str, Any]


def secrets_of(content: bytes) -> List[str]:
    """What of a sensitive file must not be shown, should a command print it. Short lines are left out: they are rarely
    a secret, and hiding them would make every message unreadable."""
    text = content.decode("utf-8", "replace")
    return [line.strip() for line in [text, *text.splitlines()] if len(line.strip()) >= 12]


def run_command(command: Command) -> Outcome:
    """Run one command without a shell and without a terminal; its output is kept short."""
    argv = [str(word) for word in command["argv"]]
    timeout = int(command.get("timeout") or 60)
    started = time.monotonic()
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
            cwd="/",
            env=COMMAND_ENV,
        )
        code, output = done.returncode, done.stdout
    except FileNotFoundError:
        code, output = 127, b"no such program on this host"
    except PermissionError:
        code, output = 126, b"not executable"
    except subprocess.TimeoutExpired as error:
        code, output = 124, (error.stdout or b"") + b"\nno end after %d s: stopped" % timeout
    text = output.decode("utf-8", "replace").strip()
    if len(text) > OUTPUT_KEPT:
        text = "[...] " + text[-OUTPUT_KEPT:]
    return {"argv": argv, "rc": code, "output": text, "seconds": round(time.monotonic() - started, 2)}


def wanted_commands(commands: Iterable[Command], changed: Iterable[str]) -> List[Command]:
    """Those whose ``when_changed`` patterns match a changed path; without patterns, always."""
    paths = list(changed)
    result = []
    for command in commands:
        patterns = command.get("when_changed") or []
        if not patterns or any(fnmatch.fnmatchcase(path, pattern) for path in paths for pattern in patterns):
            result.append(command)
    return result


def run_all(commands: Iterable[Command], stop: bool = True) -> List[Outcome]:
    outcomes = []
    for command in commands:
        outcome = run_command(command)
        outcomes.append(outcome)
        if outcome["rc"] != 0 and stop:
            break
    return outcomes


def insist(commands: Iterable[Command], pauses: Iterable[float]) -> List[Outcome]:
    """All of them, and all of them again after each pause until none fails: a way back has no other end."""
    every = list(commands)
    outcomes = run_all(every, stop=False)
    for seconds in pauses:
        if not failed(outcomes):
            break
        time.sleep(seconds)
        outcomes = run_all(every, stop=False)
    return outcomes


def verified(command: Command) -> Outcome:
    """A command that has to succeed. If it does not, its ``repair`` runs, if it has one, and then it again."""
    outcome = run_command(command)
    if outcome["rc"] == 0 or not command.get("repair"):
        return outcome
    repair = run_command({"argv": command["repair"], "timeout": command.get("timeout")})
    again = run_command(command)
    if again["rc"] == 0:
        again = _no_longer([command]) or again
    said = [f"`{' '.join(one['argv'])}` ended with {one['rc']}: {one['output']}" for one in (outcome, repair)]
    if again["rc"] != 0:
        again["output"] = "\n".join([again["output"], *said]).strip()
    return {**again, "repaired": "; ".join(said)}


def verify_all(commands: Iterable[Command]) -> List[Outcome]:
    """Up to the first that does not succeed."""
    outcomes = []
    every = list(commands)
    for command in every:
        outcomes.append(verified(command))
        if outcomes[-1]["rc"] != 0:
            return outcomes
    later = _no_longer(every)
    return outcomes if later is None else [*outcomes, later]


def _no_longer(commands: Iterable[Command]) -> Optional[Outcome]:
    """The first that succeeded and does not any more within its ``settle`` seconds.

    A service that dies at its start and is started again and again is up whenever one looks at the right moment.
    """
    waiting = [command for command in commands if command.get("settle")]
    started = time.monotonic()
    while waiting:
        time.sleep(BETWEEN_LOOKS)
        for command in waiting:
            outcome = run_command(command)
            if outcome["rc"] != 0:
                outcome["output"] = f"{outcome['output']}\nIt had succeeded a moment before: it does not last.".strip()
                return outcome
        waiting = [command for command in waiting if time.monotonic() - started < int(command["settle"])]
    return None


def masked(outcomes: List[Outcome], secret: List[str]) -> List[Outcome]:
    """What the commands printed, without what sensitive files say: it goes to the journal and to the controller."""
    for outcome in outcomes:
        for text in secret:
            for key in ("output", "repaired"):
                if key in outcome:
                    outcome[key] = outcome[key].replace(text, "********")
    return outcomes


def failed(outcomes: List[Outcome]) -> Optional[Outcome]:
    return next((outcome for outcome in outcomes if outcome["rc"] != 0), None)
