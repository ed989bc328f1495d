# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks say of nodes' drivers: who needs one, and what is left to do at the end of site.yml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.fleet import key
from unit.playbook import ROOT, inventory, play


def role_variables(name: str) -> dict[str, str]:
    (book,) = yaml.safe_load((ROOT / "playbooks" / "nodes.yml").read_text())
    return dict(next(entry["vars"] for entry in book["roles"] if entry["role"] == f"devnode.gpu.{name}"))


def planned(folder: Path, text: str) -> str:
    """What a text of the play becomes on gpu-01."""
    tasks = [
        {"devnode.gpu.plan": {"kind": "node"}, "register": "devnode_plan"},
        {"ansible.builtin.copy": {"content": text, "dest": f"{folder}/made", "mode": "0644"}},
    ]
    (folder / "book.yml").write_text(yaml.safe_dump([{"hosts": "gpu-01", "gather_facts": False, "tasks": tasks}]))
    done = play(folder, folder / "book.yml")
    assert done.returncode == 0, done.stdout
    return (folder / "made").read_text().strip()


@pytest.mark.parametrize(("gpus", "optional"), [(None, "True"), ("none", "True"), ("all", "False"), ([0], "False")])
def test_a_driver_is_needed_where_a_workspace_asks_for_gpus(tmp_path: Path, gpus: Any, optional: str) -> None:
    def change(variables: dict[str, Any], _children: dict[str, Any]) -> None:
        if gpus is not None:
            variables["devnode_workspaces"][0]["gpus"] = gpus

    inventory(tmp_path, change)
    assert planned(tmp_path, role_variables("nvidia_driver")["nvidia_driver_optional"]) == optional


def test_a_nodes_workspaces_are_signed_for_by_the_same_authority_as_the_node(tmp_path: Path) -> None:
    given = [role_variables(name)[f"{name}_host_ca"] for name in ("ssh_server", "pytorch_sshd")]
    inventory(tmp_path)
    assert planned(tmp_path, "|".join(given)) == "|"
    (tmp_path / "ca.pub").write_text(key("ca"))
    inventory(tmp_path, lambda variables, _children: variables.update(devnode_host_ca=f"{tmp_path}/ca"))
    assert planned(tmp_path, "|".join(given)) == f"{tmp_path}/ca|{tmp_path}/ca"


PENDING = "reboot needed: driver 570.195.03 is loaded, and 580.105.08 is installed"


@pytest.mark.parametrize("result", [None, {"pending": []}, {"pending": [PENDING]}])
def test_the_end_of_a_run_says_which_node_needs_a_restart(tmp_path: Path, result: Any) -> None:
    """The last play of site.yml, after a run that left such a result (or never came so far)."""
    inventory(tmp_path)
    last = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())[-1]
    (tmp_path / "book.yml").write_text(yaml.safe_dump([last]))
    done = play(tmp_path, tmp_path / "book.yml", "-e", json.dumps({"nvidia_driver_result": result} if result else {}))
    assert done.returncode == 0, done.stdout
    assert (PENDING in done.stdout) == bool(result and result["pending"])
    assert ("ok: [gpu-01]" in done.stdout) == (PENDING in done.stdout)
