# SPDX-License-Identifier: GPL-3.0-or-later
"""Role host_firewall, seen from outside: who reaches a host's services, and what its accounts reach."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from firewall_lab import HOSTS, STRANGER, knock
from scenario_hosts import address, connect, play, root


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


@contextmanager
def on_one_link(host, *addresses):
    """IPv6 addresses of the outside host, and two of the host's that are on this link for it."""
    number = 17 + HOSTS.index(host)
    own = [f"fd32::{number}", f"fd33::{number}"]
    root(host, "; ".join(f"ip -6 address replace {one}/16 dev eth0 nodad" for one in own))
    root("outside", "; ".join(f"ip -6 address replace {one}/16 dev eth0 nodad" for one in addresses))
    try:
        yield own
    finally:
        root("outside", "; ".join(f"ip -6 address del {one}/16 dev eth0" for one in addresses))
        root(host, "; ".join(f"ip -6 address del {one}/16 dev eth0" for one in own))


@pytest.mark.parametrize("host", HOSTS)
def test_an_ipv6_source_that_is_not_listed_is_dropped(host):
    with on_one_link(host, "fd32::2", "fd33::2") as (listed, other):
        places = [
            (listed, 8081, "fd32::2"),
            (other, 8081, "fd33::2"),
            (listed, 8080, "fd32::2"),
            (listed, 22, "fd32::2"),
        ]
        assert knock(places) == ["open", "dropped", "dropped", "dropped"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_source_of_ipv6_is_a_whole_subscriber(host):
    """Three a minute: from whichever of the 2^64 addresses of one network, and none of it is another one's loss."""
    with on_one_link(host, "fd32:0:0:7::2", "fd32:0:0:7::3", "fd32:0:0:8::2") as (there, _other):
        first = connect("outside", there, 8081, source="fd32:0:0:7::2", times=2).split()
        second = connect("outside", there, 8081, source="fd32:0:0:7::3", times=3).split()
        assert [*first, *second] == ["open", "open", "open", "dropped", "dropped"]
        assert connect("outside", there, 8081, source="fd32:0:0:8::2") == "open"


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
