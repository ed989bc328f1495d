# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that are cut, fall silent or come back, masters that die: the next ssh works, with nothing to clean up.

`line` is the other host, through a relay on this one that tests can freeze and kill (line.service).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from scc import SSH, TOOL, good, one_system, run_as, timed


@pytest.fixture(autouse=True)
def afresh(host: Any) -> Iterator[None]:
    yield
    host.check_output("systemctl kill -s CONT line.service; systemctl restart line.service")
    good(host, f"{TOOL} close --all")


def socket_of(host: Any, alias: str) -> str:
    return next(
        line.split()[1] for line in good(host, f"ssh -G {alias}").splitlines() if line.startswith("controlpath")
    )


def open_line(host: Any) -> str:
    """A shared connection over the relay; returns its socket."""
    timed(host, f"{SSH} line true")
    path = socket_of(host, "line")
    assert host.file(path).exists
    return path


def test_a_line_that_was_cut(host: Any, record_property: Any) -> None:
    open_line(host)
    host.check_output("systemctl kill -s KILL line.service; systemctl restart line.service")
    record_property("seconds", timed(host, f"{SSH} line true"))


def test_a_line_that_fell_silent_is_noticed_and_comes_back(host: Any, record_property: Any) -> None:
    """Here ssh asks every 3 seconds and gives up after 2 without an answer; the bench measures the defaults."""
    one_system(host)
    path = open_line(host)
    host.check_output("systemctl kill -s STOP line.service")
    started = time.monotonic()
    # A command that is typed meanwhile ends by itself.
    assert run_as(host, "ada", f"{SSH} -o ConnectTimeout=3 line true").rc != 0
    while host.file(path).exists:
        assert time.monotonic() - started < 40, "ssh keeps a connection that does not answer"
        time.sleep(0.3)
    record_property("noticed_seconds", time.monotonic() - started)
    host.check_output("systemctl kill -s CONT line.service")
    record_property("back_seconds", timed(host, f"{SSH} line true"))


def test_a_pause_that_is_shorter_breaks_nothing(host: Any) -> None:
    path = open_line(host)
    pid = good(host, "ssh -O check line 2>&1")
    host.check_output("systemctl kill -s STOP line.service; sleep 1; systemctl kill -s CONT line.service")
    good(host, f"{SSH} line true")
    assert host.file(path).exists
    assert good(host, "ssh -O check line 2>&1") == pid


def test_a_laptop_that_slept_while_its_line_went_away(host: Any) -> None:
    open_line(host)
    pid = good(host, "ssh -O check line 2>&1").split("pid=")[1].strip(")\r\n")
    host.check_output("kill -STOP %s; systemctl kill -s KILL line.service; systemctl restart line.service", pid)
    host.check_output("kill -CONT %s", pid)
    timed(host, f"{SSH} line true")


@pytest.mark.parametrize("leftover", ["socket", "file"])
def test_something_left_where_the_socket_goes(host: Any, leftover: str) -> None:
    """As after a crash or a full backup: a socket that nobody listens to, or a plain file."""
    path = socket_of(host, "line")
    make = (
        f"import socket; socket.socket(socket.AF_UNIX).bind('{path}')"
        if leftover == "socket"
        else f"open('{path}', 'w')"
    )
    good(host, f'python3 -c "{make}"')
    started = time.monotonic()
    good(host, f"{SSH} line true")
    assert time.monotonic() - started < 20
    if leftover == "socket":
        assert "Master running" in good(host, "ssh -O check line 2>&1")
    good(host, f"rm -f {path}")
