# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change with its commands: made, taken back, kept; and one at a time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import fileset_transaction
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import run_command, wanted_commands
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import FileSetError, locked
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_manifest import load_manifest, manifest_path
from file_set_case import Case, tree


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
    chosen = wanted_commands(commands, ["/etc/ssh/sshd_config.d/00-x.conf"])
    assert [command["argv"] for command in chosen] == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["/nonexistent"], 127), (["/etc/passwd"], 126), (["sleep", "9"], 124), (["sh", "-c", "exit 7"], 7)],
)
def test_commands_that_cannot_succeed_have_an_exit_code(argv: list[str], code: int) -> None:
    assert run_command({"argv": argv, "timeout": 1})["rc"] == code


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


def test_another_format_or_a_damaged_manifest_is_not_guessed_at(case: Case) -> None:
    path = Path(manifest_path("demo", base=case.base))
    path.parent.mkdir(parents=True)
    for text, word in (('{"version": 2}', "newer version"), ("{", "damaged")):
        path.write_text(text)
        with pytest.raises(FileSetError, match=word):
            load_manifest("demo", base=case.base)


def test_one_run_at_a_time(case: Case) -> None:
    with locked(case.base), pytest.raises(FileSetError, match="another run"):
        locked(case.base, 0.1).__enter__()


def test_a_way_back_is_tried_again_until_it_works(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two times something is in the way: systemd starts no socket whose service somebody has just started."""
    monkeypatch.setattr(fileset_transaction, "PAUSES", (0.0, 0.0, 0.0))
    count = Path(f"{case.base}.tries")
    busy = ["sh", "-c", f"echo x >>{count}; test $(wc -l <{count}) -gt 2"]
    transaction = case.transaction([case.state("a", "file", b"x")], activate=[], reactivate=[{"argv": busy}])
    transaction.apply()
    report = transaction.rollback()
    assert report["errors"] == []
    assert count.read_text() == "x\n" * 3


def test_a_way_back_that_never_works_ends_and_is_told(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fileset_transaction, "PAUSES", (0.0, 0.0))
    broken = [{"argv": ["sh", "-c", "echo no; exit 3"]}]
    transaction = case.transaction([case.state("a", "file", b"x")], activate=[], reactivate=broken)
    transaction.apply()
    assert transaction.rollback()["errors"] == ["sh -c echo no; exit 3: exit 3: no"]
