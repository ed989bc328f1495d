# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/rotate_host_keys.yml, both hosts as bastions: who installs every kit that it writes sees no key change.

The kit lies in the home of `hop`, as on a laptop, and opens the operator's account `ada`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import testinfra
from scc import SSH, TOOL, full_run, good, run_as
from scenario_hosts import FOLDER, SCENARIO, address, root

HOSTS = ("debian12", "debian13")
RECORD, KITS = FOLDER / "known_hosts", FOLDER / "kits"
pytestmark = full_run


@pytest.fixture(scope="module")
def laptop() -> Any:
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    laptop = testinfra.get_host(f"ansible://debian13?ansible_inventory={inventory}")
    laptop.check_output("install -D -o hop -g hop -m 0600 /home/ada/.ssh/id_ed25519 /home/hop/.ssh/id_ed25519")
    return laptop


@pytest.fixture(scope="module")
def inventory(laptop: Any) -> Iterator[list[str]]:
    """The scenario's own, and what the collection wants to know about a fleet."""
    fleet = {
        "devnode_bastions": {"hosts": {name: {"devnode_address": address(name)} for name in HOSTS}},
        "devnode": {
            "children": {"devnode_bastions": {}},
            "vars": {
                "devnode_users": [
                    {
                        "name": "ada",
                        "uid": 2001,
                        "operator": True,
                        "keys": [laptop.check_output("cat /home/ada/.ssh/id_ed25519.pub")],
                        "client": {"multiplexing": "no"},
                    }
                ],
                "devnode_workspaces": [],
                "devnode_allowed_networks": ["192.0.2.0/24"],
                "devnode_known_hosts": str(RECORD),
                "devnode_kits_dir": str(KITS),
            },
        },
    }
    path = FOLDER / "fleet.json"
    path.write_text(json.dumps(fleet))
    yield ["-i", os.environ["MOLECULE_INVENTORY_FILE"], "-i", str(path)]
    good(laptop, "sh ~/kit/install.sh --remove", "hop")


def playbook(inventory: list[str], name: str, *more: str) -> str:
    argv = ["ansible-playbook", *inventory, str(SCENARIO.parents[1] / "playbooks" / name), *more]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install_kit(laptop: Any) -> None:
    """As a person does: the kit is handed over, and its script run."""
    laptop.check_output("rm -rf /home/hop/kit; install -d -o hop -g hop -m 0700 /home/hop/kit")
    for path in sorted((KITS / "ada").iterdir()):
        laptop.run("printf %%s %s >/home/hop/kit/%s", path.read_text(), path.name)
    laptop.check_output("chown -R hop: /home/hop/kit")
    good(laptop, "sh ~/kit/install.sh", "hop")


def gets_in(laptop: Any) -> bool:
    return all(run_as(laptop, "hop", f"{SSH} {name} true").rc == 0 for name in HOSTS)


def served(name: str) -> str:
    return root(name, "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub").strip()


def test_the_first_kit_opens_both(inventory: list[str], laptop: Any) -> None:
    playbook(inventory, "clients.yml")
    install_kit(laptop)
    assert gets_in(laptop)
    assert good(laptop, TOOL, "hop") == "no open connection\n"


def test_each_stage_writes_kits_that_work_before_and_after_it(inventory: list[str], laptop: Any) -> None:
    before = {name: served(name) for name in HOSTS}
    for stage in ("publish", "serve", "drop"):
        playbook(
            inventory, "rotate_host_keys.yml", "-e", f"devnode_rotate={stage}", "-e", "devnode_rotate_wait_hours=0"
        )
        assert gets_in(laptop), f"{stage}: the kit from before it"
        install_kit(laptop)
        assert gets_in(laptop), f"{stage}: the kit that it wrote"
        known = (KITS / "ada" / "known_hosts").read_text()
        assert all(served(name) in known for name in HOSTS)
        assert all((before[name] in known) == (stage != "drop") for name in HOSTS)
    assert all(served(name) != before[name] for name in HOSTS)
    assert " changed=0 " in playbook(inventory, "clients.yml")
