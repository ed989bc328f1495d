# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`: how fast ssh is with a kit of ours, how fast kits are made,
and what a run that changes nothing costs. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from lab.devlab.shell import LabError

from bench import ROOT, chart, copying, gpu_roles, healing, latency, measure, rendering, runs, site_runs, workspaces
from bench.measure import BenchError
from bench.two_hosts import two_hosts

RESULTS = ROOT / "bench" / "results"
CHART = ROOT / "docs" / "latency.svg"
PARTS = ("render", "runs", "site", "gpu", "workspaces", "latency", "copy", "heal")


def say(words: str) -> None:
    print(words, flush=True)


def keep(name: str, result: dict[str, Any]) -> None:
    """Results beside what they depend on, one file for each part."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": measure.machine(), **result}, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text)


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
        if "render" in wanted:
            say("==> Rendering")
            result = rendering.run(args.rounds, say)
            keep("render", result)
            say(f"\n{rendering.text(result)}\n")
        if "runs" in wanted:
            say("==> Runs without a change")
            result = runs.run(min(args.rounds, 3), say)
            keep("runs", result)
            say(f"\n{runs.text(result)}\n")
        if "site" in wanted:
            say("==> site.yml without a change (the lab must be up; 20 nodes take about half an hour)")
            result = site_runs.run(min(args.rounds, 3), say)
            keep("site", result)
            say(f"\n{runs.text(result)}\n")
        if "gpu" in wanted:
            say("==> The three roles of a GPU host (about two minutes until they are set up)")
            result = gpu_roles.run(min(args.rounds, 5), say)
            keep("gpu", result)
            say(f"\n{runs.text(result)}\n")
        if "workspaces" in wanted:
            say("==> Workspaces on a node")
            result = workspaces.run(min(args.rounds, 3), say)
            keep("workspaces", result)
            say(f"\n{workspaces.text(result)}\n")
        if set(wanted) & {"latency", "copy", "heal"}:
            with_hosts(wanted, args.rounds)
    except (BenchError, LabError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    say(f"Results: {RESULTS.relative_to(ROOT)}/*.json ({time.monotonic() - started:.0f} s)")
    return 0


def with_hosts(wanted: list[str], rounds: int) -> None:
    say("==> A bastion and a node (about two minutes; the first time images are built as well)")
    with two_hosts() as lab:
        if "latency" in wanted:
            say("==> Latency")
            result = {**latency.run(lab, rounds, say), "openssh": latency.version()}
            keep("latency", result)
            CHART.parent.mkdir(exist_ok=True)
            Path(CHART).write_text(chart.svg(result))
            say(f"\n{latency.text(result)}\n\n  The chart: {CHART.relative_to(ROOT)}\n")
        if "copy" in wanted:
            say("==> Copying")
            result = copying.run(lab, max(3, rounds // 3), say)
            keep("copy", result)
            say(f"\n{copying.text(result)}\n")
        if "heal" in wanted:
            say("==> Healing")
            result = healing.run(lab, rounds, say)
            keep("heal", result)
            say(f"\n{healing.text(result)}\n")


if __name__ == "__main__":
    sys.exit(main())
