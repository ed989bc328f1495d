# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a copy takes through the bastion: our choice of ciphers, ssh's own, and the bare network beside them."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench import latency, measure
from bench.measure import BenchError
from bench.two_hosts import Lab

MEGABYTES = 200
SINK_PORT = 7001
SINK = """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    peer, _ = server.accept()
    with peer:
        while peer.recv(1 << 20):
            pass
        peer.sendall(b".")
"""
KINDS = {
    "raw TCP": "the network and nothing else",
    "ours, AES-GCM first": "fast_algorithms, with a declared OpenSSH version",
    "ssh's own choice": "the same kit with fast_algorithms: false",
    "ours, compressed": "compression: true",
}


def run(lab: Lab, rounds: int, say: Any) -> dict[str, Any]:
    """Medians of each kind; the connection is there before, so that only the copy counts."""
    say(f"    {MEGABYTES} MB, {rounds} rounds")
    with tempfile.NamedTemporaryFile(prefix="dnb-copy-") as source:
        for _ in range(MEGABYTES):
            source.write(os.urandom(1_000_000))
        source.flush()
        front = (lab.bastion, 22), (lab.node, 22)
        views = {
            "ours, AES-GCM first": latency.view(lab, lab.folder / "fast", *front),
            "ssh's own choice": latency.view(lab, lab.folder / "slow", *front, fast_algorithms=False),
            "ours, compressed": latency.view(lab, lab.folder / "zip", *front),
        }
        for host in views["ours, compressed"]["hosts"]:
            host["compression"] = True
        configs = {name: latency.write_kit(raw) for name, raw in views.items()}
        taken: dict[str, list[float]] = {name: [] for name in KINDS}
        with sink(lab, configs["ours, AES-GCM first"]):
            for _ in range(rounds):
                taken["raw TCP"].append(measure.clocked(lambda: send(lab.node, Path(source.name))))
                for name, config in configs.items():
                    at = latency.Ends(config, config)
                    measure.timed(at.command("ours bastion, warm"))
                    copy = ["scp", "-q", "-F", str(config), source.name, "node:/tmp/copy"]
                    taken[name].append(measure.timed(copy))
        for config in configs.values():
            latency.Ends(config, config).close("node", "bastion")
    return {"megabytes": MEGABYTES, "rounds": rounds, "median_ms": {name: measure.ms(taken[name]) for name in KINDS}}


class sink:  # noqa: N801  used as a word
    """A program on the node that swallows what it is sent and says when it has all of it."""

    def __init__(self, lab: Lab, config: Path) -> None:
        self.argv = ["ssh", "-T", "-F", str(config), "-o", "ControlPath=none", "node", f"exec python3 - {SINK_PORT}"]

    def __enter__(self) -> None:
        # The program comes on standard input, whose end python3 waits for before it starts.
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(SINK)
        self.process.stdin.close()
        if self.process.stdout.readline() != "ready\n":
            raise BenchError("the program that receives raw TCP did not start on the node")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def send(address: str, path: Path) -> None:
    with socket.create_connection((address, SINK_PORT)) as peer, path.open("rb") as source:
        peer.sendfile(source)
        peer.shutdown(socket.SHUT_WR)
        if peer.recv(1) != b".":
            raise BenchError("raw TCP: the far side did not take everything")


def text(result: dict[str, Any]) -> str:
    """The table."""
    raw = result["median_ms"]["raw TCP"]
    rows = [
        [name, f"{taken:.0f}", f"{result['megabytes'] * 1000 / taken:.0f}", f"{taken / raw:.1f}"]
        for name, taken in result["median_ms"].items()
    ]
    return measure.table([f"{result['megabytes']} MB through the bastion", "ms", "MB/s", "x raw"], rows)
