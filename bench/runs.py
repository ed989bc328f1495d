# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of a bastion's roles costs that changes nothing, on 1, 5 and 20 hosts.

Beside each stands its floor: the same number of tasks that do nothing, on the same hosts. Tasks are the price of a run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lab.devlab import engine, hosts, keys, needs, scenario

from bench import ROOT
from bench.measure import BenchError, settle, table

SIZES = (1, 5, 20)
RECAP = re.compile(
    r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)", re.MULTILINE
)
# systemd takes about six of these for each host, and a machine's usual 128 are used up by twenty.
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INSTANCES = 1024


@dataclass(frozen=True)
class Run:
    seconds: float
    changed: int
    results: dict[str, int]  # ok (changed ones among them) and skipped, by host

    @property
    def most(self) -> int:
        return max(self.results.values())


def playbook(argv: Sequence[str], **more: str) -> Run:
    """One run of ansible-playbook, which must not fail."""
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **more}
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    started = time.perf_counter()
    done = subprocess.run([program, *argv], cwd=ROOT, env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    found = RECAP.findall(done.stdout.rpartition("PLAY RECAP")[2])
    if done.returncode != 0 or not found:
        raise BenchError(f"ansible-playbook {' '.join(argv)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    results = {host: int(ok) + int(skipped) for host, ok, _, _, _, skipped in found}
    return Run(seconds, sum(int(row[2]) for row in found), results)


def unchanged(argv: Sequence[str], **more: str) -> Run:
    one = playbook(argv, **more)
    if one.changed:
        raise BenchError(f"a run of {argv[-1]} that should change nothing changed something")
    return one


def beside(whole: Sequence[str], floor: Callable[[Run], Sequence[str]], rounds: int, **more: str) -> tuple[Run, Run]:
    """The fastest of several runs of a playbook and of its floor: what else this machine does only adds.

    They take turns, since a machine may be faster now and slower in a minute. The floor's words follow from a run.
    """
    wholes, floors = [], []
    for _ in range(rounds):
        wholes.append(unchanged(whole, **more))
        floors.append(unchanged(floor(wholes[0]), **more))
    fastest = [min(several, key=lambda one: one.seconds) for several in (wholes, floors)]
    return fastest[0], fastest[1]


def roles(network: str) -> list[dict[str, Any]]:
    """A bastion's roles, as somebody uses them without the rest of the collection."""
    uid, target = 2001, {"address": "10.0.0.11", "port": 2201}
    relay = {"name": "ada", "uid": uid, "keys": ["{{ key }}"], "targets": [{"host": "10.0.0.11", "port": 2201}]}
    service = {"name": "ssh", "port": 22, "sources": [network]}
    inputs: dict[str, dict[str, Any]] = {
        "ssh_server": {
            "ssh_server_operators": [{"name": "ops", "uid": 3000, "keys": ["{{ key }}"]}],
            "ssh_server_exempt_networks": [network],
        },
        "bastion": {"bastion_relay_users": [relay], "bastion_fail2ban_ignore": [network]},
        "host_firewall": {
            "host_firewall_services": [service],
            "host_firewall_egress": [{"uid": uid, "name": "ada", "targets": [target]}],
            "host_firewall_egress_log_group": 5,
        },
    }
    return [{"role": f"devnode.gpu.{name}", "vars": values} for name, values in inputs.items()]


def play(where: str, **what: Any) -> dict[str, Any]:
    return {"name": f"Bench on {where}", "hosts": where, "gather_facts": False, **what}


def empty(count: int) -> list[dict[str, Any]]:
    return [{"name": f"Nothing {number}", "ansible.builtin.ping": {}} for number in range(count)]


@contextmanager
def room_for_hosts() -> Iterator[None]:
    """For as long as many hosts run here, let them watch files; afterwards this machine's limit is what it was."""
    before = INOTIFY.read_text()
    if int(before) >= INSTANCES:
        yield
        return
    try:
        INOTIFY.write_text(f"{INSTANCES}\n")
    except OSError as error:
        raise BenchError(
            f"{INOTIFY} is {before.strip()}, too few for 20 hosts; set it to {INSTANCES}: {error}"
        ) from None
    try:
        yield
    finally:
        INOTIFY.write_text(before)


@contextmanager
def many_hosts(count: int) -> Iterator[tuple[Path, str]]:
    """That many hosts of Debian 13, with an inventory; and the network that they and this machine are in."""
    needs.ensure(needs.CLIENT, "the bench uses ssh")
    engine.ensure()
    folder = Path(tempfile.mkdtemp(prefix="dnr-"))
    one = scenario.Scenario("runs", folder, [{"name": f"h{i:02}", "image": "debian13"} for i in range(count)])
    try:
        scenario.destroy(one)
        scenario.create(one)
        keys.ensure_key(folder / "ada", "ada")
        options = f"ansible_ssh_common_args='-F {folder}/ssh_config' ansible_python_interpreter=/usr/bin/python3"
        names = [platform["name"] for platform in one.platforms]
        (folder / "inventory").write_text("".join(f"{name} {options}\n" for name in names))
        address = hosts.address(one.container(names[0]))
        yield folder, address.rpartition(".")[0] + ".0/24"
    finally:
        scenario.destroy(one)
        shutil.rmtree(folder, ignore_errors=True)


def of_roles(sizes: Sequence[int], rounds: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = []
    with room_for_hosts(), many_hosts(max(sizes)) as (folder, network):
        key = (folder / "ada.pub").read_text().strip()

        def write(name: str, plays: list[dict[str, Any]]) -> list[str]:
            (folder / name).write_text(yaml.safe_dump(plays))
            return ["-i", str(folder / "inventory"), "-e", f"key='{key}'", str(folder / name)]

        every = roles(network)
        whole = write("roles.yml", [play("all", become=True, roles=every)])
        first = write("ssh_server.yml", [play("all", become=True, roles=every[:1])])
        say(f"    the first run, on {max(sizes)} hosts: {playbook(whole).seconds:.0f} s")
        settle()
        for size in sizes:
            some = ["--limit", ",".join(f"h{i:02}" for i in range(size))]
            for name, words in (("ssh_server alone", first), ("ssh_server, bastion, host_firewall", whole)):

                def nothing(done: Run, some: Sequence[str] = some) -> list[str]:
                    return [*some, *write("floor.yml", [play("all", tasks=empty(done.most))])]

                whole_, floor = beside([*some, *words], nothing, rounds)
                rows.append(row(f"{name}, {size} host{'s' if size > 1 else ''}", whole_, floor))
                say(f"    {rows[-1]['what']}: {whole_.seconds:.1f} s, floor {floor.seconds:.1f} s")
    return rows


def row(what: str, whole: Run, floor: Run) -> dict[str, Any]:
    ratio = round(whole.seconds / floor.seconds, 2)
    return {
        "what": what, "results": whole.most, "seconds": round(whole.seconds, 2),
        "floor_seconds": round(floor.seconds, 2), "ratio": ratio,
    }  # fmt: skip


def run(rounds: int, say: Callable[[str], None], sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    return {"rounds": rounds, "rows": of_roles(sizes, rounds, say)}


def text(result: dict[str, Any]) -> str:
    rows = [[one[key] for key in ("what", "results", "seconds", "floor_seconds", "ratio")] for one in result["rows"]]
    return table(("a run without a change", "results", "s", "floor s", "ratio"), rows)
