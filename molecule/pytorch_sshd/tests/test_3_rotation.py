# SPDX-License-Identifier: GPL-3.0-or-later
"""A workspace's host key changes by playbooks/rotate_host_keys.yml: kits know the new key before it is served.

So does, by its certificate, who knows the authority and no key.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from typing import Any

import pytest
from pytorch_sshd_lab import EPHEMERAL, PORTS, SCENARIO, known_hosts, node_address, session, ssh_words, wait_until

pytestmark = pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: three playbooks")
RECORD, KITS = EPHEMERAL / "fleet_known_hosts", EPHEMERAL / "kits"
KNOWN = KITS / "ada" / "known_hosts"
ALIAS = "nlp.debian13"


@pytest.fixture(scope="module")
def inventory() -> list[str]:
    """The scenario's node as a fleet. The bastion is a name that nobody connects to here."""
    key = " ".join((EPHEMERAL / "known_hosts").read_text().split()[1:3])
    RECORD.write_text(f"debian13 {key}\ndoor {key}\n{known_hosts().read_text()}")
    ada = {"name": "ada", "uid": 2001, "keys": [(EPHEMERAL / "people" / "ada.pub").read_text().strip()]}
    nlp = {"name": "nlp", "node": "debian13", "owner": "ada", "port": PORTS["nlp"]}
    variables = {
        "devnode_users": [ada],
        "devnode_workspaces": [nlp],
        "devnode_allowed_networks": ["192.0.2.0/24"],
        "devnode_known_hosts": str(RECORD),
        "devnode_kits_dir": str(KITS),
        "devnode_host_ca": str(EPHEMERAL / "people" / "host_ca"),
    }
    fleet = {
        "devnode_bastions": {"hosts": {"door": {"devnode_address": "192.0.2.1"}}},
        "devnode_nodes": {"hosts": {"debian13": {"devnode_address": node_address()}}},
        "devnode": {"children": {"devnode_bastions": {}, "devnode_nodes": {}}, "vars": variables},
    }
    (EPHEMERAL / "fleet.json").write_text(json.dumps(fleet))
    return ["-i", os.environ["MOLECULE_INVENTORY_FILE"], "-i", str(EPHEMERAL / "fleet.json")]


def rotate(inventory: list[str], stage: str) -> None:
    """One stage for the workspaces; the node's own key is molecule/identity's matter."""
    argv = ["ansible-playbook", *inventory, str(SCENARIO.parents[1] / "playbooks" / "rotate_host_keys.yml")]
    argv += ["-e", f"devnode_rotate={stage}", "-e", "devnode_rotate_hosts=no", "-e", "devnode_rotate_wait_hours=0"]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def keys(path: Any) -> set[str]:
    return {line.split()[2] for line in path.read_text().splitlines() if line.split()[0] == ALIAS}


def enters(record: Any = KNOWN) -> bool:
    """A login as the kit says it: strict, with nothing but the kit's keys."""
    words = [*ssh_words("nlp", "ada", known=record), "true"]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode == 0


def test_published_to_kits_then_served_then_the_old_one_goes(host: Any, inventory: list[str]) -> None:
    served = "cut -d' ' -f2 /var/lib/devnode/workspaces/nlp/host_keys/ssh_host_ed25519_key.pub"
    before = host.check_output(served)
    rotate(inventory, "publish")
    assert host.check_output(served) == before
    assert len(keys(KNOWN)) == 2
    assert keys(RECORD) == keys(KNOWN) > {before}
    (after,) = keys(KNOWN) - {before}
    stale = EPHEMERAL / "stale_known_hosts"
    lines = KNOWN.read_text().splitlines(keepends=True)
    stale.write_text("".join(line for line in lines if after not in line and not line.startswith("@")))
    assert enters()
    assert enters(stale)
    # Who knows the authority alone notices nothing at all: the next key was signed before it was served.
    signed = EPHEMERAL / "signed_known_hosts"
    signed.write_text(f"@cert-authority {ALIAS} {(EPHEMERAL / 'people' / 'host_ca.pub').read_text()}")
    assert enters(signed)

    tried: list[bool] = []
    over = threading.Event()

    def log_in_again_and_again() -> None:
        while not over.is_set():
            tried.extend((enters(), enters(signed)))

    with session("nlp", "ada", "sleep 304") as ada:
        wait_until("ada is in", lambda: host.run("docker top devnode-nlp | grep -q 'sleep 304'").rc == 0, 30)
        logins = threading.Thread(target=log_in_again_and_again)
        logins.start()
        try:
            rotate(inventory, "serve")
        finally:
            over.set()
            logins.join()
        assert ada.poll() is None
    assert (all(tried), len(tried) > 7) == (True, True)
    assert host.check_output(served) == after
    assert keys(KNOWN) == {before, after}
    assert not enters(stale)  # who never installed the kit, and knows no authority

    rotate(inventory, "drop")
    assert keys(RECORD) == keys(KNOWN) == {after}
    assert enters()
    assert enters(signed)
    names = host.check_output("ls /var/lib/devnode/workspaces/nlp/host_keys").split()
    assert [name for name in names if name.endswith("-cert.pub")] == ["ssh_host_ed25519_key-cert.pub"]
