# SPDX-License-Identifier: GPL-3.0-or-later
"""Role host_firewall, seen from outside: who reaches what, and who reaches nothing."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import asdict

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import firewall
from scenario_hosts import SCENARIO, address, connect, play, root, ssh

HOSTS = ("plain", "node")
STRANGER = "10.203.255.77"
ADDRESS = {}
CONTAINER = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-host_firewall"


@pytest.fixture(scope="module", autouse=True)
def listeners():
    """Something that answers on every port we knock at, so that "dropped" is the filter's doing."""
    for host in (*HOSTS, "outside"):
        for port in (8080, 8081, 9999):
            root(host, f"systemctl is-active -q listen-{port} || systemd-run -q --unit=listen-{port} "
                       f"python3 -m http.server --bind :: {port}")  # fmt: skip
    root("outside", f"ip address replace {STRANGER}/32 dev eth0")
    ADDRESS.update({host: address(host) for host in HOSTS})
    for host in HOSTS:
        root(host, f"ip route replace {STRANGER}/32 via {address('outside')}")
    time.sleep(1)


def open_inside(number, places):
    """Those of some places (address, port) that a "container" of the node reaches, all tried at once."""
    program = f"""
import socket
from concurrent.futures import ThreadPoolExecutor
def reaches(place):
    try:
        socket.create_connection(place, timeout=2).close()
        return True
    except OSError:
        return False
places = {places!r}
with ThreadPoolExecutor(len(places)) as pool:
    print([place for place, open in zip(places, pool.map(reaches, places)) if open])
"""
    return ast.literal_eval(root("node", f"ip netns exec ws{number} python3 - <<'END'\n{program}\nEND\n"))


def inside(number, target, port):
    """A connection from a "container" of the node."""
    return "open" if open_inside(number, [(target, port)]) else "closed"


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
    assert inside(1, node, 22) == "closed"


@contextmanager
def nothing_filters(host):
    """To see that a probe means something."""
    root(host, "nft delete table inet devnode")
    try:
        yield
    finally:
        root(host, "systemctl restart devnode-firewall")


def test_no_workspace_reaches_another_through_the_nodes_own_addresses():
    """What an engine's userland proxy is: a program of the node that listens on its addresses and hands on. Here
    listen-8080 and listen-9999 do, on all addresses, IPv4 and IPv6; 2222 is redirected (DNAT) to the other one."""
    addresses = [address("node"), *("172.30.1.1", "172.30.2.1"), *("fd30:1::1", "fd30:2::1")]
    places = [(one, port) for one in addresses for port in (8080, 9999)]
    places += [(address("node"), 2222), ("172.30.2.2", 22), ("fd30:2::2", 22)]
    with nothing_filters("node"):
        assert open_inside(1, places) == places
    assert open_inside(1, places) == []


METADATA = ("169.254.169.254", "100.100.100.200", "fd00:ec2::254")


def test_no_workspace_reaches_the_metadata_address():
    """It answers here, and the node knows the way."""
    outside = address("outside")
    root("outside", "ip -6 address replace fd31::2/64 dev eth0 nodad; ip -6 route replace fd30::/16 via fd31::1")
    root("node", "ip -6 address replace fd31::1/64 dev eth0 nodad")
    for one in METADATA:
        root("outside", f"ip address replace {one} dev eth0 {'nodad' if ':' in one else ''}")
        root("node", f"ip route replace {one} via {'fd31::2' if ':' in one else outside}")
    with nothing_filters("node"):
        assert open_inside(1, [(one, 9999) for one in METADATA]) == [(one, 9999) for one in METADATA]
    assert open_inside(1, [(one, 9999) for one in METADATA]) == []


def test_outbound_can_be_refused_and_a_place_be_allowed_all_the_same():
    node, outside = address("node"), address("outside")
    asked = [(METADATA[0], 9999), ("fd30:1::1", 8080), (node, 8080)]
    others = [(METADATA[0], 8080), (METADATA[1], 9999), (node, 9999), ("fd30:1::1", 9999), (outside, 9999)]
    reach = [{"address": one, "port": port} for one, port in asked]
    wanted = {"containers": {"node": {"outbound": False, "reach": reach}}}
    done = play("--limit", "node,outside", "-e", json.dumps(wanted))
    assert done.returncode == 0, done.stdout + done.stderr
    # A neighbour that was found while nothing filtered would hide that none can be found now.
    root("node", "ip netns exec ws1 ip -6 neighbour flush all")
    assert open_inside(1, asked + others) == asked
    assert connect("outside", node, 2221) == "dropped"
    assert play("--limit", "node,outside").returncode == 0
    assert open_inside(1, [*asked, (outside, 9999)]) == [(outside, 9999)]


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


def instead(**pieces):
    """Extra variables with another plan than the role would work out, as if it had a bug: it lets nobody in."""
    plan = {**asdict(firewall.Plan()), **pieces}
    return json.dumps({"__host_firewall_policy": {"plan": plan}})


def look():
    return root("plain", "nft list table inet devnode | sed 's/counter packets .* bytes [0-9]*//; /elements/d'")


def at_the_console(command):
    """Where no network is needed."""
    argv = ["docker", "exec", f"{CONTAINER}-plain", "sh", "-c", command]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.3)


def answers():
    return ssh("plain", "true").returncode == 0


def test_a_rule_that_drops_the_controller_and_ansible_killed_and_a_reboot_in_between():
    before = look()
    argv = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", "plain,outside"]
    argv += ["-e", instead(), "-e", "host_firewall_guard_window=600", str(SCENARIO / "converge.yml")]
    run = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    state = "cat /var/lib/devnode/guard/host_firewall/state.json"
    until(lambda: '"waiting"' in at_the_console(state), 40)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert connect_from_here() == "dropped"
    restart = ["docker", "restart", "--time", "5", f"{CONTAINER}-plain"]
    subprocess.run(restart, check=True, capture_output=True, timeout=60)
    until(answers, 40)
    assert look() == before
    units = "devnode-guard-boot devnode-firewall ssh"
    order = root("plain", f"systemctl show -P ActiveEnterTimestampMonotonic {units}").split()
    assert int(order[0]) < int(order[1]) < int(order[2])
    done = play("--limit", "plain,outside")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the host restarted before the change was confirmed" in " ".join((done.stdout + done.stderr).split())


def connect_from_here():
    try:
        socket.create_connection((ADDRESS["plain"], 22), timeout=1.5).close()
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
