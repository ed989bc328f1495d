# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing a set and taking it back, on a real file system, interrupted anywhere; and the guard's states."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import fileset_engine as engine
from hypothesis import given, settings
from hypothesis import strategies as st

State = dict[str, Any]


class CrashError(BaseException):
    """The power goes."""


class FragileOs:
    """The module `os`, until the n-th change of the file system."""

    MUTATORS = ("rename", "unlink", "mkdir", "rmdir", "symlink", "chown", "chmod", "fchown", "fchmod")

    def __init__(self, changes: int) -> None:
        self.left = changes

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.MUTATORS:
            return real

        def fragile(*args: Any, **more: Any) -> Any:
            if self.left == 0:
                raise CrashError
            self.left -= 1
            return real(*args, **more)

        return fragile


def tree(root: Path) -> dict[str, Any]:
    """What a person sees below `root`."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("directory", path.stat().st_mode & 0o7777)
        else:
            found[name] = ("file", path.stat().st_mode & 0o7777, path.read_bytes())
    return found


class Case:
    """A place for files, and the base directory of the engine beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "host"
        self.base = str(root / "lib")
        self.root.mkdir()

    def state(self, name: str, kind: str, content: bytes = b"", mode: int = 0o644) -> State:
        path = str(self.root / name)
        own: State = {"path": path, "type": kind, "uid": os.getuid(), "gid": os.getgid(), "mode": mode}
        if kind == "absent":
            return {"path": path, "type": "absent"}
        if kind == "link":
            return {**own, "target": content.decode()}
        if kind == "directory":
            return {**own, "mode": 0o755}
        return {**own, "sha256": engine.sha256(content), "content": content}

    def transaction(self, wanted: list[State], **more: Any) -> engine.Transaction:
        old = [engine.inspect(state["path"]) for state in wanted]
        entries = {state["path"]: {"type": state["type"]} for state in wanted}
        data: dict[str, Any] = {
            "id": "1",
            "name": "demo",
            "phase": "prepared",
            "old": [],
            "new": [],
            "activate": [],
            "reactivate": None,
            "verify": [],
            "changed": [state["path"] for state in wanted],
            "backup": None,
            "manifest_before": {"version": 1, "name": "demo", "entries": {}},
            "manifest_after": {"version": 1, "name": "demo", "entries": entries},
        }
        data.update(more)
        transaction = engine.Transaction(data, self.base)
        for side, states in (("old", old), ("new", wanted)):
            os.makedirs(os.path.join(transaction.directory, side))
            for number, state in enumerate(states):
                state = {key: value for key, value in state.items() if key != "children"}
                if state["type"] == "file":
                    content = state.pop("content", None)
                    state["blob"] = f"{side}/{number}"
                    data_of = Path(state["path"]).read_bytes() if content is None else content
                    Path(transaction.directory, state["blob"]).write_bytes(data_of)
                data[side].append(state)
        transaction.save()
        return transaction


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


names = st.sampled_from(["a", "b", "a/a", "a/b", "a/a/a"])
kinds = st.sampled_from(["file", "file", "directory", "link"])
layouts = st.dictionaries(names, st.tuples(kinds, st.sampled_from([b"1", b"2"]), st.sampled_from([0o644, 0o600])))


def whole(layout: dict[str, tuple[str, bytes, int]]) -> dict[str, tuple[str, bytes, int]]:
    """Without paths below files and links, and with the directories that the others need."""
    result: dict[str, tuple[str, bytes, int]] = {}
    for name in sorted(layout):
        above = ["/".join(name.split("/")[:n]) for n in range(1, name.count("/") + 1)]
        if all(result.get(parent, ("directory",))[0] == "directory" for parent in above):
            for parent in above:
                result.setdefault(parent, ("directory", b"", 0o755))
            result[name] = layout[name]
    return result


def states_between(case: Case, before: Any, after: Any) -> list[State]:
    states = [case.state(name, *what) for name, what in after.items()]
    return states + [case.state(name, "absent") for name in before if name not in after]


@settings(max_examples=200, deadline=None)
@given(layouts, layouts, st.integers(0, 12))
def test_interrupted_anywhere_it_can_be_finished_and_taken_back(before: Any, after: Any, changes: int) -> None:
    before, after = whole(before), whole(after)
    for then in ("finish", "take back"):
        directory = Path(tempfile.mkdtemp())
        try:
            case = Case(directory)
            first = case.transaction(states_between(case, {}, before))
            assert first.apply() is None
            first.discard()
            old = tree(case.root)
            change = case.transaction(states_between(case, before, after))
            engine.os = FragileOs(changes)  # type: ignore[attr-defined]
            try:
                engine.put(change.data["new"], change.directory)
            except CrashError:
                pass
            finally:
                engine.os = os  # type: ignore[attr-defined]
            again = engine.Transaction.load("demo", case.base)
            assert again is not None
            if then == "finish":
                assert again.apply() is None
                assert tree(case.root) == {
                    name: (kind, content.decode())
                    if kind == "link"
                    else (kind, 0o755)
                    if kind == "directory"
                    else (kind, mode, content)
                    for name, (kind, content, mode) in after.items()
                }
            else:
                assert again.rollback()["errors"] == []
                assert tree(case.root) == old
        finally:
            shutil.rmtree(directory)


def test_a_failing_command_says_which_and_what_it_said(case: Case) -> None:
    commands = [["true"], ["sh", "-c", "echo no; exit 3"], ["touch", str(case.root / "after")]]
    transaction = case.transaction(
        [case.state("a", "file", b"x")], activate=[{"argv": argv} for argv in commands], reactivate=[]
    )
    bad = transaction.apply()
    assert bad is not None
    assert bad["reason"] == "activate"
    assert (bad["command"]["rc"], bad["command"]["output"]) == (3, "no")
    transaction.rollback()
    assert tree(case.root) == {}


def test_commands_run_only_for_the_paths_that_they_are_for() -> None:
    patterns = {"a": [], "b": ["/etc/ssh/*"], "c": ["/x", "/y"]}
    commands = [{"argv": [name], "when_changed": listed} for name, listed in patterns.items()]
    chosen = engine.wanted_commands(commands, ["/etc/ssh/sshd_config.d/00-x.conf"])
    assert [command["argv"] for command in chosen] == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["/nonexistent"], 127), (["/etc/passwd"], 126), (["sleep", "9"], 124), (["sh", "-c", "exit 7"], 7)],
)
def test_commands_that_cannot_succeed_have_an_exit_code(argv: list[str], code: int) -> None:
    assert engine.run_command({"argv": argv, "timeout": 1})["rc"] == code


def test_keys_and_people_do_not_come_back(case: Case) -> None:
    case.transaction([case.state("policy", "file", b"old"), case.state("keys", "file", b"leaver")]).apply()
    shutil.rmtree(case.base)
    change = case.transaction([case.state("policy", "file", b"new"), case.state("keys", "absent")])
    change.data["old"][1]["never_restore"] = True
    change.apply()
    report = change.rollback()
    assert report["not_restored"] == [str(case.root / "keys")]
    assert set(tree(case.root)) == {"policy"}
    assert (case.root / "policy").read_bytes() == b"old"


def test_the_last_ten_changes_are_kept(case: Case) -> None:
    for number in range(12):
        change = case.transaction(
            [case.state("a", "file", b"%d" % number)], backup=os.path.join(case.base, "backup", "demo", f"{number:03d}")
        )
        change.apply()
        change.finish()
    kept = sorted(os.listdir(os.path.join(case.base, "backup", "demo")))
    assert kept == [f"{number:03d}" for number in range(2, 12)]
    assert Path(case.base, "backup", "demo", "011", "old", "0").read_bytes() == b"10"


def test_another_format_or_a_damaged_manifest_is_not_guessed_at(case: Case) -> None:
    path = Path(engine.manifest_path("demo", base=case.base))
    path.parent.mkdir(parents=True)
    for text, word in (('{"version": 2}', "newer version"), ("{", "damaged")):
        path.write_text(text)
        with pytest.raises(engine.EngineError, match=word):
            engine.load_manifest("demo", base=case.base)


def test_one_run_at_a_time(case: Case) -> None:
    with engine.locked(case.base), pytest.raises(engine.EngineError, match="another run"):
        engine.locked(case.base, 0.1).__enter__()


# --- guard ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(case: Case, monkeypatch: pytest.MonkeyPatch) -> Callable[..., engine.Transaction]:
    run = os.path.join(case.base, "run")
    monkeypatch.setattr(engine, "RUN", run)

    def arm(window: float = 30.0, **more: Any) -> engine.Transaction:
        (case.root / "policy").write_bytes(b"old")
        change = case.transaction([case.state("policy", "file", b"new")], **more)
        os.makedirs(run, exist_ok=True)
        Path(run, "demo").write_text("1")
        engine.save_guard({"name": "demo", "id": "1", "phase": "armed", "window": window}, case.base)
        return change

    return arm


def start(case: Case) -> threading.Thread:
    thread = threading.Thread(target=engine.run_guard, args=("demo", case.base))
    thread.start()
    return thread


def policy(case: Case) -> bytes:
    return (case.root / "policy").read_bytes()


def test_a_confirmed_change_stands(case: Case, guarded: Callable[..., engine.Transaction]) -> None:
    guarded()
    thread = start(case)
    state = engine.await_applied("demo", "1", 5, case.base)
    assert state["phase"] == "waiting"
    assert engine.confirm("demo", "guessed", case.base)["phase"] == "waiting"
    assert engine.confirm("demo", state["nonce"], case.base)["phase"] == "confirmed"
    thread.join(5)
    assert not thread.is_alive()
    assert policy(case) == b"new"
    assert engine.guard_state("demo", case.base) is None
    assert engine.load_manifest("demo", base=case.base)["entries"]


def test_without_confirmation_the_old_files_come_back(case: Case, guarded: Callable[..., engine.Transaction]) -> None:
    guarded(window=0.3, activate=[{"argv": ["touch", str(case.root / "activated")]}])
    begin = time.monotonic()
    engine.run_guard("demo", case.base)
    assert 0.3 <= time.monotonic() - begin < 5
    assert policy(case) == b"old"
    state = engine.guard_state("demo", case.base)
    assert state is not None
    assert (state["phase"], state["restored"]) == ("rolled_back", [str(case.root / "policy")])
    assert "0.3 s" in state["reason"]
    assert engine.load_manifest("demo", base=case.base)["entries"] == {}
    assert engine.armed(case.base) == []
    assert engine.confirm("demo", state["nonce"], case.base)["phase"] == "rolled_back"
    assert policy(case) == b"old"
    engine.seen("demo", "1", case.base)
    assert engine.guard_state("demo", case.base) is None


def test_a_change_that_fails_is_taken_back_at_once(case: Case, guarded: Callable[..., engine.Transaction]) -> None:
    guarded(verify=[{"argv": ["sh", "-c", "echo wrong; exit 1"]}])
    engine.run_guard("demo", case.base)
    state = engine.guard_state("demo", case.base)
    assert state is not None
    assert state["reason"].startswith("verify failed")
    assert state["command"]["output"] == "wrong"
    assert policy(case) == b"old"


@pytest.mark.parametrize("phase", ["applying", "rolling_back"])
def test_the_service_was_killed_in_between(case: Case, guarded: Callable[..., engine.Transaction], phase: str) -> None:
    guarded().apply()
    state = engine.guard_state("demo", case.base)
    assert state is not None
    engine.save_guard({**state, "phase": phase}, case.base)
    engine.run_guard("demo", case.base)
    assert policy(case) == b"old"


def test_a_restart_of_the_host_takes_it_back(
    case: Case, guarded: Callable[..., engine.Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "watched", lambda _name: True)
    guarded(activate=[{"argv": ["touch", str(case.root / "not-at-boot")]}]).write_new()
    state = engine.guard_state("demo", case.base)
    assert state is not None
    engine.save_guard({**state, "phase": "waiting", "nonce": "x", "deadline": 1e12}, case.base)
    engine.boot(case.base)  # its marker and its service are there: no restart
    assert policy(case) == b"new"
    os.unlink(os.path.join(engine.RUN, "demo"))
    engine.boot(case.base)
    assert policy(case) == b"old"
    assert not (case.root / "not-at-boot").exists()


def test_a_soft_reboot_leaves_the_marker_and_nobody_who_watches(
    case: Case, guarded: Callable[..., engine.Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "watched", lambda _name: False)
    guarded().write_new()
    state = engine.guard_state("demo", case.base)
    assert state is not None
    engine.save_guard({**state, "phase": "waiting", "nonce": "x", "deadline": 1e12}, case.base)
    engine.boot(case.base)
    assert policy(case) == b"old"


def test_a_lost_answer_to_the_confirmation_is_given_again(
    case: Case, guarded: Callable[..., engine.Transaction]
) -> None:
    guarded()
    thread = start(case)
    state = engine.await_applied("demo", "1", 5, case.base)
    engine.confirm("demo", state["nonce"], case.base)
    thread.join(5)
    assert engine.await_applied("demo", "1", 5, case.base)["phase"] == "confirmed"
    assert engine.await_applied("demo", "2", 5, case.base)["phase"] == "none"


def test_what_sensitive_files_say_is_in_no_report(case: Case) -> None:
    secret = {**case.state("a", "file", b"password is hunter2\n"), "sensitive": True}
    path = str(case.root / "a")
    first = case.transaction([secret], activate=[{"argv": ["cat", path]}])
    first.apply()
    first.discard()
    change = case.transaction(
        [{**case.state("a", "file", b"password is hunter3\n"), "sensitive": True}],
        activate=[{"argv": ["cat", path]}],
        verify=[{"argv": ["grep", "-r", "hunter2", path]}],
    )
    change.data["old"][0]["sensitive"] = True
    bad = change.apply()
    assert bad is not None
    report = change.rollback()
    outputs = [outcome["output"] for outcome in [*change.data["outcomes"], *report["commands"]]]
    assert outputs == ["********", "", "********"]
    assert "hunter" not in str(report)


def test_armed_and_then_nothing_leaves_nothing(case: Case, guarded: Callable[..., engine.Transaction]) -> None:
    guarded()
    engine.recover("demo", "gone", case.base)
    assert policy(case) == b"old"
    assert engine.guard_state("demo", case.base) is None
    assert engine.Transaction.load("demo", case.base) is None


def test_a_full_disk_does_not_keep_the_old_files_away(
    case: Case, guarded: Callable[..., engine.Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be written until what the change has brought is gone again."""
    new = case.root / "a-new"
    change = guarded()
    change.data["new"].append({**change.data["new"][0], "path": str(new)})
    change.data["old"].append({"path": str(new), "type": "absent"})
    change.write_new()
    state = engine.guard_state("demo", case.base)
    assert state is not None
    engine.save_guard({**state, "phase": "waiting", "nonce": "x", "deadline": 0.0}, case.base)
    write = engine.write_at

    def full(parent: int, path: str, *more: Any) -> None:
        if new.exists():
            raise OSError(errno.ENOSPC, "No space left on device", path)
        write(parent, path, *more)

    monkeypatch.setattr(engine, "write_at", full)
    engine.run_guard("demo", case.base)
    assert tree(case.root) == {"policy": ("file", 0o644, b"old")}
    state = engine.guard_state("demo", case.base)
    assert state is not None
    assert state["phase"] == "rolled_back"


def test_a_disk_that_stays_full_is_not_tried_for_ever(
    case: Case, guarded: Callable[..., engine.Transaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    change = guarded()
    change.data["old"][0] = {"path": change.data["old"][0]["path"], "type": "absent"}
    change.data["manifest_before"]["entries"] = {"/x": {"type": "file"}}
    change.write_new()
    state = engine.guard_state("demo", case.base)
    assert state is not None
    engine.save_guard({**state, "phase": "applying"}, case.base)

    def full(_parent: int, path: str, *_more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(engine, "write_at", full)
    engine.run_guard("demo", case.base)
    assert tree(case.root) == {}
    assert engine.guard_names(case.base) == []


def test_one_damaged_set_does_not_keep_the_others_from_being_put_back(
    case: Case, guarded: Callable[..., engine.Transaction]
) -> None:
    guarded().write_new()
    state = engine.guard_state("demo", case.base)
    assert state is not None
    engine.save_guard({**state, "phase": "applying"}, case.base)
    os.unlink(os.path.join(engine.RUN, "demo"))
    damaged = Path(case.base, "guard", "another", "state.json")
    damaged.parent.mkdir()
    damaged.write_text("{")
    assert engine.boot(case.base) == 1
    assert policy(case) == b"old"


def test_a_link_that_appears_on_the_way_leads_nowhere(case: Case) -> None:
    """A person who owns a directory moves it away between the plan and the write."""
    home, victim = case.root / "home", case.root / "victim"
    home.mkdir()
    victim.mkdir()
    for path in (home / "old", victim / "old"):
        path.write_bytes(b"1")
    gone = case.state("home/old", "absent")
    states = [case.state("home/new", "file", b"2"), case.state("home/sub", "directory"), gone]
    change = case.transaction(states)
    before = tree(victim)
    home.rename(case.root / "moved")
    home.symlink_to(victim)
    assert f"could not write {home}/" in (change.apply() or {})["msg"]
    engine.put([gone], change.directory)
    assert tree(victim) == before
    assert engine.inspect(str(home / "old"))["type"] == "absent"
    with pytest.raises(engine.EngineError, match="could not read"):
        engine.read_file(str(home / "old"))


def test_what_is_no_file_any_more_is_not_read(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, link, large = case.root / "pipe", case.root / "link", case.root / "large"
    os.mkfifo(pipe)
    link.symlink_to("/etc/passwd")
    large.write_bytes(b"12345")
    monkeypatch.setattr(engine, "SIZE_LIMIT", 4)
    for path in (pipe, link, large):
        with pytest.raises(engine.EngineError, match="could not read"):
            engine.read_file(str(path))
    with pytest.raises(engine.EngineError, match="larger"):
        engine.inspect(str(large))
