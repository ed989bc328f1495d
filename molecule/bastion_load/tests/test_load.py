# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole company logs in at once, a controller works with 50 forks, and a stranger floods the door."""

from __future__ import annotations

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.topology import BASTION_RATE
from scenario_hosts import FOLDER, SCENARIO, address, root

PEOPLE = 200
WITHIN = 60  # seconds from the first one's start to the last one's prompt
FORKS = 50


def come(*words):
    done = json.loads(root("client", f"python3 /root/kit/come.py --people {PEOPLE} {' '.join(words)}"))
    middle, slowest = done["seconds"][PEOPLE // 2], done["seconds"][-1]
    print(f"{words}: last in after {done['last']} s, median {middle} s, slowest {slowest} s")
    return done


def all_in(done):
    assert done["failures"] == []
    assert done["stayed"] == PEOPLE
    assert done["last"] < WITHIN


def flood(seconds):
    return json.loads(root("client", f"python3 /root/kit/flood.py {address('bastion')} {seconds}"))


def ansible_with_many_forks():
    """A run on 50 hosts behind the bastion. All are the target, but each is a connection of its own."""
    names = [f"node{number:02}" for number in range(FORKS)]
    options = f"-F {FOLDER}/ssh_config -o ControlMaster=no -o ControlPath=none -o ProxyJump=bastion"
    where = f"ansible_host=target ansible_user=automation ansible_ssh_common_args='{options}'"
    inventory = FOLDER / "many"
    inventory.write_text("\n".join(f"{name} {where}" for name in names) + "\n")
    # A machine that has 200 people, a flood and 50 forks on a few cores is slow. Slow is not throttled: sshd says so.
    argv = ["ansible", "all", "-i", inventory, "-m", "ansible.builtin.ping", "-f", str(FORKS), "-T", str(WITHIN)]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=300)


def dropped_by_sshd():
    """Connections that sshd itself did not take: MaxStartups, or a penalty for their address."""
    said = root("bastion", "journalctl -b -t sshd -o cat | grep -E '^drop connection|MaxStartups throttling' || true")
    return said.splitlines()


def answered(done):
    """On how many hosts the module ran, whatever form results are printed in."""
    return len(re.findall(r"^node[0-9]+ \| SUCCESS", done.stdout, re.MULTILINE))


@pytest.fixture(autouse=True)
def a_fresh_start():
    """What one test uses up of the packet filter's rates is not there for the next."""
    root("bastion", "systemctl reload devnode-firewall; fail2ban-client unban --all >/dev/null")


def test_the_rate_here_is_the_one_of_the_site_playbook():
    assert f"rate: {BASTION_RATE}}}" in (SCENARIO / "converge.yml").read_text()


def test_everybody_has_all_their_targets():
    line = root("bastion", "cat /etc/devnode/bastion/keys/p200")
    assert line.count("permitopen=") == 300
    size = int(root("bastion", "/usr/sbin/sshd -T | wc -c"))
    print(f"sshd's configuration: {size} bytes, a person's key line: {len(line)} bytes")


def test_200_people_within_10_seconds_from_as_many_addresses():
    all_in(come("--own-addresses"))


def test_200_people_within_10_seconds_from_one_address():
    all_in(come())


def test_a_controller_with_50_forks_is_not_throttled():
    done = ansible_with_many_forks()
    assert answered(done) == FORKS, done.stdout + done.stderr
    assert dropped_by_sshd() == []


def test_a_flood_from_one_address_stops_neither_people_nor_controllers():
    with ThreadPoolExecutor() as pool:
        flooding = pool.submit(flood, 60)
        people = pool.submit(come)
        controller = pool.submit(ansible_with_many_forks)
        done = controller.result()
        assert answered(done) == FORKS, done.stdout + done.stderr
        all_in(people.result())
        seen = flooding.result()
    print(seen)
    # It did flood: the packet filter let its burst and its rate through, and kept the rest out.
    assert seen["tries"] > 600
    assert seen["opened"] <= 300 + 60 * 120 / 60
