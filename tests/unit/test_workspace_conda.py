# SPDX-License-Identifier: GPL-3.0-or-later
"""Miniconda in an image: what is built from, by the role miniconda's own declaration."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.devnode.gpu.plugins.action.miniconda_plan import condarc_text
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_conda as conda

ROOT = Path(__file__).resolve().parents[2]
TORCH = {"environment": {"pytorch": {"version": "2.8", "cuda": "12.8"}, "packages": ["numpy=2.1"]}}
SHA = "0" * 64


def made(given: Any) -> dict[str, str]:
    found, errors = conda.files(given, condarc_text)
    assert errors == []
    return found


def settings(found: dict[str, str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(found["settings"]))


def test_pytorch_by_its_cuda_becomes_an_environment_file() -> None:
    found = made(TORCH)
    data = yaml.safe_load(found["environment.yml"])
    assert data["channels"] == ["conda-forge", "nodefaults"]
    assert data["dependencies"][0].startswith("python=3.11") or "python=3.11" in str(data["dependencies"])
    assert "torch==2.8.*" in str(data["dependencies"][-1])
    assert "https://download.pytorch.org/whl/cu128" in str(data["dependencies"][-1])
    assert settings(found) == {"URL": conda.INSTALLER, "SHA256": conda.SHA256, "CUDA": "12.8"}
    assert yaml.safe_load(found["condarc"])["channels"] == ["conda-forge"]


def test_mirrors_and_another_installer() -> None:
    mirror = {"channels": {"conda-forge": "http://m/c"}, "pypi": "http://m/simple", "pytorch": "http://m/whl"}
    url = "http://m/Miniconda3-py311_26.3.2-2-Linux-aarch64.sh"
    found = made({**TORCH, "mirror": mirror, "installer_url": url, "installer_sha256": SHA})
    assert settings(found) == {"URL": url, "SHA256": SHA, "CUDA": "12.8", "PIP_INDEX_URL": "http://m/simple"}
    assert yaml.safe_load(found["condarc"])["custom_channels"] == {"conda-forge": "http://m/c"}
    assert "http://m/whl/cu128" in found["environment.yml"]


def test_a_lock_file_says_it_all() -> None:
    line = f"https://conda.anaconda.org/conda-forge/linux-64/python-3.11.9-h1_0.conda#sha256:{SHA}"
    found = made({"environment": {"lock": ["# platform: linux-64", "@EXPLICIT", line]}})
    assert line.replace("#sha256:", "#") in found["lock.txt"]
    assert "environment.yml" not in found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "has no environment"),
        ({"environment": {}}, "has no environment"),
        ({"environment": ["numpy"]}, "has no environment"),
        ({**TORCH, "prefix": "/x"}, "pytorch_sshd_conda.prefix: is unknown"),
        ({"environment": {"name": "x", "packages": ["numpy"]}}, "environment.name: has no meaning here"),
        ({"environment": {"packages": ["numpy; rm -rf /"]}}, "pytorch_sshd_conda.environment.packages[0]"),
        ({"environment": {"packages": ["defaults::numpy"]}}, "pytorch_sshd_conda.environment.packages[0]"),
        ({"environment": {"pytorch": {"version": "2.8", "cuda": "11.0"}}}, "pytorch_sshd_conda.environment.pytorch"),
        ({**TORCH, "installer_sha256": "abc"}, "pytorch_sshd_conda.installer_sha256"),
        ({**TORCH, "installer_url": "http://x/y.sh; id"}, "pytorch_sshd_conda.installer_url"),
        ({**TORCH, "installer_url": "http://x/other.sh"}, "has no known sha256"),
        ({**TORCH, "mirror": {"pypi": "http://a b"}}, "pytorch_sshd_conda.mirror.pypi"),
    ],
)
def test_refused_by_the_name_that_people_gave(given: Any, says: str) -> None:
    found, errors = conda.files(given, condarc_text)
    assert found == {}
    assert says in "\n".join(errors)
    assert "miniconda_" not in "\n".join(errors)


def test_the_default_installer_is_one_of_the_role_minicondas() -> None:
    table = yaml.safe_load((ROOT / "roles/miniconda/vars/main.yml").read_text())["__miniconda_checksums"]
    assert table[conda.INSTALLER.rpartition("/")[2]] == conda.SHA256
    spec = yaml.safe_load((ROOT / "roles/pytorch_sshd/meta/argument_specs.yml").read_text())
    options = spec["argument_specs"]["main"]["options"]["pytorch_sshd_conda"]["options"]
    assert (options["installer_url"]["default"], options["installer_sha256"]["default"]) == (
        conda.INSTALLER,
        conda.SHA256,
    )
    assert json.dumps(sorted(options)) == json.dumps(sorted(conda.KEYS))
