# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as a transaction on disk, joined with one that an earlier run has left half done."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.devnode.gpu.plugins.module_utils import whole_file
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import (
    BASE,
    make_private,
    write_atomic,
    write_json,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_plan import Plan, State, join_transactions
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_states import read_file
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_transaction import Transaction


def owned_with(manifest: Mapping[str, Any], earlier: Optional[Transaction]) -> Dict[str, Any]:
    """What an interrupted run had begun to own is ours to clean up as well."""
    begun = earlier.data["manifest_after"]["entries"] if earlier else {}
    return {**begun, **manifest["entries"]}


def known_states(earlier: Optional[Transaction]) -> Dict[str, List[State]]:
    """States that an interrupted run of ours may have left."""
    known: Dict[str, List[State]] = {}
    if earlier:
        for state in [*earlier.data["old"], *earlier.data["new"]]:
            known.setdefault(state["path"], []).append(state)
    return known


def prepare(
    plan: Plan,
    contents: Mapping[str, bytes],
    params: Mapping[str, Any],
    manifest: Mapping[str, Any],
    earlier: Optional[Transaction],
) -> Transaction:
    """Everything that is needed to make the change or to take it back, on disk."""
    name = params["name"]
    stamp = whole_file.stamp()
    old = join_transactions(plan.changes, earlier.data["old"] if earlier else [])
    earlier_changed = earlier.data["changed"] if earlier else []
    transaction = Transaction(
        {
            "version": 1,
            "id": stamp,
            "name": name,
            "phase": "prepared",
            "old": old,
            "new": [],
            "changed": sorted(set(plan.changed_paths) | set(earlier_changed)),
            "activate": params["activate"],
            "reactivate": params["reactivate"],
            "verify": params["verify"],
            "manifest_before": earlier.data["manifest_before"] if earlier else manifest,
            "manifest_after": plan.manifest(name),
            "backup": os.path.join(BASE, "backup", name, stamp) if params["backup"] else None,
        }
    )
    # Built beside its place, so that an interruption leaves either the earlier change or this one.
    place, building = transaction.directory, transaction.building
    shutil.rmtree(building, ignore_errors=True)
    for side in ("old", "new"):
        make_private(os.path.join(building, side))
    for number, state in enumerate(old):
        if state["type"] == "file":
            if "blob" in state:
                with open(os.path.join(place, state["blob"]), "rb") as stream:
                    data = stream.read()
            else:
                data = read_file(state["path"])
            state["blob"] = f"old/{number:04d}"
            write_atomic(os.path.join(building, state["blob"]), data, 0o600)
    for number, change in enumerate(plan.changes):
        state = dict(change.after)
        if state["type"] == "file":
            state["blob"] = f"new/{number:04d}"
            write_atomic(os.path.join(building, state["blob"]), contents[change.path], 0o600)
        transaction.data["new"].append(state)
    # A change that takes over an interrupted one has touched live files already.
    transaction.data["phase"] = "written" if earlier else "prepared"
    write_json(os.path.join(building, "transaction.json"), transaction.data)
    transaction.install()
    return transaction
