#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo` and `make demo-down`: the lab, then site.yml on it, then what to try."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.devlab import engine, fleet, images, needs, playbook, services, standins
from lab.devlab.paths import CACHE_DIR, LAB_DIR, ROOT
from lab.devlab.shell import LabError, say, step

SUMMARY = """
The fleet is up ({seconds:.0f} s; on the hosts {changed} changed). You are ada, an engineer. Try, in this directory:

  ssh -F {config} gpu-01 'python3 -c "import torch; print(torch.__version__)"'   # PyTorch in your container on gpu-01
  ssh -F {config} -O check gpu-01                             # the shared connection; later commands are fast
  scp -F {config} README.md gpu-01:                           # sftp and rsync -e 'ssh -F {config}' likewise
  ssh -F {config} gpu-01 git clone git@git.lab.internal:demo.git   # the key stays in your agent
  ssh -F {config} gpu-01 devnode-jupyter                      # JupyterLab's address on this machine
  ssh -F {config} bastion                                     # refused: it only relays

  make demo           again: changes nothing on the hosts
  make demo-down      takes everything away; images stay in the engine, stand-ins in {cache}
"""


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
    seconds = time.monotonic() - started
    config = shown(LAB_DIR / "engineer" / "config")
    print(SUMMARY.format(seconds=seconds, changed=recap.changed, config=config, cache=shown(CACHE_DIR)))


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
