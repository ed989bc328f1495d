# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the module's input to the states that the plan is made of."""

from __future__ import annotations

from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_plan import join_transactions, make_plan
from ansible_collections.devnode.gpu.plugins.modules.file_set import FileSet

DEFAULTS = {"owner": "root", "group": "root", "mode": None, "sensitive": False, "seed": False, "never_restore": False}


def test_a_key_that_is_taken_away_is_neither_shown_nor_brought_back() -> None:
    item = {**DEFAULTS, "path": "/key", "state": "absent", "sensitive": True, "never_restore": True}
    errors: list[str] = []
    wanted = FileSet._wanted(object.__new__(FileSet), 0, item, errors)
    live: dict[str, Any] = {"type": "file", "sha256": "", "mode": 0o600, "uid": 0, "gid": 0}
    plan = make_plan([wanted], {}, lambda path: {**live, "path": path})
    (change,) = plan.changes
    assert (change.after["type"], change.sensitive, change.never_restore, errors) == ("absent", True, True, [])
    assert join_transactions(plan.changes, [])[0]["never_restore"]
