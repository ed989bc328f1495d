# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the module's input to the states that the plan is made of."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import FileSetError, sha256
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_input import Reader, Wanted
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_plan import join_transactions, make_plan

DEFAULTS = {
    **{"state": "file", "owner": "root", "group": "root", "mode": None, "target": None},
    **{"sensitive": False, "seed": False, "shared": False, "never_restore": False},
}


class Task:
    """A task's parameters as the action sends them, and what the module was told while it read them."""

    def __init__(self, *files: dict[str, Any], contents: dict[int, bytes] | None = None, **more: Any) -> None:
        packed = {str(index): base64.b64encode(data).decode() for index, data in (contents or {}).items()}
        payload = {"contents": packed, "guard_program": base64.b64encode(b"program").decode()}
        self.params = {
            "name": "demo",
            "state": "present",
            "guard": None,
            "rendered": base64.b64encode(zlib.compress(json.dumps(payload).encode())).decode(),
            "files": [{**DEFAULTS, **item} for item in files],
            **more,
        }
        self.warnings: list[str] = []
        self.hidden: list[str] = []

    def read(self, check: bool = False, owners: dict[str, str] | None = None) -> Wanted:
        reader = Reader(self.params, check, self.warnings.append, self.hidden.extend)
        return reader.read(lambda _name: owners or {})

    def refusal(self, owners: dict[str, str] | None = None) -> list[str]:
        with pytest.raises(FileSetError) as refused:
            self.read(owners=owners)
        return str(refused.value).splitlines()


def test_files_with_their_contents() -> None:
    task = Task({"path": "/a"}, {"path": "/b", "state": "directory"}, {"path": "/c"}, contents={0: b"1", 2: b"3"})
    wanted = task.read()
    assert [(s["path"], s["type"], s["mode"], s["uid"]) for s in wanted.states] == [
        ("/a", "file", 0o644, 0),
        ("/b", "directory", 0o755, 0),
        ("/c", "file", 0o644, 0),
    ]
    assert wanted.contents == {"/a": b"1", "/c": b"3"}
    assert wanted.states[2]["sha256"] == sha256(b"3")
    assert wanted.guard_program == b"program"


def test_absent_means_no_files() -> None:
    assert Task({"path": "/a"}, state="absent").read().states == []


def test_every_mistake_is_reported_together() -> None:
    lines = Task(
        {"path": "/a", "mode": 420},
        {"path": "/b", "state": "link"},
        {"path": "/c", "owner": "nobody-of-that-name"},
        name="Demo",
        guard={"window": 1, "host": "", "port": 70000},
    ).refusal()
    assert lines == [
        "file_set 'Demo' cannot be put on this host:",
        "name: 'Demo' has to match [a-z0-9][a-z0-9_.-]{0,63}; it becomes a file name on the host.",
        "guard.window: 1 s is not between 5 and 3600.",
        "guard.port: 70000 is not a port.",
        'files[0].mode: 420 has to be octal and in quotes, such as "0644".',
        "files[1].target: a link needs one.",
        "files[2].owner: there is no user 'nobody-of-that-name' on this host. Make it in an earlier task.",
    ]


def test_what_another_set_owns_is_refused() -> None:
    assert "'/a' belongs to the file set 'another'" in Task({"path": "/a"}).refusal({"/a": "another"})[1]


def test_an_account_that_an_earlier_task_would_have_made_is_no_mistake_in_check_mode() -> None:
    task = Task({"path": "/a", "group": "nobody-of-that-name"})
    assert task.read(check=True).states[0]["gid"] == 0
    assert "there is no group 'nobody-of-that-name'" in task.warnings[0]


def test_what_a_sensitive_file_says_is_hidden() -> None:
    task = Task(
        {"path": "/a", "sensitive": True}, {"path": "/b"}, contents={0: b"the-long-secret", 1: b"no-secret-here"}
    )
    task.read()
    assert set(task.hidden) == {"the-long-secret"}


def test_without_its_action_it_does_nothing() -> None:
    assert "through its action plugin only" in Task(rendered=None).refusal()[0]


def test_a_key_that_is_taken_away_is_neither_shown_nor_brought_back() -> None:
    (wanted,) = Task({"path": "/key", "state": "absent", "sensitive": True, "never_restore": True}).read().states
    live: dict[str, Any] = {"type": "file", "sha256": "", "mode": 0o600, "uid": 0, "gid": 0}
    plan = make_plan([wanted], {}, lambda path: {**live, "path": path})
    (change,) = plan.changes
    assert (change.after["type"], change.sensitive, change.never_restore) == ("absent", True, True)
    assert join_transactions(plan.changes, [])[0]["never_restore"]
