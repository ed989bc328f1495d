# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks/nodes.yml makes of the plan, where it is more than handing it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.playbook import ROOT, inventory, play


def driver_is_optional() -> str:
    (book,) = yaml.safe_load((ROOT / "playbooks" / "nodes.yml").read_text())
    variables = next(entry["vars"] for entry in book["roles"] if entry["role"] == "devnode.gpu.nvidia_driver")
    return str(variables["nvidia_driver_optional"])


@pytest.mark.parametrize(("gpus", "optional"), [(None, "True"), ("none", "True"), ("all", "False"), ([0], "False")])
def test_a_driver_is_needed_where_a_workspace_asks_for_gpus(tmp_path: Path, gpus: Any, optional: str) -> None:
    def change(variables: dict[str, Any], _children: dict[str, Any]) -> None:
        if gpus is not None:
            variables["devnode_workspaces"][0]["gpus"] = gpus

    inventory(tmp_path, change)
    tasks = [
        {"devnode.gpu.plan": {"kind": "node"}, "register": "devnode_plan"},
        {"ansible.builtin.copy": {"content": driver_is_optional(), "dest": f"{tmp_path}/made", "mode": "0644"}},
    ]
    (tmp_path / "book.yml").write_text(yaml.safe_dump([{"hosts": "gpu-01", "gather_facts": False, "tasks": tasks}]))
    done = play(tmp_path, tmp_path / "book.yml")
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "made").read_text().strip() == optional
