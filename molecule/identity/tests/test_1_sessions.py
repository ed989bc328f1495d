# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken away in the inventory is gone at the next run, open connections included; everybody else stays.

In this order: a person's key is changed for a new one and a certificate revoked, then a target goes, then the person,
then the authority that signs certificates. Who comes with a certificate has the key signed_NAME, which is in no list.
"""

from __future__ import annotations

import pytest
from identity import BASTIONS, Client, ada, apply, grace, key, ops
from scenario_hosts import address, root


@pytest.fixture(scope="module")
def story():
    """The connections that are open, by bastion and key."""
    opened = {}
    for bastion in BASTIONS:
        opened[bastion, "ada"], opened[bastion, "grace"] = Client(bastion, "ada"), Client(bastion, "grace")
        opened[bastion, "ops"] = Client(bastion, "ops")
        for login, name in (("ada", "signed_ada"), ("grace", "signed_grace"), ("grace", "signed_grace2")):
            opened[bastion, name] = Client(bastion, login, name)
    for name, one in opened.items():
        assert one.enters(), name
    for bastion in BASTIONS:
        word = opened[bastion, "ops"].ssh("-S", opened[bastion, "ops"].socket, command="exec sleep 300")
        root("client", f"{word} >/dev/null 2>&1 </dev/null &")
        root(bastion, "timeout 10 sh -c 'until pgrep -u ops -x sleep; do sleep 0.1; done'")
    yield opened
    for one in opened.values():
        one.leaves()
    apply([ada(), grace()])


def test_a_new_key_works_beside_the_old_one(story):
    apply([ada("ada", "ada2"), grace()], ops("ops", "ops2"))
    for bastion in BASTIONS:
        story[bastion, "ada2"], story[bastion, "ops2"] = Client(bastion, "ada", "ada2"), Client(bastion, "ops", "ops2")
        for name in ("ada2", "ops2"):
            assert story[bastion, name].enters(), (bastion, name)
        for name in ("ada", "grace", "ops", "signed_ada", "signed_grace", "signed_grace2"):
            assert story[bastion, name].is_in(), (bastion, name)


def test_a_key_that_goes_takes_its_sessions_along_and_no_others(story):
    apply([ada("ada2"), grace()], ops("ops2"), revoked=[key("signed_grace2")])
    for bastion in BASTIONS:
        for name in ("ada", "ops", "signed_grace2"):
            assert not story[bastion, name].is_in(), (bastion, name)
            assert not story[bastion, name].enters(), (bastion, name)
        assert root(bastion, "pgrep -u ops -x sleep || true") == ""
        for name in ("ada2", "ops2", "grace", "signed_ada", "signed_grace"):
            assert story[bastion, name].is_in(), (bastion, name)
        assert story[bastion, "ada2"].reaches("client")
        log = root(bastion, "journalctl -t devnode-sessions --no-pager -o cat")
        for name in ("ada", "ops"):
            assert f"ending the session of {name}" in log
        assert "was removed" in log
        assert "was revoked" in log


def test_a_target_that_goes_takes_the_connections_along_that_could_reach_it(story):
    apply([ada("ada2", reach=["old"]), grace()], ops("ops2"))
    for bastion in BASTIONS:
        for name in ("ada2", "signed_ada"):
            mine = story[bastion, name]
            assert not mine.is_in(), (bastion, name)
            assert mine.enters(), (bastion, name)
            assert not mine.reaches("client"), (bastion, name)
            assert mine.reaches("old"), (bastion, name)
        for name in ("grace", "signed_grace"):
            assert story[bastion, name].is_in(), (bastion, name)
            assert story[bastion, name].reaches("client"), (bastion, name)
    assert f"may no longer reach {address('client')}:22" in root("new", "journalctl -t devnode-sessions -o cat")


def test_a_leaver_is_out_with_everything_that_is_open(story):
    apply([grace()], ops("ops2"))
    for bastion in BASTIONS:
        for name in ("ada2", "signed_ada"):
            assert not story[bastion, name].is_in(), (bastion, name)
            assert not story[bastion, name].enters(), (bastion, name)
        left = root(bastion, "getent passwd ada || true; ls /etc/devnode/bastion/keys; pgrep -u 2001 || true")
        assert left == "grace\n"
        assert root(bastion, "ls /etc/devnode/bastion/principals") == "grace\n"
        for name in ("grace", "ops2", "signed_grace"):
            assert story[bastion, name].is_in(), (bastion, name)
        assert story[bastion, "grace"].reaches("client")


def test_an_authority_that_goes_takes_all_its_certificates_along(story):
    apply([grace()], ops("ops2"), authorities=[])
    for bastion in BASTIONS:
        assert not story[bastion, "signed_grace"].is_in()
        assert not story[bastion, "signed_grace"].enters()
        assert story[bastion, "grace"].is_in()
