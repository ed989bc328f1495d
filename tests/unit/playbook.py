# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs playbooks on small inventories, as a person would."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml
from unit.fleet import bare, key

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"bastion": "203.0.113.10", "gpu-01": "10.0.0.11"}


def inventory(folder, change=None, known=tuple(HOSTS)):
    """Write an inventory with one bastion, one node, two people and a workspace, after `change`."""
    data = {
        "all": {
            "vars": {
                "devnode_users": [
                    {"name": "ada", "uid": 2001, "keys": [key("ada")]},
                    {"name": "olga", "uid": 2000, "operator": True, "keys": [key("olga")]},
                ],
                "devnode_workspaces": [{"name": "nlp", "node": "gpu-01", "owner": "ada", "port": 2201}],
                "devnode_allowed_networks": ["198.51.100.0/24"],
                "ansible_connection": "local",
                "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            },
            "children": {
                "devnode_bastions": {"hosts": {"bastion": {"devnode_address": HOSTS["bastion"]}}},
                "devnode_nodes": {"hosts": {"gpu-01": {"devnode_address": HOSTS["gpu-01"]}}},
            },
        }
    }
    if change is not None:
        change(data["all"]["vars"], data["all"]["children"])
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump(data))
    (folder / "known_hosts").write_text("".join(f"{name} {bare(name)}\n" for name in known))
    return path


def environment(folder, **extra):
    """Nothing of the person's own configuration, and all traces below the test's folder."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        **extra,
    }


def play(folder, playbook, *options, **extra):
    """Run a playbook; its path is relative to the project, or absolute."""
    return subprocess.run(
        ["ansible-playbook", "-i", folder / "hosts.yml", ROOT / playbook, *options],
        env=environment(folder, **extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
