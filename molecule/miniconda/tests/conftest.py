# SPDX-License-Identifier: GPL-3.0-or-later
"""A host under test, and its way back to what the scenario declares."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import testinfra

PREFIX = "/opt/miniconda"
FOLDER = os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]
RECAP = re.compile(r"ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)")


@dataclass(frozen=True)
class Play:
    """How a run of the role on one host ended."""

    code: int
    output: str
    changed: int
    results: int

    def ok(self) -> Play:
        assert self.code == 0, self.output
        return self

    def refused(self, *parts: str) -> Play:
        assert self.code != 0, self.output
        text = " ".join(self.output.replace("\\n", "\n").split())
        for part in parts:
            assert " ".join(part.split()) in text, self.output
        return self


class Box:
    """A host under test: as root (testinfra), as a person over ssh, and as a target of the role."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.name = str(host.backend.get_hostname())

    def root(self, command: str) -> str:
        done = self.host.run(command)
        assert done.rc == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout).strip()

    def ssh(self, command: str) -> subprocess.CompletedProcess[str]:
        argv = ["ssh", "-F", f"{FOLDER}/ssh_config", "-o", "BatchMode=yes", self.name, command]
        return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def person(self, command: str) -> str:
        done = self.ssh(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def play(
        self, tidying: bool = False, playbook: str = "converge.yml", options: tuple[str, ...] = (), **variables: Any
    ) -> Play:
        done = subprocess.run(
            [
                "ansible-playbook",
                f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}",
                f"--limit={self.name}",
                *options,
                f"--extra-vars={json.dumps(variables)}",
                os.path.join(os.environ["MOLECULE_SCENARIO_DIRECTORY"], playbook),
            ],
            cwd=os.environ["MOLECULE_SCENARIO_DIRECTORY"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )
        match = RECAP.search(done.stdout)
        counts = [int(count) for count in match.groups()] if match else [0] * 5
        if not tidying and (counts[1] or "changed: true" in done.stdout):
            DIRTY[self.name] = self
        return Play(done.returncode, done.stdout + done.stderr, counts[1], counts[0] + counts[4])

    def other(self) -> Box:
        """The other host of the scenario."""
        name = "debian12" if self.name == "debian13" else "debian13"
        inventory = os.environ["MOLECULE_INVENTORY_FILE"]
        return Box(testinfra.get_host(f"ansible://{name}?ansible_inventory={inventory}"))

    def environments(self) -> list[str]:
        return sorted(self.root(f"ls {PREFIX}/envs").split())

    def packages(self, environment: str) -> dict[str, str]:
        listed = json.loads(self.root(f"{PREFIX}/bin/conda list --name {environment} --json"))
        return {item["name"]: item["version"] for item in listed}


DIRTY: dict[str, Box] = {}


def tidy() -> None:
    """Bring hosts that a test changed back to what the scenario declares."""
    for name in list(DIRTY):
        DIRTY.pop(name).play(tidying=True).ok()


@pytest.fixture(scope="module", autouse=True)
def tidy_at_the_end() -> Iterator[None]:
    yield
    tidy()


@pytest.fixture
def box(host: Any) -> Box:
    """A host as the scenario declares it."""
    tidy()
    return Box(host)


@pytest.fixture
def any_state(host: Any) -> Box:
    """A host for tests that do not care what an earlier test left."""
    return Box(host)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "standin: needs the packages of the stand-in's channel")
    config.addinivalue_line(
        "markers", "one_system: the same on every system, so it runs on one (on all in the full run)"
    )
    config.addinivalue_line("markers", "full_run: too dear for the gate, so it runs in the full run only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("DEVNODE_TESTS") == "full":
        return
    extra = [
        item
        for item in items
        if item.get_closest_marker("full_run")
        or (item.get_closest_marker("one_system") and "debian13" not in item.name)
    ]
    items[:] = [item for item in items if item not in extra]
    config.hook.pytest_deselected(items=extra)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("standin") and os.environ.get("DEVNODE_CONDA") == "real":
        pytest.skip("needs the packages of the stand-in's channel")
