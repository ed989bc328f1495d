# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/upgrade.md on a fleet of the version before: what changes, who notices, and the way back. In order: a day.

Meanwhile ada is in her workspace, through the bastion, with a job in tmux; and the GPU host runs somebody's container.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from doc_blocks import ROOT, to_run
from scenario_hosts import wait_until
from stranger import (
    PREFIX,
    Adopter,
    build,
    changes,
    console,
    deprecated,
    hand_out,
    made,
    mirrors,
    on_laptop,
    page_values,
)  # fmt: skip

# The commit in which CHANGELOG.md got 0.1.0.
OLDER = "14c5560"
HOSTS = ("bastion", "gpu-01")
# Everything that a role may write to, but state, logs and what tools make of their settings.
SEEN = "/etc /usr/local /root"
# ldconfig's, PAM's and the package manager's own, which on some days makes an empty sources.list where there was none.
PASSING = re.compile(
    r"/etc/(ld\.so\.cache|apt/sources\.list$|\.pwd\.lock|passwd-|shadow-|group-|gshadow-|subuid-|subgid-)|/root/\.ansible/"
)
# Role nvidia_driver's, which 0.1.0's site.yml does not run: docs/upgrade.md says so.
LEFT = {
    "/etc/ansible",
    "/etc/ansible/facts.d",
    "/etc/ansible/facts.d/devnode_gpu.fact",
    "/etc/apt/apt.conf.d/52devnode-nvidia",
}
JOB, STAY = "sleep 3601", "sleep 3602"


@dataclass
class Fleet:
    """The operator's machine, and what was there before."""

    adopter: Adopter
    inventory: str = "inventory"
    version: str = ""
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    theirs: str = ""
    container: str = ""
    stay: subprocess.Popen[bytes] | None = None
    said: str = ""  # by the last run

    def install(self, version: str) -> None:
        archives = f"{version}/devnode-gpu-*.tar.gz community-crypto-*.tar.gz"
        done = self.adopter.run(f"ansible-galaxy collection install --offline --force {archives}")
        assert done.returncode == 0, done.stdout + done.stderr
        self.version = version

    def site(self, *options: str) -> dict[str, int]:
        """A run that fails nowhere; how much it changed on the hosts."""
        done = self.adopter.run(f"ansible-playbook -i {self.inventory} devnode.gpu.site {' '.join(options)} --diff")
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr
        assert self.version == "older" or not deprecated(done)
        self.said = done.stdout + done.stderr
        found = changes(done.stdout)
        return {host: found[host] for host in HOSTS if host in found}


def files(host: str) -> dict[str, str]:
    """Every file, link and folder that could be ours, with its mode and content."""
    listed = console(host, f"find {SEEN} -xdev -printf '%p\t%y %m %u %l\n'")
    sums = console(host, f"find {SEEN} -xdev -type f -exec sha256sum {{}} +")
    found = dict(line.split("\t", 1) for line in listed.splitlines())
    for line in sums.splitlines():
        digest, _, path = line.partition("  ")
        found[path] = f"{found.get(path, '')} {digest}"
    return {path: facts for path, facts in found.items() if not PASSING.match(path)}


def at_work(fleet: Fleet) -> None:
    """Her connection and her job, and their container, are what they were before."""
    assert fleet.stay
    assert fleet.stay.poll() is None
    running = console("gpu-01", "docker top devnode-nlp")
    assert JOB in running
    assert STAY in running
    assert console("gpu-01", "docker inspect -f '{{.Id}}' devnode-nlp") == fleet.container
    assert theirs() == fleet.theirs


def theirs() -> str:
    return console("gpu-01", "docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' theirs")


def gets_in() -> None:
    """With the kit that she has had from the beginning."""
    done = on_laptop("ssh -o BatchMode=yes nlp 'hostname; nvidia-smi -L; cat left-behind'")
    assert done.returncode == 0, done.stderr
    name, gpu, left = done.stdout.splitlines()
    assert (name, gpu.split()[0], left) == (
        console("gpu-01", "docker exec devnode-nlp hostname").strip(),
        "GPU",
        "mine",
    )


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    for one in made():
        # A shallow clone has not got that commit, and git says so.
        archive = f"git -c safe.directory='*' -C {ROOT} archive {OLDER} | tar -x -C tree"
        done = one.run(f"mkdir older newer tree && mv devnode-gpu-*.tar.gz newer && {archive}")
        assert done.returncode == 0, done.stderr
        build(one.work / "tree", one.work / "older")
        one.values = page_values()
        found = Fleet(one)
        yield found
        if found.stay:
            found.stay.kill()


def test_a_fleet_of_the_older_version(fleet: Fleet) -> None:
    fleet.install("older")
    page = fleet.adopter.work / "tree" / "docs" / "first-fleet.md"
    _, describe, meet, _ = (block.text for block in to_run(page, "first-fleet"))
    for script in (describe, meet):
        done = fleet.adopter.run(script)
        assert done.returncode == 0, done.stdout + done.stderr
        if script == describe:
            mirrors(fleet.adopter)
    assert all(fleet.site().values())
    # "A finished fleet shows nothing on the old version."
    assert set(fleet.site("--check").values()) == {0}, fleet.said[-8000:]
    fleet.files = {host: files(host) for host in HOSTS}


def test_somebody_is_at_work(fleet: Fleet) -> None:
    hand_out(fleet.adopter.work / "inventory" / "kits")
    assert on_laptop("sh ada/install.sh").returncode == 0
    done = on_laptop(f"ssh -o BatchMode=yes nlp \"echo mine >left-behind; tmux new -d -s train '{JOB}'\"")
    assert done.returncode == 0, done.stderr
    argv = ["docker", "exec", f"{PREFIX}-laptop", "su", "-", "ada", "-c", f"ssh -o BatchMode=yes nlp {STAY}"]
    fleet.stay = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_until(lambda: STAY in console("gpu-01", "docker top devnode-nlp"), "she is in")
    fleet.theirs = theirs()
    fleet.container = console("gpu-01", "docker inspect -f '{{.Id}}' devnode-nlp")


def test_looked_at_first(fleet: Fleet) -> None:
    fleet.install("newer")
    done = fleet.adopter.run("rm -r inventory/kits")  # docs/upgrade.md: they lie beside the inventory from now on
    assert done.returncode == 0, done.stderr
    fleet.inventory = "inventory/hosts.yml"
    assert all(fleet.site("--check").values())
    assert {host: files(host) for host in HOSTS} == fleet.files
    at_work(fleet)


def test_up(fleet: Fleet) -> None:
    assert all(fleet.site().values())
    at_work(fleet)
    gets_in()
    assert set(fleet.site().values()) == {0}, fleet.said[-8000:]
    # Her workspace is of the old image still, because she is in it; the run says so.
    assert re.search(r"nlp.*(ada|tmux)", fleet.said), fleet.said[-8000:]
    at_work(fleet)


def test_her_workspace_follows_when_she_is_out(fleet: Fleet) -> None:
    assert fleet.stay
    assert on_laptop("ssh -o BatchMode=yes nlp 'tmux kill-server; pkill -x sleep'").returncode == 0
    fleet.stay.wait(30)
    assert on_laptop("ssh -O exit nlp").returncode == 0
    assert fleet.site()["gpu-01"] > 0
    assert console("gpu-01", "docker inspect -f '{{.Id}}' devnode-nlp") != fleet.container
    gets_in()
    assert theirs() == fleet.theirs


def test_back(fleet: Fleet) -> None:
    fleet.install("older")
    fleet.inventory = "inventory"
    assert all(fleet.site().values())
    assert set(fleet.site().values()) == {0}, fleet.said[-8000:]
    gets_in()
    assert theirs() == fleet.theirs
    for host in HOSTS:
        now = files(host)
        other = {path: (fleet.files[host].get(path), now.get(path)) for path in {*now, *fleet.files[host]}}
        differing = {path: pair for path, pair in other.items() if pair[0] != pair[1]}
        assert set(differing) == (LEFT if host == "gpu-01" else set()), differing
