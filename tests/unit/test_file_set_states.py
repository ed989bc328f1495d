# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making paths so, on a real file system, interrupted anywhere; and never through a link."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import fileset_disk, fileset_states
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_transaction import Transaction
from file_set_case import Case, State, tree
from hypothesis import given, settings
from hypothesis import strategies as st


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
            fileset_disk.os = fileset_states.os = FragileOs(changes)  # type: ignore[attr-defined]
            try:
                fileset_states.put(change.data["new"], change.directory)
            except CrashError:
                pass
            finally:
                fileset_disk.os = fileset_states.os = os  # type: ignore[attr-defined]
            again = Transaction.load("demo", case.base)
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
    fileset_states.put([gone], change.directory)
    assert tree(victim) == before
    assert fileset_states.inspect(str(home / "old"))["type"] == "absent"
    with pytest.raises(fileset_disk.FileSetError, match="could not read"):
        fileset_states.read_file(str(home / "old"))


def test_what_is_no_file_any_more_is_not_read(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, link, large = case.root / "pipe", case.root / "link", case.root / "large"
    os.mkfifo(pipe)
    link.symlink_to("/etc/passwd")
    large.write_bytes(b"12345")
    monkeypatch.setattr(fileset_states, "SIZE_LIMIT", 4)
    for path in (pipe, link, large):
        with pytest.raises(fileset_disk.FileSetError, match="could not read"):
            fileset_states.read_file(str(path))
    with pytest.raises(fileset_disk.FileSetError, match="larger"):
        fileset_states.inspect(str(large))
