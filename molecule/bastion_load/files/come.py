#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""People log in to the target through the bastion, evenly over some seconds, and stay until the last one is in.

Prints one JSON object: how long each needed (seconds), and what ssh said to those who did not get in.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

SSH = "ssh -F /root/kit/config"
PATIENCE = 120  # seconds: longer than what is allowed, so that the slowest is measured


async def one(number: int, delay: float, source: str) -> tuple[float, str, asyncio.subprocess.Process]:
    await asyncio.sleep(delay)
    person = f"p{number:03}"
    bind = f"-b {source}" if source else ""
    hop = f"{SSH} {bind} -i /root/kit/people/{person} -l {person} -W %h:%p bastion"
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *SSH.split(),
        "-o",
        f"ProxyCommand={hop}",
        "target",
        "echo in; cat",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
    except TimeoutError:
        process.kill()
        line = b""
    taken = time.monotonic() - started
    said = "" if line == b"in\n" else (await process.stderr.read()).decode(errors="replace") or "no answer"
    return taken, said, process


async def everybody(people: int, seconds: float, own_addresses: bool) -> dict[str, object]:
    began = time.monotonic()
    comings = [
        one(number, number * seconds / people, f"10.203.250.{number}" if own_addresses else "")
        for number in range(1, people + 1)
    ]
    arrived = await asyncio.gather(*comings)
    last = time.monotonic() - began
    for _taken, _said, process in arrived:
        process.stdin.close()
    ends = [await process.wait() for _taken, _said, process in arrived]
    return {
        "last": round(last, 1),
        "seconds": sorted(round(taken, 2) for taken, _said, _process in arrived),
        "failures": [said for _taken, said, _process in arrived if said],
        "stayed": ends.count(0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--own-addresses", action="store_true")
    args = parser.parse_args()
    print(json.dumps(asyncio.run(everybody(args.people, args.seconds, args.own_addresses))))


if __name__ == "__main__":
    main()
