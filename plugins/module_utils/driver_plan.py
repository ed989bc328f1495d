# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role nvidia_driver: what its inputs come to on a host. Pure functions."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Mapping

from ansible_collections.devnode.gpu.plugins.module_utils import cuda_compat, mig_layout
from ansible_collections.devnode.gpu.plugins.module_utils.engine_inputs import fingerprint_errors

# NVIDIA's network repository: folder by distribution, and the file of the key that signs it.
REPOSITORIES = {
    "Debian-12": ("debian12", "3bf863cc.pub"),
    "Debian-13": ("debian13", "8793F200.pub"),
    "Ubuntu-22": ("ubuntu2204", "3bf863cc.pub"),
    "Ubuntu-24": ("ubuntu2404", "3bf863cc.pub"),
}
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "sbsa"}
KNOWN_AS = ("https://developer.download.nvidia.com/compute/cuda/repos/",)
# The driver's parts, by the names that NVIDIA, Debian and Ubuntu give them.
PARTS = (
    "nvidia-*",
    "libnvidia-*",
    "libcuda1",
    "libcuda*",
    "libnvcuvid*",
    "cuda-drivers*",
    "firmware-nvidia*",
    "xserver-xorg-video-nvidia*",
)
# Since this branch the fabric manager's package has no branch in its name (NVIDIA's driver installation guide).
PLAIN_FABRIC_MANAGER = 580
FIRST_OPEN_BRANCH = 515

UPGRADES = """// Managed by Ansible (devnode.gpu, role nvidia_driver).
// A driver that is exchanged under running programs stops new ones ("Driver/library version mismatch") until a restart.
Unattended-Upgrade::Package-Blacklist {
  "nvidia-";
  "libnvidia-";
  "libcuda";
  "cuda-drivers";
  "firmware-nvidia";
  "linux-modules-nvidia-";
  "linux-objects-nvidia-";
};
"""


def plan(inputs: Mapping[str, Any], host: Mapping[str, Any], found: Mapping[str, Any]) -> Dict[str, Any]:
    """host: distribution, major, architecture, kernel. found: what gpu_info returned."""
    errors = _input_errors(inputs) or _host_errors(inputs, host) or _gpu_errors(inputs, found)
    errors += _mig_errors(inputs, found)
    if errors:
        return {"errors": errors}
    apt = host["distribution"] in ("Debian", "Ubuntu")
    layout = {str(one["gpu"]): list(one["profiles"]) for one in inputs["mig"]}
    out: Dict[str, Any] = {
        "errors": [],
        "install": inputs["source"] != "preinstalled",
        "waits": "",
        "pinning": [],
        "packages": [],
        "parts": list(PARTS),
        "repository": {},
        "fabric_manager": wants_fabric_manager(inputs, found),
        "files": [{"path": "/etc/apt/apt.conf.d/52devnode-nvidia", "content": UPGRADES}] if apt else [],
        "mig": layout,
    }
    if layout:
        out["files"].append({"path": "/etc/devnode/mig.json", "content": json.dumps(layout, sort_keys=True) + "\n"})
    if not out["install"]:
        return out
    out["packages"] = _packages(inputs, host, out["fabric_manager"])
    if inputs["source"] == "cuda_repo":
        folder, key = REPOSITORIES[_system(host)]
        uri = f"{inputs['repository'].rstrip('/')}/{folder}/{ARCHITECTURES[host['architecture']]}"
        out["repository"] = {
            "uri": uri + "/",
            "key_url": inputs["key_url"] or f"{uri}/{key}",
            "replaces": list(KNOWN_AS),
        }
        out["pinning"] = [f"nvidia-driver-pinning-{inputs['version'] or inputs['branch']}"]
    out["waits"] = _waits(inputs, found)
    out["install"] = not out["waits"]
    return out


def wants_fabric_manager(inputs: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    if inputs["fabric_manager"] == "auto":
        return bool(found["hardware"]["nvswitches"])
    return bool(inputs["fabric_manager"] == "present")


def headers_package(kernel: str, distribution: str) -> str:
    """The package that brings a kernel's headers, and goes on doing so for its successors; empty for a kernel of one's
    own."""
    if distribution == "Debian":
        found = re.search(r"-((?:cloud-|rt-)?(?:amd64|arm64))$", kernel)
    else:
        found = re.search(r"-\d+-([a-z][a-z0-9-]*)$", kernel)
    return f"linux-headers-{found.group(1)}" if found else ""


def _system(host: Mapping[str, Any]) -> str:
    return f"{host['distribution']}-{host['major']}"


def _packages(inputs: Mapping[str, Any], host: Mapping[str, Any], fabric: bool) -> List[str]:
    headers = headers_package(host["kernel"], host["distribution"])
    out = [headers] if headers else []
    opened = inputs["modules"] == "open"
    if inputs["source"] == "cuda_repo":
        version = f"={inputs['version']}-*" if inputs["version"] else f"={inputs['branch']}.*"
        out = [f"{'nvidia-open' if opened else 'cuda-drivers'}{version}", *out]
        if host["distribution"] == "Debian" and inputs["persistence"]:
            out.append(f"nvidia-persistenced{version}")
        if fabric:
            suffix = "" if int(inputs["branch"]) >= PLAIN_FABRIC_MANAGER else f"-{inputs['branch']}"
            out.append(f"nvidia-fabricmanager{suffix}{version}")
        return out
    if host["distribution"] == "Debian":
        out = ["nvidia-open-kernel-dkms" if opened else "nvidia-kernel-dkms", "nvidia-smi", "libcuda1", *out]
        return out + (["nvidia-persistenced"] if inputs["persistence"] else [])
    server = f"{inputs['branch']}-server"
    return [f"nvidia-headless-{server}{'-open' if opened else ''}", f"nvidia-utils-{server}", *out]


def _waits(inputs: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Why another driver is not installed now: programs that use the one that is there."""
    have = found["driver"]["library"]
    wanted = inputs["version"] or inputs["branch"]
    same = not have or inputs["source"] == "distro" or have == wanted or have.startswith(wanted + ".")
    if same or not found["in_use"] or inputs["upgrade"] == "always":
        return ""
    return (
        f"driver {have} stays, and {wanted} waits: what starts after the exchange would fail until the host restarts, "
        f"and the GPUs are in use: {', '.join(found['in_use'])}"
    )


def _mig_errors(inputs: Mapping[str, Any], found: Mapping[str, Any]) -> List[str]:
    out: List[str] = []
    seen: List[int] = []
    known = {gpu["index"]: gpu for gpu in found["gpus"] if "index" in gpu}
    for index, one in enumerate(inputs["mig"]):
        where = f"nvidia_driver_mig[{index}]"
        if one["gpu"] in seen:
            out.append(f"{where}.gpu: {one['gpu']} is named twice. Give all its profiles in one place.")
        seen.append(one["gpu"])
        if one["gpu"] < 0 or (known and one["gpu"] not in known):
            have = ", ".join(str(number) for number in sorted(known)) or "0 and up"
            out.append(f"{where}.gpu: {one['gpu']} does not exist on this host (it has {have}).")
        elif known and one["profiles"] and known[one["gpu"]]["mig"] == "not supported":
            out.append(f"{where}.gpu: {one['gpu']} ({known[one['gpu']]['name']}) cannot be cut into MIG devices.")
        for name in one["profiles"]:
            if not mig_layout.PROFILE.fullmatch(str(name)):
                out.append(f'{where}.profiles: "{name}" is not a MIG profile. Allowed: like 1g.10gb or 3g.40gb.')
    return out


def _input_errors(inputs: Mapping[str, Any]) -> List[str]:
    out: List[str] = []
    if inputs["cuda"]:
        try:
            cuda_compat.version(inputs["cuda"], "nvidia_driver_cuda")
        except cuda_compat.CompatError as error:
            out.append(str(error))
    if inputs["source"] == "preinstalled":
        return out
    if not re.fullmatch(r"\d{3}", str(inputs["branch"])):
        out.append(f'nvidia_driver_branch: "{inputs["branch"]}" is not a branch. Allowed: its number, like 580.')
        return out
    if inputs["version"] and not re.fullmatch(rf"{inputs['branch']}(\.\d+){{1,2}}", inputs["version"]):
        out.append(
            f'nvidia_driver_version: "{inputs["version"]}" is not a version of branch {inputs["branch"]}. '
            f"Allowed: like {inputs['branch']}.95.05, or empty for the newest of the branch."
        )
    if inputs["modules"] == "open" and int(inputs["branch"]) < FIRST_OPEN_BRANCH:
        out.append(
            f"nvidia_driver_modules: open modules begin with branch {FIRST_OPEN_BRANCH}, and nvidia_driver_branch is "
            f"{inputs['branch']}. Take proprietary, or a newer branch."
        )
    if inputs["source"] == "cuda_repo":
        out += fingerprint_errors("nvidia_driver_repository_fingerprints", inputs["fingerprints"])
        if not re.fullmatch(r"(https?|file)://[!-~]+", inputs["repository"]):
            out.append(f'nvidia_driver_repository: "{inputs["repository"]}" is not an address (https://…).')
    if inputs["cuda"] and not out and inputs["source"] == "cuda_repo":
        floor = cuda_compat.lowest_driver(inputs["cuda"])
        if floor and int(inputs["branch"]) < int(floor.split(".", maxsplit=1)[0]):
            out.append(
                f"nvidia_driver_cuda: CUDA {inputs['cuda']} needs driver {floor} or newer, and nvidia_driver_branch is "
                f"{inputs['branch']}. Take branch {floor.split('.', maxsplit=1)[0]} or newer, or an older CUDA."
            )
    return out


def _host_errors(inputs: Mapping[str, Any], host: Mapping[str, Any]) -> List[str]:
    if inputs["source"] == "preinstalled":
        return []
    if host["distribution"] not in ("Debian", "Ubuntu"):
        return [
            f"nvidia_driver_source: this role installs drivers on Debian and Ubuntu, and this host is "
            f"{host['distribution']} {host['major']}. Install the driver by its own means, and set it to preinstalled."
        ]
    if inputs["source"] == "cuda_repo" and _system(host) not in REPOSITORIES:
        return [
            f"nvidia_driver_source: NVIDIA's repository is known here for {', '.join(sorted(REPOSITORIES))}, and this "
            f"host is {_system(host)}. Take distro or preinstalled."
        ]
    if inputs["source"] == "cuda_repo" and host["architecture"] not in ARCHITECTURES:
        return [
            f"nvidia_driver_source: NVIDIA's repository is known here for {', '.join(ARCHITECTURES)}, and this host is "
            f"{host['architecture']}. Take distro or preinstalled."
        ]
    return []


def _gpu_errors(inputs: Mapping[str, Any], found: Mapping[str, Any]) -> List[str]:
    """What the GPUs that are there rule out; known only where a driver runs already."""
    if inputs["source"] == "preinstalled":
        return []
    out = []
    capabilities = {gpu["compute_capability"] for gpu in found["gpus"] if gpu["compute_capability"]}
    for capability in sorted(capabilities, key=lambda text: cuda_compat.version(text, "compute capability")):
        known = cuda_compat.version(capability, "compute capability")
        if inputs["source"] == "cuda_repo":
            refused = cuda_compat.driver_refuses_gpu(int(inputs["branch"]), capability)
            out += [f"nvidia_driver_branch: {refused}"] if refused else []
        if inputs["modules"] == "open" and known < (7, 5):
            out.append(
                f"nvidia_driver_modules: open modules know GPUs from compute capability 7.5 (Turing) on, and this host "
                f"has one of {capability}. Take proprietary."
            )
        if inputs["modules"] == "proprietary" and known >= (10, 0):
            out.append(
                f"nvidia_driver_modules: GPUs of compute capability {capability} (Blackwell) work with open modules "
                "only. Take open."
            )
    return out
