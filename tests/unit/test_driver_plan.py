# SPDX-License-Identifier: GPL-3.0-or-later
"""Role nvidia_driver: what is installed, and what a driver's state asks for."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import apt_packages, driver_plan, driver_state

DEBIAN = {"distribution": "Debian", "major": "13", "architecture": "x86_64", "kernel": "6.12.57+deb13-amd64"}
INPUTS = {
    "source": "cuda_repo",
    "branch": "580",
    "version": "",
    "modules": "open",
    "cuda": "",
    "repository": "https://developer.download.nvidia.com/compute/cuda/repos",
    "key_url": "",
    "fingerprints": ["EB693B3035CD5710E231E123A4B469963BF863CC"],
    "persistence": True,
    "fabric_manager": "auto",
    "upgrade": "idle",
    "mig": [],
}


def found(loaded: str = "", library: str = "", **more: Any) -> dict[str, Any]:
    trouble = "no_driver" if not loaded else ("mismatch" if library not in ("", loaded) else "")
    driver = {"loaded": bool(loaded), "version": loaded, "library": library, "trouble": trouble, "said": ""}
    return {
        "driver": driver,
        "gpus": [],
        "hardware": {"gpus": 1, "nvswitches": 0},
        "secure_boot": {"state": "off", "key": "", "enrolled": False},
        "in_use": [],
        **more,
    }


def gpus(capability: str) -> list[dict[str, Any]]:
    return [{"compute_capability": capability}]


def plan(host: dict[str, Any] | None = None, now: dict[str, Any] | None = None, **inputs: Any) -> dict[str, Any]:
    return driver_plan.plan({**INPUTS, **inputs}, host or DEBIAN, now or found())


def test_a_branch_from_nvidias_repository() -> None:
    done = plan()
    assert done["pinning"] == ["nvidia-driver-pinning-580"]
    assert done["packages"] == ["nvidia-open=580.*", "linux-headers-amd64", "nvidia-persistenced=580.*"]
    assert done["repository"]["uri"].endswith("/repos/debian13/x86_64/")
    assert done["repository"]["key_url"].endswith("/repos/debian13/x86_64/8793F200.pub")
    exact = plan(version="580.95.05", modules="proprietary", persistence=False)
    assert exact["pinning"] == ["nvidia-driver-pinning-580.95.05"]
    assert exact["packages"][0] == "cuda-drivers=580.95.05-*"


def test_fabric_manager_where_nvswitches_are() -> None:
    switches = found(hardware={"gpus": 8, "nvswitches": 6})
    assert "nvidia-fabricmanager=580.*" in plan(now=switches)["packages"]
    assert "nvidia-fabricmanager-570=570.*" in plan(now=switches, branch="570")["packages"]
    assert not any("fabric" in name for name in plan()["packages"])
    assert driver_state.fabric_trouble("580.95.05", "580.95.05-1") == ""
    assert "580.105.08" in driver_state.fabric_trouble("580.95.05", "580.105.08-1")


@pytest.mark.parametrize(
    ("kernel", "distribution", "package"),
    [
        ("6.1.0-40-amd64", "Debian", "linux-headers-amd64"),
        ("6.12.57+deb13-cloud-arm64", "Debian", "linux-headers-cloud-arm64"),
        ("6.8.0-45-generic", "Ubuntu", "linux-headers-generic"),
        ("6.8.0-1021-aws", "Ubuntu", "linux-headers-aws"),
        ("6.18.44-own", "Debian", ""),
    ],
)
def test_headers_follow_the_kernel(kernel: str, distribution: str, package: str) -> None:
    assert driver_plan.headers_package(kernel, distribution) == package


def test_the_distributions_own() -> None:
    assert plan(source="distro")["packages"][:3] == ["nvidia-open-kernel-dkms", "nvidia-smi", "libcuda1"]
    ubuntu = {**DEBIAN, "distribution": "Ubuntu", "major": "24", "kernel": "6.8.0-45-generic"}
    assert plan(ubuntu, source="distro")["packages"][0] == "nvidia-headless-580-server-open"
    assert plan(source="preinstalled")["install"] is False


@pytest.mark.parametrize(
    ("host", "now", "inputs", "said"),
    [
        ({}, {}, {"branch": "580x"}, 'nvidia_driver_branch: "580x"'),
        ({}, {}, {"branch": "580\n"}, "nvidia_driver_branch"),
        ({}, {}, {"version": "570.195.03"}, "not a version of branch 580"),
        ({}, {}, {"branch": "510"}, "open modules begin with branch 515"),
        ({}, {}, {"branch": "570", "cuda": "13.0"}, "CUDA 13.0 needs driver 580.65.06 or newer"),
        ({}, {}, {"fingerprints": []}, "nvidia_driver_repository_fingerprints"),
        ({}, {}, {"repository": "$(reboot)"}, "is not an address"),
        ({"distribution": "Rocky"}, {}, {}, "set it to preinstalled"),
        ({"major": "11"}, {}, {}, "Debian-11"),
        ({"architecture": "riscv64"}, {}, {}, "riscv64"),
        ({}, {"gpus": gpus("7.0")}, {"branch": "590", "modules": "proprietary"}, "580 is the last"),
        ({}, {"gpus": gpus("6.1")}, {}, "Take proprietary"),
        ({}, {"gpus": gpus("12.0")}, {"modules": "proprietary"}, "Take open"),
    ],
)
def test_refusals(host: dict[str, Any], now: dict[str, Any], inputs: dict[str, Any], said: str) -> None:
    errors = plan({**DEBIAN, **host}, {**found(), **now}, **inputs)["errors"]
    assert len(errors) == 1
    assert said in errors[0]


def test_another_driver_waits_for_those_who_use_this_one() -> None:
    now = found("570.195.03", "570.195.03", in_use=["GPU process 4711 python"])
    waiting = plan(now=now)
    assert waiting["install"] is False
    assert "GPU process 4711 python" in waiting["waits"]
    assert plan(now=now, upgrade="always")["install"]
    assert plan(now={**now, "in_use": []})["install"]
    assert plan(now=now, branch="570")["install"]


def judge(now: dict[str, Any], source: str = "preinstalled", **more: Any) -> driver_state.Judgement:
    return driver_state.judge(now, source, **more)


def test_a_driver_that_works() -> None:
    good = judge(found("580.95.05", "580.95.05", gpus=gpus("8.9")), cuda="13.0")
    assert (good.errors, good.pending, good.restart) == ([], [], False)
    old = judge(found("550.163.01", "550.163.01", gpus=gpus("8.9")), cuda="13.0")
    assert "550.163.01" in old.errors[0]
    assert "580.65.06" in old.errors[0]
    assert "nvidia_driver_branch" in old.errors[0]


def test_a_restart_only_when_allowed_and_idle_and_once() -> None:
    now = found("570.195.03", "580.95.05")
    never = judge(now)
    assert "570.195.03 is loaded, and 580.95.05 is installed" in never.pending[0]
    assert never.restart is False
    busy = judge({**now, "in_use": ["workspace nlp: 2001: python train.py"]}, policy="idle")
    assert (busy.restart, "It would end: workspace nlp" in busy.pending[0]) == (False, True)
    idle = judge(now, policy="idle")
    assert (idle.restart, idle.restart_for, idle.pending) == (True, "580.95.05", [])
    again = judge(now, policy="idle", restarted_for="580.95.05")
    assert again.restart is False
    assert "restarted for that already" in again.errors[0]


def test_what_is_installed_and_not_loaded() -> None:
    now = found("", "580.95.05")
    assert "nouveau has the GPUs" in judge(now, nouveau=True).pending[0]
    locked = judge(
        {**now, "secure_boot": {"state": "on", "key": "/var/lib/dkms/mok.pub", "enrolled": False}}, policy="idle"
    )
    assert locked.restart is False
    assert "mokutil --import /var/lib/dkms/mok.pub" in locked.pending[0]
    enrolled = {**now, "secure_boot": {"state": "on", "key": "/k", "enrolled": True}}
    assert judge(enrolled, policy="idle").restart is True


def test_no_driver() -> None:
    assert "nvidia_driver_optional" in judge(found()).errors[0]
    assert judge(found(), optional=True).errors == []
    assert "make.log" in judge(found(), "cuda_repo").errors[0]
    lost = found("580.95.05", "580.95.05")
    lost["driver"]["trouble"] = "no_devices"
    assert "finds no GPU" in judge(lost).errors[0]


def test_parts_are_what_has_the_drivers_version() -> None:
    installed = {
        "libnvidia-ml1": apt_packages.Installed("580.95.05-1", True, False),
        "nvidia-container-toolkit": apt_packages.Installed("1.19.1-1", True, False),
        "nvidia-open": apt_packages.Installed("580.95.05-1", True, True),
    }
    assert apt_packages.parts_to_hold("580.95.05-1ubuntu1", installed) == {"libnvidia-ml1"}
    assert apt_packages.upstream("5:28.5.2-1~debian.13~trixie") == "28.5.2"


def test_mig_layout_and_its_refusals() -> None:
    a100 = found(gpus=[{"index": 0, "name": "A100", "mig": "disabled", "compute_capability": "8.0"}])
    done = plan(now=a100, mig=[{"gpu": 0, "profiles": ["3g.40gb", "3g.40gb"]}])
    assert done["mig"] == {"0": ["3g.40gb", "3g.40gb"]}
    assert done["files"][-1] == {"path": "/etc/devnode/mig.json", "content": '{"0": ["3g.40gb", "3g.40gb"]}\n'}
    a100["gpus"].append({"index": 1, "name": "NVIDIA L4", "mig": "not supported", "compute_capability": "8.9"})
    layout = [
        {"gpu": 4, "profiles": ["1g.10gb"]},
        {"gpu": 0, "profiles": ["1g.10gb; reboot"]},
        {"gpu": 0, "profiles": []},
        {"gpu": 1, "profiles": ["1g.10gb"]},
    ]
    assert plan(now=a100, mig=layout)["errors"] == [
        "nvidia_driver_mig[0].gpu: 4 does not exist on this host (it has 0, 1).",
        'nvidia_driver_mig[1].profiles: "1g.10gb; reboot" is not a MIG profile. Allowed: like 1g.10gb or 3g.40gb.',
        "nvidia_driver_mig[2].gpu: 0 is named twice. Give all its profiles in one place.",
        "nvidia_driver_mig[3].gpu: 1 (NVIDIA L4) cannot be cut into MIG devices.",
    ]
