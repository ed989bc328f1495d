# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench measures what it says: its line is as long as asked, its numbers follow from the times."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import chart, gpu_roles, latency, measure, runs  # noqa: E402


def echo(server: socket.socket) -> None:
    """Greet at once, as sshd does, then give back what comes."""
    peer, _ = server.accept()
    with peer:
        peer.sendall(b"hello")
        while data := peer.recv(65536):
            peer.sendall(data)


@pytest.mark.parametrize("rtt", [0, 40])
def test_the_relay_is_as_long_as_asked_and_keeps_every_byte(rtt: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        argv = [sys.executable, str(ROOT / "bench/relay.py"), str(rtt), "127.0.0.1", str(server.getsockname()[1])]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as relay, contextlib.ExitStack() as last:
            last.callback(relay.terminate)  # whatever fails: nobody waits for one that does not end
            assert relay.stdout is not None
            sent = bytes(range(256)) * 4000
            port = int(relay.stdout.readline())
            started = time.monotonic()  # before: the line may have begun when this process comes to its turn
            with socket.create_connection(("127.0.0.1", port)) as peer:
                assert peer.recv(5) == b"hello"
                # One round trip for the handshake, one for its last part and the answer to it.
                assert time.monotonic() - started >= 2 * rtt / 1000
                started = time.monotonic()
                threading.Thread(target=lambda: (peer.sendall(sent), peer.shutdown(socket.SHUT_WR))).start()
                got = b""
                while len(got) < len(sent) and (piece := peer.recv(65536)):
                    got += piece
                assert time.monotonic() - started >= rtt / 1000
                assert got == sent
                assert peer.recv(1) == b""


def medians(trips: float, local: float) -> dict[str, float]:
    return {str(rtt): trips * rtt + local for rtt in latency.RTTS}


RESULT = {
    "rounds": 15,
    "openssh": "9.2",
    "rtt_ms": list(latency.RTTS),
    "median_ms": {case: medians(2, 8) if case.endswith("warm") else medians(16, 320) for case in latency.CASES},
}


def test_round_trips_and_ratios_follow_from_the_times() -> None:
    points = [(float(rtt), found) for rtt, found in RESULT["median_ms"][latency.COLD].items()]  # type: ignore[index]
    assert measure.slope(points) == 16.0
    ratios = latency.ratios(RESULT["median_ms"])  # type: ignore[arg-type]
    assert ratios["0"] == {"ratio": 40.0, "ceiling": 40.0}
    assert ratios["150"]["ratio"] == ratios["150"]["ceiling"] == 8.8


def test_the_chart_is_a_picture_with_a_bar_for_each_number() -> None:
    result = {**RESULT, "ratio": latency.ratios(RESULT["median_ms"])}  # type: ignore[arg-type]
    root = ET.fromstring(chart.svg(result))  # noqa: S314  our own text
    bars = [part for part in root.iter("{http://www.w3.org/2000/svg}rect") if part.get("height") == str(chart.BAR)]
    assert len(bars) == len(chart.BARS) * len(latency.RTTS)
    width = float(root.get("width", 0))
    assert all(float(bar.get("x", 0)) + float(bar.get("width", 0)) < width - 60 for bar in bars)
    words = " ".join(part.text or "" for part in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "40x faster" in words
    assert "RTT 150 ms" in words


def test_a_scenarios_own_tasks_are_not_counted_as_the_roles() -> None:
    found = gpu_roles.own(runs.Run(1.0, 0, {"debian13": 28}))
    assert (found.most, found.seconds) == (25, 1.0)


def test_a_playbook_and_its_floor_take_turns_and_the_fastest_of_each_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([4.0, 2.0, 3.0, 2.5])
    asked: list[str] = []

    def playbook(argv: Sequence[str], **more: str) -> runs.Run:
        asked.append(argv[-1])
        return runs.Run(next(seconds), 0, {"h00": 6})

    monkeypatch.setattr(runs, "playbook", playbook)
    whole, floor = runs.beside(["site.yml"], lambda done: [f"floor of {done.most}"], 2)
    assert asked == ["site.yml", "floor of 6"] * 2
    assert (whole.seconds, floor.seconds) == (3.0, 2.0)


def test_a_run_that_changes_something_is_no_measure_of_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "playbook", lambda argv, **more: runs.Run(1.0, 1, {"h00": 6}))
    with pytest.raises(measure.BenchError, match="changed something"):
        runs.beside(["site.yml"], lambda done: ["floor.yml"], 1)
