# SPDX-License-Identifier: GPL-3.0-or-later
"""How a workspace ends: who is asked when, on made-up process trees and on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from unit.in_image import in_image

STOP, TERM, CONT = int(signal.SIGSTOP), int(signal.SIGTERM), int(signal.SIGCONT)


@pytest.fixture(scope="module")
def farewell() -> Any:
    return in_image("devnode_farewell")


def tree(farewell: Any, *rows: tuple[int, int, str, str]) -> dict[int, Any]:
    """(pid, parent, name, marks); marks: L leader of a session on a terminal, C catches SIGTERM, I ignores it."""
    return {
        pid: farewell.Process(
            pid, parent, pid if "L" in marks else 0, 1 if "L" in marks else 0, name, False, "I" in marks, "C" in marks
        )
        for pid, parent, name, marks in rows
    }


def test_what_holds_terminals_comes_last(farewell: Any) -> None:
    found = tree(
        farewell,
        (1, 0, "tini", "C"),
        (7, 1, "devnode-workspa", "C"),
        (8, 7, "sshd", "C"),
        (9, 8, "sshd-session", "C"),
        (10, 9, "bash", "LI"),
        (11, 10, "python", "C"),
        (20, 1, "tmux: server", "C"),
        (21, 20, "bash", "L"),
        (22, 21, "python", "C"),
        (30, 1, "node", "C"),  # an editor's server: it runs another, which has a terminal
        (31, 30, "node", "C"),
        (32, 31, "zsh", "LI"),
        (40, 7, "jupyter-lab", "C"),
    )
    assert farewell.holders(found) == {1, 7, 8, 9, 20, 30, 31}


def test_who_would_just_end_waits_for_a_handler_below_it(farewell: Any) -> None:
    found = tree(farewell, (21, 20, "bash", "L"), (22, 21, "python", "C"), (23, 22, "worker", ""), (24, 1, "sleep", ""))
    jobs = set(found)
    first = farewell.ask(found, jobs, {})
    assert first == [(21, STOP), (22, TERM), (23, TERM), (24, TERM)]
    done = {21: {STOP}, 22: {TERM}, 23: {TERM}, 24: {TERM}}
    assert farewell.ask(found, jobs, done) == []
    assert farewell.ask({21: found[21]}, jobs, done) == [(21, TERM), (21, CONT)]


def test_a_shell_at_its_prompt_is_neither_paused_nor_skipped(farewell: Any) -> None:
    found = tree(farewell, (10, 9, "bash", "LI"), (11, 10, "python", "C"))
    assert farewell.ask(found, set(found), {}) == [(10, TERM), (11, TERM)]


def test_only_those_of_the_beginning_are_asked(farewell: Any) -> None:
    """What a handler starts to save its work is not."""
    found = tree(farewell, (11, 10, "bash", "C"), (12, 11, "cp", ""))
    assert farewell.ask(found, {11}, {11: {TERM}}) == []


def test_real_processes(farewell: Any, tmp_path: Path) -> None:
    """Read from /proc, and ended in order: the shell above lives until the handler has written."""
    mark = tmp_path / "saved"
    job = f"trap 'sleep 0.2; echo saved >{mark}; exit' TERM; touch {mark}.runs; sleep 60 & wait"
    with subprocess.Popen(["bash", "-c", 'bash -c "$1"; exit 0', "outer", job], start_new_session=True) as outer:
        while not Path(f"{mark}.runs").exists():
            time.sleep(0.01)
        everybody = farewell.processes()
        assert everybody[os.getpid()].parent == os.getppid()
        mine = {pid for pid in everybody if outer.pid in (pid, *farewell.ancestors(everybody, pid))}
        done: dict[int, set[int]] = {}
        found = everybody
        while mine & set(found):
            for pid, number in farewell.ask(found, mine, done):
                done.setdefault(pid, set()).add(number)
                os.kill(pid, number)
            time.sleep(0.01)
            found = farewell.processes()
            outer.poll()
        assert outer.wait() == -TERM
    assert mark.read_text() == "saved\n"
