#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes 200 people: a key each (people.tar), and what the roles are told about them (people.json)."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import tarfile
from pathlib import Path

PEOPLE = 200
TARGETS = 300


def main() -> None:
    folder, target = Path(sys.argv[1]), sys.argv[2]
    keys = folder / "people"
    keys.mkdir(exist_ok=True)
    # One target is there. The others stand for a large fleet: addresses that are kept for documentation and tests.
    others = list(ipaddress.ip_network("198.18.0.0/15").hosts())[: TARGETS - 1]
    places = [target, *map(str, others)]
    people, walls = [], []
    for number in range(1, PEOPLE + 1):
        name = f"p{number:03}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", keys / name], check=True)
        public = (keys / f"{name}.pub").read_text().strip()
        uid = 5000 + number
        people.append(
            {"name": name, "uid": uid, "keys": [public], "targets": [{"host": place, "port": 22} for place in places]}
        )
        walls.append({"uid": uid, "name": name, "targets": [{"address": place, "port": 22} for place in places]})
    with tarfile.open(folder / "people.tar", "w") as archive:
        archive.add(keys, "people")
    (folder / "people.json").write_text(json.dumps({"people": people, "walls": walls}))


if __name__ == "__main__":
    main()
