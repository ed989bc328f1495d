# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of nvidia_driver, docker_engine and nvidia_container_toolkit that changes nothing, on one host.

The host is the one of their scenario (Debian 13, the distribution's engine, stand-ins for GPUs and NVIDIA's packages).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from bench import ROOT, runs
from bench.measure import BenchError

SCENARIO = "nvidia_container_toolkit"
HOST = "debian13"
INCLUDES = 3  # the scenario's play includes each role by a task of its own
WHAT = "nvidia_driver, docker_engine, nvidia_container_toolkit, 1 host"


def own(run: runs.Run) -> runs.Run:
    """Without the tasks of the scenario's play itself."""
    return replace(run, results={host: count - INCLUDES for host, count in run.results.items()})


def molecule(what: str, environment: dict[str, str]) -> None:
    argv = [str(Path(sys.executable).with_name("molecule")), what, "-s", SCENARIO]
    done = subprocess.run(
        argv, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise BenchError(f"molecule {what} -s {SCENARIO} failed:\n{(done.stdout + done.stderr)[-3000:]}")


@contextmanager
def one_host() -> Iterator[dict[str, str]]:
    """Bring it up, and take it away whatever happens."""
    with tempfile.TemporaryDirectory(prefix="dng-") as folder:
        environment = {
            "MOLECULE_EPHEMERAL_DIRECTORY": folder,
            "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
            "DEVNODE_PREFIX": f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-bench",
        }
        try:
            molecule("converge", environment)
            yield environment
        finally:
            molecule("destroy", environment)


def run(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    with one_host() as environment:
        folder = Path(environment["MOLECULE_EPHEMERAL_DIRECTORY"])
        some = ["-i", str(folder / "inventory" / "ansible_inventory.yml"), "--limit", HOST]

        def nothing(done: runs.Run) -> list[str]:
            book = folder / "floor.yml"
            book.write_text(yaml.safe_dump([runs.play("all", tasks=runs.empty(own(done).most))]))
            return [*some, str(book)]

        book = str(ROOT / "molecule" / SCENARIO / "converge.yml")
        whole, floor = runs.beside([*some, book], nothing, rounds, **environment)
        whole = own(whole)
        say(f"    {whole.most} results (25 are allowed): {whole.seconds:.1f} s, floor {floor.seconds:.1f} s")
    return {"rounds": rounds, "load": round(os.getloadavg()[0], 1), "rows": [runs.row(WHAT, whole, floor)]}
