# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody's broken client keeps failing through the bastion; to a node and to a workspace everybody has its address.

What makes it nobody else's trouble is that the bastion is exempt there, so it is looked at that others are not.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_site import LAB, inside
from testinfra.backend.base import CommandResult

pytestmark = pytest.mark.usefixtures("lab")

NODE = "gpu-01"
ADDRESS = "10.203.20.11"
BASTION = "10.203.20.10"  # as the node sees it
TIMES = 20
# An address of the machine's own that nobody else comes from.
STRANGER = "127.0.0.77"
# Whoever jumps, the bastion lets them in with their own key, each time anew: nothing is shared.
CONFIGURATION = """\
Host bastion
  HostName 10.203.10.10
  HostKeyAlias bastion
  User {login}
  IdentityFile {key}
Host *
  BatchMode yes
  ConnectTimeout 10
  ControlPath none
  IdentitiesOnly yes
  StrictHostKeyChecking yes
  UserKnownHostsFile {known_hosts}
"""


@dataclass(frozen=True)
class Door:
    """An sshd behind the bastion, and who has a way in: their key and their login, at the bastion and there."""

    alias: str
    port: int
    keeper: tuple[str, str]
    inner_key: str
    login: str
    container: str = ""
    configuration: str = "/etc/ssh/sshd_config"
    inner_port: int = 22
    host_key: str = "/etc/ssh/ssh_host_ed25519_key.pub"

    def on(self, script: str) -> CommandResult:
        """A script where this sshd runs."""
        return inside(NODE, f"{f'docker exec {self.container} ' if self.container else ''}sh -euc %s", script)


DOORS = {
    "node": Door(NODE, 22, ("automation", "automation"), "automation", "automation"),
    "workspace": Door(
        f"nlp.{NODE}",
        2201,
        ("ada", "people/ada/bastion"),
        "people/ada/workspace",
        "ada",
        container="devnode-nlp",
        configuration="/run/devnode/sshd_config",
        inner_port=2222,
        host_key="/etc/devnode/host_keys/ssh_host_ed25519_key.pub",
    ),
}


@pytest.fixture
def jump(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """One command behind the bastion, by ProxyJump."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "wrong"], check=True)

    def configuration(login: str, key: str) -> Path:
        path = tmp_path / f"{login}.config"
        text = CONFIGURATION.format(login=login, key=LAB / key, known_hosts=LAB / "known_hosts")
        path.write_text(text)
        return path

    ways = {login: configuration(login, key) for login, key in [("ops", "people/ops/bastion"), *_keepers()]}

    def run(door: Door, way: str, login: str, key: str) -> subprocess.CompletedProcess[str]:
        identity = LAB / key if key else tmp_path / "wrong"
        place = ["-o", f"HostKeyAlias={door.alias}", "-p", str(door.port), "-i", str(identity), "-l", login, ADDRESS]
        argv = ["ssh", "-F", str(ways[way]), "-J", "bastion", *place, "echo in as $(id -un)"]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    return run


def _keepers() -> list[tuple[str, str]]:
    return [door.keeper for door in DOORS.values()]


@pytest.mark.parametrize("failing", ["a wrong key", "a login that there is not"])
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_twenty_failures_of_one_person_and_another_still_connects(
    door: Door, failing: str, jump: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Ops comes through the bastion as always; only what is behind it does not take them."""
    known = "ops" if door.alias == NODE else door.login
    login, key = (known, "") if failing == "a wrong key" else ("mallory", "people/ops/workspace")

    def connects() -> None:
        done = jump(door, door.keeper[0], door.login, door.inner_key)
        assert done.stdout == f"in as {door.login}\n", done.stderr

    connects()
    with ThreadPoolExecutor(max_workers=2) as pool:
        failures = [pool.submit(jump, door, "ops", login, key) for _ in range(TIMES)]
        meanwhile = 0
        while not all(one.done() for one in failures):
            connects()
            meanwhile += 1
    connects()
    assert meanwhile > 1
    said = [one.result().stderr for one in failures]
    assert [f"{login}@{ADDRESS}: Permission denied (publickey)." in text for text in said] == [True] * TIMES, said


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_anybody_but_the_bastion_is_penalised_there(
    door: Door, jump: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    effective = door.on(f"/usr/sbin/sshd -T -f {door.configuration}")
    assert effective.rc == 0, effective.stderr
    found = dict(line.lower().split(" ", 1) for line in effective.stdout.splitlines() if " " in line)
    assert "authfail:" in found["persourcepenalties"]
    assert found["persourcepenaltyexemptlist"] == f"{BASTION}/32"
    assert found["persourcemaxstartups"] == "none"
    # Beside the bastion, since the packet filter lets nobody else in.
    options = "-o BatchMode=yes -o IdentitiesOnly=yes -o ConnectTimeout=5 -o HostKeyAlias=here"
    options += " -o UserKnownHostsFile=$place/known -o StrictHostKeyChecking=yes -i $place/key"
    one = f"ssh -F none {options} -b {STRANGER} -p {door.inner_port} mallory@127.0.0.1 true 2>&1 </dev/null || :"
    failed = door.on(
        f"place=$(mktemp -d); sed 's/^/here /' {door.host_key} >$place/known; "
        f"ssh-keygen -q -t ed25519 -N '' -f $place/key; for number in $(seq {TIMES}); do {one}; done; rm -r $place"
    )
    assert failed.rc == 0, failed.stderr
    tries = failed.stdout.splitlines()
    assert "Permission denied (publickey)" in tries[0], tries
    assert "Permission denied" not in tries[-1], tries
    # While that one is kept out, everybody else comes in.
    done = jump(door, door.keeper[0], door.login, door.inner_key)
    assert done.stdout == f"in as {door.login}\n", done.stderr
