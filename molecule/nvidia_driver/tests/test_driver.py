# SPDX-License-Identifier: GPL-3.0-or-later
"""A driver that is checked or installed, held, and exchanged without ending anybody's work.

GPUs, the driver's packages and what they bring are the lab's stand-ins; apt, holds, pins, systemd and the restart
are real. What nvidia-smi, /proc/driver/nvidia and mokutil print is in the real tools' form.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import testinfra
from scenario_hosts import Done, play, root, upgrades

FACT = "/etc/ansible/facts.d/devnode_gpu.fact"
LOADED = "/proc/driver/nvidia/version"
PARTS = ("libnvidia-ml1", "nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-open", "nvidia-persistenced")


class Host:
    """Commands go over a plain SSH connection; only modules need Ansible."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.modules = testinfra.get_host(f"ansible://{name}", ansible_inventory=os.environ["MOLECULE_INVENTORY_FILE"])

    def run(self, script: str) -> str:
        return root(self.name, script).strip()

    def state(self, **options: Any) -> dict[str, Any]:
        arguments = json.dumps({"source": "preinstalled", **options})
        return self.modules.ansible("devnode.gpu.nvidia_driver_state", arguments, check=True)

    def info(self, **options: Any) -> dict[str, Any]:
        return self.modules.ansible("devnode.gpu.gpu_info", json.dumps({"cuda": "", **options}), check=True)

    def fact(self) -> dict[str, Any]:
        return json.loads(self.run(f"cat {FACT}"))

    def version(self) -> str:
        return self.run("nvidia-smi --query-gpu=driver_version --format=csv,noheader").splitlines()[0]

    def upgrades(self) -> str:
        return upgrades(self.run)

    def started(self) -> str:
        return self.run("systemctl show --property=UserspaceTimestamp --value")


def said(done: Done) -> str:
    """What a run printed, warnings too, without its line breaks."""
    return " ".join(f"{done.stdout} {done.stderr}".split())


@pytest.fixture(scope="module")
def bare() -> Host:
    return Host("bare")


@pytest.fixture(scope="module")
def ready() -> Host:
    return Host("ready")


def test_what_is_in_the_machine(ready: Host) -> None:
    found = ready.info(cuda="13.0", torch="2.14.1")
    assert [gpu["compute_capability"] for gpu in found["gpus"]] == ["8.9", "8.9"]
    assert found["gpus"][0]["name"] == "NVIDIA L4"
    assert found["gpus"][0]["memory_mib"] == 23034
    assert found["driver"]["version"] == found["driver"]["library"] == "580.95.05"
    assert (found["driver"]["modules"], found["driver"]["cuda"], found["driver"]["trouble"]) == ("open", "13.0", "")
    assert found["compatibility"]["runs"] is True
    refused = ready.info(cuda="11.8", torch="2.8.0")["compatibility"]
    assert refused["runs"] is False
    assert "not built with CUDA 11.8" in refused["reason"]


def test_who_uses_a_gpu_is_seen_without_nvidia_smi(ready: Host) -> None:
    ready.run("systemd-run --quiet --unit=job sh -c 'exec sleep 600 </dev/nvidia1'")
    try:
        pid = ready.run("systemctl show job --property=MainPID --value")
        assert f"GPU process {pid} sleep" in ready.info()["in_use"]
    finally:
        ready.run("systemctl stop job")
    assert ready.info()["in_use"] == []


def test_a_driver_that_is_exchanged_under_programs_is_said(ready: Host) -> None:
    try:
        ready.run(f"sed -i 's/580.95.05/570.195.03/' {LOADED}")
        found = ready.state()
        assert found["reboot"] is False
        assert "driver 570.195.03 is loaded, and 580.95.05 is installed" in found["pending"][0]
        assert "nvidia_driver_reboot: never" in found["pending"][0]
        allowed = ready.state(reboot="idle")
        assert allowed["reboot"] is True
    finally:
        ready.run(f"sed -i 's/570.195.03/580.95.05/' {LOADED}")
    assert ready.state()["changed"] is False


def test_secure_boot_is_found_and_explained(ready: Host) -> None:
    # What mokutil prints on a machine with Secure Boot and no key of its owner's.
    script = "#!/bin/sh\n[ $1 = --sb-state ] && echo SecureBoot enabled && exit\necho $2 is not enrolled"
    ready.run(f"printf '{script}\n' >/usr/local/bin/mokutil; chmod 755 /usr/local/bin/mokutil")
    ready.run(f"mv {LOADED} /root/loaded")
    try:
        assert ready.info()["secure_boot"]["state"] == "on"
        found = ready.state()
        assert found["reboot"] is False
        assert "Secure Boot is on" in found["pending"][0]
        assert "mokutil --import" in found["pending"][0]
    finally:
        ready.run(f"mv /root/loaded {LOADED}; rm /usr/local/bin/mokutil")


def test_a_driver_that_is_too_old_is_named_with_what_would_do(bare: Host) -> None:
    found = bare.state(cuda="13.0")
    assert "CUDA 13.0 does not run with driver 570.195.03: it needs driver 580.65.06 or newer" in found["msg"]
    assert "Install driver 580.65.06 or newer" in found["msg"]


def test_no_driver_and_no_gpu_are_two_things(bare: Host) -> None:
    bare.run("mkdir /root/away; mv /usr/bin/nvidia-smi /usr/lib/*/libnvidia-ml.so.1 /root/away")
    bare.run(f"mv {LOADED} /root/away")
    try:
        assert "nvidia_driver_source is preinstalled" in bare.state()["msg"]
        assert bare.state(optional=True)["pending"] == []
    finally:
        folder = "/usr/lib/$(uname -m)-linux-gnu"
        bare.run(
            f"cd /root/away; mv nvidia-smi /usr/bin; mv libnvidia-ml.so.1 {folder}; mv version "
            f"{LOADED}; rmdir /root/away"
        )
    assert bare.state()["changed"] is False


def test_the_branch_is_installed_and_works(bare: Host) -> None:
    assert bare.version() == "570.195.03"
    assert "Open Kernel Module" in bare.run(f"cat {LOADED}")
    units = "nvidia-persistenced nvidia-fabricmanager"
    assert (
        bare.run(f"systemctl is-active {units}; systemctl is-enabled {units}").split()
        == ["active"] * 2 + ["enabled"] * 2
    )
    fact = bare.fact()
    assert fact == {"driver": "570.195.03", "installed": "570.195.03", "pending": [], "reboot_needed": False}


def test_all_parts_are_held_and_unattended_upgrades_leave_them(bare: Host) -> None:
    assert set(PARTS) <= set(bare.run("apt-mark showhold").split())
    assert "nvidia" not in bare.upgrades()
    found = bare.run("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert '"nvidia-"' in found
    assert '"libnvidia-"' in found
    assert '"linux-"' in found, "somebody else's entry"


def test_the_branch_holds_even_without_holds(bare: Host) -> None:
    bare.run(f"apt-mark unhold {' '.join(PARTS)}")
    try:
        assert "nvidia" not in bare.upgrades()
    finally:
        bare.run(f"apt-mark hold {' '.join(PARTS)}")


def test_the_older_entry_for_the_repository_is_gone(bare: Host) -> None:
    assert bare.run("ls /etc/apt/sources.list.d").split() == ["debian.sources", "nvidia-cuda.sources"]


def test_refusals_come_before_anything_is_changed(bare: Host) -> None:
    # One of each kind; all others are in tests/unit/test_driver_plan.py.
    for arguments, said in (
        ("branch=570 nvidia_driver_cuda=13.0", "CUDA 13.0 needs driver 580.65.06 or newer"),
        ("nvidia_driver_source=sideload", "value of nvidia_driver_source must be one of"),
    ):
        done = play("--limit", "bare", "--extra-vars", arguments)
        assert done.returncode != 0
        assert said in done.stdout, done.stdout
    assert bare.version() == "570.195.03"


def test_another_branch_waits_for_a_job_then_is_installed_then_restarted_once(bare: Host) -> None:
    upgrade = ("--limit", "bare", "--extra-vars", "branch=580")
    bare.run("systemd-run --quiet --unit=job sh -c 'exec sleep 600 </dev/nvidia0'")
    waiting = play(*upgrade)
    assert waiting.returncode == 0, waiting.stdout
    assert "driver 570.195.03 stays, and 580 waits" in said(waiting)
    assert bare.version() == "570.195.03"

    # Told not to wait, it is exchanged; the job goes on, and the host is marked.
    forced = play(*upgrade, "--extra-vars", "nvidia_driver_upgrade=always")
    assert forced.returncode == 0, forced.stdout
    # nvidia-smi fails until the restart: what it says is looked at.
    assert bare.run("systemctl is-active job; nvidia-smi || true").startswith(
        "active\nFailed to initialize NVML: Driver/lib"
    )
    fact = bare.fact()
    assert fact["reboot_needed"] is True
    assert "driver 570.195.03 is loaded, and 580.105.08 is installed" in fact["pending"][0]
    assert bare.run("dpkg-query --show --showformat='${Package} ' 'nvidia-driver-pinning-*'") == (
        "nvidia-driver-pinning-580"
    )

    # Allowed to restart, but somebody works: nvidia-smi cannot tell now, the open device does.
    started = bare.started()
    busy = play(*upgrade, "--extra-vars", "reboot=idle")
    assert "It would end: GPU process" in said(busy)
    assert bare.started() == started

    bare.run("systemctl stop job")
    restarted = play(*upgrade, "--extra-vars", "reboot=idle")
    assert restarted.returncode == 0, restarted.stdout
    now = bare.started()
    assert now != started
    assert bare.version() == "580.105.08"
    again = play(*upgrade, "--extra-vars", "reboot=idle")
    assert "changed=0" in again.stdout, again.stdout
    assert bare.started() == now
