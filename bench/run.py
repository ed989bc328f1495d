# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`: how fast ssh is with a kit of ours, how fast kits are made,
and what a run that changes nothing costs. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.devlab.shell import LabError

from bench import ROOT, chart, copying, gpu_roles, healing, latency, measure, rendering, runs, site_runs, workspaces
from bench.measure import BenchError
from bench.two_hosts import Lab, two_hosts

RESULTS = ROOT / "bench" / "results"
CHART = ROOT / "docs" / "latency.svg"
Result = dict[str, Any]


def say(words: str) -> None:
    print(words, flush=True)


def keep(name: str, result: Result) -> None:
    """Results beside what they depend on, one file for each part."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": measure.machine(), **result}, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text)


@dataclass(frozen=True)
class Part:
    """One of the benchmarks: what it is called, how it is run and what is printed of its result."""

    name: str
    title: str
    run: Callable[..., Result]  # of the rounds, and of the two hosts where it needs them
    text: Callable[[Result], str]


def _latency(rounds: int, lab: Lab) -> Result:
    return {**latency.run(lab, rounds, say), "openssh": latency.version()}


def _latency_text(result: Result) -> str:
    CHART.parent.mkdir(exist_ok=True)
    CHART.write_text(chart.svg(result))
    return f"{latency.text(result)}\n\n  The chart: {CHART.relative_to(ROOT)}"


ALONE = (
    Part("render", "Rendering", lambda rounds: rendering.run(rounds, say), rendering.text),
    Part("runs", "Runs without a change", lambda rounds: runs.run(min(rounds, 3), say), runs.text),
    Part(
        "site",
        "site.yml without a change (the lab must be up; 20 nodes take about half an hour)",
        lambda rounds: site_runs.run(min(rounds, 3), say),
        runs.text,
    ),
    Part(
        "gpu",
        "The three roles of a GPU host (about two minutes until they are set up)",
        lambda rounds: gpu_roles.run(min(rounds, 5), say),
        runs.text,
    ),
    Part("workspaces", "Workspaces on a node", lambda rounds: workspaces.run(min(rounds, 3), say), workspaces.text),
)
# On two hosts, which take a while to set up.
WITH_HOSTS = (
    Part("latency", "Latency", _latency, _latency_text),
    Part("copy", "Copying", lambda rounds, lab: copying.run(lab, max(3, rounds // 3), say), copying.text),
    Part("heal", "Healing", lambda rounds, lab: healing.run(lab, rounds, say), healing.text),
)
PARTS = tuple(part.name for part in (*ALONE, *WITH_HOSTS))


def measure_one(part: Part, *given: int | Lab) -> None:
    say(f"==> {part.title}")
    result = part.run(*given)
    keep(part.name, result)
    say(f"\n{part.text(result)}\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=15, help="of which the median is taken (default: 15)")
    args = parser.parse_args()
    wrong = sorted(set(args.parts) - set(PARTS))
    if wrong or args.rounds < 1:
        parser.error(f"no such part: {', '.join(wrong)}" if wrong else "--rounds must be 1 or more")
    wanted = args.parts or list(PARTS)
    started = time.monotonic()
    try:
        for part in ALONE:
            if part.name in wanted:
                measure_one(part, args.rounds)
        on_hosts = [part for part in WITH_HOSTS if part.name in wanted]
        if on_hosts:
            say("==> A bastion and a node (about two minutes; the first time images are built as well)")
            with two_hosts() as lab:
                for part in on_hosts:
                    measure_one(part, args.rounds, lab)
    except (BenchError, LabError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    say(f"Results: {RESULTS.relative_to(ROOT)}/*.json ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
