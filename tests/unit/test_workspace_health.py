# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said to be wrong with a workspace."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_health as health
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_parse

ADA = {"name": "ada", "uid": 2001}
SPEC = {"name": "nlp", "port": 2201, "bind_address": "10.0.0.11", "owner": ADA, "shm_size": "1g"}
GOOD = {
    "sshd": True,
    "devices": 1,
    "torch_devices": 1,
    "torch": "2.8.0",
    "cuda": "12.8",
    "sums": {"cuda:0": "right"},
    "shm": 1024**3,
}


def nlp(*gpus: str) -> model.Workspace:
    workspaces, problems = workspace_parse.parse([{**SPEC, "gpus": [f"nvidia.com/gpu={gpu}" for gpu in gpus]}])
    assert not problems
    return workspaces[0]


def test_nothing_is_wrong() -> None:
    assert health.judge(nlp("0"), GOOD) == []
    assert health.judge(nlp("all"), {**GOOD, "devices": 8}) == []
    assert health.judge(nlp("0:1"), GOOD) == []
    cpu = {**GOOD, "devices": 0, "torch_devices": 0, "sums": {"cpu": "right"}}
    assert health.judge(nlp(), cpu) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sshd": False}, "no sshd answers on 10.0.0.11 port 2201"),
        ({"devices": 2}, "2 GPU devices are in it, and 1 were asked for"),
        ({"torch_devices": 0, "sums": {"cpu": "right"}}, "torch 2.8.0 (CUDA 12.8) finds no GPU"),
        ({"sums": {"cuda:0": "RuntimeError: no kernel image is available"}}, "cuda:0: RuntimeError: no kernel image"),
        ({"torch_error": "ModuleNotFoundError: No module named 'torch'"}, "torch does not import: ModuleNotFound"),
        ({"shm": 64 * 1024**2}, "shm has 67108864 bytes, and 1g were asked for"),
        ({"error": "no answer within 120 s"}, "no answer within 120 s"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], says: str) -> None:
    (problem,) = health.judge(nlp("0"), {**GOOD, **changes})
    assert problem.startswith('workspace "nlp": ')
    assert says in problem


def test_the_probe_runs_and_its_answer_is_read() -> None:
    def run(argv: list[str]) -> tuple[int, str, str]:
        assert argv[:5] == ["docker", "exec", "--user", "2001", "devnode-nlp"]
        done = subprocess.run([sys.executable, "-c", argv[-1]], capture_output=True, text=True)
        return done.returncode, f"a login's greeting\n{done.stdout}", done.stderr

    said = health.ask(run, nlp(), 10)
    assert said["shm"] > 0
    assert "torch_error" in said or "sums" in said
    json.dumps(said)


def test_no_answer_is_said() -> None:
    assert health.ask(lambda _: (124, "", ""), nlp(), 7)["error"] == "no answer within 7 s"
    said = health.ask(lambda _: (1, "", "Error response from daemon: container is not running"), nlp(), 7)
    assert "container is not running" in said["error"]
