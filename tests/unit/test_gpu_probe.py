# SPDX-License-Identifier: GPL-3.0-or-later
"""What the real tools print, read. The texts have the tools' published form; the values are made up."""

from __future__ import annotations

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import gpu_probe

OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs)  Tue Sep 23
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
CLOSED = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
MIG = """GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-3f1a7c52-8d0e-4b6f-9a41-c2e57d90b813)
  MIG 3g.40gb     Device  0: (UUID: MIG-1a2b3c4d-0000-5000-8000-000000000001)
  MIG 1g.10gb     Device  1: (UUID: MIG-1a2b3c4d-0000-5000-8000-000000000002)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-b86e04d9-27c3-4f15-8e6a-5d19f3a07c44)
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (OPEN, ("580.95.05", "open")),
        (CLOSED, ("535.183.01", "proprietary")),
        ("", ("", "")),
        ("NVRM version:", ("", "")),
    ],
)
def test_the_loaded_module(text: str, found: tuple[str, str]) -> None:
    assert gpu_probe.module(text) == found


def test_the_library_by_its_file() -> None:
    assert gpu_probe.library(["/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05"]) == "580.95.05"
    assert gpu_probe.library(["/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"]) == ""


@pytest.mark.parametrize(
    ("code", "out", "kind"),
    [
        (0, "0, GPU-1", ""),
        (18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95", "mismatch"),
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "no_driver"),
        (12, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "no_driver"),
        (6, "No devices were found", "no_devices"),
        (15, "Unable to determine the device handle for GPU0000:17:00.0: Unknown Error", "other"),
    ],
)
def test_why_nvidia_smi_does_not_answer(code: int, out: str, kind: str) -> None:
    assert gpu_probe.trouble(code, out, "").kind == kind


def test_gpus_of_one_query() -> None:
    rows = "0, GPU-1, NVIDIA A100-SXM4-80GB, 81920, 0:7, Enabled, 8.0\n1, GPU-2, NVIDIA L4, 23034, 0:8, [N/A], 8.9\n"
    first, second = gpu_probe.gpus(rows)
    assert (first["memory_mib"], first["mig"], first["compute_capability"]) == (81920, "enabled", "8.0")
    assert (second["index"], second["mig"]) == (1, "not supported")
    old = gpu_probe.gpus("0, GPU-1, Tesla V100, 16160, 0:7\n", gpu_probe.OLD_QUERY)
    assert old[0]["compute_capability"] == ""
    assert gpu_probe.gpus("garbage\n") == []


def test_mig_devices_belong_to_their_gpu() -> None:
    found = gpu_probe.mig_devices(MIG)
    assert [one["profile"] for one in found[0]] == ["3g.40gb", "1g.10gb"]
    assert 1 not in found


@pytest.mark.parametrize(
    ("head", "cuda"),
    [
        ("| NVIDIA-SMI 580.95.05   Driver Version: 580.95.05   CUDA Version: 13.0     |", "13.0"),
        ("| NVIDIA-SMI 610.43.02   KMD Version: 610.43.02   CUDA UMD Version: 13.3     |", "13.3"),
        ("nothing", ""),
    ],
)
def test_the_newest_cuda_of_the_driver(head: str, cuda: str) -> None:
    assert gpu_probe.cuda(head) == cuda


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("SecureBoot enabled\n", "on"),
        ("SecureBoot enabled\nSecureBoot validation is disabled in shim", "on"),
        ("SecureBoot disabled\n", "off"),
        ("EFI variables are not supported on this system", "off"),
        ("Cannot determine secure boot state.", "unknown"),
    ],
)
def test_secure_boot(said: str, state: str) -> None:
    assert gpu_probe.secure_boot(said) == state


def test_enrolled_keys_and_tools() -> None:
    assert gpu_probe.key_enrolled("/var/lib/dkms/mok.pub is already enrolled")
    assert not gpu_probe.key_enrolled("/var/lib/dkms/mok.pub is not enrolled")
    assert gpu_probe.tool_version("NVIDIA Container Toolkit CLI version 1.19.1\ncommit: x") == "1.19.1"
    assert gpu_probe.processes("4711, python train.py\n[Insufficient Permissions]\n") == [
        {"pid": 4711, "name": "python train.py"}
    ]


def test_gpus_and_switches_on_the_bus() -> None:
    bus = {
        "0000:07:00.0": ("0x10de\n", "0x030200\n"),
        "0000:08:00.0": ("0x10de\n", "0x030000\n"),
        "0000:c0:00.0": ("0x10de\n", "0x068000\n"),
        "0000:00:02.0": ("0x8086\n", "0x030000\n"),
    }
    assert gpu_probe.pci(bus) == {"gpus": 2, "nvswitches": 1}
