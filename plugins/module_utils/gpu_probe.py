# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia-smi, /proc/driver/nvidia, mokutil and nvidia-ctk say, as data. Pure functions; standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

# Newer drivers' fields last: what an old one does not know is left away.
QUERY = ("index", "uuid", "name", "memory.total", "pci.bus_id", "mig.mode.current", "compute_cap")
OLD_QUERY = QUERY[:5]
UNKNOWN = ("[N/A]", "[Not Supported]", "N/A", "[Unknown Error]", "")

_MODULE = re.compile(
    r"^NVRM version:.*?(?P<what>Open Kernel Module|Kernel Module).*?\s(?P<version>\d{2,4}\.\d+(?:\.\d+)?)\s"
)
# "CUDA UMD Version" since driver 610.
_CUDA = re.compile(r"CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)")
_LIBRARY = re.compile(r"libnvidia-ml\.so\.(\d{2,4}\.\d+(?:\.\d+)?)$")
_MIG = re.compile(r"^\s+MIG (?P<profile>\S+)\s+Device\s+(?P<index>\d+): \(UUID: (?P<uuid>MIG-[0-9a-f-]+)\)")
_GPU = re.compile(r"^GPU (?P<index>\d+): ")


@dataclass(frozen=True)
class Trouble:
    """Why nvidia-smi does not answer: no_driver, mismatch, no_devices, other; empty when it does."""

    kind: str = ""
    said: str = ""


def module(text: str) -> Tuple[str, str]:
    """(version, open | proprietary) of /proc/driver/nvidia/version; empty when it says nothing."""
    for line in text.splitlines():
        found = _MODULE.match(line)
        if found:
            return found.group("version"), "open" if found.group("what").startswith("Open") else "proprietary"
    return "", ""


def library(paths: Sequence[str]) -> str:
    """The driver version of the library that programs load (libnvidia-ml.so.1 and what it leads to)."""
    found = [match.group(1) for match in (_LIBRARY.search(path) for path in paths) if match]
    return found[0] if found else ""


def trouble(code: int, out: str, err: str) -> Trouble:
    said = (out.strip() + "\n" + err.strip()).strip()
    if "version mismatch" in said.lower():
        return Trouble("mismatch", said)
    if "No devices were found" in said:
        return Trouble("no_devices", said)
    if "couldn't communicate with the NVIDIA driver" in said or "couldn't find libnvidia-ml" in said:
        return Trouble("no_driver", said)
    return Trouble("other", said) if code else Trouble()


def gpus(csv: str, fields: Sequence[str] = QUERY) -> List[Dict[str, Any]]:
    """`nvidia-smi --query-gpu=… --format=csv,noheader,nounits`."""
    out = []
    for line in csv.splitlines():
        values = [part.strip() for part in line.split(",")]
        if len(values) != len(fields) or not values[0].isdigit():
            continue
        row = {name: "" if values[at] in UNKNOWN else values[at] for at, name in enumerate(fields)}
        mode = row.get("mig.mode.current", "").lower()
        out.append(
            {
                "index": int(row["index"]),
                "uuid": row["uuid"],
                "name": row["name"],
                "memory_mib": int(row["memory.total"]) if row["memory.total"].isdigit() else 0,
                "bus": row["pci.bus_id"],
                "compute_capability": row.get("compute_cap", ""),
                "mig": mode if mode in ("enabled", "disabled") else "not supported",
                "mig_devices": [],
            }
        )
    return out


def mig_devices(listing: str) -> Dict[int, List[Dict[str, Any]]]:
    """The MIG devices in `nvidia-smi -L`, by the index of their GPU."""
    out: Dict[int, List[Dict[str, Any]]] = {}
    parent = -1
    for line in listing.splitlines():
        gpu, mig = _GPU.match(line), _MIG.match(line)
        if gpu:
            parent = int(gpu.group("index"))
        elif mig and parent >= 0:
            one = {"index": int(mig.group("index")), "profile": mig.group("profile"), "uuid": mig.group("uuid")}
            out.setdefault(parent, []).append(one)
    return out


def processes(csv: str) -> List[Dict[str, Any]]:
    """`nvidia-smi --query-compute-apps=pid,process_name --format=csv,noheader`."""
    out = []
    for line in csv.splitlines():
        pid, comma, name = line.partition(",")
        if comma and pid.strip().isdigit():
            out.append({"pid": int(pid), "name": name.strip()})
    return out


def cuda(text: str) -> str:
    """The CUDA version in the head of nvidia-smi's table: the newest that this driver runs."""
    found = _CUDA.search(text)
    return found.group(1) if found else ""


def secure_boot(said: str) -> str:
    """on, off or unknown, from `mokutil --sb-state`."""
    text = said.lower()
    if "secureboot enabled" in text:
        return "on"
    if "secureboot disabled" in text or "efi variables are not supported" in text:
        return "off"
    return "unknown"


def key_enrolled(said: str) -> bool:
    """From `mokutil --test-key FILE`."""
    return "is already enrolled" in said


def pci(devices: Dict[str, Tuple[str, str]]) -> Dict[str, int]:
    """NVIDIA's GPUs and NVSwitches among PCI devices: {address: (vendor, class)} as in /sys/bus/pci/devices."""
    classes = [kind for vendor, kind in devices.values() if vendor.strip() == "0x10de"]
    return {
        "gpus": sum(kind.startswith(("0x0300", "0x0302")) for kind in classes),
        "nvswitches": sum(kind.startswith("0x0680") for kind in classes),
    }


def tool_version(said: str) -> str:
    """The first version in "NVIDIA Container Toolkit CLI version 1.19.1"."""
    found = re.search(r"version (\d+\.\d+\.\d+)", said)
    return found.group(1) if found else ""
