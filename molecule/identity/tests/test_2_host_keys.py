# SPDX-License-Identifier: GPL-3.0-or-later
"""New host keys in three runs: somebody who fetches their known_hosts after the first one never sees a login break."""

from __future__ import annotations

import os
import subprocess

import pytest
from identity import BASTIONS, Client, by_authority, only_the_authority_is_known, said
from scenario_hosts import FOLDER, SCENARIO, root

PLAYBOOK = SCENARIO.parents[1] / "playbooks" / "rotate_host_keys.yml"
RECORD = FOLDER / "known_hosts"
KEY = "/etc/ssh/ssh_host_ed25519_key"


def rotate(stage, *more):
    argv = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], str(PLAYBOOK)]
    argv += ["-e", f"devnode_rotate={stage}", "-e", f"devnode_known_hosts={RECORD}"]
    argv += ["-e", "devnode_rotate_hosts=old:new", "-e", f"devnode_host_ca={FOLDER}/host_ca", *more]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=300)


def rotated(stage, *more):
    done = rotate(stage, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_record(name):
    return [line.split()[2] for line in RECORD.read_text().splitlines() if line.split()[0] == name]


def fetch_kit():
    root("client", f"cat > /root/kit/known_hosts <<'END'\n{RECORD.read_text()}END\n")


def served(bastion):
    return root(bastion, f"cut -d' ' -f2 {KEY}.pub").strip()


@pytest.fixture(scope="module")
def before():
    return {bastion: served(bastion) for bastion in BASTIONS}


def may_enter():
    return all(Client(bastion, "ada").reaches(bastion, "-o", "ControlPath=none") for bastion in ("old",)) and all(
        "denied" not in root("client", f"{Client(bastion, 'ops').ssh(command='true')} 2>&1 || echo denied")
        for bastion in BASTIONS
    )


def test_a_wrong_stage_is_refused_by_name():
    done = rotate("now")
    assert done.returncode != 0
    assert 'devnode_rotate: "now" is no stage' in done.stdout


def test_nothing_is_served_that_was_not_published(before):
    done = rotate("serve")
    assert done.returncode != 0
    assert "devnode_rotate=publish" in done.stdout
    assert {bastion: served(bastion) for bastion in BASTIONS} == before


def test_published_before_it_is_served(before):
    rotated("publish")
    for bastion in BASTIONS:
        assert served(bastion) == before[bastion]
        assert len(on_record(bastion)) == 2
        assert before[bastion] in on_record(bastion)
        assert root(bastion, f"stat -c '%U %a' {KEY}.next") == "root 600\n"
    assert may_enter()
    fetch_kit()
    assert may_enter()
    done = rotate("serve")
    assert done.returncode != 0
    assert "people need time to fetch their kits" in " ".join(done.stdout.split())


def test_an_interrupted_run_is_completed_and_no_login_breaks(before):
    # Killed on one host between the two renames and the reload.
    root("new", f"cp -p {KEY} {KEY}.old; mv {KEY}.next {KEY}")
    assert may_enter()
    old = Client("old", "grace")
    assert old.enters()
    only_the_authority_is_known()
    # While sshd reads its configuration again it does not listen, for a moment: that is what the attempts are for.
    loop = "while :; do %s && echo in || echo broken; sleep 0.2; done"
    # Key and certificate are two files: who knows the authority alone may come between them, once. (On the other host
    # the run was killed by hand, without a certificate for its key.)
    loops = {("old", "known_hosts"): 0, ("new", "known_hosts"): 0, ("old", "by_authority"): 1}
    for bastion, known in loops:
        word = Client(bastion, "ops", known=known).ssh("-o", "ConnectionAttempts=5", command="true")
        unit, log = f"logins-{bastion}-{known}", f"/tmp/logins-{bastion}-{known}"  # noqa: S108  on the client
        root("client", f"rm -f {log}; systemd-run -q --unit={unit} sh -c '{loop % word} >>{log} 2>&1'")
    rotated("serve", "-e", "devnode_rotate_wait_hours=0")
    root("client", "systemctl stop 'logins-*'")
    for (bastion, known), at_most in loops.items():
        text = root("client", f"cat /tmp/logins-{bastion}-{known}")
        assert text.count("in\n") > 3, (bastion, known, text)
        assert text.count("broken") <= at_most, (bastion, known, text)
    assert all(by_authority(bastion) for bastion in BASTIONS)
    assert old.is_in()
    old.leaves()
    for bastion in BASTIONS:
        assert served(bastion) != before[bastion]
        assert set(on_record(bastion)) == {served(bastion), before[bastion]}
        # Its certificate came with it: no other run is needed for whoever knows the authority alone.
        assert said(bastion).key.split()[1] == served(bastion)
    assert may_enter()
    assert " changed=0 " in rotated("serve", "-e", "devnode_rotate_wait_hours=0")


def test_the_old_key_goes_from_everywhere(before):
    rotated("drop")
    for bastion in BASTIONS:
        assert on_record(bastion) == [served(bastion)]
        assert root(bastion, "ls /etc/ssh | grep -c 'ed25519_key.*\\(old\\|next\\)' || true").strip() == "0"
    assert may_enter()
    fetch_kit()
    assert may_enter()
    # Who never fetched a kit is stopped by ssh, as with any other stranger's key.
    root("client", f"echo 'new ssh-ed25519 {before['new']}' > /root/kit/known_hosts")
    assert "HOST IDENTIFICATION HAS CHANGED" in root("client", f"{Client('new', 'ops').ssh(command='true')} 2>&1 || :")
    fetch_kit()
