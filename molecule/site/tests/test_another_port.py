# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet whose sshd moves to another port, as docs/identity.md has it: nobody's kit breaks, no run is cut off.

By site.yml on bastions and nodes at once: sshd, the packet filter, kits and Ansible's own way in are wired there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lab_site import CONFIG, LAB, inside
from test_life_cycle import attempt, site

pytestmark = pytest.mark.skipif(
    os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: eight runs of site.yml, five minutes"
)
HOSTS = ("bastion", "gpu-01", "gpu-02")
NEW = 2022


def listening() -> list[set[int]]:
    words = [inside(machine, "ss -Hltn").stdout.split() for machine in HOSTS]
    return [{port for port in (22, NEW) if f"0.0.0.0:{port}" in found} for found in words]


def enters(config: str | Path) -> bool:
    """Through the bastion into a workspace, by connections of its own. One that is open goes on, on whichever port."""
    subprocess.run(["ssh", "-F", str(config), "-O", "exit", "bastion"], capture_output=True, timeout=60)
    fresh = ["-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none"]
    argv = ["ssh", "-F", str(config), *fresh, "gpu-01", "true"]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode == 0


def given(folder: Path, **values: Any) -> tuple[str, str]:
    """Variables of bastions and nodes, and of no client: an inventory beside the lab's."""
    path = folder / "ports.yml"
    groups = {group: {"vars": values} for group in ("devnode_bastions", "devnode_nodes")}
    path.write_text(json.dumps({"all": {"children": groups}}))
    return "-i", str(path)


def test_to_another_port_and_back(lab: None, tmp_path: Path) -> None:
    old = tmp_path / "old" / "config"
    shutil.copytree(Path(CONFIG).parent, old.parent, symlinks=True)
    # In one step it is refused, and nothing happens.
    done = attempt(tmp_path, *given(tmp_path, devnode_ssh_port=NEW), ansible_port=22)
    assert done.returncode != 0
    assert "ssh_server_port: 2022. This run came in on 22" in " ".join(done.stdout.split()), done.stdout
    assert listening() == [{22}] * 3
    assert enters(CONFIG)

    site(tmp_path, *given(tmp_path, devnode_ssh_ports_also=[NEW]))
    assert listening() == [{22, NEW}] * 3
    assert enters(old)
    site(tmp_path, *given(tmp_path, devnode_ssh_port=NEW, devnode_ssh_ports_also=[22]))
    assert f"Port {NEW}" in Path(CONFIG).read_text()
    assert enters(CONFIG)
    assert enters(old)
    site(tmp_path, *given(tmp_path, devnode_ssh_port=NEW))
    assert listening() == [{NEW}] * 3
    assert enters(CONFIG)
    assert not enters(old)
    assert set(site(tmp_path, *given(tmp_path, devnode_ssh_port=NEW)).values()) == {0}

    site(tmp_path, *given(tmp_path, devnode_ssh_port=NEW, devnode_ssh_ports_also=[22]))
    site(tmp_path, *given(tmp_path, devnode_ssh_ports_also=[NEW]))
    site(tmp_path)
    assert listening() == [{22}] * 3
    assert enters(old)
    assert (LAB / "engineer" / "config").read_text() == old.read_text()
