# SPDX-License-Identifier: GPL-3.0-or-later
"""CDI specifications and GPU listings, as the tools write them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import cdi

# In the order and shape that nvidia-ctk 1.19 writes.
SPEC = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  - hostPath: /dev/char/nvidia-uvm
    path: /dev/nvidia-uvm
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - update-ldcache
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options:
    - ro
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/dri/card1
    hooks:
    - args:
      - nvidia-cdi-hook
      path: /usr/bin/nvidia-cdi-hook
  name: "0"
- name: GPU-3f1a7c52-8d0e-4b6f-9a41-c2e57d90b813
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
kind: nvidia.com/gpu
"""
COMMON = ["/dev/nvidiactl", "/dev/char/nvidia-uvm", "/dev/nvidia-uvm", "/usr/bin/nvidia-smi"]
MIG = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-3f1a7c52-8d0e-4b6f-9a41-c2e57d90b813)
  MIG 3g.20gb     Device  0: (UUID: MIG-2f7a1c52-8d0e-4b6f-9a41-c2e57d90b813)
  MIG 3g.20gb     Device  1: (UUID: MIG-4f7a1c52-8d0e-4b6f-9a41-c2e57d90b813)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-b86e04d9-27c3-4f15-8e6a-5d19f3a07c44)
"""


def standin() -> ModuleType:
    path = Path(__file__).parents[1] / "lab" / "nvidia" / "payload" / "nvidia-ctk"
    loader = importlib.machinery.SourceFileLoader("standin_ctk", str(path))
    spec = importlib.util.spec_from_loader("standin_ctk", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_what_each_device_needs_on_the_host() -> None:
    found = cdi.device_paths(SPEC)
    assert set(found) == {"nvidia.com/gpu=0", "nvidia.com/gpu=GPU-3f1a7c52-8d0e-4b6f-9a41-c2e57d90b813"}
    assert found["nvidia.com/gpu=0"] == ["/dev/nvidia0", "/dev/dri/card1", *COMMON]


def test_json_says_the_same() -> None:
    spec = {
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}}],
        "containerEdits": {"mounts": [{"hostPath": "/a", "containerPath": "/b"}]},
    }
    assert cdi.device_paths(json.dumps(spec)) == {"nvidia.com/gpu=0": ["/dev/nvidia0", "/a"]}


@pytest.mark.parametrize("text", ["", "{", "{}", '{"kind": 1}[', "cdiVersion: 0.5.0\ndevices:\n"])
def test_half_a_file_is_no_specification(text: str) -> None:
    with pytest.raises(cdi.CdiError, match="not a CDI specification"):
        cdi.device_paths(text)


def test_the_stand_in_reads_what_the_real_one_writes_and_refuses_half_of_it() -> None:
    ctk = standin()
    assert "nvidia.com/gpu=0" in ctk.spec_names(SPEC)
    assert (
        ctk.yaml_of(ctk.from_yaml(SPEC)) + "\n"
        == ctk.yaml_of(ctk.from_yaml("---\n" + ctk.yaml_of(ctk.from_yaml(SPEC)) + "\n")) + "\n"
    )
    for cut in range(len(SPEC) - 20):
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError, IndexError)):
            ctk.spec_names(SPEC[:cut])


def test_gpus_whole_and_cut() -> None:
    gpus = cdi.parse_gpus(MIG)
    assert [gpu.index for gpu in gpus] == ["0:0", "0:1", "1"]
    assert gpus[2].uuid == "GPU-b86e04d9-27c3-4f15-8e6a-5d19f3a07c44"
    assert cdi.parse_gpus("No devices were found\n") == []


def test_device_names_among_log_lines() -> None:
    listing = 'time="…" level=info msg="Found 2 CDI devices"\nnvidia.com/gpu=0\nnvidia.com/gpu=all\n'
    assert cdi.parse_devices(listing) == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]


def test_a_gpu_counts_by_index_or_uuid() -> None:
    gpus = cdi.parse_gpus(MIG)
    assert cdi.missing_gpus(gpus, ["nvidia.com/gpu=0:0", f"nvidia.com/gpu={gpus[1].uuid}"]) == ["nvidia.com/gpu=1"]


def test_unresolved_names_device_and_path() -> None:
    assert cdi.unresolved({"a/b=0": ["/x", "/y"]}, ["/x"]) == [("a/b=0", "/y")]
    assert cdi.unknown(["a/b=0", "a/b=7"], ["a/b=0"]) == ["a/b=7"]


@pytest.mark.parametrize(
    "text",
    [
        "---\ncdiVersion: 0.7.0\nkind: x",
        'cdiVersion: "0.7.0"\n',
        '{"cdiVersion": "0.7.0"}',
        '{"a": 1, "cdiVersion":"0.7.0"}',
    ],
)
def test_a_format_that_a_runtime_cannot_read(text: str) -> None:
    assert "its format 0.7.0 is too new" in cdi.too_new(text, "0.7.0")[0]
    assert cdi.too_new(text, "0.8.0") == cdi.too_new(text, "") == []
    assert cdi.too_new("kind: x", "0.7.0") == []


PLAIN = """---
cdiVersion: 0.7.0
containerEdits:
  hooks:
    - hookName: createContainer
      name: not-a-device
devices:
  - containerEdits:
      deviceNodes:
        - path: /dev/nvidia0
    name: "0"
  - name: GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c
    containerEdits: {}
  - name: all # every one
kind: nvidia.com/gpu
"""


def test_names_with_other_keys_between_and_a_comment_behind() -> None:
    expected = ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c", "nvidia.com/gpu=all"]
    assert list(cdi.device_paths(PLAIN)) == expected
    as_json = {"kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all"}]}
    assert list(cdi.device_paths(json.dumps(as_json))) == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
