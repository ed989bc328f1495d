# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts, made like a scenario's: a bastion (Debian 12) and a node (Debian 13), with the roles applied."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.devlab import engine, hosts, keys, needs, scenario

from bench import ROOT
from bench.measure import BenchError

PLATFORMS = [{"name": "bastion", "image": "debian12"}, {"name": "node", "image": "debian13"}]
LOGIN = keys.AUTOMATION


@dataclass(frozen=True)
class Lab:
    folder: Path  # short: control sockets lie below it
    bastion: str  # addresses
    node: str

    @staticmethod
    def container(name: str) -> str:
        return scenario.Scenario("bench", Path(), PLATFORMS).container(name)

    @property
    def person_key(self) -> Path:
        return self.folder / "ada"

    @property
    def node_key(self) -> Path:
        return self.folder / LOGIN

    def known(self) -> list[dict[str, Any]]:
        """The hosts' keys as a view wants them."""
        lines = [line.split(" ", 1) for line in (self.folder / "known_hosts").read_text().splitlines()]
        return [{"names": [name], "keys": [key]} for name, key in lines]


@contextmanager
def two_hosts() -> Iterator[Lab]:
    """Bring them up, and take them away whatever happens. BENCH_KEEP=1 leaves them for a look."""
    needs.ensure(needs.CLIENT, "the bench uses ssh")
    engine.ensure()
    folder = Path(tempfile.mkdtemp(prefix="dnb-"))
    one = scenario.Scenario("bench", folder, PLATFORMS)
    try:
        scenario.destroy(one)  # what an interrupted run left
        scenario.create(one)
        lab = Lab(folder, *(hosts.address(one.container(name)) for name in ("bastion", "node")))
        keys.ensure_key(lab.person_key, "ada")
        _set_up(lab)
        yield lab
    finally:
        if not os.environ.get("BENCH_KEEP"):
            scenario.destroy(one)
            shutil.rmtree(folder, ignore_errors=True)


def _set_up(lab: Lab) -> None:
    inventory = lab.folder / "inventory"
    options = f"ansible_ssh_common_args='-F {lab.folder}/ssh_config' ansible_python_interpreter=/usr/bin/python3"
    inventory.write_text(f"bastion {options}\nnode {options}\n")
    log = lab.folder / "ansible.log"
    with log.open("w") as out:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                f"--inventory={inventory}",
                f"--extra-vars=person_key='{lab.person_key.with_suffix('.pub').read_text().strip()}'",
                str(ROOT / "bench" / "hosts.yml"),
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if done.returncode != 0:
        raise BenchError("the roles failed on the bench's hosts:\n" + log.read_text()[-3000:])
