# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken away in the inventory is gone at the next run, open connections included; everybody else stays.

In this order: a person's key is changed for a new one, then a target goes, then the person.
"""

from __future__ import annotations

import pytest
from identity import BASTIONS, Client, ada, apply, grace, ops
from scenario_hosts import address, root


@pytest.fixture(scope="module")
def story():
    """The connections that are open, by bastion and key."""
    opened = {}
    for bastion in BASTIONS:
        opened[bastion, "ada"], opened[bastion, "grace"] = Client(bastion, "ada"), Client(bastion, "grace")
        opened[bastion, "ops"] = Client(bastion, "ops")
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
        for name in ("ada", "grace", "ops"):
            assert story[bastion, name].is_in(), (bastion, name)


def test_a_key_that_goes_takes_its_sessions_along_and_no_others(story):
    apply([ada("ada2"), grace()], ops("ops2"))
    for bastion in BASTIONS:
        for name in ("ada", "ops"):
            assert not story[bastion, name].is_in(), (bastion, name)
            assert not story[bastion, name].enters(), (bastion, name)
        assert root(bastion, "pgrep -u ops -x sleep || true") == ""
        for name in ("ada2", "ops2", "grace"):
            assert story[bastion, name].is_in(), (bastion, name)
        assert story[bastion, "ada2"].reaches("client")
        log = root(bastion, "journalctl -t devnode-sessions --no-pager -o cat")
        for name in ("ada", "ops"):
            assert f"ending the session of {name}" in log
        assert "was removed" in log


def test_a_target_that_goes_takes_the_connections_along_that_could_reach_it(story):
    apply([ada("ada2", reach=["old"]), grace()], ops("ops2"))
    for bastion in BASTIONS:
        mine = story[bastion, "ada2"]
        assert not mine.is_in()
        assert mine.enters()
        assert not mine.reaches("client")
        assert mine.reaches("old")
        assert story[bastion, "grace"].is_in()
        assert story[bastion, "grace"].reaches("client")
    assert f"may no longer reach {address('client')}:22" in root("new", "journalctl -t devnode-sessions -o cat")


def test_a_leaver_is_out_with_everything_that_is_open(story):
    apply([grace()], ops("ops2"))
    for bastion in BASTIONS:
        assert not story[bastion, "ada2"].is_in()
        assert not story[bastion, "ada2"].enters()
        left = root(bastion, "getent passwd ada || true; ls /etc/devnode/bastion/keys; pgrep -u 2001 || true")
        assert left == "grace\n"
        for name in ("grace", "ops2"):
            assert story[bastion, name].is_in(), (bastion, name)
        assert story[bastion, "grace"].reaches("client")
