# SPDX-License-Identifier: GPL-3.0-or-later
"""How long `ssh HOST true` takes: plain ssh against our rendered configuration, over lines of several lengths."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils.client_check import parse_views
from ansible_collections.devnode.gpu.plugins.module_utils.client_render import kit

from bench import ROOT, measure
from bench.measure import BenchError
from bench.two_hosts import LOGIN, Lab

RTTS = (0, 20, 60, 150)  # milliseconds
# What is measured: name -> what it means. Their order is that of one round.
CASES = {
    "stock direct, cold": "plain ssh to the node",
    "stock bastion, cold": "plain `ssh -J`: every command pays this",
    "ours direct, cold": "our configuration, the first command",
    "ours direct, warm": "our configuration, every further command",
    "ours bastion, cold": "the first command of the day",
    "ours bastion, new host": "the bastion's connection is there, the node's is not",
    "ours bastion, warm": "every further command",
}
COLD, WARM = "stock bastion, cold", "ours bastion, warm"


@contextlib.contextmanager
def line(rtt: int, address: str) -> Iterator[tuple[str, int]]:
    """Address and port by which port 22 of a host is reached over a line of this length. 0: the host itself."""
    if rtt == 0:
        yield address, 22
        return
    relay = subprocess.Popen(
        [sys.executable, str(ROOT / "bench" / "relay.py"), str(rtt), address, "22"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert relay.stdout is not None
        yield "127.0.0.1", int(relay.stdout.readline())
    finally:
        relay.terminate()
        relay.wait()


@dataclass(frozen=True)
class Ends:
    """The commands of one line: as people type them without us, and with our kit."""

    stock: Path  # an ssh_config that holds no more than plain ssh needs here: keys and host keys
    ours: Path

    def command(self, case: str) -> list[str]:
        if case.startswith("stock"):
            jump = ["-J", "bastion"] if "bastion" in case else []
            return ["ssh", "-F", str(self.stock), *jump, "node" if jump else "node-direct", "true"]
        return ["ssh", "-F", str(self.ours), "node" if "bastion" in case else "node-direct", "true"]

    def close(self, *names: str) -> None:
        """End shared connections, and wait until their sockets are gone."""
        for name in names:
            ssh = ["ssh", "-F", str(self.ours)]
            printed = subprocess.run([*ssh, "-G", name], capture_output=True, text=True, check=True).stdout
            path = next(text.split()[1] for text in printed.splitlines() if text.startswith("controlpath "))
            if os.path.exists(path):
                subprocess.run([*ssh, "-O", "exit", name], capture_output=True)
            end = time.monotonic() + 5
            while os.path.exists(path):
                if time.monotonic() > end:
                    raise BenchError(f"the shared connection to {name} does not end")
                time.sleep(0.005)


def view(lab: Lab, folder: Path, front: tuple[str, int], direct: tuple[str, int], **more: Any) -> dict[str, Any]:
    """The view of somebody who reaches the node through the bastion, and also directly."""
    node = {"user": LOGIN, "host_key_alias": "node", "identity_files": [str(lab.node_key)]}
    return {
        "person": "ada",
        "source": "bench",
        "base_dir": str(folder),
        "identity_files": [str(lab.person_key)],
        "jumps": [
            {"aliases": ["bastion"], "hostname": front[0], "port": front[1], "user": "ada", "host_key_alias": "bastion"}
        ],
        "hosts": [
            {"aliases": ["node"], "hostname": lab.node, "jump": "bastion", **node},
            {"aliases": ["node-direct"], "hostname": direct[0], "port": direct[1], **node},
        ],
        "known_hosts": lab.known(),
        "openssh": version(),
        **more,
    }


def version() -> str:
    """Version of the ssh here, as a view declares it."""
    return measure.machine()["ssh"].partition("OpenSSH_")[2].split("p")[0]


def write_kit(raw: dict[str, Any]) -> Path:
    """Render a kit and put it where it says; returns its ssh_config."""
    views, errors = parse_views([raw])
    if errors:
        raise BenchError("\n".join(errors))
    folder = Path(raw["base_dir"])
    (folder / "cm").mkdir(parents=True, mode=0o700)
    for found in kit(views[0]):
        if not found.asset:
            (folder / found.name).write_text(found.content)
    return folder / "config"


def stock_config(lab: Lab, path: Path, front: tuple[str, int], direct: tuple[str, int]) -> Path:
    hosts = (
        ("bastion", front[0], front[1], "ada", lab.person_key, "bastion"),
        ("node", lab.node, 22, LOGIN, lab.node_key, "node"),
        ("node-direct", direct[0], direct[1], LOGIN, lab.node_key, "node"),
    )
    path.write_text(
        "".join(
            f"Host {name}\n  HostName {address}\n  Port {port}\n  User {user}\n  IdentityFile {key}\n"
            f"  HostKeyAlias {alias}\n  UserKnownHostsFile {lab.folder}/known_hosts\n"
            for name, address, port, user, key, alias in hosts
        )
    )
    return path


@contextlib.contextmanager
def ends(lab: Lab, rtt: int) -> Iterator[Ends]:
    with line(rtt, lab.bastion) as front, line(rtt, lab.node) as direct:
        folder = lab.folder / str(rtt)
        ours = write_kit(view(lab, folder, front, direct))
        found = Ends(stock_config(lab, folder / "stock", front, direct), ours)
        try:
            yield found
        finally:
            found.close("node", "node-direct", "bastion")


def one_round(at: Ends) -> dict[str, float]:
    """Every case once, each from the state that its name says."""
    at.close("node", "node-direct", "bastion")
    taken = {}
    for case in CASES:
        if case == "ours bastion, new host":
            at.close("node")
        taken[case] = measure.timed(at.command(case))
    return taken


def run(lab: Lab, rounds: int, say: Any) -> dict[str, Any]:
    """Medians for every case and line, the round trips that they show, and the ratios."""
    medians: dict[str, dict[str, float]] = {case: {} for case in CASES}
    for rtt in RTTS:
        say(f"    RTT {rtt} ms: {rounds} rounds")
        with ends(lab, rtt) as at:
            one_round(at)  # not counted: caches of both sides fill
            taken = [one_round(at) for _ in range(rounds)]
        for case in CASES:
            medians[case][str(rtt)] = measure.ms([times[case] for times in taken])
    return {
        "rounds": rounds,
        "rtt_ms": list(RTTS),
        "median_ms": medians,
        "round_trips": {
            case: measure.slope([(float(rtt), found) for rtt, found in points.items()])
            for case, points in medians.items()
        },
        "ratio": ratios(medians),
    }


def ratios(medians: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Stock cold by our warm, beside what the protocol allows: a warm command takes 2 round trips and local work."""
    found = {}
    for rtt in RTTS:
        cold, warm = medians[COLD][str(rtt)], medians[WARM][str(rtt)]
        least = 2 * rtt + medians[WARM]["0"]
        found[str(rtt)] = {"ratio": round(cold / warm, 1), "ceiling": round(cold / least, 1)}
    return found


def text(result: dict[str, Any]) -> str:
    """The tables."""
    head = ["milliseconds, median", *(f"RTT {rtt}" for rtt in result["rtt_ms"]), "round trips"]
    rows = [
        [case, *(f"{points[str(rtt)]:.0f}" for rtt in result["rtt_ms"]), result["round_trips"][case]]
        for case, points in result["median_ms"].items()
    ]
    for name, what in (("ratio", "times faster than plain ssh -J"), ("ceiling", "at most, by the protocol")):
        rows.append([what, *(f"{result['ratio'][str(rtt)][name]:.1f}" for rtt in result["rtt_ms"]), ""])
    return measure.table(head, rows)
