# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a managed machine with people's homes, through the action and a real inventory."""

from __future__ import annotations

import json

import pytest
import yaml
from unit.playbook import inventory, play

TASKS = [
    {"devnode.gpu.plan": {"kind": "client"}, "register": "plan"},
    {"ansible.builtin.copy": {"content": "{{ plan.views | to_json }}", "dest": "{{ found }}", "mode": "0600"}},
]


def _plan(folder, **desk):
    def change(variables, children):
        variables["devnode_users"][0]["client"] = {"base_dir": "/Users/ada/fleet", "platform": "macos"}
        children["devnode_clients"] = {"hosts": {"desk": desk}}

    inventory(folder, change, known=("bastion", "gpu-01", "nlp.gpu-01"))
    book = folder / "plan.yml"
    book.write_text(
        yaml.safe_dump(
            [{"hosts": "desk", "gather_facts": False, "vars": {"found": str(folder / "found")}, "tasks": TASKS}]
        )
    )
    return play(folder, book)


def test_the_views_of_the_machines_people(tmp_path):
    done = _plan(tmp_path, devnode_client_people=["ada"], devnode_client={"openssh": "9.2"})
    assert done.returncode == 0, done.stdout
    (view,) = json.loads((tmp_path / "found").read_text())
    assert (view["person"], view["openssh"]) == ("ada", "9.2")
    assert not {"base_dir", "platform"} & set(view)


@pytest.mark.parametrize("playbook", ["playbooks/validate.yml", ""])
def test_a_stranger_is_refused_before_anything_is_touched(tmp_path, playbook):
    done = _plan(tmp_path, devnode_client_people=["eve"])
    if playbook:
        done = play(tmp_path, playbook)
    assert done.returncode != 0
    assert 'host desk.devnode_client_people[0]: "eve" is not in devnode_users. Allowed: ada, olga' in done.stdout
    assert not (tmp_path / "found").exists()
