# SPDX-License-Identifier: GPL-3.0-or-later
"""A person, a workspace and an environment come into the inventory, are used, and go: nothing of them is left.

By site.yml on the whole lab. What is looked at before and after: accounts, keys, sshd's and the packet filter's rules,
what the engine holds, environments, kits and the record of host keys.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_site import LAB, ROOT, inside, ssh

VARIABLES = ROOT / "inventory" / "lab" / "group_vars"
PERSON, UID, WORKSPACE, PORT, ENVIRONMENT = "lin", 2040, "speech", 2240, "for-lin"
ENVIRONMENTS = "/opt/miniconda/envs"
COUNTS = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", re.MULTILINE)
# Names and contents; the packet filter's rules are a file in /etc, and the last run compares the table with that. What
# a rate remembers of sources, and what says when it was written (manifests, backups, logs) is no trace of a person.
LOOK = f"""
getent passwd; getent group
find /etc -xdev -type f ! -name '*-' ! -name ld.so.cache -exec sha256sum {{}} + | sort -k2
if command -v docker >/dev/null; then
  ls /var/lib/devnode/workspaces {ENVIRONMENTS}
  docker ps -a --format '{{{{.Names}}}} {{{{.Image}}}}' | sort; docker volume ls -q | sort
  docker network ls --format '{{{{.Name}}}}' | sort
fi
ps -eo user:32,args | grep -c '^{PERSON} ' || true
"""


def attempt(folder: Path, *more: str, **values: Any) -> subprocess.CompletedProcess[str]:
    """site.yml on the lab, however it ends."""
    given = folder / "more.json"
    given.write_text(json.dumps(values))
    program = ["ansible-playbook", "-i", "inventory/lab", "site.yml", "-e", f"@{given}", *more]
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    return subprocess.run(
        program, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900
    )


def site(folder: Path, *more: str, **values: Any) -> dict[str, int]:
    """site.yml on the lab; how many changes there were, by host."""
    done = attempt(folder, *more, **values)
    assert done.returncode == 0, done.stdout + done.stderr
    return {host: int(count) for host, count in COUNTS.findall(done.stdout.rpartition("PLAY RECAP")[2])}


def declared(file: str, name: str) -> list[dict[str, Any]]:
    found = yaml.safe_load((VARIABLES / file).read_text())[name]
    assert isinstance(found, list)
    return found


def traces() -> dict[str, str]:
    """Everything in which somebody could be left behind."""
    seen = {machine: inside(machine, LOOK) for machine in ("bastion", "gpu-01", "gpu-02")}
    assert not {machine: done.stderr for machine, done in seen.items() if done.rc != 0}
    record = [line.split()[0] for line in (LAB / "known_hosts").read_text().splitlines()]
    kits = [path for kit in ("kits", "engineer", "grace", "ops") for path in sorted((LAB / kit).rglob("*"))]
    files = {str(path.relative_to(LAB)): path.read_text() for path in kits if path.is_file()}
    return {**{machine: done.stdout for machine, done in seen.items()}, "record": "\n".join(record), **files}


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The variables of an inventory that has one of each more."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", PERSON, "-f", key], check=True)
    sockets = Path((LAB / "sockets").read_text().strip())
    identities = {f"{where}_identity_files": [str(key)] for where in ("bastion", "workspace")}
    client = {"base_dir": str(tmp_path / "kit"), "control_dir": str(sockets), **identities}
    person = {"name": PERSON, "uid": UID, "keys": [key.with_suffix(".pub").read_text().strip()], "client": client}
    workspace = {"name": WORKSPACE, "node": "gpu-02", "owner": PERSON, "port": PORT, "shm_size": "64m"}
    environment = {"name": ENVIRONMENT, "packages": ["labplot"]}
    yield {
        "devnode_users": [*declared("all/people.yml", "devnode_users"), person],
        "devnode_workspaces": [*declared("all/workspaces.yml", "devnode_workspaces"), workspace],
        "miniconda_environments": [*declared("devnode_nodes/standins.yml", "miniconda_environments"), environment],
    }
    subprocess.run(["ssh", "-F", tmp_path / "kit" / "config", "-O", "exit", WORKSPACE], capture_output=True)


def test_who_comes_can_work_and_who_goes_leaves_nothing(lab: None, tmp_path: Path, newcomer: dict[str, Any]) -> None:
    before = traces()
    came = site(tmp_path, **newcomer)
    assert min(came["bastion"], came["gpu-01"], came["gpu-02"]) > 0
    config = tmp_path / "kit" / "config"
    inside_it = ["ssh", "-F", config, "-o", "BatchMode=yes", WORKSPACE, "id -un; hostname"]
    done = subprocess.run(inside_it, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [PERSON, WORKSPACE], done.stderr
    assert inside("gpu-01", f"{ENVIRONMENTS}/{ENVIRONMENT}/bin/python --version").rc == 0
    # At once, in a running workspace that has them mounted.
    assert ssh("gpu-01", f"{ENVIRONMENTS}/{ENVIRONMENT}/bin/python --version").returncode == 0
    assert f"{WORKSPACE}.gpu-02" in traces()["record"]

    # They are logged in while they go.
    site(tmp_path, pytorch_sshd_purge=[WORKSPACE])
    again = subprocess.run(inside_it, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert again.returncode != 0
    after = traces()
    assert {name: after.get(name) for name in before} == before
    assert set(after) == set(before)
    assert set(site(tmp_path).values()) == {0}
