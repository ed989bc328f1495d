# SPDX-License-Identifier: GPL-3.0-or-later
"""Which CUDA and which PyTorch run on which driver and GPU."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import cuda_compat as cc
from hypothesis import given
from hypothesis import strategies as st

DRIVERS = ["450.80.02", "470.256.02", "525.60.13", "535.261.03", "550.163.01", "570.195.03", "580.95.05", "610.43.02"]
CAPABILITIES = ["3.7", "5.2", "6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1"]
CUDAS = [cuda for cuda, _ in cc.CUDA_DRIVER]
TORCHES = ["2.1.2", "2.5.1", "2.6.0", "2.7.1", "2.8.0", "2.9.1", "2.11.0", "2.14.1"]


@pytest.mark.parametrize(
    ("driver", "capability", "cuda", "torch", "runs", "said"),
    [
        ("580.95.05", "8.9", "12.8", "2.8.0", True, ""),
        ("570.26", "8.9", "12.8", "", True, ""),
        ("550.163.01", "8.9", "12.8", "", True, "minor-version compatibility"),
        ("570.195.03", "8.9", "13.0", "", False, "needs driver 580.65.06 or newer, and 570.195.03 has CUDA 12.8"),
        ("470.256.02", "8.0", "12.6", "2.8.0", False, "needs driver 525.60.13"),
        ("580.95.05", "6.1", "13.0", "", False, "CUDA 12.9 was the last"),
        ("580.95.05", "6.1", "12.8", "2.8.0", False, "take PyTorch 2.8.0 with CUDA 12.6"),
        ("580.95.05", "7.0", "12.8", "2.9.1", True, ""),
        ("580.95.05", "12.0", "12.6", "2.8.0", False, "CUDA 12.8 is the first"),
        ("580.95.05", "12.0", "12.8", "2.8.0", True, ""),
        ("580.95.05", "8.9", "12.4", "2.8.0", False, "12.6, 12.8, 12.9"),
        ("610.43.02", "9.0", "13.7", "", True, "newer than this collection's tables"),
        ("610.43.02", "9.0", "17.0", "", True, "nothing was checked"),
    ],
)
def test_known_cases(driver: str, capability: str, cuda: str, torch: str, runs: bool, said: str) -> None:
    verdict = cc.check(driver, [capability], cuda, torch)
    assert verdict.runs is runs, verdict
    assert said.lower() in verdict.text.lower()


def test_debians_own_drivers_do_not_reach_cuda_13() -> None:
    for driver in ("535.261.03", "550.163.01"):
        verdict = cc.check(driver, ["8.9"], "13.0", "2.14.1")
        assert not verdict.runs
        assert "580.65.06" in verdict.reason
        assert driver in verdict.reason
        assert verdict.remedy == "Install driver 580.65.06 or newer, or take PyTorch 2.14.1 with CUDA 12.6."


@pytest.mark.parametrize(
    ("torch", "driver", "capability", "cuda"),
    [
        ("2.8.0", "580.95.05", "8.9", "12.9"),
        ("2.8.0", "570.124.06", "8.9", "12.8"),  # 12.9 would only run with limits
        ("2.9.1", "550.163.01", "6.1", "12.6"),
        ("2.9.1", "580.95.05", "12.0", "13.0"),
    ],
)
def test_without_a_cuda_version_the_best_build_is_chosen(torch: str, driver: str, capability: str, cuda: str) -> None:
    assert cc.check(driver, [capability], torch=torch).cuda == cuda


def test_every_gpu_counts() -> None:
    assert cc.check("580.95.05", ["8.9"], "13.0").runs
    assert not cc.check("580.95.05", ["8.9", "7.0"], "13.0").runs


def test_a_strict_caller_wants_the_driver_of_the_release() -> None:
    verdict = cc.check("550.163.01", [], "12.8", minor_compatibility=False)
    assert not verdict.runs
    assert "570.26" in verdict.reason


def test_without_a_driver_only_builds_are_judged() -> None:
    assert cc.check("", [], "12.8", "2.8.0").runs
    assert not cc.check("", [], "11.8", "2.8.0").runs


@pytest.mark.parametrize(
    ("image", "torch", "cuda"),
    [
        ("pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel", "2.8.0", "12.8"),
        ("mirror.example.com:5000/pytorch/pytorch:2.14.1-cuda13.2-cudnn9-runtime@sha256:0", "2.14.1", "13.2"),
        ("debian:trixie", "", ""),
    ],
)
def test_what_an_image_says(image: str, torch: str, cuda: str) -> None:
    assert cc.asked_by_image(image) == cc.Asked(torch, cuda)


def test_what_is_no_version_is_refused() -> None:
    for arguments in (("x",), ("580.1\n",), ("580.1", ["8.9;"]), ("580.1", [], "latest"), ("580.1", [], "", "nightly")):
        with pytest.raises(cc.CompatError, match="is not a version"):
            cc.check(*arguments)  # type: ignore[arg-type]


def test_a_branch_that_dropped_a_gpu() -> None:
    assert "580 is the last" in cc.driver_refuses_gpu(590, "7.0")
    assert cc.driver_refuses_gpu(580, "7.0") == ""
    assert cc.driver_refuses_gpu(610, "8.9") == ""


def test_tables_agree_with_each_other() -> None:
    assert tuple(sorted(cc.CUDA_DRIVER, key=lambda row: (cc._v(row[0]), cc._v(row[1])))) == cc.CUDA_DRIVER
    for torch in TORCHES:
        for cuda in cc.torch_builds(torch):
            assert cc.torch_arch(torch, cuda), (torch, cuda)
    assert cc.wheel_index("12.8.1") == "cu128"
    assert [cc.newest_cuda(one) for one in ("580.95.05", "450.80.02")] == ["13.0", ""]


@given(st.sampled_from(DRIVERS), st.sampled_from(CAPABILITIES), st.sampled_from(CUDAS), st.sampled_from(TORCHES))
def test_a_no_has_a_reason_and_a_way_and_a_newer_driver_never_turns_a_yes_into_a_no(
    driver: str, capability: str, cuda: str, torch: str
) -> None:
    verdict = cc.check(driver, [capability], cuda, torch)
    if verdict.runs:
        newer = DRIVERS[DRIVERS.index(driver) :]
        assert all(cc.check(one, [capability], cuda, torch).runs for one in newer)
    else:
        assert cuda in verdict.reason
        assert verdict.remedy.endswith(".")


def test_a_way_that_is_offered_does_run() -> None:
    for driver, capability, cuda, torch in itertools.product(DRIVERS, CAPABILITIES, CUDAS, TORCHES):
        remedy = cc.check(driver, [capability], cuda, torch).remedy
        if f"PyTorch {torch} with CUDA " in remedy:
            for one in remedy.split(f"PyTorch {torch} with CUDA ")[1].rstrip(".").split(", "):
                assert cc.check(driver, [capability], one, torch).runs, (driver, capability, cuda, torch, one)
