# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators and relay users: accounts, key files, and what a relay key may do."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import access
from hypothesis import given
from hypothesis import strategies as st

BLOB = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00 " + bytes(range(32))
KEY = f"ssh-ed25519 {base64.b64encode(BLOB).decode()} ada@laptop"


def relay(**changes):
    return {"name": "ada", "uid": 2001, "keys": [KEY], "targets": [{"host": "10.0.0.11", "port": 22}], **changes}


def test_a_relay_key_names_its_targets():
    found = access.relays(
        [relay(targets=[{"host": "gpu-01.internal", "port": 2222}, {"host": "2001:db8::1", "port": 22}])]
    )
    file, *masks = found["files"]
    assert file["path"] == "/etc/devnode/bastion/keys/ada"
    assert [(mask["path"], mask["target"]) for mask in masks] == [
        ("/etc/systemd/system/user@2001.service", "/dev/null"),
        ("/etc/systemd/system/user-runtime-dir@2001.service", "/dev/null"),
    ]
    options, key = file["content"].splitlines()[-1].split(" ", 1)
    assert options == 'restrict,port-forwarding,permitopen="[2001:db8::1]:22",permitopen="gpu-01.internal:2222"'
    assert key == KEY
    assert found["accounts"] == [
        {
            "name": "ada",
            "uid": 2001,
            "group": "devnode-relay",
            "shell": "/usr/sbin/nologin",
            "home": "/nonexistent",
            "create_home": False,
        }
    ]


def test_without_targets_a_key_may_forward_nothing():
    # port-forwarding without permitopen would allow everything
    file = access.relays([relay(targets=[])])["files"][0]
    assert file["content"].splitlines()[-1] == f"restrict {KEY}"


def test_order_does_not_matter_and_doubles_vanish():
    one, two = {"host": "10.0.0.11", "port": 22}, {"host": "10.0.0.12", "port": 22}
    first = access.relays([relay(targets=[one, two, one], keys=[KEY, KEY])])
    assert first == access.relays([relay(targets=[two, one], keys=[KEY])])


def test_operators_get_a_shell_and_plain_keys():
    found = access.operators([{"name": "ops", "uid": 3000, "keys": [KEY]}])
    assert found["accounts"][0]["shell"] == "/bin/bash"
    assert found["files"][0]["path"] == "/etc/devnode/ssh/keys/ops"
    assert found["files"][0]["content"].splitlines()[-1] == KEY
    assert found["names"] == ["ops"]


def test_operators_keys_may_count_from_some_networks_only():
    ops = [{"name": "ops", "uid": 3000, "keys": [KEY]}]
    (file,) = access.operators(ops, networks=["192.0.2.0/24", "2001:db8::/32"])["files"]
    assert file["content"].splitlines()[-1] == f'from="192.0.2.0/24,2001:db8::/32" {KEY}'
    with pytest.raises(access.AccessError, match=r"ssh_server_operator_networks\[0\].*bits set"):
        access.operators(ops, networks=["192.0.2.1/24"])
    with pytest.raises(access.AccessError, match=r"ssh_server_operator_networks\[0\]"):
        access.operators(ops, networks=['10.0.0.0/8",command="sh'])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../etc"}, ["bastion_relay_users[0].name", '"../etc"', "POSIX login"]),
        ({"name": "root"}, ["bastion_relay_users[0].name", "systems have by themselves"]),
        ({"uid": 0}, ["bastion_relay_users[0].uid", "0", "1000"]),
        ({"keys": ["ssh-ed25519 AAAA\nroot"]}, ["bastion_relay_users[0].keys[0]", "more than one line"]),
        ({"keys": ['command="sh" ' + KEY]}, ["bastion_relay_users[0].keys[0]", "options in front"]),
        ({"keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, ["keys[0]", "not shown", "private key"]),
        ({"keys": KEY}, ["bastion_relay_users[0].keys", "not a list"]),
        ({"targets": [{"host": 'a",permitopen="*:*', "port": 22}]}, ["targets[0].host", "Allowed"]),
        ({"targets": [{"host": "10.0.0.1", "port": "22 "}]}, ["targets[0].port", "whole number"]),
        ({"targets": [{"host": "*", "port": 22}]}, ["targets[0].host"]),
        ({"shell": "/bin/sh"}, ["bastion_relay_users[0]", "unknown shell"]),
    ],
)
def test_what_is_refused(changes, words):
    with pytest.raises(access.AccessError) as caught:
        access.relays([relay(**changes)])
    assert all(word in str(caught.value) for word in words), caught.value


def test_all_problems_are_told_at_once():
    with pytest.raises(access.AccessError) as caught:
        access.relays([relay(), relay(uid=2002), relay(name="Bob", uid=2001), "nobody", {"name": "x"}])
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert "is already that of bastion_relay_users[0]" in lines[0]


# What is good is among them, so that what becomes of it is looked at each time.
NAMES = st.one_of(st.sampled_from(["ada", "_a.b-c"]), st.text())
HOSTS = st.one_of(st.sampled_from(["10.0.0.11", "gpu-01.internal", "2001:db8::1"]), st.text())
PORTS = st.one_of(st.integers(1, 65535), st.integers(), st.text())


@given(NAMES, HOSTS, PORTS)
def test_nothing_unquotable_gets_into_a_key_file(name, host, port):
    person = relay(name=name, targets=[{"host": host, "port": port}])
    try:
        found = access.relays([person])
    except access.AccessError:
        return
    file, *_masks = found["files"]
    assert file["content"].isascii()
    assert file["path"].startswith("/etc/devnode/bastion/keys/")
    assert ".." not in file["path"]
    assert file["content"].count("\n") == 2
    assert file["content"].count('"') == 2
