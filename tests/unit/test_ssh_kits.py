# SPDX-License-Identifier: GPL-3.0-or-later
"""Kits on the controller: the action itself, in one run of Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import client_samples as samples
import pytest

ROOT = Path(__file__).resolve().parents[2]


def play(directory: Path, views: list[dict[str, Any]], *arguments: str, state: str = "present") -> dict[str, Any]:
    """One run of the role: Ansible's own JSON about it."""
    playbook = directory / "play.yml"
    variables = {
        "ssh_client_config_views": views,
        "ssh_client_config_kits_dir": str(directory / "kits"),
        "ssh_client_config_state": state,
    }
    tasks = [{"name": "Kits", "ansible.builtin.include_role": {"name": "devnode.gpu.ssh_client_config"}}]
    head = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}
    playbook.write_text(json.dumps([head]))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(playbook), *arguments],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    result: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    told = [task["hosts"]["localhost"] for task in result["plays"][0]["tasks"]]
    last = next(task for task in reversed(told) if task.get("failed") or "kits" in task)
    return {**last, "failed_runs": result["stats"]["localhost"]["failures"]}


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="dn-") as name:
        yield Path(name)


@pytest.fixture
def views(tmp_path: Path, short: Path) -> list[dict[str, Any]]:
    in_place = {"base_dir": str(tmp_path / "place"), "control_dir": str(short / "s")}
    return [
        samples.raw(),
        samples.raw(person="grace", platform="windows"),
        samples.raw(person="lab", agents=[], hosts=[], **in_place),
    ]


def test_kits_from_the_first_to_the_last(tmp_path: Path, short: Path, views: list[dict[str, Any]]) -> None:
    kits = tmp_path / "kits"
    announced = play(tmp_path, views, "--check", "--diff")
    assert announced["changed"], announced
    assert not kits.exists()
    assert {part["after_header"] for part in announced["diff"]} >= {str(kits / "ada/config"), str(short / "s")}

    assert play(tmp_path, views)["changed"]
    assert names(kits) == [
        ".devnode-kits.json", "ada/README.md", "ada/agents", "ada/config", "ada/devnode-ssh", "ada/install.sh",
        "ada/known_hosts", "grace/README.md", "grace/config", "grace/install.ps1", "grace/known_hosts",
    ]  # fmt: skip
    assert names(tmp_path / "place") == ["README.md", "config", "devnode-ssh", "known_hosts"]
    for path, mode in (("kits/ada", 0o700), ("kits/ada/config", 0o600), ("kits/ada/install.sh", 0o700)):
        assert (tmp_path / path).stat().st_mode & 0o777 == mode, path
    assert (short / "s").stat().st_mode & 0o777 == 0o700
    assert not play(tmp_path, views)["changed"]

    # What somebody changed comes back; the kit of somebody who left goes; what is not ours stays.
    (kits / "ada/config").write_text("Host *\n")
    (kits / "ada/config").chmod(0o644)
    (kits / "grace/notes").write_text("mine\n")
    assert play(tmp_path, [views[0], views[2]])["changed"]
    assert "Host nlp" in (kits / "ada/config").read_text()
    assert (kits / "ada/config").stat().st_mode & 0o777 == 0o600
    assert names(kits / "grace") == ["notes"]

    assert play(tmp_path, views, state="absent")["changed"]
    assert names(kits) == ["grace/notes"]
    assert not (tmp_path / "place").exists()


def test_wrong_views_change_nothing(tmp_path: Path) -> None:
    wrong = [samples.raw(openssh="1.0"), samples.raw(person="grace", multiplexing="forever")]
    failed = play(tmp_path, wrong)
    assert failed["failed_runs"] == 1
    assert "[0].openssh" in failed["msg"]
    assert "[1].multiplexing" in failed["msg"]
    assert not (tmp_path / "kits").exists()


def test_a_damaged_record_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "kits").mkdir()
    (tmp_path / "kits/.devnode-kits.json").write_text("{")
    failed = play(tmp_path, [samples.raw()])
    assert failed["failed_runs"] == 1
    assert "nobody knows which kits are ours" in failed["msg"]
    assert names(tmp_path / "kits") == [".devnode-kits.json"]
