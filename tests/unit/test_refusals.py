# SPDX-License-Identifier: GPL-3.0-or-later
"""Each bad input ends the run in its first play, with a message for people. (All rules: test_topology_refusals.)"""

from __future__ import annotations

import base64

import pytest
from unit.fleet import key
from unit.playbook import inventory, play

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


def _workspace(**entry):
    def change(variables, _children):
        variables["devnode_workspaces"].append({"name": "x", "node": "gpu-01", "owner": "ada", "port": 2300, **entry})

    return change


def _user(**entry):
    def change(variables, _children):
        variables["devnode_users"].append({"name": "eve", "uid": 2002, "keys": [key("eve")], **entry})

    return change


def _node(**entry):
    return lambda _variables, children: children["devnode_nodes"]["hosts"]["gpu-01"].update(entry)


def _no_bastion(_variables, children):
    children["devnode_bastions"]["hosts"] = {}


def _undefined(variables, _children):
    del variables["devnode_users"]


def _template(variables, _children):
    variables["devnode_users"] = "{{ nobody_defined_this }}"


CASES = {
    "unknown owner": (
        _workspace(owner="eve"),
        'devnode_workspaces[1].owner: "eve" is not in devnode_users. Allowed: ada,',
    ),
    "two workspaces on one port": (
        _workspace(port=2201),
        "devnode_workspaces[1].port: 2201 is taken by devnode_workspaces[0]",
    ),
    "no POSIX login": (
        _user(name="Eve L"),
        'devnode_users[2].name: "Eve L" is not a POSIX login. Allowed: a POSIX login:',
    ),
    "damaged public key": (
        _user(keys=["ssh-ed25519 AAAAC3"]),
        'devnode_users[2].keys[0]: "ssh-ed25519 AAAAC3" is cut short',
    ),
    "private key": (_user(keys=[PRIVATE]), 'devnode_users[2].keys[0]: "(private key, not shown)" is a private key'),
    "newline in a host name": (
        _node(devnode_address="10.0.0.11\nHost *"),
        'devnode_address: "10.0.0.11\\nHost *" is not a host',
    ),
    "option in a host name": (
        _node(devnode_address="-oProxyCommand=id"),
        'devnode_address: "-oProxyCommand=id" is not a host',
    ),
    "no bastion": (_no_bastion, "group devnode_bastions: has no host"),
    "duplicate uid": (_user(uid=2001), "devnode_users[2].uid: 2001 is taken by devnode_users[0]"),
    "people undefined": (_undefined, "devnode_users: is not defined"),
    "people that cannot be evaluated": (_template, "nobody_defined_this"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_before_anything(tmp_path, case):
    change, message = CASES[case]
    inventory(tmp_path, change)
    done = play(tmp_path, "playbooks/validate.yml")
    text = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert message in text
    assert "Traceback" not in text
    assert "b3BlbnNzaC1rZXk" not in text


# A point that is not on its curve: well-formed for everybody but a real implementation.
PARTS = (b"ecdsa-sha2-nistp256", b"nistp256", b"\x04" + b"\xff" * 64)
BLOB = b"".join(len(part).to_bytes(4, "big") + part for part in PARTS)
NO_POINT = f"ecdsa-sha2-nistp256 {base64.b64encode(BLOB).decode()}"


def test_what_only_ssh_keygen_knows(tmp_path):
    inventory(tmp_path, _user(keys=[NO_POINT]))
    done = play(tmp_path, "playbooks/validate.yml")
    assert done.returncode != 0
    assert "key of eve" in done.stdout
    assert "rejected by ssh-keygen -l" in done.stdout


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    def change(variables, children):
        for case in ("two workspaces on one port", "no POSIX login", "option in a host name"):
            CASES[case][0](variables, children)

    inventory(tmp_path, change)
    text = " ".join(play(tmp_path, "playbooks/validate.yml").stdout.split())
    assert "(3 problems), and nothing was changed" in text
    assert "is taken by" in text
    assert "is not a POSIX login" in text
    assert "is not a host name" in text


def test_hosts_without_known_keys(tmp_path):
    inventory(tmp_path, known=["bastion"])
    done = play(tmp_path, "playbooks/validate.yml")
    assert done.returncode != 0
    assert "has no host key for gpu-01" in " ".join(done.stdout.split())
    assert play(tmp_path, "playbooks/validate.yml", "-e", "devnode_validate_host_keys=none").returncode == 0


def test_a_good_inventory_passes(tmp_path):
    inventory(tmp_path)
    done = play(tmp_path, "playbooks/validate.yml")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout


def test_no_later_play_runs(tmp_path):
    """The first play fails on localhost; the hosts' plays must not go on without it."""
    inventory(tmp_path, _user(uid=2001))
    book = tmp_path / "book.yml"
    book.write_text(
        "- import_playbook: devnode.gpu.validate\n"
        "- hosts: devnode_bastions:devnode_nodes\n"
        "  gather_facts: false\n"
        "  tasks: [{ansible.builtin.command: touch " + str(tmp_path / "touched") + "}]\n"
    )
    done = play(tmp_path, book)
    assert done.returncode != 0
    assert "is taken by" in done.stdout
    assert not (tmp_path / "touched").exists()
