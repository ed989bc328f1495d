#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the role pytorch_sshd takes: the image cold and cached, a recreation, a stop, and a run without a change.

    molecule converge -s pytorch_sshd     # a node with an engine, once; then, with the same environment:
    python bench/workspaces.py [--counts 1,10,30] [--cold]

prints a table and writes bench/results/workspaces.json. Every number is the whole role over real SSH, unless it says
otherwise. `--cold` also builds the image without the engine's cache (it downloads packages).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = ROOT / "molecule" / "pytorch_sshd"
EPHEMERAL = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "/tmp/devnode-mol-pytorch_sshd"))  # noqa: S108  as tests/run.py
RESULT = ROOT / "bench" / "results" / "workspaces.json"


def play(**extra: Any) -> tuple[float, int]:
    """Seconds and changes of one run of the role."""
    inventory = EPHEMERAL / "inventory" / "ansible_inventory.yml"
    argv = ["ansible-playbook", "--inventory", str(inventory), "--extra-vars", json.dumps(extra)]
    env = {**os.environ, "MOLECULE_EPHEMERAL_DIRECTORY": str(EPHEMERAL), "ANSIBLE_NOCOLOR": "1"}
    started = time.monotonic()
    done = subprocess.run([*argv, str(SCENARIO / "converge.yml")], capture_output=True, text=True, env=env, cwd=ROOT)
    took = time.monotonic() - started
    changed = re.search(r"changed=(\d+)", done.stdout)
    if done.returncode != 0 or not changed:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    return took, int(changed[1])


def on_node(command: str) -> float:
    """Seconds of a command on the node, without those of the connection."""
    timed = f"sudo bash -c 'TIMEFORMAT=%R; time {{ {command}; }} >/dev/null 2>&1'"
    words = ["ssh", "-F", str(EPHEMERAL / "ssh_config"), "debian13", timed]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    return float(done.stderr.strip().splitlines()[-1])


def workspaces(count: int, **more: Any) -> list[dict[str, Any]]:
    """That many small ones."""
    key = (EPHEMERAL / "people" / "ada.pub").read_text().strip()
    person = {"owner": {"name": "ada", "uid": 2001}, "keys": {"ada": [key]}}
    shared = {**person, "bind_address": "{{ address }}", "shm_size": "64m", "jupyter": False, **more}
    return [{"name": f"bench-{i}", "port": 2300 + i, **shared} for i in range(count)]


def median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1,10,30")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()
    always: dict[str, Any] = {"pytorch_sshd_recreate": "always"}
    found: dict[str, Any] = {"cpus": os.cpu_count(), "load_before": os.getloadavg()[0], "seconds": {}}
    seconds = found["seconds"]

    def note(name: str, value: float) -> None:
        seconds[name] = value
        # At once: a run that is ended before its end keeps what it has measured.
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=2) + "\n")
        print(f"{name:46} {value:8.2f} s", flush=True)

    for count in (int(word) for word in args.counts.split(",")):
        took, _ = play(pytorch_sshd_workspaces=workspaces(count), **always)
        note(f"{count} workspaces: first run", round(took, 2))
        runs = [play(pytorch_sshd_workspaces=workspaces(count), **always) for _ in range(args.repeat)]
        if any(changed for _, changed in runs):
            sys.exit("a run that should change nothing changed something")
        note(f"{count} workspaces: run without a change", median([took for took, _ in runs]))
    took, _ = play(pytorch_sshd_workspaces=workspaces(1), **always)
    stop = [on_node("docker stop devnode-bench-0")]
    for _ in range(args.repeat - 1):
        on_node("docker start devnode-bench-0; sleep 2")
        stop.append(on_node("docker stop devnode-bench-0"))
    note("docker stop of an idle workspace (on the node)", median(stop))
    play(pytorch_sshd_workspaces=workspaces(1), **always)
    recreate = [
        play(pytorch_sshd_workspaces=workspaces(1, shm_size=f"{65 + i}m"), **always)[0] for i in range(args.repeat)
    ]
    note("recreate one workspace", median(recreate))
    environment = {"LANG": "C.UTF-8", "DEVNODE_BENCH": str(time.time_ns())}
    took, _ = play(pytorch_sshd_workspaces=[], pytorch_sshd_image_environment=environment, **always)
    note("image: build with the engine's cache", round(took, 2))
    if args.cold:
        packages = ["ca-certificates", "cron", "curl", "git", "less", "nano", "openssh-client", "openssh-server"]
        packages += ["procps", "rsync", "sudo", "tini", "tmux", "bash"]
        took, _ = play(pytorch_sshd_workspaces=[], pytorch_sshd_packages=packages, **always)
        note("image: build without it", round(took, 2))
    print(f"written to {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
