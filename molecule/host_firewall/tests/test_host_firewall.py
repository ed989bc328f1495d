# SPDX-License-Identifier: GPL-3.0-or-later
"""Role host_firewall, seen from outside: who reaches what, and who reaches nothing."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import asdict

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import firewall
from scenario_hosts import address, connect, kill_while_waiting, play, root, ssh, wait_until

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


def test_a_name_server_at_the_metadata_address_answers_names_and_nothing_else():
    """As on Google's machines, where both are 169.254.169.254."""
    outside = address("outside")
    root("outside", f"ip address replace {METADATA[0]} dev eth0; systemctl is-active -q listen-53 || "
                    "systemd-run -q --unit=listen-53 python3 -m http.server --bind :: 53")  # fmt: skip
    udp = ("import socket\nsocket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
           f"socket.bind(({METADATA[0]!r}, 53))\nwhile True:\n"
           "    data, who = socket.recvfrom(100)\n    socket.sendto(data, who)\n")  # fmt: skip
    root("outside", f"cat > /root/udp.py <<'END'\n{udp}END\nsystemctl is-active -q udp-53 || "
                    "systemd-run -q --unit=udp-53 python3 /root/udp.py")  # fmt: skip
    root("node", f"ip route replace {METADATA[0]} via {outside}; cp --dereference /etc/resolv.conf /root/resolv.conf")
    places = [(METADATA[0], port) for port in (53, 80, 8080, 9999)]
    assert open_inside(1, places) == []
    try:
        root("node", f"echo 'nameserver {METADATA[0]}' >> /etc/resolv.conf")
        assert play("--limit", "node,outside").returncode == 0
        assert open_inside(1, places) == places[:1]
        assert echo_inside(METADATA[0], 53) == "answer"
    finally:
        root("node", "cat /root/resolv.conf > /etc/resolv.conf")
    assert play("--limit", "node,outside").returncode == 0
    assert open_inside(1, places) == []
    assert echo_inside(METADATA[0], 53) == "none"


def echo_inside(target, port):
    program = f"""
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(2)
try:
    one.sendto(b"name?", ({target!r}, {port}))
    print("answer" if one.recv(10) == b"name?" else "other")
except OSError:
    print("none")
"""
    return root("node", f"ip netns exec ws1 python3 - <<'END'\n{program}\nEND\n").strip()


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


@contextmanager
def tables_of_others(host):
    """The stand-in engine's, and one of somebody's: a flush takes them away, and other tests need them."""
    try:
        yield
    finally:
        engine = "/usr/local/lib/stand-in-engine.nft"
        root(host, f"nft flush ruleset; nft -f /etc/devnode/firewall.nft; ! test -e {engine} || nft -f {engine}; "
                   "nft add table ip foreign")  # fmt: skip


def knock(places):
    """What becomes of connections from the outside host, all at once: (address, port, source or "")."""
    program = f"""
import socket
from concurrent.futures import ThreadPoolExecutor
def knock(place):
    try:
        socket.create_connection(place[:2], timeout=1.5, source_address=(place[2], 0)).close()
        return "open"
    except TimeoutError:
        return "dropped"
    except OSError:
        return "refused"
with ThreadPoolExecutor() as pool:
    print(*pool.map(knock, {places!r}))
"""
    return root("outside", f"python3 - <<'END'\n{program}\nEND\n").split()


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


def look():
    return root("plain", "nft list table inet devnode | sed 's/counter packets .* bytes [0-9]*//; /elements/d'")


def answers():
    return ssh("plain", "true").returncode == 0


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
