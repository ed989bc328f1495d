# SPDX-License-Identifier: GPL-3.0-or-later
"""The workflow of this repository names every system that the gate is for. It is not run here."""

from __future__ import annotations

import subprocess

import cores
import yaml
from doc_blocks import ROOT

JOBS = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]


def test_every_system_is_in_the_matrix() -> None:
    assert JOBS["gate"]["strategy"]["matrix"]["os"] == ["ubuntu-22.04", "ubuntu-24.04"]
    assert JOBS["gate"]["runs-on"] == "${{ matrix.os }}"
    images = [one["image"] for one in JOBS["controllers"]["strategy"]["matrix"]["include"]]
    assert images == ["debian:12", "debian:13", "rockylinux:9"]
    assert not [name for name in ("gate", "controllers") if "if" in JOBS[name] or "continue-on-error" in JOBS[name]]


def test_other_controllers_run_a_scenario_too() -> None:
    """The one that tests/cores.py runs in a container with the same mounts."""
    [script] = [step["run"] for step in JOBS["controllers"]["steps"] if "run" in step]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "make test ENGINE=none\n" in script
    assert f"make molecule SCENARIO={cores.SCENARIO}'" in script
    for place in ('"$PWD:$PWD"', "/tmp:/tmp", f"{cores.SOCKET}:{cores.SOCKET}"):  # noqa: S108  shared, as there
        assert f"--volume {place}" in script
    assert "--network host" in script
    clients = [one["install"].split()[-1] for one in JOBS["controllers"]["strategy"]["matrix"]["include"]]
    assert clients == ["docker.io", "docker-cli", "docker-ce-cli"]
