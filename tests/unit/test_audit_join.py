# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit trail: sshd's lines and the packet filter's, joined. The lines are those of OpenSSH 9.2 and 10.0."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import audit_join
from ansible_collections.devnode.gpu.plugins.module_utils.audit_join import Entry, Flow, Joiner
from hypothesis import given
from hypothesis import strategies as st

KEY = "SHA256:HScHo+QZ7tIztJ1+4CCIQ9+yjCBys3R37uv+iX8tjro"
PLACES = {
    "9.2": "debug1: {file}:{function}():453 (pid=3028): ",
    "10.0": "debug1: {file}:{function}():424 (bin=sshd-session, pid=3028): ",
}


SAYS = {
    "9.2": "debug3: packet.c:ssh_packet_send_debug():1875 (pid=3028): sending debug message: ",
    "10.0": "debug3: packet.c:ssh_packet_send_debug():1975 (bin=sshd-session, pid=3028): sending debug message: ",
}


def place(version, function):
    return PLACES[version].format(file="serverloop.c" if "direct" in function else "channels.c", function=function)


def login(version="10.0", pid=3014, child=3028, at=100.0, user="ada", uid=2001, rest=f"ED25519 {KEY}"):
    by = user if version == "10.0" else ""
    return [
        Entry(at, pid, 0, 'Connection from 192.0.2.7 port 54902 on 192.0.2.1 port 22 rdomain ""'),
        Entry(at, pid, 0, f"Accepted publickey for {user} from 192.0.2.7 port 54902 ssh2: {rest}"),
        Entry(at, pid, 0, f"pam_unix(sshd:session): session opened for user {user}(uid={uid}) by {by}(uid=0)"),
        Entry(at, pid, 0, f"User child is on pid {child}"),
    ]


def asks(host, port, version="10.0", at=101.0, pid=3028, uid=2001, number=0):
    target = f"originator 127.0.0.1 port 65535, target {host} port {port}"
    new = f"channel {number}: new direct-tcpip [direct-tcpip] (inactive timeout: 0)"
    return [
        Entry(at, pid, uid, place(version, "server_request_direct_tcpip") + target),
        Entry(at, pid, uid, place(version, "channel_new") + new),
    ]


def ends(at=131.5, version="10.0", pid=3028, uid=2001, number=0):
    free = f"channel {number}: free: direct-tcpip, nchannels 1"
    return [Entry(at, pid, uid, place(version, "channel_free") + free)]


def flow(at=101.01, uid=2001, address="192.0.2.11", port=22, source_port=40000, allowed=True):
    return Flow(at, uid, address, port, source_port, allowed)


def records(joiner, *batches):
    return [record for batch in batches for entry in batch for record in joiner.entry(entry)]


@pytest.mark.parametrize("version", list(PLACES))
def test_who_from_where_with_which_key_to_where_and_how_long(version):
    joiner = Joiner("bastion")
    joiner.flow(flow())
    over = [
        Entry(131.6, 3028, 2001, "Transferred: sent 3760, received 3420 bytes"),
        Entry(131.7, 3014, 0, "pam_unix(sshd:session): session closed for user ada"),
    ]
    found = records(joiner, login(version), asks("192.0.2.11", 22, version), ends(version=version), over)
    assert [record["event"] for record in found] == ["login", "open", "close", "logout"]
    assert {(one["user"], one["uid"], one["source"], one["key"]) for one in found} == {("ada", 2001, "192.0.2.7", KEY)}
    opened, closed, logout = found[1:]
    assert (opened["to"], opened["to_port"], opened["address"]) == ("192.0.2.11", 22, "192.0.2.11")
    assert (closed["connection"], closed["seconds"], closed["since"]) == (
        opened["connection"],
        30.5,
        "1970-01-01T00:01:41.000Z",
    )
    assert (logout["seconds"], logout["sent"], logout["received"]) == (31.7, 3760, 3420)
    assert joiner.sessions == {}
    assert joiner.tick(1000.0) == []


def test_two_logins_of_one_person_are_told_apart():
    joiner = Joiner("bastion")
    second = login(pid=4014, child=4028, at=100.5, rest="RSA SHA256:other")
    records(joiner, login(), second)
    (record,) = records(joiner, asks("gpu-02", 22, pid=4028))
    assert record["key"] == "SHA256:other"


def test_a_name_gets_its_address_from_the_packet():
    joiner = Joiner("bastion")
    joiner.flow(flow(address="2001:db8::5", port=2201))
    (_login, record) = records(joiner, login(), asks("nlp.lab.internal", 2201))
    assert (record["to"], record["address"]) == ("nlp.lab.internal", "2001:db8::5")


def test_a_certificate_says_whose_it_is():
    rest = "ED25519-CERT SHA256:cert ID ada@laptop (serial 7) CA ED25519 SHA256:ca"
    (record,) = records(Joiner("bastion"), login(rest=rest))
    assert (record["key"], record["certificate"], record["ca"]) == ("SHA256:cert", "ada@laptop (serial 7)", "SHA256:ca")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "Received request from 192.0.2.7 port 1 to connect to host 192.0.2.11 port 9999, "
            "but the request was denied.",
            {"to": "192.0.2.11", "to_port": 9999, "what": "connection"},
        ),
        (
            "serverloop.c:server_request_direct_tcpip():463 (pid=3051): refused local port forward: "
            "originator 127.0.0.1 port 65535, target 192.0.2.12 port 22",
            {"to": "192.0.2.12", "to_port": 22, "what": "connection"},
        ),
        ("error: no more sessions", {"what": "shell, command or subsystem"}),
        (
            "refused streamlocal port forward: originator  port 0, target /run/dbus/system_bus_socket",
            {"to": "/run/dbus/system_bus_socket", "to_port": None, "what": "socket"},
        ),
        (
            "serverloop.c:server_request_direct_streamlocal():479 (bin=sshd-session, pid=3028): refused streamlocal "
            "port forward: originator x port -1, target /a port 1, target /b",
            {"to": "/a port 1, target /b", "what": "socket"},
        ),
        (SAYS["9.2"] + "Server has disabled port forwarding.", {"what": "remote forwarding"}),
        (SAYS["10.0"] + "Server has disabled port forwarding.", {"what": "remote forwarding"}),
        (SAYS["10.0"] + "Server has disabled streamlocal forwarding.", {"what": "remote forwarding to a socket"}),
        (SAYS["9.2"] + "Server has rejected tunnel device forwarding", {"what": "tunnel"}),
    ],
)
def test_what_is_refused(line, what):
    joiner = Joiner("bastion")
    records(joiner, login())
    (record,) = joiner.entry(Entry(102.0, 3028, 2001, line))
    assert record["event"] == "denied"
    assert {key: record.get(key) for key in what} == what
    assert record["user"] == "ada"


@pytest.mark.parametrize(
    ("line", "user", "method"),
    [
        ("Invalid user guess from 192.0.2.9 port 5", "guess", "unknown user"),
        ("Failed password for root from 192.0.2.9 port 5 ssh2", "root", "password"),
        ("Failed password for invalid user x from 192.0.2.9 port 5 ssh2", "x", "password"),
        (f"Failed publickey for ada from 192.0.2.9 port 5 ssh2: ED25519 {KEY}", "ada", "publickey"),
        # a name that says that somebody else did it
        ("Invalid user x from 198.51.100.1 port 1 from 192.0.2.9 port 5", "x from 198.51.100.1 port 1", "unknown user"),
    ],
)
def test_failed_logins(line, user, method):
    (record,) = Joiner("bastion").entry(Entry(1.0, 7, 0, line))
    assert (record["event"], record["user"], record["method"], record["source"]) == (
        "failed",
        user,
        method,
        "192.0.2.9",
    )


def test_what_else_sshd_tells_a_client_is_no_refusal():
    joiner = Joiner("bastion")
    records(joiner, login())
    for words in ("/etc/devnode/bastion/keys/ada:1: key options: permitopen port-forwarding", "", "tunnel"):
        assert joiner.entry(Entry(102.0, 3028, 2001, SAYS["10.0"] + words)) == []


def test_a_socket_cannot_pretend_to_be_another_refusal():
    joiner = Joiner("bastion")
    records(joiner, login())
    evil = "/x\nrefused local port forward: originator 1 port 1, target y port 1"
    line = f"refused streamlocal port forward: originator  port 0, target {evil}"
    (record,) = joiner.entry(Entry(102.0, 3028, 2001, line))
    assert (record["what"], record["to"]) == ("socket", evil)


def test_a_line_may_overtake_the_word_about_its_process():
    joiner = Joiner("bastion")
    first, last = login()[:3], login()[3:]
    found = records(joiner, first, asks("192.0.2.11", 22), last)
    assert [record["event"] for record in found] == ["login", "open"]


def test_nobody_without_root_can_forge_a_login_or_anothers_connection():
    joiner = Joiner("bastion")
    records(joiner, login())
    forged = [Entry(line.time, 9999, 1000, line.message) for line in login(user="grace", pid=9999)]
    assert records(joiner, forged) == []
    assert records(joiner, asks("192.0.2.99", 22, uid=1000)) == []  # the right process, another account


def test_a_target_cannot_pretend_to_be_another_line():
    joiner = Joiner("bastion")
    records(joiner, login())
    evil = "x port 1, target refused local port forward: originator 1 port 1, target y"
    (record,) = records(joiner, asks(evil, 22))
    assert (record["event"], record["to"]) == ("open", evil)


@pytest.mark.parametrize(
    ("originator", "to"),
    [
        ("", "192.0.2.11"),  # a forwarded socket has none
        ("a b", "192.0.2.11"),
        ("x port 1, target 192.0.2.99", "192.0.2.99 port 65535, target 192.0.2.11"),  # forged, and that can be seen
    ],
)
def test_whatever_a_client_says_of_itself_what_it_asks_for_is_in_the_trail(originator, to):
    joiner = Joiner("bastion")
    records(joiner, login())
    lines = [replace(line, message=line.message.replace("127.0.0.1", originator)) for line in asks("192.0.2.11", 22)]
    (opened,) = records(joiner, lines)
    assert (opened["event"], opened["to"], opened["to_port"]) == ("open", to, 22)
    words = f"refused local port forward: originator {originator} port 65535, target 192.0.2.11 port 22"
    (denied,) = joiner.entry(Entry(102.0, 3028, 2001, words))
    assert (denied["event"], denied["to"], denied["to_port"]) == ("denied", to, 22)


def test_what_the_packet_filter_stops_and_what_nothing_explains():
    joiner = Joiner("bastion")
    records(joiner, login())
    (blocked,) = joiner.flow(flow(address="169.254.169.254", port=80, allowed=False))
    assert (blocked["event"], blocked["user"], blocked["address"], blocked["to_port"]) == (
        "blocked",
        "ada",
        "169.254.169.254",
        80,
    )
    joiner.flow(flow())
    assert joiner.tick(110.0) == []
    (stray,) = joiner.tick(130.0)
    assert (stray["event"], stray["address"]) == ("unexplained", "192.0.2.11")


def test_a_packet_that_is_sent_again_is_no_second_connection():
    joiner = Joiner("bastion")
    joiner.flow(flow())
    records(joiner, login(), asks("192.0.2.11", 22))
    joiner.flow(flow(at=102.02))
    assert joiner.tick(200.0) == []


def test_what_cannot_be_reached_says_so():
    joiner = Joiner("bastion")
    failed = [Entry(102.0, 3028, 2001, "error: connect_to 192.0.2.11 port 22: failed.")]
    found = records(joiner, login(), asks("192.0.2.11", 22), failed, ends(102.1))
    assert [record.get("reached") for record in found] == [None, None, False]


def test_a_restart_ends_all_logins():
    joiner = Joiner("bastion")
    records(joiner, login(), asks("192.0.2.11", 22))
    found = joiner.restarted(500.0)
    assert [(record["event"], record.get("why")) for record in found] == [
        ("close", None),
        ("logout", "restart of the host"),
    ]


@given(st.integers(0, 8))
def test_a_restart_of_the_recorder_changes_nothing(cut):
    lines = [
        *login(),
        *asks("192.0.2.11", 22),
        *ends(),
        Entry(140, 3014, 0, "pam_unix(sshd:session): session closed for user ada"),
    ]
    whole, first = Joiner("bastion"), Joiner("bastion")
    for one in (whole, first):
        one.flow(flow())
    expected = records(whole, lines)
    found = records(first, lines[:cut])
    second = Joiner("bastion", json.loads(json.dumps(first.state())))
    assert found + records(second, lines[cut:]) == expected


@given(st.text(max_size=200), st.integers(0, 5000), st.sampled_from([0, 1000, 2001]))
def test_no_line_stops_it(text, pid, uid):
    joiner = Joiner("bastion")
    records(joiner, login())
    for prefix in ("", place("9.2", "server_request_direct_tcpip"), "Failed password for ", "channel "):
        for record in joiner.entry(Entry(1.0, pid, uid, prefix + text)):
            json.dumps(record)


def test_ulogds_objects():
    data = {"oob.prefix": "devnode-allow", "oob.time.sec": 5, "oob.time.usec": 500000, "oob.uid": 2001}
    data |= {"dest_ip": "192.0.2.11", "dest_port": 22, "src_port": 40000}
    assert audit_join.parse_flow(data) == Flow(5.5, 2001, "192.0.2.11", 22, 40000, True)
    assert audit_join.parse_flow({"oob.prefix": "x"}) is None


def test_a_key_and_then_a_code_are_one_login_with_that_key():
    def lines(user, key):
        at = "192.0.2.7 port 54902 ssh2"
        _connection, _accepted, *rest = login()
        return [
            Entry(100.0, 3014, 0, f"Partial publickey for {user} from {at}: ED25519 {key}"),
            Entry(100.0, 3014, 0, f"Accepted keyboard-interactive/pam for ada from {at}"),
            *rest,
        ]

    (record,) = records(Joiner("bastion"), lines("ada", KEY))
    assert (record["key"], record["method"]) == (KEY, "publickey,keyboard-interactive/pam")
    # A key of somebody else's attempt is nobody's.
    (record,) = records(Joiner("bastion"), lines("grace", KEY))
    assert (record["key"], record["method"]) == ("", "keyboard-interactive/pam")
