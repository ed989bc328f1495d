# SPDX-License-Identifier: GPL-3.0-or-later
"""devnode-audit and the recorder's files."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, datetime

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import audit_recorder, audit_show

WHO = {"user": "ada", "uid": 2001, "source": "192.0.2.7", "key": "SHA256:k"}
OPEN = {"connection": "c1", "to": "192.0.2.11", "to_port": 22, "address": "192.0.2.11", **WHO}
LINES = [
    {"time": "2026-11-20T10:00:00.000Z", "event": "login", "session": "s1", "method": "publickey", **WHO},
    {"time": "2026-11-20T10:00:01.000Z", "event": "open", **OPEN},
    {
        "time": "2026-11-20T11:30:01.000Z",
        "event": "close",
        "since": "2026-11-20T10:00:01.000Z",
        "seconds": 5400.0,
        **OPEN,
    },
    {"time": "2026-11-21T10:00:00.000Z", "event": "open", **{**OPEN, "connection": "c2", "to": "x\x1b[31m"}},
    {"time": "2026-11-21T10:00:05.000Z", "event": "denied", "to": "192.0.2.12", "to_port": 80, **WHO},
    {
        "time": "2026-11-21T10:00:06.000Z",
        "event": "failed",
        "user": "guess",
        "source": "192.0.2.9",
        "method": "password",
    },
]


@pytest.fixture
def trail(tmp_path):
    path = tmp_path / "audit.jsonl"
    with gzip.open(f"{path}-20261120.gz", "wt") as handle:
        handle.writelines(f"{json.dumps(line)}\n" for line in LINES[:3])
    path.write_text("".join(f"{json.dumps(line)}\n" for line in [*LINES[2:], LINES[4]][:5]) + '{"time": "cut o')
    return str(path)


def answer(capsys, trail, *words):
    code = audit_show.main([*words, "--file", trail])
    return code, capsys.readouterr().out


def test_the_table(trail, capsys):
    code, out = answer(capsys, trail)
    head, first, second = out.splitlines()
    assert code == 0
    assert head.split() == ["WHEN", "(UTC)", "WHO", "FROM", "KEY", "ASKED", "FOR", "ADDRESS", "HOW", "LONG"]
    assert first.split() == [
        "2026-11-20",
        "10:00:01",
        "ada",
        "192.0.2.7",
        "SHA256:k",
        "192.0.2.11:22",
        "192.0.2.11:22",
        "1",
        "h",
        "30",
        "min",
    ]
    assert second.endswith("open")
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--open"], 1),
        (["--user", "grace"], 0),
        (["--to", "192.0.2.11:22"], 1),
        (["--since", "2026-11-20 11:00", "--until", "2026-11-20 12:00"], 1),
        (["--until", "2026-11-19"], 0),
        (["refused"], 1),
        (["failed"], 1),
        (["failed", "--from", "192.0.2.7"], 0),
        (["logins", "--key", "SHA256:k"], 1),
        (["events"], 8),
    ],
)
def test_questions(trail, capsys, words, count):
    code, out = answer(capsys, trail, *words, "--json")
    assert len(out.splitlines()) == count
    assert code == (0 if count else 1)


def test_older_parts_that_ended_before_are_not_read(trail):
    os.utime(f"{trail}-20261120.gz", (0, 0))
    assert audit_show.files(trail, datetime(2026, 1, 1, tzinfo=UTC)) == [trail]


def test_a_wrong_time_is_explained(trail, capsys):
    with pytest.raises(SystemExit):
        audit_show.main(["--since", "yesterday", "--file", trail])
    assert '"yesterday" is not a time. Allowed: 90s' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.3, "under 1 s"), (59.9, "59 s"), (61, "1 min 01 s"), (3661, "1 h 01 min"), (90000, "1 d 01 h")],
)
def test_durations(seconds, text):
    assert audit_show.duration(seconds) == text


def test_flows_are_read_once_also_across_a_rotation_and_a_restart(tmp_path):
    path = tmp_path / "flows.json"
    path.write_text('{"n": 1}\n{"n": 2}\n{"n"')
    flows = audit_recorder.FlowFile(str(path))
    assert [one["n"] for one in flows.read()] == [1, 2]
    with path.open("a") as handle:
        handle.write(": 3}\nnonsense\n")
    assert [one["n"] for one in flows.read()] == [3]
    inode, offset = flows.inode, flows.offset
    with path.open("a") as handle:
        handle.write('{"n": 4}\n')
    path.rename(f"{path}.1")
    path.write_text('{"n": 5}\n')
    assert [one["n"] for one in flows.read()] == [4, 5]
    assert list(flows.read()) == []
    # a recorder that was not running at that time
    again = audit_recorder.FlowFile(str(path), inode, offset)
    assert [one["n"] for one in again.read()] == [4, 5]


def test_state_and_records_survive(tmp_path):
    state, output = str(tmp_path / "state.json"), str(tmp_path / "audit.jsonl")
    assert audit_recorder.load(state) == {}
    audit_recorder.save(state, {"cursor": "x"})
    assert audit_recorder.load(state) == {"cursor": "x"}
    audit_recorder.append(output, [{"a": 1}])
    audit_recorder.append(output, [])
    audit_recorder.append(output, [{"a": 2}])
    assert (tmp_path / "audit.jsonl").read_text() == '{"a": 1}\n{"a": 2}\n'


def test_the_place_is_on_disk_before_it_counts(tmp_path, monkeypatch):
    """Else a loss of power leaves an empty file, and all who were logged in then are forgotten."""
    state, order = tmp_path / "state.json", []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append(os.fstat(number).st_size), sync(number)))
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append("in place"), replace(old, new)))
    audit_recorder.save(str(state), {"cursor": "x"})
    assert order == [state.stat().st_size, "in place"]
