# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the state of the NVIDIA driver asks for: nothing, a restart of the host, or a person. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, List, Mapping, Sequence

from ansible_collections.devnode.gpu.plugins.module_utils import cuda_compat


@dataclass
class Judgement:
    errors: List[str] = field(default_factory=list)
    pending: List[str] = field(default_factory=list)  # what still has to happen, and why it has not
    notes: List[str] = field(default_factory=list)
    restart: bool = False  # the host is to be restarted now
    restart_for: str = ""  # the driver version that a restart brings


def judge(
    found: Mapping[str, Any],
    source: str,
    cuda: str = "",
    optional: bool = False,
    policy: str = "never",
    restarted_for: str = "",
    nouveau: bool = False,
) -> Judgement:
    """What the state of driver and GPUs means. found: as gpu_info returns it. policy: never, or idle."""
    driver, out = found["driver"], Judgement()
    version, library = driver["version"], driver["library"]
    if driver["loaded"] and library and library != version:
        driver = {**driver, "trouble": "mismatch"}
    if not driver["trouble"]:
        _judge_cuda(found, cuda, source, out)
        return out
    if not driver["loaded"] and not library:
        if not optional:
            out.errors.append(_no_driver(found, source))
        else:
            out.notes.append("This host has no NVIDIA driver, and none was asked for.")
        return out
    if driver["trouble"] == "mismatch":
        _restart(
            out,
            library or "the installed one",
            f"driver {version or 'another'} is loaded, and {library or 'another'} is installed: programs that start "
            'now fail with "Driver/library version mismatch"',
            found["in_use"],
            policy,
            restarted_for,
        )
    elif not driver["loaded"]:
        _not_loaded(out, found, policy, restarted_for, nouveau)
    elif driver["trouble"] == "no_devices":
        message = (
            f"Driver {version} is loaded, but nvidia-smi finds no GPU (the PCI bus has {found['hardware']['gpus']}). "
            "It may be too new or too old for this GPU, or the GPU may have failed: see `journalctl -k | grep NVRM`."
        )
        (out.notes if optional else out.errors).append(message)
    else:
        out.errors.append(
            f"nvidia-smi does not work on this host, so nobody can tell what its GPUs do. It says:\n{driver['said']}\n"
            "Repair the driver (`journalctl -k | grep NVRM` tells more), then run again."
        )
    return out


def _judge_cuda(found: Mapping[str, Any], cuda: str, source: str, out: Judgement) -> None:
    if not cuda:
        return
    capabilities = [gpu["compute_capability"] for gpu in found["gpus"] if gpu["compute_capability"]]
    verdict = cuda_compat.check(found["driver"]["version"], capabilities, cuda)
    if not verdict.runs:
        how = (
            " This role does so with nvidia_driver_source: cuda_repo and nvidia_driver_branch."
            if source == "preinstalled" and "driver" in verdict.remedy
            else ""
        )
        out.errors.append(f"nvidia_driver_cuda: {verdict.reason} {verdict.remedy}{how}")
    elif verdict.note:
        out.notes.append(verdict.note)


def _no_driver(found: Mapping[str, Any], source: str) -> str:
    gpus = found["hardware"]["gpus"]
    seen = f"{gpus} NVIDIA GPU{'s' * (gpus != 1)} on the PCI bus" if gpus else "no NVIDIA GPU on the PCI bus"
    if source != "preinstalled":
        return (
            f"The driver's packages are installed, but neither its module nor its library is there ({seen}). See "
            "/var/lib/dkms/nvidia/*/build/make.log for why the module was not built."
        )
    return (
        f"This host has no NVIDIA driver ({seen}), and nvidia_driver_source is preinstalled. Let the role install it "
        "(nvidia_driver_source: cuda_repo or distro), or say that this host needs none (nvidia_driver_optional: true)."
    )


def _not_loaded(out: Judgement, found: Mapping[str, Any], policy: str, restarted_for: str, nouveau: bool) -> None:
    library, boot = found["driver"]["library"], found["secure_boot"]
    if boot["state"] == "on" and not boot["enrolled"]:
        key = boot["key"] or "/var/lib/dkms/mok.pub"
        out.pending.append(
            f"driver {library} is installed, but Secure Boot is on, and the kernel loads only modules that are signed "
            f"with a key the firmware knows. Somebody has to enrol it at the machine's console: `mokutil --import "
            f"{key}` asks for a password, and the next start asks for it again (MOK management, Enroll MOK). Or take a "
            "driver that your distribution has signed (nvidia_driver_source: distro, on Ubuntu), or turn Secure Boot "
            "off"
        )
        return
    why = f"driver {library} is installed, but its kernel module is not loaded"
    if nouveau:
        why += ", because the kernel's own nouveau has the GPUs"
    _restart(out, library, why, found["in_use"], policy, restarted_for)


def _restart(out: Judgement, target: str, why: str, in_use: Sequence[str], policy: str, restarted_for: str) -> None:
    out.restart_for = target
    if restarted_for == target:
        out.errors.append(
            f"{why[0].upper()}{why[1:]}. The host was restarted for that already, and it did not help; it is not "
            "restarted again. See `dkms status` (was the module built for this kernel?) and `journalctl -k | grep -i "
            "nvidia`."
        )
    elif policy == "never":
        out.pending.append(f"reboot needed: {why}. Restarts are not allowed (nvidia_driver_reboot: never)")
    elif in_use:
        out.pending.append(f"reboot needed: {why}. It would end: {', '.join(in_use)}")
    else:
        out.restart = True
        out.notes.append(f"{why}; the host is restarted for it, nothing uses its GPUs")


def fabric_trouble(driver: str, fabric: str) -> str:
    """driver: of the loaded module; fabric: of the installed package, as dpkg says it."""
    have = fabric.split(":")[-1].split("-", maxsplit=1)[0]
    if not driver or not have or have == driver:
        return ""
    return (
        f"The fabric manager is of version {have}, and the driver of {driver}. NVSwitch machines need the same for "
        f"both: give nvidia_driver_version ({driver}), so that both are installed at it."
    )
