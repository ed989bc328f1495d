# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a set took over is as it was before when the set gives it up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_manifest import (
    original_path,
    read_original,
    save_manifest,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_plan import make_plan
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_states import inspect
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_transaction import Transaction

State = dict[str, Any]
DISTRO = {"path": "/etc/a", "type": "file", "mode": 0o640, "uid": 0, "gid": 5, "sha256": "d"}
OURS = {"path": "/etc/a", "type": "file", "mode": 0o644, "uid": 0, "gid": 0, "sha256": "o"}
ETC = {"path": "/etc", "type": "directory", "mode": 0o755, "uid": 0, "gid": 0, "children": ["a"]}


def plan(wanted: list[State], manifest: dict[str, Any], live: State) -> Any:
    known = {"/etc": ETC, "/etc/a": live}
    return make_plan(wanted, manifest, lambda path: known.get(path, {"path": path, "type": "absent"}))


def test_taken_over_kept_and_given_back() -> None:
    first = plan([OURS], {}, DISTRO)
    original = first.entries["/etc/a"]["original"]
    assert original["sha256"] == "d"
    later = plan([{**OURS, "sha256": "n"}], first.entries, OURS)
    assert later.entries["/etc/a"]["original"] == original
    assert plan([OURS], later.entries, OURS).entries["/etc/a"]["original"] == original
    dropped = plan([], first.entries, OURS)
    assert dropped.changes[0].after == DISTRO
    assert (dropped.originals, dropped.removed, dropped.entries) == (["/etc/a"], [], {})


def test_a_link_is_given_back_too() -> None:
    link = {"path": "/etc/a", "type": "link", "target": "/usr/lib/a"}
    entries = plan([OURS], {}, link).entries
    assert plan([], entries, OURS).changes[0].after == link


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        ([{**OURS, "never_restore": True}], DISTRO),  # a key that was there before is no longer wanted
        ([OURS], OURS),  # nothing was replaced
        ([OURS], {"path": "/etc/a", "type": "absent"}),
    ],
)
def test_nothing_to_give_back(wanted: list[State], live: State) -> None:
    entries = plan(wanted, {}, live).entries
    assert "original" not in entries["/etc/a"]
    assert plan([], entries, OURS).removed == ["/etc/a"]


def test_what_others_write_to_as_well_stays_as_it_is_when_it_is_no_longer_listed() -> None:
    """And what it was on the day that the set came does not come back."""
    shared = {**OURS, "shared": True}
    entries = plan([shared], {"/etc/a": {**OURS, "original": DISTRO}}, OURS).entries
    assert "original" not in entries["/etc/a"]
    assert "original" not in plan([shared], {}, DISTRO).entries["/etc/a"]
    theirs = {**OURS, "sha256": "theirs and ours"}
    without = plan([{**shared, "sha256": "theirs"}], entries, theirs)
    assert [change.after["sha256"] for change in without.changes] == ["theirs"]
    assert without.foreign == []
    last = plan([], without.entries, {**OURS, "sha256": "theirs"})
    assert (last.changes, last.entries) == ([], {})


def test_an_explicit_absent_and_a_file_that_is_gone_stay_so() -> None:
    entries = plan([OURS], {}, DISTRO).entries
    assert plan([{"path": "/etc/a", "type": "absent"}], entries, OURS).removed == ["/etc/a"]
    assert plan([], entries, {"path": "/etc/a", "type": "absent"}).changes == []


def test_the_contents_are_kept_as_long_as_they_are_needed(tmp_path: Path) -> None:
    base, live = str(tmp_path / "lib"), tmp_path / "a"
    live.write_bytes(b"distro")
    old = inspect(str(live))
    entries = {str(live): {**old, "original": old}}
    transaction = Transaction(
        {
            "name": "demo", "old": [{**old, "blob": "old/0"}], "new": [], "backup": None,
            "manifest_before": {"entries": {}}, "manifest_after": {"version": 1, "name": "demo", "entries": entries},
        },
        base,
    )  # fmt: skip
    Path(transaction.directory, "old").mkdir(parents=True)
    Path(transaction.directory, "old", "0").write_bytes(b"distro")
    transaction.finish()
    assert read_original("demo", old, base) == b"distro"
    Path(original_path("demo", old["sha256"], base)).write_bytes(b"damaged")
    assert read_original("demo", old, base) is None
    save_manifest({"name": "demo", "entries": {}}, base=base)
    assert read_original("demo", old, base) is None
    assert not Path(base, "original", "demo").exists()
