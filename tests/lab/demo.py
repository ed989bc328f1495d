#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo` and `make demo-down`: the lab, then site.yml on it, then what to try."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.devlab import engine, fleet, images, needs, playbook, services, standins
from lab.devlab.paths import CACHE_DIR, LAB_DIR, ROOT
from lab.devlab.shell import LabError, run, say, step

SUMMARY = """
The fleet is up ({seconds:.0f} s; {changed} changed on the hosts). You are ada, an engineer. Try, in this directory:

  ssh -F {config} gpu-01 'python3 -c "import torch; print(torch.__version__)"'
      PyTorch, in your own container on gpu-01
  ssh -F {config} -O check gpu-01
      the shared connection; whatever comes next over it starts at once
  scp -F {config} README.md gpu-01:
      and sftp -F {config} gpu-01, and rsync -e 'ssh -F {config}'
  ssh -F {config} gpu-01 git clone git@git.lab.internal:demo.git
      a private repository; the key is only in your agent, and stays there
  ssh -F {config} gpu-01 devnode-jupyter --port {jupyter}
      JupyterLab's address on this machine
  ssh -F {config} bastion
      refused: the bastion only leads on

More about your access: {readme}
Again: make demo (changes nothing on the hosts).
Away with all of it: make demo-down (KEEP_IMAGES=1 keeps the images and {cache}).
"""
JUPYTER = re.compile(r"^localforward \S*?(\d+) \S*:8888$", re.MULTILINE)


def up() -> None:
    started = time.monotonic()
    needs.ensure(needs.CLIENT, "the lab is used over ssh")
    with step("Container engine"):
        engine.ensure()
    fleet.refuse_another_checkout()
    facts = prepare()
    with step("The lab: two networks, a bastion, two GPU nodes, a client, the services"):
        fleet.up(facts)
    with step("site.yml"):
        recap = playbook.run_site()
    say(recap.table)
    print(summary(time.monotonic() - started, recap.changed, LAB_DIR / "engineer"))


def summary(seconds: float, changed: int, kit: Path) -> str:
    return SUMMARY.format(
        seconds=seconds,
        changed=changed,
        config=shown(kit / "config"),
        readme=shown(kit / "README.md"),
        jupyter=jupyter_port(run(["ssh", "-G", "-F", kit / "config", "gpu-01"])),
        cache=shown(CACHE_DIR),
    )


def jupyter_port(effective: str) -> str:
    """The local end of the forward to JupyterLab, from `ssh -G`. The brackets around addresses come and go."""
    found = JUPYTER.search(effective.replace("[", "").replace("]", ""))
    return found[1] if found else "8888"


def prepare() -> dict[str, dict[str, Any]]:
    """Images and stand-ins, side by side; on a second run all of this is there."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        facts: Future[dict[str, dict[str, Any]]] = pool.submit(standins.build_all)
        made = [pool.submit(services.image), pool.submit(images.ensure, "debian12")]
        for one in made:
            one.result()
        return facts.result()


def shown(path: Path) -> str:
    """Short from where the user is."""
    here = Path.cwd()
    return os.path.relpath(path, here) if here in (ROOT, *ROOT.parents) and path.is_relative_to(ROOT) else str(path)


def down(with_images: bool) -> None:
    if not engine.answers():
        say("No container engine runs, so there is no lab.")
        return
    with step("Taking the lab away"):
        fleet.down(with_images)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--images", action="store_true", help="down: take images and caches away as well")
    args = parser.parse_args()
    try:
        if args.action == "up":
            up()
        else:
            down(args.images)
    except LabError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
