# SPDX-License-Identifier: GPL-3.0-or-later
"""Role host_firewall, seen from outside: who reaches what, and who reaches nothing."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
from scenario_hosts import address, connect, play, root

HOSTS = ("plain", "node")
STRANGER = "10.203.255.77"
CONTAINER = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-host_firewall"


@pytest.fixture(scope="module", autouse=True)
def listeners():
    """Something that answers on every port we knock at, so that "dropped" is the filter's doing."""
    for host in (*HOSTS, "outside"):
        for port in (8080, 8081, 9999):
            root(host, f"systemctl is-active -q listen-{port} || systemd-run -q --unit=listen-{port} "
                       f"python3 -m http.server --bind :: {port}")  # fmt: skip
    root("outside", f"ip address replace {STRANGER}/32 dev eth0")
    for host in HOSTS:
        root(host, f"ip route replace {STRANGER}/32 via {address('outside')}")
    time.sleep(1)


def inside(number, target, port):
    """A connection from a "container" of the node."""
    program = f"import socket; socket.create_connection(('{target}', {port}), timeout=1.5)"
    script = f'ip netns exec ws{number} python3 -c "{program}" 2>/dev/null && echo open || echo closed'
    return root("node", script).strip()


@pytest.mark.parametrize("host", HOSTS)
def test_a_service_is_open_for_its_sources_only(host):
    there = address(host)
    assert connect("outside", there, 8080) == "open"
    assert connect("outside", there, 8080, source=STRANGER) == "dropped"


@pytest.mark.parametrize("host", HOSTS)
def test_what_is_not_listed_is_closed(host):
    assert connect("outside", address(host), 9999) == "dropped"
    assert connect("outside", address(host), 22) == "dropped"


@pytest.mark.parametrize("host", HOSTS)
def test_ipv6_is_filtered_too(host):
    link_local = root(host, "ip -6 -o address show dev eth0 scope link").split()
    if not link_local:
        pytest.skip("this machine's containers have no IPv6")
    there = link_local[3].split("/")[0] + "%eth0"
    assert connect("outside", there, 8080) == "open"
    assert connect("outside", there, 9999) == "dropped"


@pytest.mark.parametrize("host", HOSTS)
def test_each_source_has_its_own_rate(host):
    there = address(host)
    one = connect("outside", there, 8081, source=STRANGER, times=6).split()
    assert one[:3] == ["open"] * 3
    assert one[3:] == ["dropped"] * 3
    assert connect("outside", there, 8081) == "open"


@pytest.mark.parametrize("host", HOSTS)
def test_an_account_reaches_its_targets_and_nothing_else(host):
    outside = address("outside")
    assert connect(host, outside, 8080, user="ada") == "open"
    assert connect(host, outside, 9999, user="ada") == "refused"
    assert connect(host, "127.0.0.1", 8080, user="ada") == "refused"
    assert connect(host, "::1", 8080, user="ada") == "refused"
    assert connect(host, address(host), 8080, user="ada") == "refused"
    assert connect(host, "169.254.169.254", 80, user="ada") == "refused"
    assert connect(host, outside, 9999) == "open"


@pytest.mark.parametrize("host", HOSTS)
def test_the_tables_of_others_stay(host):
    assert "table ip foreign" in root(host, "nft list tables")


def test_a_host_without_containers_forwards_nothing():
    assert root("plain", "sysctl -n net.ipv4.ip_forward") == "0\n"
    # Even if somebody turns it on: the outside host routes to the node through it.
    node, plain = address("node"), address("plain")
    root("plain", "sysctl -q -w net.ipv4.ip_forward=1")
    root("outside", f"ip route replace {node}/32 via {plain}")
    try:
        assert connect("outside", node, 8080) == "dropped"
    finally:
        root("outside", f"ip route del {node}/32 via {plain}")
        root("plain", "sysctl -q -w net.ipv4.ip_forward=0")
    assert connect("outside", node, 8080) == "open"


def test_published_ports_are_filtered_before_the_engines_dnat():
    node = address("node")
    assert connect("outside", node, 2221) == "open"
    assert connect("outside", node, 2221, source=STRANGER) == "dropped"
    # Published by somebody on the node, listed by nobody.
    assert connect("outside", node, 2222) == "dropped"
    assert connect("outside", node, 3331) == "dropped"


def test_the_containers_network_is_not_reached_by_a_route():
    node = address("node")
    root("outside", f"ip route replace 172.30.0.0/16 via {node}")
    try:
        assert connect("outside", "172.30.1.2", 22) == "dropped"
    finally:
        root("outside", f"ip route del 172.30.0.0/16 via {node}")


def test_containers_reach_the_outside_and_nothing_on_the_node():
    node = address("node")
    assert inside(1, address("outside"), 9999) == "open"
    for target, port in ((node, 22), (node, 8080), ("172.30.1.1", 8080), ("172.30.2.1", 9999)):
        assert inside(1, target, port) == "closed"
    assert inside(1, "172.30.2.2", 22) == "closed"
    assert inside(1, node, 2222) == "closed"
    assert inside(2, "169.254.169.254", 80) == "closed"


def test_outbound_can_be_refused():
    done = play("--limit", "node,outside", "-e", '{"containers": {"node": {"outbound": false}}}')
    assert done.returncode == 0, done.stdout + done.stderr
    assert inside(1, address("outside"), 9999) == "closed"
    assert connect("outside", address("node"), 2221) == "dropped"
    assert play("--limit", "node,outside").returncode == 0
    assert inside(1, address("outside"), 9999) == "open"


@pytest.mark.parametrize(
    ("limit", "variables", "words"),
    [
        ("plain", '{"services": [{"name": "ssh", "port": 22, "sources": ["192.0.2.0/24"]}]}', ["lock itself out"]),
        ("plain", '{"services": [{"name": "ssh", "port": 23, "sources": ["0.0.0.0/0"]}]}', ["lock itself out"]),
        ("node", '{"containers": {"node": {}}}', ["host_firewall_containers", "br-lab1"]),
        ("plain", '{"services": [{"name": "ssh", "port": 22, "sources": ["0.0.0.0/0 accept"]}]}', ["sources[0]"]),
    ],
)
def test_a_rule_set_that_cuts_off_is_refused(limit, variables, words):
    before = root(limit, "cat /etc/devnode/firewall.nft")
    done = play("--limit", f"{limit},outside", "-e", variables)
    assert done.returncode == 2, done.stdout
    assert all(word in done.stdout + done.stderr for word in words), done.stdout
    assert root(limit, "cat /etc/devnode/firewall.nft") == before


def test_a_flush_by_the_distributions_unit_does_not_last():
    root("plain", "systemctl start nftables; systemctl restart nftables; sleep 1")
    assert "table inet devnode" in root("plain", "nft list tables")
    root("plain", "systemctl stop nftables; systemctl restart devnode-firewall")


def test_the_rules_are_there_after_a_reboot():
    subprocess.run(
        ["docker", "restart", "--time", "5", f"{CONTAINER}-plain"], check=True, capture_output=True, timeout=60
    )
    end = time.monotonic() + 40
    while time.monotonic() < end:
        try:
            state = root("plain", "systemctl is-active devnode-firewall && nft list chain inet devnode input")
            break
        except AssertionError:
            time.sleep(1)
    assert "policy drop" in state
    order = root("plain", "systemctl show -p ActiveEnterTimestampMonotonic --value devnode-firewall ssh").split()
    assert int(order[0]) < int(order[1])
