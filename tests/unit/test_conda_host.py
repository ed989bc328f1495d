# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a prefix, and what a run that died had left working on it."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import conda_host

# The shell starts a process of its own and waits for it, as an installer does.
NESTED = ["sh", "-c", "sleep 300 & echo $!; wait"]


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(conda_host, "NOTES", tmp_path / "notes")
    return tmp_path / "conda"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """Works on a prefix too, but on another."""
    with subprocess.Popen(["sleep", "300"], env={**os.environ, conda_host.WORKS_ON: "/opt/other"}) as process:
        yield process
        process.kill()


def gone(pid: int) -> bool:
    """Whether a process has ended; nobody may be there to fetch its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_a_dead_run_left_working_is_ended_before_the_prefix_is_touched(
    prefix: Path, stranger: subprocess.Popen[bytes]
) -> None:
    marked = {**os.environ, conda_host.WORKS_ON: str(prefix)}
    with subprocess.Popen(NESTED, env=marked, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout
        grandchild = int(shell.stdout.readline())
        shell.kill()
        shell.wait()
        assert not gone(grandchild)
        with conda_host.locked(prefix, 1):
            assert gone(grandchild)
            assert stranger.poll() is None


def test_a_command_that_takes_too_long_leaves_nothing_working(prefix: Path) -> None:
    note = prefix.parent / "pid"
    with conda_host.locked(prefix, 1):
        ran = conda_host.run(["sh", "-c", f"sleep 300 & echo $! > {note}; wait"], 1)
        assert ran.code == 124
        assert gone(int(note.read_text()))
    assert conda_host.WORKS_ON not in os.environ


def test_what_does_not_end_is_named(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conda_host, "LEFTOVERS_END", 0.2)
    monkeypatch.setattr(conda_host, "_working_on", lambda _prefix: [2**22 + 1])
    with pytest.raises(conda_host.HostError, match=str(2**22 + 1)), conda_host.locked(prefix, 1):
        pytest.fail("entered")


def test_two_runs_at_once_wait_for_each_other(prefix: Path) -> None:
    child = os.fork()
    if child == 0:
        with conda_host.locked(prefix, 5):
            (prefix.parent / "held").touch()
            time.sleep(1)
        os._exit(0)
    while not (prefix.parent / "held").exists():
        time.sleep(0.01)
    with pytest.raises(conda_host.HostError, match="another run"), conda_host.locked(prefix, 0):
        pytest.fail("entered")
    with conda_host.locked(prefix, 10):
        pass
    os.waitpid(child, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda _home: object(), "the answer is no JSON"),
        (lambda _home: 1 / 0, "ZeroDivisionError"),
        (lambda _home: os._exit(3), "without an answer"),
    ],
)
def test_a_person_s_process_never_goes_on_as_the_one_that_asked(function: Any, said: str) -> None:
    me = os.getpid()
    with pytest.raises(conda_host.HostError, match=said):
        conda_host.as_user("nobody", function)
    assert os.getpid() == me


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_what_a_person_s_process_says_comes_back() -> None:
    assert conda_host.as_user("nobody", lambda _home: [os.getuid()]) == [pwd.getpwnam("nobody").pw_uid]
