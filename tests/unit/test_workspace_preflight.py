# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What workspaces would run into on a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_engine
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_preflight as preflight
from workspace_case import TRAINING, FakeDocker, container, nlp


def test_listening_inodes() -> None:
    table = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00000A:0899 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0B00000A:0899 0100000A:1234 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
"""
    assert preflight.listening_inodes(table, 2201) == {"4711"}


def test_an_engine_without_cdi_and_a_missing_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "known_devices", lambda: ["nvidia.com/gpu=0"])
    old = workspace_engine.Found(engine=True, cdi=False)
    assert "does not inject CDI devices, which the GPUs of nlp need" in refused(monkeypatch, [nlp()], old)[0]
    assert refused(monkeypatch, [nlp(gpus=[])], old) == []
    new = workspace_engine.Found(engine=True, cdi=True)
    assert refused(monkeypatch, [nlp()], new) == []
    found = refused(monkeypatch, [nlp(gpus=["nvidia.com/gpu=3"])], new)
    assert found == ['workspace "nlp": GPU "nvidia.com/gpu=3" does not exist on this host (it has nvidia.com/gpu=0).']
    stranger = workspace_engine.Found(engine=True, cdi=True, strangers=["devnode-nlp"])
    assert "that this role did not make" in refused(monkeypatch, [nlp()], stranger)[0]
    assert 'purge: "nlp" is declared on this host' in refused(monkeypatch, [nlp()], new, purge=["nlp", "old"])[0]


def test_a_mount_that_an_earlier_role_may_make_is_refused_by_the_real_run_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Check mode on a fresh host: the role miniconda has not made its prefix yet."""
    monkeypatch.setattr(preflight.Preflight, "_port_problems", lambda *_: [])
    docker = FakeDocker([])
    prefix = tmp_path / "miniconda"
    wanted = [nlp(gpus=[], mounts=[{"source": str(prefix), "target": "/opt/miniconda"}])]
    for checking in (False, True):
        engine, found = workspace_engine.Engine(docker), workspace_engine.Found(engine=True)
        look = preflight.Preflight(docker, engine, found, checking=checking)
        verdict = look.judge(wanted)
        said, silent = (verdict.warnings, verdict.refused) if checking else (verdict.refused, verdict.warnings)
        assert [f"mount source {prefix} is not there on this host." in text for text in said] == [True]
        assert silent == []
    prefix.mkdir()
    assert look.judge(wanted) == preflight.Verdict()


def refused(
    monkeypatch: pytest.MonkeyPatch, wanted: list[model.Workspace], found: workspace_engine.Found, **options: Any
) -> list[str]:
    monkeypatch.setattr(preflight.Preflight, "_port_problems", lambda *_: [])
    docker = FakeDocker([])
    return (
        preflight.Preflight(docker, workspace_engine.Engine(docker), found)
        .judge(wanted, options.get("purge", ()))
        .refused
    )


SMI = "0, GPU-aaaa, {driver}, 9.0, NVIDIA H100 80GB HBM3\n1, GPU-bbbb, {driver}, {second}, Tesla P100\n"


@pytest.mark.parametrize(
    ("driver", "second", "gpus", "says"),
    [
        ("570.124.06", "9.0", ["nvidia.com/gpu=0"], ""),
        ("470.57.02", "9.0", ["nvidia.com/gpu=0"], "CUDA 12.8 does not run with driver 470.57.02"),
        ("570.124.06", "6.0", ["nvidia.com/gpu=1"], "has no code for a GPU of compute capability 6.0"),
        ("570.124.06", "6.0", ["nvidia.com/gpu=all"], "no kernel image is available"),
        ("570.124.06", "6.0", ["nvidia.com/gpu=GPU-aaaa"], ""),
        ("[N/A]", "[N/A]", ["nvidia.com/gpu=0"], ""),
    ],
)
def test_what_the_driver_does_not_run_is_said_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, driver: str, second: str, gpus: list[str], says: str
) -> None:
    monkeypatch.setattr(preflight, "known_devices", lambda: gpus)
    monkeypatch.setattr(preflight.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(preflight.Preflight, "_port_problems", lambda *_: [])

    def smi(argv: list[str]) -> tuple[int, str, str]:
        return 0, SMI.format(driver=driver, second=second), ""

    found = workspace_engine.Found(engine=True, cdi=True)
    look = preflight.Preflight(
        smi, workspace_engine.Engine(smi), found, base="pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel"
    )
    verdict = look.judge([nlp(gpus=gpus)])
    assert bool(verdict.refused) == bool(says)
    assert says in " ".join(verdict.refused)


def test_a_port_that_a_workspace_in_use_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    old = nlp(name="old")
    docker = FakeDocker([container(old)], TRAINING)
    monkeypatch.setattr(workspace_engine.shutil, "which", lambda _: "/usr/bin/docker")
    monkeypatch.setattr(workspace_engine, "_enabled", list)
    engine = workspace_engine.Engine(docker)
    found = engine.look([])
    wanted = nlp(name="new")

    def holder(recreate: str, *declared: model.Workspace) -> str:
        look = preflight.Preflight(docker, engine, found, recreate)
        return look._holder(wanted, {item.name: item for item in (wanted, *declared)})

    assert holder("idle") == (
        'workspace "old", which is no longer declared but is in use (ada: python3 train.py (since 14:02:12))'
    )
    assert 'workspace "old", which is to move to another port but is in use' in holder("idle", nlp(name="old", port=1))
    assert "recreate is set to never" in holder("never", nlp(name="old", port=1))
    assert holder("always") == ""
    docker.top = ""
    assert holder("idle") == ""


def test_a_gpu_that_a_workspace_in_use_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp(name="old"))], TRAINING)
    monkeypatch.setattr(workspace_engine.shutil, "which", lambda _: "/usr/bin/docker")
    monkeypatch.setattr(workspace_engine, "_enabled", list)
    engine = workspace_engine.Engine(docker)
    found = engine.look([])
    heir = nlp(name="new", port=2299)

    def said(*declared: model.Workspace, recreate: str = "idle", people: Any = None) -> list[str]:
        look = preflight.Preflight(docker, engine, found, recreate, people=people)
        return look._gpus_in_use("new", declared[0], {item.name: item for item in declared})

    assert said(heir) == [
        'new: GPU "nvidia.com/gpu=0" is held by workspace "old", which is no longer declared but is in use '
        "(ada: python3 train.py (since 14:02:12)). Wait until it is free, or choose another."
    ]
    assert "which is to give it up but is in use" in said(heir, nlp(name="old", gpus=["nvidia.com/gpu=1"]))[0]
    assert said(nlp(name="new", gpus=["nvidia.com/gpu=all"]))
    assert said(nlp(name="new", gpus=["nvidia.com/gpu=1"])) == []
    assert said(nlp(name="new", gpu_shared=True)) == []
    assert said(heir, recreate="always") == []
    assert said(heir, people=["grace"]) == []
    docker.top = ""
    assert said(heir) == []
