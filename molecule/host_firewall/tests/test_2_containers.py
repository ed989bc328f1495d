# SPDX-License-Identifier: GPL-3.0-or-later
"""Role host_firewall on a host with containers: who reaches them, and what they reach."""

from __future__ import annotations

import ast
import json
from contextlib import contextmanager

from firewall_lab import STRANGER
from scenario_hosts import address, connect, play, root


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
