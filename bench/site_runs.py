# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site.yml costs that changes nothing: the lab of `make demo`, and the same with more nodes.

The nodes that are added live as long as the measurement: each has an engine, the toolkit, conda and a workspace, as
the lab's own two have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lab.devlab import fleet
from lab.devlab.paths import LAB_DIR

from bench import ROOT, runs
from bench.measure import BenchError

SIZES = (1, 2, 5, 20)
OWN_NODES = sum(machine.gpus for machine in fleet.MACHINES)
WORKSPACES = ROOT / "inventory" / "lab" / "group_vars" / "all" / "workspaces.yml"
# The plays of site.yml, and which host of the lab tells how many tasks one has.
PLAYS = (("devnode_bastions", "bastion"), ("devnode_nodes", "gpu-01"), ("localhost", "localhost"), ("client", "client"))
LAB = {"DEVNODE_LAB_DIR": str(LAB_DIR)}
Words = list[str]


def inventory(folder: Path, nodes: Sequence[fleet.Machine]) -> Words:
    """The lab's inventory and that of the nodes which are added, each with a workspace of its own."""
    found = {node.name: {"devnode_address": node.addresses[0][1]} for node in nodes}
    (folder / "more.yml").write_text(yaml.safe_dump({"devnode_nodes": {"hosts": found}}))
    workspaces = yaml.safe_load(WORKSPACES.read_text())["devnode_workspaces"]
    more = [
        {"name": f"w-{node.name}", "node": node.name, "owner": "ada", "port": 2201, "gpus": [0], "shm_size": "256m"}
        for node in nodes
    ]
    (folder / "workspaces.yml").write_text(yaml.safe_dump({"devnode_workspaces": [*workspaces, *more]}))
    sources = ["-i", str(ROOT / "inventory" / "lab"), "-i", str(folder / "more.yml")]
    return [*sources, "-e", f"@{folder / 'workspaces.yml'}"]


@contextmanager
def nodes_beside(count: int, say: Callable[[str], None]) -> Iterator[Words]:
    """The words for ansible-playbook, with so many nodes more; afterwards the lab is what it was."""
    site = str(ROOT / "site.yml")
    nodes = fleet.more_nodes(count)
    with tempfile.TemporaryDirectory(prefix="dns-") as name, runs.room_for_hosts():
        words = inventory(Path(name), nodes)
        try:
            fleet.grow(nodes)
            done = runs.playbook([*words, site], **LAB)
            say(f"    the first run, with {count} nodes more: {done.seconds:.0f} s")
            yield words
        finally:
            fleet.shrink(nodes)
            runs.playbook(["-i", str(ROOT / "inventory" / "lab"), site], **LAB)


def measured(words: Words, nodes: int, rounds: int) -> dict[str, Any]:
    names = [machine.name for machine in fleet.MACHINES if machine.gpus] + [m.name for m in fleet.more_nodes(nodes)]
    some = [*words, "--limit", ",".join(["bastion", "client", "localhost", *names[:nodes]])]
    with tempfile.TemporaryDirectory(prefix="dnf-") as folder:

        def nothing(done: runs.Run) -> list[str]:
            book = Path(folder) / "floor.yml"
            book.write_text(
                yaml.safe_dump([runs.play(where, tasks=runs.empty(done.results[host])) for where, host in PLAYS])
            )
            return [*some, str(book)]

        whole, floor = runs.beside([*some, str(ROOT / "site.yml")], nothing, rounds, **LAB)
    counts = ", ".join(f"{host} {whole.results[host]}" for _, host in PLAYS)
    what = f"site.yml, {nodes} node{'s' if nodes > 1 else ''}, a bastion, a client"
    return {**runs.row(what, whole, floor), "results_by_host": counts}


def run(rounds: int, say: Callable[[str], None], sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    if not (LAB_DIR / "facts.yml").exists():
        raise BenchError("the lab is not up: make demo")
    rows = []

    def take(words: Words, size: int) -> None:
        rows.append(measured(words, size, rounds))
        say("    {what}: {seconds} s, floor {floor_seconds} s".format(**rows[-1]))

    for size in (one for one in sizes if one <= OWN_NODES):
        take(["-i", str(ROOT / "inventory" / "lab")], size)
    # The larger ones one after the other, so that 5 are measured beside nothing else.
    for size in (one for one in sizes if one > OWN_NODES):
        with nodes_beside(size - OWN_NODES, say) as words:
            take(words, size)
    return {"rounds": rounds, "rows": rows}
