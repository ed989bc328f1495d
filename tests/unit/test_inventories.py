# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventories that come with the collection, and how Ansible connects with them: strictly, on every hop."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess

import pytest
from unit.playbook import ROOT, environment

EXAMPLE = ROOT / "inventory/example"


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The example as somebody copies it, into a folder whose name has blanks."""
    folder = tmp_path_factory.mktemp("my fleet") / "example"
    shutil.copytree(EXAMPLE, folder)
    return folder


def _run(folder, *command):
    done = subprocess.run(
        command,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _options(*words):
    """What ssh makes of its arguments."""
    shown = subprocess.run(["ssh", "-G", *words], capture_output=True, text=True, check=True, timeout=20).stdout
    return {key.lower(): value for key, _, value in (line.partition(" ") for line in shown.splitlines())}


@pytest.fixture(scope="module")
def connections(copied):
    """The evaluated connection variables of every host."""
    text = "{{ {'args': ansible_ssh_common_args, 'host': ansible_host, 'port': ansible_port} | to_json }}"
    book = copied.parent / "show.yml"
    book.write_text(
        json.dumps(
            [
                {
                    "hosts": "devnode",
                    "gather_facts": False,
                    "connection": "local",
                    "tasks": [
                        {
                            "ansible.builtin.copy": {
                                "content": text,
                                "dest": f"{copied.parent}/{{{{ inventory_hostname }}}}",
                                "mode": "0644",
                            },
                            "delegate_to": "localhost",
                        }
                    ],
                }
            ]
        )
    )
    _run(copied.parent, "ansible-playbook", "-i", copied / "hosts.yml", book)
    return {name: json.loads((copied.parent / name).read_text()) for name in ("bastion", "gpu-01", "gpu-02")}


def test_the_example_is_a_sound_inventory(copied):
    hosts = json.loads(_run(copied.parent, "ansible-inventory", "-i", copied / "hosts.yml", "--list"))
    assert set(hosts["devnode_nodes"]["hosts"]) == {"gpu-01", "gpu-02"}
    playbook = [ROOT / "playbooks/validate.yml", "-e", "devnode_validate_host_keys=none"]
    _run(copied.parent, "ansible-playbook", "-i", copied / "hosts.yml", *playbook)


def test_what_runs_keep_beside_it_is_no_inventory(copied):
    """With the file named, as every page does; a folder would make hosts and groups of these."""
    (copied / "known_hosts").write_text("bastion ssh-ed25519 AAAA\n")
    (copied / "devnode_images.json").write_text('{"images": {"pytorch": "sha256:0"}}\n')
    argv = ["ansible-inventory", "-i", copied / "hosts.yml", "--list"]
    surroundings = environment(copied.parent)
    done = subprocess.run(argv, env=surroundings, capture_output=True, text=True, check=True)
    assert "[WARNING]" not in done.stdout + done.stderr
    groups = set(json.loads(done.stdout)) - {"_meta", "all"}
    assert groups == {"devnode", "devnode_bastions", "devnode_nodes"}


def _strict(options, record, alias):
    assert options["userknownhostsfile"] == record
    assert options["hostkeyalias"] == alias
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert options["globalknownhostsfile"] == "/dev/null"
    assert options["identitiesonly"] == "yes"
    assert options["forwardagent"] == "no"
    assert options["updatehostkeys"] in ("no", "false")


def test_a_bastion_is_reached_directly(copied, connections):
    bastion = connections["bastion"]
    options = _options("-F", "none", *shlex.split(bastion["args"]), bastion["host"])
    _strict(
        options,
        f'"{copied}/known_hosts"' if options["userknownhostsfile"][0] == '"' else f"{copied}/known_hosts",
        "bastion",
    )
    assert options.get("proxycommand", "none") == "none"
    assert bastion["host"] == "bastion.example.com"


def test_a_node_is_reached_through_its_bastion(copied, connections):
    node = connections["gpu-01"]
    options = _options("-F", "none", *shlex.split(node["args"]), node["host"])
    record = options["userknownhostsfile"]
    assert record.strip('"') == f"{copied}/known_hosts"
    _strict(options, record, "gpu-01")
    words = shlex.split(options["proxycommand"])
    assert words[:3] == ["ssh", "-W", "[%h]:%p"]
    inner = _options("-F", "none", *words[3:])
    _strict(inner, inner["userknownhostsfile"], "bastion")
    assert inner["userknownhostsfile"].strip('"') == f"{copied}/known_hosts"
    assert (inner["hostname"], inner["port"], inner["user"]) == ("bastion.example.com", "22", "automation")
    assert inner.get("controlpath", "none") == "none"
    assert inner["batchmode"] == "yes"


@pytest.mark.skipif(not (ROOT / "roles/pytorch_sshd").is_dir(), reason="a role that site.yml needs is not there yet")
def test_site_reads_the_example(copied):
    _run(copied.parent, "ansible-playbook", "-i", copied / "hosts.yml", ROOT / "site.yml", "--syntax-check")
