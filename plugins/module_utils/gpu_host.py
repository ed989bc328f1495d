# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a host's GPUs, their driver, and what uses them. Changes nothing. What it means is in gpu_probe."""

from __future__ import annotations

import glob
import os
from typing import Any, Dict, List, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import (
    cdi,
    dockerd,
    gpu_probe,
    other_runtimes,
    whole_file,
    workspace_activity,
)
from ansible_collections.devnode.gpu.plugins.module_utils.dockerd import Runner

LIBRARIES = ("/usr/lib/*/libnvidia-ml.so.1", "/usr/lib64/libnvidia-ml.so.1", "/usr/lib/libnvidia-ml.so.1")
# Where DKMS keeps the key it signs modules with: Debian, Ubuntu.
MODULE_KEYS = ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der")
EFI_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SOCKET = "/var/run/docker.sock"
# These hold the devices for everybody, and nobody's work ends with them.
SERVANTS = ("nvidia-persiste", "nv-fabricmanage", "nvidia-smi", "nv-hostengine")


def gather(run: Runner) -> Dict[str, Any]:
    """Everything that gpu_info returns. A host without GPUs is a normal answer."""
    found_driver, found_gpus = driver_and_gpus(run)
    return {
        "driver": found_driver,
        "gpus": found_gpus,
        "processes": compute_processes(run) if found_gpus else [],
        "hardware": hardware(),
        "secure_boot": secure_boot(run),
        "toolkit": toolkit(run),
        "engine": engine(run),
        "cdi_devices": cdi_devices(run),
        "in_use": in_use(run),
    }


def driver_and_gpus(run: Runner) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
    version, flavour = gpu_probe.module(whole_file.text("/proc/driver/nvidia/version"))
    version = version or whole_file.text("/sys/module/nvidia/version").strip()
    links = [os.path.realpath(path) for pattern in LIBRARIES for path in glob.glob(pattern)]
    driver: Dict[str, Any] = {
        "loaded": bool(version),
        "version": version,
        "modules": flavour,
        "library": gpu_probe.library(links),
        "cuda": "",
        "trouble": "no_driver",
        "said": "",
    }
    smi = dockerd.find("nvidia-smi")
    if not smi:
        return driver, []
    fields: Tuple[str, ...] = gpu_probe.QUERY
    code, out, err = _query(run, smi, fields)
    if code and "is not a valid field" in out + err:
        fields = gpu_probe.OLD_QUERY
        code, out, err = _query(run, smi, fields)
    trouble = gpu_probe.trouble(code, out, err)
    driver["trouble"], driver["said"] = trouble.kind, trouble.said
    if trouble.kind:
        return driver, []
    driver["cuda"] = gpu_probe.cuda(run([smi])[1])
    gpus = gpu_probe.gpus(out, fields)
    if any(gpu["mig"] == "enabled" for gpu in gpus):
        cut = gpu_probe.mig_devices(run([smi, "-L"])[1])
        for gpu in gpus:
            gpu["mig_devices"] = cut.get(gpu["index"], [])
    return driver, gpus


def _query(run: Runner, smi: str, fields: Tuple[str, ...]) -> Tuple[int, str, str]:
    return run([smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])


def compute_processes(run: Runner) -> List[Dict[str, Any]]:
    smi = dockerd.find("nvidia-smi")
    if not smi:
        return []
    return gpu_probe.processes(run([smi, "--query-compute-apps=pid,process_name", "--format=csv,noheader"])[1])


def in_use(run: Runner) -> List[str]:
    """What a restart of the host, or another driver, would end: in words, with the names that people know."""
    known = {one["pid"]: one["name"] for one in compute_processes(run)}
    # nvidia-smi is silent when driver and library do not match, which is just when somebody wants to restart the host.
    out = [f"GPU process {pid} {name}" for pid, name in sorted({**device_users(), **known}.items())]
    for one in dockerd.running_containers(SOCKET) or []:
        name = dockerd.container_names([one], ["devnode.job"])[0]
        if "devnode.workspace" not in (one.get("Labels") or {}):
            out.append(f"container {name}")
            continue
        code, top, _dummy = run(["docker", "top", one["Id"], "-eo", "uid,pid,lstart,args"])
        found = workspace_activity.busy(workspace_activity.parse_top(top), {}) if code == 0 else ["unknown"]
        out += [f"workspace {one['Labels']['devnode.workspace']}: {text}" for text in found]
    return out


def device_users() -> Dict[int, str]:
    """Who has a GPU's device open, in whatever container."""
    out = {}
    for folder in glob.glob("/proc/[0-9]*/fd"):
        pid = int(folder.split("/")[2])
        try:
            targets = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
        except OSError:
            continue  # it has ended
        if any(target.startswith("/dev/nvidia") and target[11:12].isdigit() for target in targets):
            name = whole_file.text(f"/proc/{pid}/comm").strip()
            if name and name not in SERVANTS:
                out[pid] = name
    return out


def hardware() -> Dict[str, int]:
    devices = {
        os.path.basename(path): (whole_file.text(f"{path}/vendor"), whole_file.text(f"{path}/class"))
        for path in glob.glob("/sys/bus/pci/devices/*")
    }
    return gpu_probe.pci(devices)


def secure_boot(run: Runner) -> Dict[str, Any]:
    """state: on, off, unknown; key: DKMS' signing key, if there is one; enrolled: whether the firmware knows it."""
    mokutil = dockerd.find("mokutil")
    if mokutil:
        _dummy, out, err = run([mokutil, "--sb-state"])
        state = gpu_probe.secure_boot(out + err)
    elif os.path.isdir("/sys/firmware/efi"):
        try:
            with open(EFI_SECURE_BOOT, "rb") as file:
                state = "on" if file.read()[-1:] == b"\x01" else "off"
        except OSError:
            state = "unknown"
    else:
        state = "off"  # no UEFI, no Secure Boot
    key = next((path for path in MODULE_KEYS if os.path.exists(path)), "")
    enrolled = False
    if state == "on" and key and mokutil:
        _dummy, out, err = run([mokutil, "--test-key", key])
        enrolled = gpu_probe.key_enrolled(out + err)
    return {"state": state, "key": key, "enrolled": enrolled}


def toolkit(run: Runner) -> str:
    ctk = dockerd.find("nvidia-ctk")
    return gpu_probe.tool_version(run([ctk, "--version"])[1]) if ctk else ""


def engine(run: Runner) -> Dict[str, Any]:
    """Docker's version, and whether it has CDI on; empty when none answers. The others' by their programs."""
    info = dockerd.ask(SOCKET, "/info", timeout=5) or {}
    out = {"docker": info.get("ServerVersion", ""), "cdi": bool(info.get("CDISpecDirs"))}
    for name in ("containerd", "crio", "podman"):
        program = dockerd.find(name)
        said = run([program, "--version"])[1] if program else ""
        out[name] = ".".join(str(part) for part in other_runtimes.version_of(said))
    return out


def cdi_devices(run: Runner) -> List[str]:
    ctk = dockerd.find("nvidia-ctk")
    return cdi.parse_devices(run([ctk, "cdi", "list"])[1]) if ctk else []


def kernel_modules() -> List[str]:
    return [line.split()[0] for line in whole_file.text("/proc/modules").splitlines() if line.split()]


def boot_moment(run: Runner) -> str:
    """When this boot's user space came up: another text after each restart."""
    return run(["systemctl", "show", "--property=UserspaceTimestamp", "--value"])[1].strip()
