# SPDX-License-Identifier: GPL-3.0-or-later
"""The alert rules of docs/audit.md: each fires on what it is for, and on nothing else.

The records are those that the scenario `bastion` wrote (data/audit_records.jsonl: one of each kind, from Debian 12 and
13). Where a rule counts, a record is repeated at other times, by other people or from other addresses.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import alert_rules
import pytest
from alert_rules import query, rules

REAL = [json.loads(line) for line in (Path(__file__).parent / "data" / "audit_records.jsonl").read_text().splitlines()]
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
USUAL = ("login", "open", "close", "logout")
ANY = {
    "a way around sshd": [{"event": "blocked"}],
    "a way in for others": [
        {"what": what} for what in ("remote forwarding", "remote forwarding to a socket", "tunnel", "socket")
    ],
    "a shell where none should be": [{"what": "shell, command or subsystem"}],
}


# What sshd calls them (molecule/identity looks for the same words in its log).
CODES = "keyboard-interactive/pam"


def real(**fields):
    """The first record that has these fields."""
    return next(record for record in REAL if all(record.get(name) == value for name, value in fields.items()))


def at(record, seconds=0.0, **changes):
    """A record at another time, and what else differs."""
    time = (NOON + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    return {**record, "time": time, **changes}


def fired(records, now=NOON):
    return {name for name, rule in rules().items() if rule.fires(records, now)}


def times(number, record, apart, **changes):
    """A record so often; a change is a function of the number."""
    return [
        at(record, count * apart, **{name: change(count) for name, change in changes.items()})
        for count in range(number)
    ]


def test_the_records_are_of_every_kind():
    assert {record["event"] for record in REAL} >= {*USUAL, "denied", "blocked", "failed"}
    assert {record["host"] for record in REAL} == {"bastion", "bastion13"}


def test_an_ordinary_day_sets_nothing_off():
    """As it was written, for two hundred people in one hour; some mistype a name or a host."""
    comings = [
        at(real(event=event, user="ada"), person * 18, user=f"person{person}", key=f"SHA256:{person}")
        for person in range(200)
        for event in USUAL
    ]
    mistakes = times(40, real(event="failed"), 90, source=lambda count: f"192.0.2.{count}")
    wrong = times(5, real(event="denied", what="connection"), 60)
    assert fired([*comings, *mistakes, *wrong]) == set()


@pytest.mark.parametrize(("name", "fields"), [(name, one) for name, each in ANY.items() for one in each])
def test_one_is_enough(name, fields):
    for host in ("bastion", "bastion13"):
        assert fired([at(real(host=host, **fields))]) == {name}


@pytest.mark.parametrize(
    ("name", "enough", "too_few"),
    [
        (
            "somebody tries doors",
            times(6, real(event="denied", what="connection"), 110),
            [
                *times(5, real(event="denied", what="connection"), 110),
                *times(6, real(event="denied", what="connection"), 130, user=lambda _count: "grace"),
            ],
        ),
        ("guessing", times(51, real(event="failed"), 5.9), times(51, real(event="failed"), 6.1)),
        (
            "guessing names",
            times(11, real(event="failed"), 20, user=lambda count: f"name{count}"),
            [
                *times(11, real(event="failed"), 20),
                *times(11, real(event="failed"), 20, user=str, source=lambda count: f"192.0.2.{count}"),
            ],
        ),
        (
            "guessing codes",
            times(11, real(event="failed"), 350, method=lambda _count: CODES),
            [
                *times(10, real(event="failed"), 350, method=lambda _count: CODES),
                *times(11, real(event="failed"), 350),
                *times(22, real(event="failed"), 170, method=lambda _count: CODES, user=lambda count: f"u{count % 3}"),
            ],
        ),
        (
            "a key that moved",
            times(4, real(event="login"), 1000, source=lambda count: f"192.0.2.{count}"),
            [
                *times(9, real(event="login"), 60),
                *times(4, real(event="login"), 60, source=lambda count: f"192.0.2.{count}", key=str),
            ],
        ),
        (
            "at odd hours",
            [at(real(event="login"), 11 * 3600, user="ops")],
            [at(real(event="login"), 0, user="ops"), at(real(event="login"), 11 * 3600)],
        ),
    ],
)
def test_a_rule_that_counts(name, enough, too_few):
    assert fired(enough) == {name}
    assert fired(too_few) == set()


def test_silence_is_that_of_one_host():
    both = [at(real(event="login", host="bastion")), at(real(event="login", host="bastion13"), 7200)]
    assert fired(both, NOON + timedelta(hours=23)) == set()
    assert fired(both, NOON + timedelta(hours=25)) == {"silence"}


def test_every_rule_is_tried():
    tried = {*ANY, "somebody tries doors", "guessing", "guessing names", "guessing codes"}
    tried |= {"a key that moved", "at odd hours", "silence"}
    assert set(rules()) == tried


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("event:denied AND what:socket OR event:login", [0, 2]),
        ("event:denied AND (what:socket OR event:login)", [0]),
        ('what:"remote forwarding"', [1]),
        ("NOT event:denied", [2]),
        ("event:(login OR denied) AND NOT what:socket", [1, 2]),
        ("*", [0, 1, 2]),
    ],
)
def test_queries_are_read_as_lucene_has_them(text, found):
    some = [{"event": "denied", "what": "socket"}, {"event": "denied", "what": "remote forwarding"}, {"event": "login"}]
    assert [number for number, record in enumerate(some) if query(text)(record)] == found


@pytest.mark.parametrize("text", ["event:", "event", "(event:a", "event:(a OR", "event:a what:b", 'event:"a'])
def test_what_is_no_query_is_an_error(text):
    with pytest.raises(ValueError, match="event"):
        query(text)


def test_a_row_that_cannot_be_read_is_an_error():
    head = "## Alert rules\n| when | query | alert |\n|---|---|---|\n"
    for row in ("| a | `event:a` | often |", "| a | event:a | any |"):
        with pytest.raises(ValueError, match="cannot be read"):
            alert_rules.rules(f"{head}{row}\n")
