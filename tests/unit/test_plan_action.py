# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions in a run of ansible-playbook: what roles get, host by host."""

from __future__ import annotations

import json

import pytest
from unit.fleet import bare
from unit.playbook import inventory, play

BOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - devnode.gpu.plan:
        kind: "{{ kind }}"
      register: plan
    - ansible.builtin.copy:
        content: "{{ plan | to_json }}"
        dest: "{{ inventory_dir }}/{{ inventory_hostname }}.json"
        mode: "0644"
"""
RECORD = """
- hosts: all
  gather_facts: false
  tasks:
    - devnode.gpu.known_hosts_record:
        entries: "{{ {'nlp.' ~ inventory_hostname: [key]} }}"
"""


def _change(variables, children):
    variables["kind"] = "node"
    children["devnode_bastions"]["vars"] = {"kind": "bastion"}
    people = {"devnode_client_people": ["ada"], "kind": "client"}
    children["devnode_clients"] = {"hosts": {"laptop": people}}


def test_each_host_gets_its_own_plan(tmp_path):
    inventory(tmp_path, _change)
    with (tmp_path / "known_hosts").open("a") as record:
        record.write(f"nlp.gpu-01 {bare('nlp')}\n")
    (tmp_path / "book.yml").write_text(BOOK)
    done = play(tmp_path, tmp_path / "book.yml")
    assert done.returncode == 0, done.stdout
    plans = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("bastion", "gpu-01", "laptop")}
    assert plans["bastion"]["bastion"]["relay_users"][0]["targets"] == [{"host": "10.0.0.11", "port": 2201}]
    assert plans["gpu-01"]["workspaces"][0]["bind_address"] == "10.0.0.11"
    assert [view["person"] for view in plans["laptop"]["views"]] == ["ada"]


def test_where_the_kits_go_and_that_there_is_a_place_for_them(tmp_path):
    """Before any host is changed. A file stands in for a folder that the account may not write: tests run as root."""
    (tmp_path / "book.yml").write_text(BOOK)
    inventory(tmp_path, lambda variables, _children: variables.update(kind="fleet"))
    assert play(tmp_path, tmp_path / "book.yml").returncode == 0
    assert json.loads((tmp_path / "bastion.json").read_text())["kits_dir"] == f"{tmp_path}-kits"
    no_place = tmp_path / "known_hosts" / "kits"
    inventory(tmp_path, lambda variables, _: variables.update(kind="fleet", devnode_kits_dir=str(no_place)))
    done = play(tmp_path, tmp_path / "book.yml")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "devnode_kits_dir" in said
    assert "cannot be written by the account that runs Ansible" in said
    assert "nothing was changed" in said
    assert play(tmp_path, tmp_path / "book.yml", "--check").returncode == 0


SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"  # noqa: S105


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "devnode_totp_secrets: has no secret for olga, who could not come in"),
        ({"devnode_totp": True, "devnode_totp_secrets": {"olga": SECRET}}, "has no secret for ada"),
        (
            {"devnode_totp_secrets": {"olga": "Secret, but not base32"}},
            "devnode_totp_secrets[olga]: (not shown) is not a",
        ),
        ({"ansible_user": "olga"}, 'devnode_users[1].operator: "olga" is the account that Ansible connects as'),
        ({"devnode_controllers": []}, "devnode_totp_operators: true asks operators for more than a key"),
        ({"devnode_totp_secrets": {"olga": SECRET}}, ""),
    ],
)
def test_codes_of_operators_before_anything_is_changed(tmp_path, more, message):
    """Whoever is asked has a secret, and Ansible is not asked: the plan says so, ahead of every role."""

    def change(variables, children):
        _change(variables, children)
        variables.update({"devnode_totp_operators": True, "devnode_controllers": ["198.51.100.5"], **more})

    inventory(tmp_path, change)
    (tmp_path / "book.yml").write_text(BOOK)
    done = play(tmp_path, tmp_path / "book.yml", "--limit", "bastion")
    assert (done.returncode == 0) == (not message), done.stdout
    assert message in " ".join(done.stdout.split())
    assert SECRET not in done.stdout
    assert "but not base32" not in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda variables, _children: variables.update(kind="bastion"),
            'group devnode_bastions: "gpu-01" is not in it',
        ),
        (lambda variables, _children: variables.update(kind="laptop"), "value of kind must be one of"),
    ],
)
def test_a_wrong_kind(tmp_path, change, message):
    inventory(tmp_path, change)
    (tmp_path / "book.yml").write_text(BOOK)
    done = play(tmp_path, tmp_path / "book.yml", "--limit", "gpu-01")
    assert done.returncode != 0
    assert message in " ".join(done.stdout.split())


def test_many_hosts_record_at_once(tmp_path):
    """Every host of a play writes the same file from a process of its own."""
    names = [f"n{at:02}" for at in range(12)]

    def change(_variables, children):
        children["devnode_nodes"]["hosts"] = {name: {} for name in names}
        del children["devnode_bastions"]

    inventory(tmp_path, change, known=["kept"])
    (tmp_path / "book.yml").write_text(RECORD)
    key = ["-e", json.dumps({"key": bare("nlp")}), "--forks", "12"]
    seen = play(tmp_path, tmp_path / "book.yml", *key, "--check", "--diff")
    assert "+nlp.n00 ssh-ed25519" in seen.stdout
    assert (tmp_path / "known_hosts").read_text() == f"kept {bare('kept')}\n"
    assert play(tmp_path, tmp_path / "book.yml", *key).returncode == 0
    lines = (tmp_path / "known_hosts").read_text().splitlines()
    assert lines[0] == f"kept {bare('kept')}"
    assert lines[1:] == [f"nlp.{name} {bare('nlp')} devnode:workspaces@{name}" for name in names]
    assert "changed=1" not in play(tmp_path, tmp_path / "book.yml", *key).stdout
    other = play(tmp_path, tmp_path / "book.yml", "-e", json.dumps({"key": bare("other")}), "--limit", "n00")
    assert other.returncode != 0
    assert "Host keys differ from the record" in " ".join(other.stdout.split())
