# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What file_set decides to do, from what is wanted, remembered and there."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import sha256
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_plan import (
    Plan,
    check_wanted,
    join_transactions,
    make_plan,
    parents,
    path_problem,
)
from hypothesis import given, settings
from hypothesis import strategies as st

State = dict[str, Any]
ROOT = ("/etc", "/usr", "/srv")


class Host:
    """A file system in memory."""

    def __init__(self, *states: State) -> None:
        self.states: dict[str, State] = {path: directory(path) for path in ROOT}
        for state in states:
            self.put(state)

    def put(self, state: State) -> None:
        for parent in parents(state["path"]):
            self.states.setdefault(parent, directory(parent))
        if state["type"] == "absent":
            self.states.pop(state["path"], None)
        else:
            self.states[state["path"]] = {
                k: v for k, v in state.items() if k in ("path", "type", "mode", "uid", "gid", "sha256", "target")
            }

    def inspect(self, path: str) -> State:
        state = self.states.get(path)
        if state is None:
            return {"path": path, "type": "absent"}
        if state["type"] == "directory":
            children = [posixpath.basename(p) for p in self.states if posixpath.dirname(p) == path]
            return {**state, "children": sorted(children)}
        return dict(state)

    def apply(self, plan: Plan) -> None:
        for change in sorted(plan.changes, key=lambda c: (c.after["type"] == "absent", c.path.count("/"))):
            if change.after["type"] == "absent":
                below = [p for p in self.states if p.startswith(change.path + "/")]
                gone = {c.path for c in plan.changes if c.after["type"] == "absent"}
                assert set(below) <= gone, f"{change.path} would take {below} with it"
                self.states.pop(change.path)
            else:
                self.put(change.after)


def file(path: str, content: str = "x", **more: Any) -> State:
    return {"path": path, "type": "file", "sha256": sha256(content.encode()), "mode": 0o644, "uid": 0, "gid": 0, **more}


def directory(path: str, **more: Any) -> State:
    return {"path": path, "type": "directory", "mode": 0o755, "uid": 0, "gid": 0, **more}


def link(path: str, target: str) -> State:
    return {"path": path, "type": "link", "target": target, "mode": 0o777, "uid": 0, "gid": 0}


def absent(path: str) -> State:
    return {"path": path, "type": "absent"}


def test_new_files_bring_their_directories() -> None:
    host = Host()
    plan = make_plan([file("/etc/a/b/c")], {}, host.inspect)
    assert plan.changed_paths == ["/etc/a", "/etc/a/b", "/etc/a/b/c"]
    assert plan.entries["/etc/a"]["implicit"] is True
    host.apply(plan)
    again = make_plan([file("/etc/a/b/c")], plan.entries, host.inspect)
    assert not again.changes
    assert again.entries == plan.entries


def test_what_is_no_longer_listed_goes_with_its_directories() -> None:
    host = Host()
    plan = make_plan([file("/etc/a/b/c"), file("/etc/a/d")], {}, host.inspect)
    host.apply(plan)
    plan = make_plan([file("/etc/a/d")], plan.entries, host.inspect)
    assert plan.removed == ["/etc/a/b", "/etc/a/b/c"]
    host.apply(plan)
    assert make_plan([], plan.entries, host.inspect).removed == ["/etc/a", "/etc/a/d"]


def test_a_directory_with_foreign_files_stays_and_stays_ours() -> None:
    host = Host()
    plan = make_plan([file("/etc/a/c")], {}, host.inspect)
    host.apply(plan)
    host.put(file("/etc/a/foreign"))
    plan = make_plan([], plan.entries, host.inspect)
    assert (plan.removed, plan.kept) == (["/etc/a/c"], ["/etc/a"])
    host.apply(plan)
    assert not make_plan([], plan.entries, host.inspect).changes
    host.put(absent("/etc/a/foreign"))
    assert make_plan([], plan.entries, host.inspect).removed == ["/etc/a"]


def test_directories_that_were_there_are_not_ours() -> None:
    host = Host(directory("/etc/there"))
    plan = make_plan([file("/etc/there/c")], {}, host.inspect)
    host.apply(plan)
    assert make_plan([], plan.entries, host.inspect).removed == ["/etc/there/c"]


def test_a_seed_is_made_once_and_never_touched_or_removed() -> None:
    host = Host()
    plan = make_plan([file("/etc/s", seed=True)], {}, host.inspect)
    assert plan.changed_paths == ["/etc/s"]
    host.apply(plan)
    host.put(file("/etc/s", "theirs"))
    plan = make_plan([file("/etc/s", seed=True)], plan.entries, host.inspect)
    assert not plan.changes
    assert not plan.foreign
    plan = make_plan([], plan.entries, host.inspect)
    assert not plan.changes
    assert not plan.entries


def test_foreign_changes_are_reported_only_when_they_are_replaced() -> None:
    host = Host()
    plan = make_plan([file("/etc/f")], {}, host.inspect)
    host.apply(plan)
    host.put(file("/etc/f", "theirs", mode=0o600))
    assert make_plan([file("/etc/f")], plan.entries, host.inspect).foreign == [
        {"path": "/etc/f", "what": "content, mode"}
    ]
    assert make_plan([], plan.entries, host.inspect).foreign == [{"path": "/etc/f", "what": "content, mode"}]
    agreed = make_plan([file("/etc/f", "theirs", mode=0o600)], plan.entries, host.inspect)
    assert not agreed.foreign
    assert not agreed.changes


def test_what_an_interrupted_run_left_is_not_foreign() -> None:
    host = Host(file("/etc/f", "half"))
    entries = {"/etc/f": {"type": "file", "sha256": sha256(b"old"), "mode": 0o644, "uid": 0, "gid": 0}}
    known = {"/etc/f": [file("/etc/f", "half")]}
    plan = make_plan([file("/etc/f", "new")], entries, host.inspect, known)
    assert plan.changed_paths == ["/etc/f"]
    assert not plan.foreign


def test_root_owned_files_are_compared_with_what_was_remembered() -> None:
    """0 is a uid, not a missing value."""
    host = Host()
    plan = make_plan([file("/etc/f")], {}, host.inspect)
    assert plan.entries["/etc/f"]["uid"] == 0
    host.put(file("/etc/f", uid=1000))
    assert make_plan([file("/etc/f")], plan.entries, host.inspect).foreign == [{"path": "/etc/f", "what": "owner"}]


def test_nothing_is_written_through_links() -> None:
    host = Host(link("/etc/linked", "/srv"))
    plan = make_plan([file("/etc/linked/f")], {}, host.inspect)
    assert len(plan.errors) == 1
    assert "link to '/srv'" in plan.errors[0]


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (file("/etc/x/full"), file("/etc/x")),
        (file("/etc/x"), directory("/etc/x")),
        ({"path": "/etc/x", "type": "other", "mode": 0, "uid": 0, "gid": 0}, file("/etc/x")),
        (file("/etc/x"), file("/etc/x/below")),
    ],
)
def test_what_is_in_the_way_is_refused(there: State, wanted: State) -> None:
    plan = make_plan([wanted], {}, Host(there).inspect)
    assert len(plan.errors) == 1
    assert "/etc/x" in plan.errors[0]


def test_an_own_directory_may_become_a_file() -> None:
    host = Host()
    plan = make_plan([file("/etc/x/f")], {}, host.inspect)
    host.apply(plan)
    plan = make_plan([file("/etc/x")], plan.entries, host.inspect)
    assert not plan.errors
    assert plan.changed_paths == ["/etc/x", "/etc/x/f"]


def test_absent_takes_files_of_anybody_but_no_full_directories() -> None:
    host = Host(file("/etc/theirs"), file("/etc/dir/f"), directory("/etc/empty"))
    wanted = [absent("/etc/theirs"), absent("/etc/dir"), absent("/etc/empty"), absent("/etc/no")]
    plan = make_plan(wanted, {}, host.inspect)
    assert plan.removed == ["/etc/empty", "/etc/theirs"]
    assert plan.kept == ["/etc/dir"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("etc/x", "not absolute"),
        ("/etc/../x", "plain form"),
        ("/etc//x", "plain form"),
        ("/etc/x/", "plain form"),
        ("//etc/x", "plain form"),
        ("/", "plain form"),
        ("/etc/a\nb", "control character"),
        ("/etc/a\x7f", "control character"),
        ("/proc/sys/x", "/proc"),
        ("/var/lib/devnode/guard/x", "/var/lib/devnode/guard"),
    ],
)
def test_odd_paths_are_refused(path: str, reason: str) -> None:
    assert reason in (path_problem(path) or "")


@pytest.mark.parametrize("path", ["/etc/a b", "/etc/ä", "/etc/$(x)", "/etc/-rf", "/etc/%h", "/etc/it's"])
def test_unusual_paths_are_fine(path: str) -> None:
    assert path_problem(path) is None


def test_all_mistakes_in_the_list_are_reported_together() -> None:
    errors = check_wanted(
        [file("relative"), file("/etc/a"), file("/etc/a"), file("/etc/a/b"), file("/etc/other")],
        {"/etc/other": "them"},
        "us",
    )
    assert [error.split(":")[0] for error in errors] == [
        "files[0].path",
        "files[2].path",
        "files[4].path",
        "files[3].path",
    ]
    assert "'them'" in errors[2]


def test_the_old_side_reaches_back_to_before_the_interrupted_change() -> None:
    host = Host(file("/etc/a", "half"), file("/etc/b", "b"))
    plan = make_plan([file("/etc/a", "new"), file("/etc/b", "new")], {}, host.inspect)
    old = join_transactions(plan.changes, [file("/etc/a", "before", blob="old/0000")])
    assert {state["path"]: state["sha256"] for state in old} == {"/etc/a": sha256(b"before"), "/etc/b": sha256(b"b")}


names = st.sampled_from(["a", "b", "c"])
paths = st.builds(lambda parts: "/etc/" + "/".join(parts), st.lists(names, min_size=1, max_size=3))


@st.composite
def sets(draw: st.DrawFn) -> list[State]:
    """A list without contradictions in itself."""
    chosen: dict[str, State] = {}
    for path in draw(st.lists(paths, max_size=6, unique=True)):
        above = [chosen.get(parent) for parent in parents(path)]
        below = [p for p in chosen if p.startswith(path + "/")]
        if any(state and state["type"] != "directory" for state in above) or below:
            continue
        kind = draw(st.sampled_from(["file", "file", "directory", "link"]))
        if kind == "file":
            chosen[path] = file(path, draw(st.sampled_from("12")), mode=draw(st.sampled_from([0o644, 0o600])))
        else:
            chosen[path] = directory(path) if kind == "directory" else link(path, draw(st.sampled_from("xy")))
    return list(chosen.values())


@settings(max_examples=300, deadline=None)
@given(st.lists(sets(), min_size=1, max_size=4))
def test_any_sequence_of_sets_converges_and_cleans_up(history: list[list[State]]) -> None:
    host = Host(file("/etc/theirs"))
    entries: dict[str, Any] = {}
    for wanted in [*history, []]:
        assert check_wanted(wanted, {}, "set") == []
        plan = make_plan(wanted, entries, host.inspect)
        assert plan.errors == []
        assert plan.foreign == []
        host.apply(plan)
        entries = plan.entries
        for state in wanted:
            live = host.inspect(state["path"])
            keys = ("type", "target") if state["type"] == "link" else ("type", "sha256", "mode")
            assert all(live.get(key) == state.get(key) for key in keys)
        again = make_plan(wanted, entries, host.inspect)
        assert again.changes == []
        assert again.entries == entries
    assert set(host.states) == {*ROOT, "/etc/theirs"}
    assert entries == {}
