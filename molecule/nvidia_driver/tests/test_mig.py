# SPDX-License-Identifier: GPL-3.0-or-later
"""MIG devices as declared: by a run, and by the unit at every start. nvidia-smi is tests/lab/nvidia/mig.py."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario_hosts import Done, play, restart, root
from test_driver import said

SMI = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "tests" / "lab" / "nvidia" / "mig.py"
HALVES = [{"gpu": 0, "profiles": ["3g.40gb", "3g.40gb"]}, {"gpu": 1, "profiles": []}]


def cut(layout: object, *more: str) -> Done:
    return play("--limit", "ready", "--extra-vars", json.dumps({"nvidia_driver_mig": layout}), *more)


def devices() -> list[str]:
    return [line.split()[1] for line in root("ready", "nvidia-smi -L").splitlines() if "Device" in line]


@pytest.fixture(scope="module", autouse=True)
def a100() -> Iterator[None]:
    if os.environ.get("DEVNODE_TESTS") != "full":
        pytest.skip("restarts a host once more; shown in the full run (DEVNODE_TESTS=full)")
    root(
        "ready", f"cat >/usr/local/bin/nvidia-smi <<'END'\n{SMI.read_text()}\nEND\nchmod 755 /usr/local/bin/nvidia-smi"
    )
    yield
    root("ready", "rm -f /usr/local/bin/nvidia-smi /var/lib/devnode-lab-mig.json /run/devnode-lab-mig.*")


def test_gpus_are_cut_as_declared_and_again_after_a_restart() -> None:
    announced = cut(HALVES, "--check", "--diff")
    assert "GPU 0: MIG off -> 3g.40gb, 3g.40gb" in said(announced)
    assert devices() == []
    unit = "/etc/systemd/system/nvidia-cdi-refresh.service"
    root(
        "ready",
        f"printf '[Service]\\nType=oneshot\\nExecStart=touch /run/refreshed\\n' >{unit}; systemctl daemon-reload",
    )
    assert cut(HALVES).returncode == 0
    assert devices() == ["3g.40gb", "3g.40gb"]
    root("ready", f"test -e /run/refreshed; rm {unit}")
    again = cut(HALVES)
    assert "changed=0" in again.stdout, again.stdout

    started = root("ready", "systemctl show --property=UserspaceTimestamp --value")
    restart("ready", "multi-user.target")
    assert root("ready", "systemctl show --property=UserspaceTimestamp --value") != started
    assert devices() == ["3g.40gb", "3g.40gb"]
    assert root("ready", "cat /run/devnode-lab-mig.calls").splitlines()[-1] == "mig -i 0 -cgi 3g.40gb,3g.40gb -C"


def test_a_gpu_that_works_is_not_cut_otherwise_and_the_run_says_who_works() -> None:
    root("ready", "echo '4711, python train.py' >/etc/devnode-lab-gpu/processes")
    try:
        waiting = cut([{"gpu": 0, "profiles": ["7g.80gb"]}])
        assert waiting.returncode == 0, waiting.stdout
        assert "MIG layout: GPU 0 is in use by process 4711 python train.py; it waits" in said(waiting)
        assert devices() == ["3g.40gb", "3g.40gb"]
    finally:
        root("ready", "rm /etc/devnode-lab-gpu/processes")
    assert cut([{"gpu": 0, "profiles": ["7g.80gb"]}]).returncode == 0
    assert devices() == ["7g.80gb"]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ([{"gpu": 0, "profiles": ["4g.40gb"]}], "GPU 0 has no MIG profile 4g.40gb (it has 1g.10gb, 2g.20gb"),
        ([{"gpu": 7, "profiles": ["1g.10gb"]}], "nvidia_driver_mig[0].gpu: 7 does not exist on this host"),
        ([{"gpu": 0, "profiles": ["3g.40gb", "7g.80gb"]}], "Insufficient Resources"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused(layout: object, words: str) -> None:
    done = cut(layout)
    assert done.returncode != 0
    assert words in said(done)
    assert devices() == ["7g.80gb"]
