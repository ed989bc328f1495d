# SPDX-License-Identifier: GPL-3.0-or-later
"""Role host_firewall while its rules change, are broken or are taken away: no moment without any."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import asdict

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import firewall
from firewall_lab import ADDRESS, CONTAINER, HOSTS, STRANGER, knock
from scenario_hosts import address, connect, kill_while_waiting, play, root, ssh, wait_until


@contextmanager
def tables_of_others(host):
    """The stand-in engine's, and one of somebody's: a flush takes them away, and other tests need them."""
    try:
        yield
    finally:
        engine = "/usr/local/lib/stand-in-engine.nft"
        root(host, f"nft flush ruleset; nft -f /etc/devnode/firewall.nft; ! test -e {engine} || nft -f {engine}; "
                   "nft add table ip foreign")  # fmt: skip


def its_rules_hold(host):
    there = address(host)
    return knock([(there, 8080, ""), (there, 9999, ""), (there, 8080, STRANGER)]) == ["open", "dropped", "dropped"]


@contextmanager
def many_knocks(host):
    """Very many connections to a closed port, for as long as it lasts: how many of them came in."""
    program = f"""
import os, socket, time
def is_open(one):
    try:
        one.getpeername()
        return True
    except OSError:
        return False
    finally:
        one.close()
waiting, opened, end = [], 0, time.monotonic() + 90
while not os.path.exists("/run/knocked") and time.monotonic() < end:
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(({address(host)!r}, 9999))
    waiting.append(one)
    time.sleep(0.001)
    if len(waiting) > 100:
        opened += is_open(waiting.pop(0))
print(opened + sum(map(is_open, waiting)))
"""
    root("outside", "rm -f /run/knocked")
    argv = ["docker", "exec", f"{CONTAINER}-outside", "python3", "-c", program]
    run = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    came_in = []
    try:
        yield came_in
    finally:
        root("outside", "touch /run/knocked")
        came_in.append(int(run.communicate(timeout=60)[0]))


@pytest.mark.parametrize("host", HOSTS)
def test_the_distributions_unit_takes_our_table_along(host):
    """Its rules begin with a flush of everything. Each of its actions by itself, looked at from outside; and all the
    time, whether there is a moment in between."""
    with tables_of_others(host):
        with many_knocks(host) as came_in:
            for action, theirs in (("start", True), ("reload", True), ("restart", True), ("stop", False)):
                root(host, f"systemctl {action} nftables")
                assert its_rules_hold(host), action
                assert ("table inet filter" in root(host, "nft list tables")) is theirs, action
        assert came_in == [0]
        # To see that a moment would be noticed.
        with many_knocks(host) as came_in:
            root(host, "sleep 1; nft delete table inet devnode; nft -f /etc/devnode/firewall.nft")
        assert came_in[0] > 0


def changed(done, host):
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(host) and " changed=" in line)
    return int(line.split("changed=")[1].split()[0])


def test_what_was_done_by_hand_is_found_by_the_next_run_and_put_right():
    """No file has changed: the table is looked at."""
    with tables_of_others("plain"), tables_of_others("node"):
        root("plain", "nft -f /etc/nftables.conf")
        root("node", f"nft add element inet devnode web_ip '{{ {STRANGER} }}'")
        assert connect("outside", address("plain"), 9999) == "open"
        assert connect("outside", address("node"), 8080, source=STRANGER) == "open"
        done = play("--check", "--diff")
        assert [changed(done, host) for host in HOSTS] == [1, 1], done.stdout
        assert "+# Loaded again 1 times" in done.stdout
        assert connect("outside", address("plain"), 9999) == "open"
        done = play()
        assert [changed(done, host) for host in HOSTS] == [1, 1], done.stdout
        assert all(its_rules_hold(host) for host in HOSTS)


@pytest.mark.parametrize("host", HOSTS)
def test_a_broken_file_changes_nothing_while_a_table_filters(host):
    with broken_rules(host):
        root(host, "! systemctl reload devnode-firewall; ! systemctl restart devnode-firewall")
        assert its_rules_hold(host)
        assert connect(host, address("outside"), 8080, user="ada") == "open"
        assert "the table of before stays in effect" in shouted(host)


@contextmanager
def broken_rules(host):
    root(
        host, "cp -p /etc/devnode/firewall.nft /root/kept.nft; echo 'table inet devnode {' > /etc/devnode/firewall.nft"
    )
    try:
        yield
    finally:
        # Unless a run has put it right meanwhile.
        whole = "grep -q 'policy drop' /etc/devnode/firewall.nft"
        root(host, f"{whole} || cp -p /root/kept.nft /etc/devnode/firewall.nft; systemctl restart devnode-firewall")


def shouted(host):
    """What everybody on the host gets to see."""
    return root(host, "journalctl -b -u devnode-firewall -p emerg -o cat")


def test_without_any_table_a_broken_file_means_the_rules_for_an_emergency():
    with broken_rules("node"), tables_of_others("node"):
        root("node", "nft delete table inet devnode; ! systemctl start nftables; ! systemctl restart devnode-firewall")
        in_an_emergency("node")
        assert "table inet filter" in root("node", "nft list tables"), "their rules are loaded without ours"
        assert connect("outside", address("node"), 2221) == "dropped"
        done = play("--limit", "node,outside")
        assert done.returncode == 0, done.stdout + done.stderr
        assert root("node", "systemctl is-active devnode-firewall") == "active\n"
        assert connect("node", address("outside"), 8080, user="ada") == "open"
        root("node", "systemctl stop nftables")


def in_an_emergency(host):
    assert "ONLY THE RULES FOR AN EMERGENCY" in shouted(host)
    assert ssh(host, "true").returncode == 0
    assert its_rules_hold(host)
    assert connect(host, address("outside"), 8080, user="ada") == "refused"


def instead(**pieces):
    """Extra variables with another plan than the role would work out, as if it had a bug: it lets nobody in."""
    plan = {**asdict(firewall.Plan()), **pieces}
    return json.dumps({"__host_firewall_policy": {"plan": plan}})


def look(host="plain"):
    return root(host, "nft list table inet devnode | sed 's/counter packets .* bytes [0-9]*//; /elements/d'")


def answers(host="plain"):
    return ssh(host, "true").returncode == 0


def test_beside_containers_a_rule_that_drops_the_controller_goes_by_itself_in_the_time_that_was_set():
    before, window = look("node"), 8
    more = ("-e", instead(), "-e", f"host_firewall_guard_window={window}")
    kill_while_waiting("host_firewall", ["node"], "--limit", "node,outside", *more)
    assert connect_from_here("node") == "dropped"
    wait_until(lambda: answers("node"), "node answers again", window + 20)
    assert look("node") == before
    assert its_rules_hold("node")
    done = play("--limit", "node,outside")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"no new connection confirmed it within {window} s" in " ".join((done.stdout + done.stderr).split())


def test_a_rule_that_drops_the_controller_and_ansible_killed_and_a_reboot_in_between():
    before = look()
    window = "host_firewall_guard_window=600"
    kill_while_waiting("host_firewall", ["plain"], "--limit", "plain,outside", "-e", instead(), "-e", window)
    assert connect_from_here() == "dropped"
    restart = ["docker", "restart", "--time", "5", f"{CONTAINER}-plain"]
    subprocess.run(restart, check=True, capture_output=True, timeout=60)
    wait_until(answers, "plain answers again")
    assert look() == before
    units = "devnode-guard-boot devnode-firewall ssh"
    order = root("plain", f"systemctl show -P ActiveEnterTimestampMonotonic {units}").split()
    assert int(order[0]) < int(order[1]) < int(order[2])
    done = play("--limit", "plain,outside")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the host restarted before the change was confirmed" in " ".join((done.stdout + done.stderr).split())


@pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="a restart more: `make test-full`")
def test_rules_that_are_broken_at_a_restart_of_the_host_leave_those_for_an_emergency():
    """A host that lets in everybody must not come up, nor one that lets in nobody."""
    with broken_rules("plain"):
        subprocess.run(["docker", "restart", "--time", "5", f"{CONTAINER}-plain"], check=True, capture_output=True)
        wait_until(answers, "plain answers again")
        failed = root("plain", "systemctl show -P InactiveEnterTimestampMonotonic devnode-firewall")
        assert 0 < int(failed) < int(root("plain", "systemctl show -P ActiveEnterTimestampMonotonic ssh"))
        for port in (8080, 9999):
            root("plain", f"systemd-run -q --unit=listen-{port} python3 -m http.server --bind :: {port}")
        root("plain", f"ip route replace {STRANGER}/32 via {address('outside')}")
        wait_until(lambda: connect("outside", ADDRESS["plain"], 8080) == "open", "the port is open to start with")
        in_an_emergency("plain")
    assert play("--limit", "plain,outside").returncode == 0


def connect_from_here(host="plain"):
    try:
        socket.create_connection((ADDRESS[host], 22), timeout=1.5).close()
    except TimeoutError:
        return "dropped"
    return "open"


def test_back_to_no_rules_means_forwarding_as_before():
    """Runs last. A rollback of the very first rules, on a host that forwards packets for a reason of its own."""
    assert play("--limit", "plain,outside", "-e", "host_firewall_state=absent").returncode == 0
    files = "/etc/devnode /etc/systemd/system/devnode-firewall.service /etc/sysctl.d/*devnode*"
    left = root("plain", f"nft list tables; ls {files} 2>&1 || :")
    assert "inet devnode" not in left
    assert left.count("No such file") == 3
    root("plain", "sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    done = play("--limit", "plain,outside", "-e", instead())
    assert done.returncode == 2, done.stdout
    assert "no new connection confirmed it within 8 s" in " ".join((done.stdout + done.stderr).split())
    assert "inet devnode" not in root("plain", "nft list tables")
    assert root("plain", "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding") == "1\n1\n"
