# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the role pytorch_sshd takes: the image cold and cached, a recreation, a stop, and a run without a change.

Every number is the whole role over real SSH, unless it says otherwise, on a node that the scenario pytorch_sshd makes.
BENCH_NODE=FOLDER takes one that is there (`molecule converge -s pytorch_sshd` with this MOLECULE_EPHEMERAL_DIRECTORY).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import ROOT, measure
from bench.measure import BenchError

SCENARIO = ROOT / "molecule" / "pytorch_sshd"
COUNTS = (1, 10, 30)
ALWAYS: dict[str, Any] = {"pytorch_sshd_recreate": "always"}
# With one more than the default: another layer, which no cache has.
PACKAGES = (
    *("ca-certificates", "cron", "curl", "git", "less", "nano", "openssh-client", "openssh-server", "procps"),
    *("rsync", "sudo", "tini", "tmux", "bash"),
)


@contextmanager
def node(say: Any) -> Iterator[Node]:
    """A node with an engine and the image, taken away again whatever happens."""
    kept = os.environ.get("BENCH_NODE")
    if kept:
        yield Node(Path(kept))
        return
    say("    a node with an engine and the image (some minutes)")
    with tempfile.TemporaryDirectory(prefix="dnb-") as folder:
        one = Node(Path(folder))
        try:
            one.molecule("converge")
            yield one
        finally:
            one.molecule("destroy")


class Node:
    """The node, by what Molecule left in its directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "MOLECULE_EPHEMERAL_DIRECTORY": str(folder), "ANSIBLE_NOCOLOR": "1"}

    def molecule(self, command: str) -> None:
        argv = [str(Path(sys.executable).with_name("molecule")), command, "-s", "pytorch_sshd"]
        env = {"DEVNODE_PREFIX": "devnode-bench", **self.env}
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise BenchError(f"molecule {command} -s pytorch_sshd failed:\n{(done.stdout + done.stderr)[-3000:]}")

    def play(self, **extra: Any) -> tuple[float, int]:
        """Seconds and changes of one run of the role."""
        inventory = self.folder / "inventory" / "ansible_inventory.yml"
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        values = json.dumps({**ALWAYS, **extra})
        argv = [program, "--inventory", str(inventory), "--extra-vars", values, str(SCENARIO / "converge.yml")]
        started = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, env=self.env, cwd=ROOT)
        took = time.monotonic() - started
        changed = re.search(r"changed=(\d+)", done.stdout)
        if done.returncode != 0 or not changed:
            raise BenchError(done.stdout[-3000:] + done.stderr[-3000:])
        return took, int(changed[1])

    def do(self, command: str) -> float:
        """Seconds of a command on the node, without those of the connection."""
        timed = f"sudo bash -c 'TIMEFORMAT=%R; time {{ {command}; }} >/dev/null 2>&1'"
        words = ["ssh", "-F", str(self.folder / "ssh_config"), "debian13", timed]
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
        return float(done.stderr.strip().splitlines()[-1])

    def workspaces(self, count: int, **more: Any) -> list[dict[str, Any]]:
        """That many small ones."""
        key = (self.folder / "people" / "ada.pub").read_text().strip()
        person = {"owner": {"name": "ada", "uid": 2001}, "keys": {"ada": [key]}}
        shared = {**person, "bind_address": "{{ address }}", "shm_size": "64m", "jupyter": False, **more}
        return [{"name": f"bench-{i}", "port": 2300 + i, **shared} for i in range(count)]


def run(rounds: int, say: Any) -> dict[str, Any]:
    """Everything, on one node. The median of some rounds."""
    seconds: dict[str, float] = {}
    load = round(os.getloadavg()[0], 1)

    def note(name: str, *values: float) -> None:
        seconds[name] = round(statistics.median(values), 2)
        say(f"    {name:46} {seconds[name]:8.2f} s")

    with node(say) as one:
        for count in COUNTS:
            some = one.workspaces(count)
            note(f"{count} workspaces: first run", one.play(pytorch_sshd_workspaces=some)[0])
            runs = [one.play(pytorch_sshd_workspaces=some) for _ in range(rounds)]
            if any(changed for _, changed in runs):
                raise BenchError("a run that should change nothing changed something")
            note(f"{count} workspaces: run without a change", *(took for took, _ in runs))
        one.play(pytorch_sshd_workspaces=one.workspaces(1))
        stops = []
        for _ in range(rounds):
            one.do("docker start devnode-bench-0; sleep 2")
            stops.append(one.do("docker stop devnode-bench-0"))
        note("docker stop of an idle workspace (on the node)", *stops)
        one.play(pytorch_sshd_workspaces=one.workspaces(1))
        sizes = [one.workspaces(1, shm_size=f"{65 + i}m") for i in range(rounds)]
        note("recreate one workspace", *(one.play(pytorch_sshd_workspaces=some)[0] for some in sizes))
        environment = {"LANG": "C.UTF-8", "DEVNODE_BENCH": str(time.time_ns())}
        cached = one.play(pytorch_sshd_workspaces=[], pytorch_sshd_image_environment=environment)
        note("image: build with the engine's cache", cached[0])
        note("image: build without it", one.play(pytorch_sshd_workspaces=[], pytorch_sshd_packages=PACKAGES)[0])
    return {"rounds": rounds, "load_before": load, "seconds": seconds}


def text(result: dict[str, Any]) -> str:
    """The table."""
    rows = [[name, f"{taken:.2f}"] for name, taken in result["seconds"].items()]
    return str(measure.table(["workspaces on a node: the role pytorch_sshd", "seconds"], rows))
