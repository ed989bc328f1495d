# SPDX-License-Identifier: GPL-3.0-or-later
"""PyTorch by its CUDA version: what it becomes, what does not exist, what a host cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import conda_env, conda_pytorch, conda_state, cuda_compat
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import Environment
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError


def expanded(version: Any = "2.8", cuda: Any = "12.8", **more: Any) -> dict[str, Any]:
    item: dict[str, Any] = conda_pytorch.expanded({"name": "x", "pytorch": {"version": version, "cuda": cuda, **more}})
    return item


def test_wheels_come_from_the_index_of_that_cuda() -> None:
    item = expanded()
    assert item["pip"] == ["torch==2.8.*", "torchvision==0.23.*", "torchaudio==2.8.*"]
    assert item["pip_extra_index_urls"] == ["https://download.pytorch.org/whl/cu128"]
    assert (item["cuda"], item["torch"], item["expect"]) == ("12.8", "2.8", ["pip:torch==2.8.*+cu128"])
    assert expanded("2.14.1", "13.0")["pip"] == ["torch==2.14.1", "torchvision==0.29.*", "torchaudio"]


def test_without_a_gpu() -> None:
    item = expanded(cuda="cpu")
    assert item["pip_extra_index_urls"] == ["https://download.pytorch.org/whl/cpu"]
    assert "cuda" not in item


def test_conda_forges_builds() -> None:
    item = expanded(source="conda", extras=["torchvision"])
    assert item["packages"] == ["pytorch=2.8.*=cuda*", "torchvision=0.23.*", "cuda-version=12.8"]
    assert "pip" not in item


def test_what_people_list_themselves_stays() -> None:
    item = conda_pytorch.expanded(
        {"project": "nlp", "packages": ["numpy"], "pip": ["rich"], "pytorch": {"version": "2.8", "cuda": "12.8"}}
    )
    environments, errors = conda_env.parse_environments([item], python="3.11")
    assert not errors
    assert environments[0].name == "nlp-py311-torch28"
    assert environments[0].packages == ("numpy", "python=3.11.*", "pip")
    assert environments[0].pip[-1] == "rich"


@pytest.mark.parametrize("row", cuda_compat.TORCH_CUDA)
def test_every_known_combination_passes_every_rule(row: cuda_compat.TorchRow) -> None:
    for torch in (row.first, row.last):
        for cuda in row.cuda:
            for source in ("pip", "conda"):
                item = expanded(torch, cuda, source=source)
                environments, errors = conda_env.parse_environments([item], python="3.11")
                assert not errors
                assert environments[0].cuda == cuda


@pytest.mark.parametrize(
    ("pytorch", "why"),
    [
        ({"version": "2.8", "cuda": "13.0"}, "PyTorch 2.8 is not built with CUDA 13.0"),
        ({"version": "2.8", "cuda": "12.4"}, "12.6, 12.8"),
        ({"version": "3.1", "cuda": "12.8"}, "does not know"),
        ({"version": "2.8"}, "no version in cuda"),
        ({"version": 2.8, "cuda": "12.8"}, "in quotes"),
        ({"version": "2.8", "cuda": "12.8; id"}, "no version in cuda"),
        ({"version": "2.8", "cuda": "12.8", "source": "apt"}, "unknown source"),
        ({"version": "2.8", "cuda": "12.8", "extras": ["xformers"]}, "unknown extras"),
        ({"version": "2.8", "cuda": "12.8", "rocm": "6"}, "unknown keys: rocm"),
        ("2.8", "is not a mapping"),
    ],
)
def test_what_does_not_exist_is_refused(pytorch: Any, why: str) -> None:
    with pytest.raises(InvalidError) as error:
        conda_pytorch.expanded({"name": "x", "pytorch": pytorch})
    assert why in str(error.value)


def test_a_lock_file_stands_alone() -> None:
    with pytest.raises(InvalidError, match="a lock file says it all"):
        conda_pytorch.expanded({"name": "x", "lock": ["@EXPLICIT"], "pytorch": {"version": "2.8", "cuda": "12.8"}})


NEEDY = Environment("x", cuda="12.8", torch="2.8", expect=("pip:torch==2.8.*+cu128",))


def test_a_driver_that_cannot_run_it_is_named_with_what_would() -> None:
    (why,) = conda_state.unfit(NEEDY, "470.82.01", [])
    assert "driver 470.82.01" in why
    assert "525.60.13" in why
    (why,) = conda_state.unfit(NEEDY, "580.65.06", ["6.1"])
    assert "6.1" in why
    assert conda_state.unfit(NEEDY, "580.65.06", ["9.0"]) == []
    assert conda_state.unfit(NEEDY, "", []) == []
    assert conda_state.unfit(Environment("x"), "470.82.01", []) == []


def test_the_wrong_build_is_noticed() -> None:
    assert conda_state.unexpected(NEEDY, ("pip:torch==2.8.0+cu128",)) == []
    assert conda_state.unexpected(NEEDY, ("pip:torch==2.8.0",)) == ["pip:torch==2.8.*+cu128"]


def test_the_documentation_has_the_same_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "environments.md").read_text(encoding="utf-8")
    for row in cuda_compat.TORCH_CUDA:
        torch = row.first if row.first == row.last else f"{row.first} to {row.last}"
        assert f"| {torch} | {', '.join(row.cuda)} |" in text
