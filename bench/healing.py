# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes until ssh works again, with nothing done by hand: cut lines, masters that die, a restart."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import ROOT, latency, measure
from bench.measure import BenchError
from bench.two_hosts import Lab

PATIENCE = 180  # seconds


class Line:
    """The line between this machine and the bastion: a relay that can be frozen, killed and started again."""

    def __init__(self, address: str) -> None:
        self.address, self.port = address, 0
        self.start()

    def start(self) -> None:
        argv = [sys.executable, str(ROOT / "bench" / "relay.py"), "0", self.address, "22", str(self.port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


class Person:
    """Somebody with our kit, at work on the node: its connection is open."""

    def __init__(self, config: Path) -> None:
        self.ends = latency.Ends(config, config)
        self.config = config

    def work(self) -> None:
        measure.timed(self.ends.command(latency.WARM))

    def ssh(self, *words: str) -> str:
        done = subprocess.run(["ssh", "-F", str(self.config), *words], capture_output=True, text=True)
        return done.stdout + done.stderr

    def master(self, name: str) -> int:
        return int(self.ssh("-O", "check", name).partition("pid=")[2].split(")")[0])

    def socket(self, name: str) -> str:
        options = dict(line.split(" ", 1) for line in self.ssh("-G", name).splitlines() if " " in line)
        return options["controlpath"]

    def until_it_works(self) -> tuple[float, int]:
        """Type the command again and again until it works: seconds, and how often it failed."""
        started, failed = time.monotonic(), 0
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        while subprocess.run(self.ends.command(latency.WARM), **quiet).returncode != 0:  # type: ignore[call-overload]
            failed += 1
            if time.monotonic() - started > PATIENCE:
                raise BenchError("ssh does not work again by itself")
            time.sleep(0.2)
        return time.monotonic() - started, failed


def run(lab: Lab, rounds: int, say: Any) -> dict[str, Any]:
    """Each case once, from a connection that works; the kit's own settings."""
    line = Line(lab.bastion)
    raw = latency.view(lab, lab.folder / "heal", ("127.0.0.1", line.port), (lab.node, 22))
    person = Person(latency.write_kit(raw))
    found = {}
    try:
        for name, cause in CASES.items():
            say(f"    {name}")
            person.work()
            noticed = cause(person, line, lab)
            seconds, failed = person.until_it_works()
            found[name] = {"seconds": round(seconds, 1), "failed": failed}
            if noticed is not None:
                found[name]["noticed_seconds"] = round(noticed, 1)
            person.ends.close("node", "bastion")
    finally:
        line.signal(signal.SIGCONT)
        line.kill()
    return {"server_alive_seconds": 45, "cases": found}


def master_killed(person: Person, _line: Line, _lab: Lab) -> None:
    os.kill(person.master("node"), signal.SIGKILL)


def both_masters_killed(person: Person, _line: Line, _lab: Lab) -> None:
    for name in ("node", "bastion"):
        os.kill(person.master(name), signal.SIGKILL)


def leftover_socket(person: Person, _line: Line, _lab: Lab) -> None:
    paths = [person.socket(name) for name in ("node", "bastion")]
    person.ends.close("node", "bastion")
    for path in paths:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)


def relay_killed(_person: Person, line: Line, _lab: Lab) -> None:
    line.kill()
    line.start()


def asleep(person: Person, line: Line, _lab: Lab) -> None:
    """The laptop sleeps, and the network forgets its connections meanwhile."""
    masters = [person.master(name) for name in ("node", "bastion")]
    for pid in masters:
        os.kill(pid, signal.SIGSTOP)
    line.kill()
    line.start()
    for pid in masters:
        os.kill(pid, signal.SIGCONT)


def relay_frozen(person: Person, line: Line, _lab: Lab) -> float:
    """Nothing answers, nothing is refused: only ssh's own questions show it. Then the line is there again."""
    path = person.socket("node")
    line.signal(signal.SIGSTOP)
    started = time.monotonic()
    while os.path.exists(path):
        if time.monotonic() - started > PATIENCE:
            raise BenchError("ssh keeps a connection that does not answer")
        time.sleep(0.1)
    noticed = time.monotonic() - started
    line.signal(signal.SIGCONT)
    return noticed


def host_restarted(_person: Person, _line: Line, lab: Lab) -> None:
    """As by its power switch. Counted from when its ssh answers again."""
    subprocess.run(["docker", "restart", "--time", "0", lab.container("node")], check=True, capture_output=True)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with socket.create_connection((lab.node, 22), timeout=2) as peer:
                if peer.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.2)
    raise BenchError("the node does not come back")


CASES: dict[str, Callable[[Person, Line, Lab], float | None]] = {
    "master killed (-9)": master_killed,
    "both masters killed (-9)": both_masters_killed,
    "sockets left behind": leftover_socket,
    "line cut": relay_killed,
    "laptop slept, line gone": asleep,
    "line silent until noticed": relay_frozen,
    "node restarted": host_restarted,
}


def text(result: dict[str, Any]) -> str:
    """The table."""
    rows = [
        [name, found.get("noticed_seconds", ""), f"{found['seconds']:.1f}", found["failed"]]
        for name, found in result["cases"].items()
    ]
    return measure.table(["until ssh works again, nothing done by hand", "noticed s", "seconds", "failed tries"], rows)
