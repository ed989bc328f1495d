# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard's states: whatever happens in between, the change is confirmed or the old files are back."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import fileset_disk, fileset_states
from ansible_collections.devnode.gpu.plugins.module_utils import fileset_guard as guard
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_manifest import load_manifest
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_transaction import Transaction
from file_set_case import Case, tree


@pytest.fixture
def guarded(case: Case, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Transaction]:
    run = os.path.join(case.base, "run")
    monkeypatch.setattr(guard, "RUN", run)

    def arm(window: float = 30.0, **more: Any) -> Transaction:
        (case.root / "policy").write_bytes(b"old")
        change = case.transaction([case.state("policy", "file", b"new")], **more)
        os.makedirs(run, exist_ok=True)
        Path(run, "demo").write_text("1")
        guard.save_guard({"name": "demo", "id": "1", "phase": "armed", "window": window}, case.base)
        return change

    return arm


def start(case: Case) -> threading.Thread:
    thread = threading.Thread(target=guard.run_guard, args=("demo", case.base))
    thread.start()
    return thread


def policy(case: Case) -> bytes:
    return (case.root / "policy").read_bytes()


def test_a_confirmed_change_stands(case: Case, guarded: Callable[..., Transaction]) -> None:
    guarded()
    thread = start(case)
    state = guard.await_applied("demo", "1", 5, case.base)
    assert state["phase"] == "waiting"
    assert guard.confirm("demo", "guessed", case.base)["phase"] == "waiting"
    assert guard.confirm("demo", state["nonce"], case.base)["phase"] == "confirmed"
    thread.join(5)
    assert not thread.is_alive()
    assert policy(case) == b"new"
    assert guard.guard_state("demo", case.base) is None
    assert load_manifest("demo", base=case.base)["entries"]


def test_without_confirmation_the_old_files_come_back(case: Case, guarded: Callable[..., Transaction]) -> None:
    guarded(window=0.3, activate=[{"argv": ["touch", str(case.root / "activated")]}])
    begin = time.monotonic()
    guard.run_guard("demo", case.base)
    assert 0.3 <= time.monotonic() - begin < 5
    assert policy(case) == b"old"
    state = guard.guard_state("demo", case.base)
    assert state is not None
    assert (state["phase"], state["restored"]) == ("rolled_back", [str(case.root / "policy")])
    assert "0.3 s" in state["reason"]
    assert load_manifest("demo", base=case.base)["entries"] == {}
    assert guard.armed(case.base) == []
    assert guard.confirm("demo", state["nonce"], case.base)["phase"] == "rolled_back"
    assert policy(case) == b"old"
    guard.seen("demo", "1", case.base)
    assert guard.guard_state("demo", case.base) is None


def test_a_change_that_fails_is_taken_back_at_once(case: Case, guarded: Callable[..., Transaction]) -> None:
    guarded(verify=[{"argv": ["sh", "-c", "echo wrong; exit 1"]}])
    guard.run_guard("demo", case.base)
    state = guard.guard_state("demo", case.base)
    assert state is not None
    assert state["reason"].startswith("verify failed")
    assert state["command"]["output"] == "wrong"
    assert policy(case) == b"old"


@pytest.mark.parametrize("phase", ["applying", "rolling_back"])
def test_the_service_was_killed_in_between(case: Case, guarded: Callable[..., Transaction], phase: str) -> None:
    guarded().apply()
    state = guard.guard_state("demo", case.base)
    assert state is not None
    guard.save_guard({**state, "phase": phase}, case.base)
    guard.run_guard("demo", case.base)
    assert policy(case) == b"old"


def test_a_restart_of_the_host_takes_it_back(
    case: Case, guarded: Callable[..., Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "watched", lambda _name: True)
    at_boot = {"argv": ["touch", str(case.root / "at-boot")], "at_boot": True, "when_changed": ["*"]}
    guarded(activate=[{"argv": ["touch", str(case.root / "not-at-boot")]}, at_boot]).write_new()
    state = guard.guard_state("demo", case.base)
    assert state is not None
    guard.save_guard({**state, "phase": "waiting", "nonce": "x", "deadline": 1e12}, case.base)
    guard.boot(case.base)  # its marker and its service are there: no restart
    assert policy(case) == b"new"
    os.unlink(os.path.join(guard.RUN, "demo"))
    guard.boot(case.base)
    assert policy(case) == b"old"
    assert not (case.root / "not-at-boot").exists()
    assert (case.root / "at-boot").exists()


def test_a_soft_reboot_leaves_the_marker_and_nobody_who_watches(
    case: Case, guarded: Callable[..., Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "watched", lambda _name: False)
    guarded().write_new()
    state = guard.guard_state("demo", case.base)
    assert state is not None
    guard.save_guard({**state, "phase": "waiting", "nonce": "x", "deadline": 1e12}, case.base)
    guard.boot(case.base)
    assert policy(case) == b"old"


def test_a_lost_answer_to_the_confirmation_is_given_again(case: Case, guarded: Callable[..., Transaction]) -> None:
    guarded()
    thread = start(case)
    state = guard.await_applied("demo", "1", 5, case.base)
    guard.confirm("demo", state["nonce"], case.base)
    thread.join(5)
    assert guard.await_applied("demo", "1", 5, case.base)["phase"] == "confirmed"
    assert guard.await_applied("demo", "2", 5, case.base)["phase"] == "none"


def test_armed_and_then_nothing_leaves_nothing(case: Case, guarded: Callable[..., Transaction]) -> None:
    guarded()
    guard.recover("demo", "gone", case.base)
    assert policy(case) == b"old"
    assert guard.guard_state("demo", case.base) is None
    assert Transaction.load("demo", case.base) is None


def test_a_full_disk_does_not_keep_the_old_files_away(
    case: Case, guarded: Callable[..., Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be written until what the change has brought is gone again."""
    new = case.root / "a-new"
    change = guarded()
    change.data["new"].append({**change.data["new"][0], "path": str(new)})
    change.data["old"].append({"path": str(new), "type": "absent"})
    change.write_new()
    state = guard.guard_state("demo", case.base)
    assert state is not None
    guard.save_guard({**state, "phase": "waiting", "nonce": "x", "deadline": 0.0}, case.base)
    write = fileset_disk.write_at

    def full(parent: int, path: str, *more: Any) -> None:
        if new.exists():
            raise OSError(errno.ENOSPC, "No space left on device", path)
        write(parent, path, *more)

    for module in (fileset_disk, fileset_states):
        monkeypatch.setattr(module, "write_at", full)
    guard.run_guard("demo", case.base)
    assert tree(case.root) == {"policy": ("file", 0o644, b"old")}
    state = guard.guard_state("demo", case.base)
    assert state is not None
    assert state["phase"] == "rolled_back"


def test_a_disk_that_stays_full_is_not_tried_for_ever(
    case: Case, guarded: Callable[..., Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    change = guarded()
    change.data["old"][0] = {"path": change.data["old"][0]["path"], "type": "absent"}
    change.data["manifest_before"]["entries"] = {"/x": {"type": "file"}}
    change.write_new()
    state = guard.guard_state("demo", case.base)
    assert state is not None
    guard.save_guard({**state, "phase": "applying"}, case.base)

    def full(_parent: int, path: str, *_more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    for module in (fileset_disk, fileset_states):
        monkeypatch.setattr(module, "write_at", full)
    guard.run_guard("demo", case.base)
    assert tree(case.root) == {}
    assert guard.guard_names(case.base) == []


def test_one_damaged_set_does_not_keep_the_others_from_being_put_back(
    case: Case, guarded: Callable[..., Transaction]
) -> None:
    guarded().write_new()
    state = guard.guard_state("demo", case.base)
    assert state is not None
    guard.save_guard({**state, "phase": "applying"}, case.base)
    os.unlink(os.path.join(guard.RUN, "demo"))
    damaged = Path(case.base, "guard", "another", "state.json")
    damaged.parent.mkdir()
    damaged.write_text("{")
    assert guard.boot(case.base) == 1
    assert policy(case) == b"old"
