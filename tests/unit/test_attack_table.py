# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of attacks: complete, told apart by its own rules, and the same in the documentation."""

from __future__ import annotations

import re

import attack_table
import pytest
from attack_table import LOGGED_IN, PAGE, TABLE, Column, Outcome, markdown, outcome, written

# What the issue lists, by a word of the row that tries it.
LISTED = (
    *(
        "a shell",
        "a command",
        "a subsystem",
        "sftp",
        "`-L`",
        "another port of a listed host",
        "the bastion's own ports",
    ),
    *("the metadata address", "`-R`", "`-D`", "agent", "X11", "a tunnel", "a socket of the bastion", "`-W`"),
    *("variables smuggled in", "a password, keyboard-interactive", "old algorithms"),
)


def test_the_page_has_the_table_as_it_is_tried():
    assert written(PAGE.read_text(encoding="utf-8")) == PAGE.read_text(encoding="utf-8"), "run: make docs"
    assert markdown().count("\n") == len(TABLE) + 1
    with pytest.raises(ValueError, match="have to stand in the page"):
        written("no markers")


def test_everything_that_has_to_be_tried_is_there():
    names = [row.name for row in TABLE]
    assert len(set(names)) == len(names)
    assert not [word for word in LISTED if not any(word in name for name in names)]


def test_every_cell_says_something_and_nothing_works_for_whom_it_should_not():
    for row in TABLE:
        assert {row.cell(column) for column in Column} <= set(Outcome)
        for column in Column:
            if column not in LOGGED_IN:
                assert row.cell(column) not in (Outcome.WORKS, Outcome.REFUSED, Outcome.WITHOUT), row.name
        assert row.cell(Column.OPERATOR) == row.cell(Column.AUTOMATION)
    assert [row.name for row in TABLE if row.cell(Column.PERSON) is Outcome.WORKS] == [
        "`-W` and `ProxyJump` to a listed target",
        "`-D`, to a listed target",
    ]


def test_what_is_refused_has_a_word_in_the_log():
    for row in TABLE:
        if Outcome.REFUSED in (row.person, row.staff):
            assert row.denied, row.name
        assert row.to == () or len(row.to) == len(row.tries), row.name
        re.compile(row.works)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("banner\nin:ops\n", Outcome.WORKS),
        ("ada@192.0.2.1: Permission denied (publickey).\n", Outcome.NO_LOGIN),
        ("Unable to negotiate with 192.0.2.1 port 22: no matching cipher found. Their offer: x", Outcome.NO_TALK),
        ("ssh: connect to host 192.0.2.1 port 22: Connection timed out", Outcome.SILENCE),
        ("channel 0: open failed: administratively prohibited: open failed", Outcome.REFUSED),
    ],
)
def test_outcomes_are_told_apart(text, found):
    assert outcome(attack_table.COMMAND, text) == found


def test_what_says_nothing_is_no_outcome():
    assert outcome(attack_table.COMMAND, "Killed") == "? Killed"
    # Its own script in an error's text is no success.
    assert outcome(attack_table.COMMAND, 'sh: echo "in:$(id -un)"') not in list(Outcome)
