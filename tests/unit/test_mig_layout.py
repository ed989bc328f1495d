# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs are cut as declared. nvidia-smi is a stand-in that keeps MIG devices and records its calls; its output has
the real
one's form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import mig_layout

OFFERED = ("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "7g.80gb")


class Smi:
    """An A100 (0), an A100 with MIG on (1), and an L4, which cannot (2)."""

    def __init__(self) -> None:
        self.mode = {"0": "Disabled", "1": "Enabled", "2": "[N/A]"}
        self.devices: dict[str, list[str]] = {"0": [], "1": ["3g.40gb", "3g.40gb"], "2": []}
        self.apps: dict[str, str] = {}
        self.calls: list[str] = []
        self.needs_reset = False

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        words = argv[1:]
        gpu = words[words.index("-i") + 1] if "-i" in words else ""
        if words == ["-L"]:
            return 0, self._listing(), ""
        if words[-2].startswith("--query-gpu"):
            return 0, "".join(f"{one}, {mode}\n" for one, mode in self.mode.items() if gpu in ("", one)), ""
        if words[-2].startswith("--query-compute-apps"):
            return 0, self.apps.get(gpu, ""), ""
        if "-lgip" in words:
            rows = "".join(f"|   {gpu}  MIG {name}       19     0/7   9.75   No |\n" for name in OFFERED)
            return 0, f"| GPU instance profiles: |\n{rows}", ""
        self.calls.append(" ".join(words))
        return self._change(words, gpu)

    def _listing(self) -> str:
        out = ""
        for gpu, names in self.devices.items():
            out += f"GPU {gpu}: NVIDIA A100-SXM4-80GB (UUID: GPU-3f1a7c52-8d0e-4b6f-9a41-c2e57d90b81{gpu})\n"
            for at, name in enumerate(names):
                out += f"  MIG {name}     Device  {at}: (UUID: MIG-1a2b3c4d-0000-5000-8000-00000000000{at})\n"
        return out

    def _change(self, words: list[str], gpu: str) -> tuple[int, str, str]:
        if "-mig" in words:
            if not self.needs_reset:
                self.mode[gpu] = "Enabled" if words[-1] == "1" else "Disabled"
            return 0, "Warning: MIG mode is in pending enable state" if self.needs_reset else "All done.", ""
        if words[-1] in ("-dci", "-dgi"):
            if not self.devices[gpu]:
                return 6, "No GPU instances found: Not Found", ""
            self.devices[gpu] = [] if words[-1] == "-dgi" else self.devices[gpu]
            return 0, "Successfully destroyed", ""
        if sum(int(name[0]) for name in words[4].split(",")) > 7:
            return 19, "Failed to create GPU instances: Insufficient Resources", ""
        self.devices[gpu] = words[4].split(",")
        return 0, "Successfully created", ""


@pytest.fixture
def smi() -> Smi:
    return Smi()


def test_a_gpu_is_cut(smi: Smi) -> None:
    result = mig_layout.apply({"0": ["3g.40gb", "1g.10gb"]}, smi)
    assert result == mig_layout.Result(changes=["GPU 0: MIG off -> 3g.40gb, 1g.10gb"])
    assert smi.calls == ["-i 0 -mig 1", "mig -i 0 -cgi 3g.40gb,1g.10gb -C"]
    assert mig_layout.apply({"0": ["1g.10gb", "3g.40gb"]}, smi) == mig_layout.Result(), "done, in whatever order"


def test_a_gpu_is_cut_otherwise_and_another_is_left_alone(smi: Smi) -> None:
    mig_layout.apply({"1": ["7g.80gb"]}, smi)
    assert smi.calls == ["mig -i 1 -dci", "mig -i 1 -dgi", "mig -i 1 -cgi 7g.80gb -C"]
    assert smi.devices == {"0": [], "1": ["7g.80gb"], "2": []}


def test_mig_is_turned_off(smi: Smi) -> None:
    mig_layout.apply({"1": [], "2": []}, smi)
    assert smi.calls == ["mig -i 1 -dci", "mig -i 1 -dgi", "-i 1 -mig 0"]


def test_check_only_says(smi: Smi) -> None:
    assert mig_layout.apply({"1": ["7g.80gb"]}, smi, check=True).changes == ["GPU 1: 3g.40gb, 3g.40gb -> 7g.80gb"]
    assert smi.calls == []


def test_nothing_is_touched_while_one_of_them_is_in_use(smi: Smi) -> None:
    smi.apps["1"] = "4711, python\n"
    result = mig_layout.apply({"0": ["7g.80gb"], "1": ["7g.80gb"]}, smi)
    assert result.busy == ["GPU 1 is in use by process 4711 python"]
    assert smi.calls == []
    assert mig_layout.apply({"0": ["7g.80gb"], "1": ["3g.40gb", "3g.40gb"]}, smi).busy == [], "it would not change"


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"7": ["7g.80gb"]}, "GPU 7 does not exist on this host (it has 0, 1, 2)"),
        ({"2": ["1g.10gb"]}, "GPU 2 cannot be cut"),
        ({"1": ["4g.40gb"]}, "GPU 1 has no MIG profile 4g.40gb (it has 1g.10gb"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything(smi: Smi, layout: dict[str, list[str]], said: str) -> None:
    result = mig_layout.apply({"0": ["7g.80gb"], **layout}, smi)
    assert said in result.errors[0]
    assert smi.calls == []


def test_what_does_not_fit_or_needs_a_reset_is_said(smi: Smi) -> None:
    (error,) = mig_layout.apply({"1": ["7g.80gb", "1g.10gb"]}, smi).errors
    assert "Insufficient Resources" in error
    assert "again as they were" in error
    assert smi.devices["1"] == ["3g.40gb", "3g.40gb"]
    smi.needs_reset = True
    assert "--gpu-reset -i 0" in mig_layout.apply({"0": ["7g.80gb"]}, smi).errors[0]


def test_as_a_program_at_boot(tmp_path: Path) -> None:
    """As the unit runs it: no Ansible, nvidia-smi from the PATH."""
    calls = tmp_path / "calls"
    script = f"""#!/bin/sh
case "$*" in
  -L) echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)' ;;
  *query-gpu*) [ -e {calls} ] && echo '0, Enabled' || echo '0, Disabled' ;;
  *query-compute*) ;;
  *lgip*) echo '|  0  MIG 7g.80gb  0  1/1 |' ;;
  *) echo "$*" >>{calls} ;;
esac
"""
    (tmp_path / "nvidia-smi").write_text(script)
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "mig.json").write_text(json.dumps({"0": ["7g.80gb"]}))
    env = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    argv = [sys.executable, "-I", mig_layout.__file__, str(tmp_path / "mig.json")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "GPU 0: MIG off -> 7g.80gb\n"), done.stderr
    assert calls.read_text().splitlines() == ["-i 0 -mig 1", "mig -i 0 -cgi 7g.80gb -C"]


def test_profiles_have_a_form() -> None:
    for good in ("1g.10gb", "1g.10gb+me", "3g.40gb", "7g.141gb", "1g.24gb+me.all"):
        assert mig_layout.PROFILE.fullmatch(good)
    for bad in ("", "9", "1g.10gb;reboot", "1g.10gb\n", "-dci", "1g"):
        assert not mig_layout.PROFILE.fullmatch(bad)
