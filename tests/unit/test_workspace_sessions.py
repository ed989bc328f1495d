# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a workspace: which session a removed key had opened, by what sshd's log says."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.in_image import in_image

sessions: Any = in_image("devnode_sessions")


def accepted(login: str, key: str) -> str:
    return f"Accepted publickey for {login} from 172.18.0.1 port 38654 ssh2: ED25519 SHA256:{key}"


def child(pid: int) -> str:
    return f"User child is on pid {pid}"


def read(*lines: str, seconds: float = 0.1) -> Any:
    logins = sessions.Logins()
    for number, line in enumerate(lines):
        logins.read(line, number * seconds)
    return logins


def test_a_login_is_two_lines() -> None:
    found = read("Connection from 172.18.0.1", accepted("ada", "a"), child(25), accepted("grace", "g"), child(30))
    assert found.sessions == {25: {"ada": ["SHA256:a"]}, 30: {"grace": ["SHA256:g"]}}


def test_a_certificate_is_noted_with_its_authority() -> None:
    line = accepted("ada", "a") + " ID x CA ED25519 SHA256:no (serial 1) CA ED25519 SHA256:ca"
    assert read(line, child(25)).sessions == {25: {"ada": ["SHA256:a SHA256:ca"]}}


def test_a_certificate_counts_while_its_authority_does_and_nobody_revoked_its_key() -> None:
    now, gone = {"ada": ["SHA256:b", "SHA256:ca"]}, sessions.REVOKED
    signed = ["SHA256:a SHA256:ca"]
    assert not sessions.must_end("ada", signed, now, {})
    assert sessions.must_end("ada", signed, {"ada": ["SHA256:a"]}, {})
    assert sessions.must_end("ada", signed, {**now, gone: ["SHA256:a"]}, {})
    assert sessions.must_end("ada", ["SHA256:b"], {**now, gone: ["SHA256:b"]}, {})
    # Nobody knows its key: it goes when something was revoked since the last look.
    assert sessions.must_end("ada", [], {**now, gone: ["SHA256:a"]}, now)
    assert not sessions.must_end("ada", [], {**now, gone: ["SHA256:a"]}, {**now, gone: ["SHA256:a"]})


def test_two_at_once_keep_apart_by_their_names() -> None:
    found = read(accepted("ada", "a"), accepted("grace", "g"), child(25), child(30), accepted("ada", "b"), child(40))
    assert found.sessions[25] == found.sessions[30] == {"ada": ["SHA256:a"], "grace": ["SHA256:g"]}
    assert found.sessions[40] == {"ada": ["SHA256:b"]}


def test_two_keys_of_one_person_at_once_are_both_noted() -> None:
    found = read(accepted("ada", "a"), accepted("ada", "b"), child(25), child(30))
    assert found.sessions[25] == found.sessions[30] == {"ada": ["SHA256:a", "SHA256:b"]}


def test_a_login_that_came_to_nothing_is_forgotten() -> None:
    found = read(accepted("ada", "a"), accepted("ada", "b"), child(25), seconds=sessions.LOGIN_SECONDS)
    assert found.sessions == {25: {"ada": []}} or found.sessions == {25: {}}


@pytest.mark.parametrize("line", ["Invalid user Accepted publickey for x", " " + accepted("ada", "a"), child(3) + " x"])
def test_what_others_can_put_into_a_line_counts_for_nothing(line: str) -> None:
    found = read(line)
    assert (found.sessions, found.waiting) == ({}, [])


KEYS = st.lists(st.sampled_from(["a", "b", "c"]), unique=True)


@given(KEYS, KEYS, KEYS)
def test_a_session_stays_exactly_while_its_key_does(mine: list[str], now: list[str], before: list[str]) -> None:
    ends = sessions.must_end("ada", mine, {"ada": now}, {"ada": before})
    assert ends == (not set(mine) <= set(now) if mine else not set(before) <= set(now))


def test_nobody_is_concerned_by_what_others_lose() -> None:
    assert not sessions.must_end("grace", [], {"grace": ["g"]}, {"grace": ["g"], "ada": ["a"]})


def test_the_log_is_passed_on_and_noted(tmp_path: Path, capfdbinary: Any) -> None:
    pid = os.getpid()
    log = f"{accepted('ada', 'a')}\r\n{child(pid)}\r\n{accepted('ada', 'b')}\r\n{child(2**30)}\r\n".encode()
    sessions.follow(io.BytesIO(log), tmp_path / "logins")
    assert capfdbinary.readouterr().err == log
    assert json.loads((tmp_path / "logins").read_text()) == {str(pid): {"ada": ["SHA256:a"]}}


def test_the_keys_of_now_are_remembered(tmp_path: Path) -> None:
    applied = tmp_path / "keys"
    assert sessions.end_lost({}, {"ada": ["a"]}, tmp_path / "none", applied) == []
    assert json.loads(applied.read_text()) == {"ada": ["a"]}
