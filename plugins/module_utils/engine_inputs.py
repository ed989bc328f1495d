# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inputs of docker_engine and nvidia_container_toolkit come to, and what is wrong with them.

Pure functions from the roles' variables; the filters of the same names call them. Standard library only.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import openpgp
from ansible_collections.devnode.gpu.plugins.module_utils.daemon_change import version_of
from ansible_collections.devnode.gpu.plugins.module_utils.daemon_json import compact, merged
from ansible_collections.devnode.gpu.plugins.module_utils.other_runtimes import RUNTIMES

VERSION = re.compile(r"\d+\.\d+\.\d+")
REGISTRY = re.compile(
    r"(?=.{1,253}(?::|$))[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::(\d{1,5}))?"
)
ULIMIT = re.compile(r"[a-z]+")
CDI_NAME = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9._-]+=[A-Za-z0-9._:-]+")
# CVE: the first version of the toolkit without it (NVIDIA's security bulletins).
TOOLKIT_CVES = (
    ("CVE-2024-0132", "1.16.2"),
    ("CVE-2024-0133", "1.16.2"),
    ("CVE-2025-23359", "1.17.4"),
    ("CVE-2025-23266", "1.17.8"),
    ("CVE-2025-23267", "1.17.8"),
    ("CVE-2026-24260", "1.19.1"),
)
# By how a system is packaged; Ansible's os_family says which.
PACKAGING = {"Debian": "apt", "RedHat": "rpm"}
TOOLKIT_REPOSITORIES = {
    "apt": "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)",
    "rpm": "https://nvidia.github.io/libnvidia-container/stable/rpm/$basearch",
}
TOOLKIT_PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
APT_DISTRIBUTIONS = ("Debian", "Ubuntu")
# The distribution's packages: the client is one of its own since Debian 13.
DISTRO_PACKAGES = {"Debian-13": ("docker.io", "docker-cli")}


def engine_plan(inputs: Mapping[str, Any], distribution: str, major: str) -> Dict[str, Any]:
    """docker_engine: packages, the daemon's settings, registry certificates, and every error in the inputs."""
    errors = _distribution_errors(inputs["source"], distribution) + _engine_errors(inputs)
    if errors:
        return {"errors": errors}
    settings = merged(
        {
            "live-restore": inputs["live_restore"],
            "log-driver": inputs["log_driver"],
            "log-opts": {key: str(value) for key, value in inputs["log_options"].items()},
            "default-ulimits": _ulimits(inputs["default_ulimits"]),
            "default-address-pools": inputs["address_pools"],
            "bip": inputs["bip"],
            "data-root": inputs["data_root"],
            "registry-mirrors": inputs["registry_mirrors"],
        },
        inputs["settings"],
    )
    return {
        "errors": [],
        "packages": _engine_packages(inputs, distribution, major),
        "settings": compact(settings),
        "versioned": [{"since": "25.0", "settings": {"features": {"cdi": True}}}] if inputs["cdi"] else [],
        "files": [
            {"path": f"/etc/docker/certs.d/{one['registry']}/ca.crt", "content": one["ca"].strip() + "\n"}
            for one in inputs["registry_cas"]
        ],
    }


def _engine_packages(inputs: Mapping[str, Any], distribution: str, major: str) -> List[str]:
    if inputs["source"] == "existing":
        return []
    if inputs["source"] == "distro":
        return list(DISTRO_PACKAGES.get(f"{distribution}-{major}", ("docker.io",)))
    engine = f"=5:{inputs['version']}-*"
    containerd = f"={inputs['containerd_version']}-*" if inputs["containerd_version"] else ""
    return [f"docker-ce{engine}", f"docker-ce-cli{engine}", f"containerd.io{containerd}", "docker-buildx-plugin"]


def _distribution_errors(source: str, distribution: str) -> List[str]:
    if source == "existing" or distribution in APT_DISTRIBUTIONS:
        return []
    return [
        f'docker_engine_source: "{source}" installs an engine by apt, and this host is {distribution or "unknown"}. '
        f'Allowed with it: {", ".join(APT_DISTRIBUTIONS)}. Elsewhere install an engine yourself and say "existing".'
    ]


def _ulimits(limits: Mapping[str, Mapping[str, int]]) -> Dict[str, Any]:
    return {name: {"Name": name, "Soft": one["soft"], "Hard": one["hard"]} for name, one in limits.items()}


def _engine_errors(inputs: Mapping[str, Any]) -> List[str]:
    out: List[str] = []
    if inputs["source"] == "docker":
        out += _version_errors("docker_engine_version", inputs["version"])
        if inputs["containerd_version"]:
            out += _version_errors("docker_engine_containerd_version", inputs["containerd_version"])
        out += fingerprint_errors("docker_engine_repository_fingerprints", inputs["fingerprints"])
    for name, one in inputs["default_ulimits"].items():
        where = f"docker_engine_default_ulimits.{name}"
        if not ULIMIT.fullmatch(str(name)) or not isinstance(one, Mapping) or set(one) != {"soft", "hard"}:
            out.append(f"{where}: a limit is {{soft: number, hard: number}}, under a name such as nofile.")
        elif not all(isinstance(value, int) and value >= -1 for value in one.values()):
            out.append(f"{where}: soft and hard are whole numbers, -1 for unlimited.")
        elif one["hard"] != -1 and not 0 <= one["soft"] <= one["hard"]:
            out.append(f"{where}: soft ({one['soft']}) is above hard ({one['hard']}).")
    out += _pool_errors(inputs["address_pools"])
    if inputs["bip"]:
        try:
            address = ipaddress.ip_interface(inputs["bip"])
            if "/" not in inputs["bip"] or address.ip == address.network.network_address:
                raise ValueError("an address of the host with its prefix is meant")
        except ValueError as error:
            out.append(f'docker_engine_bip: "{inputs["bip"]}" does not work ({error}). Write it like 172.30.0.1/24.')
    for index, one in enumerate(inputs["registry_cas"]):
        found = REGISTRY.fullmatch(str(one["registry"]))
        if not found or (found.group(1) and not 0 < int(found.group(1)) < 65536):
            where = f"docker_engine_registry_cas[{index}].registry"
            out.append(f'{where}: "{one["registry"]}" is not a registry. Allowed: host or host:port.')
        out += _certificate_errors(f"docker_engine_registry_cas[{index}].ca", one["ca"])
    for index, value in enumerate(inputs["registry_mirrors"]):
        if not re.fullmatch(r"https?://[!-~]+", str(value)):
            out.append(f'docker_engine_registry_mirrors[{index}]: "{value}" is not an address (https://…).')
    return out


def _pool_errors(pools: Sequence[Any]) -> List[str]:
    out: List[str] = []
    seen: List[Tuple[int, Any]] = []
    for index, pool in enumerate(pools):
        where = f"docker_engine_address_pools[{index}]"
        try:
            network = ipaddress.ip_network(pool["base"])
        except ValueError as error:
            out.append(f'{where}.base: "{pool["base"]}" is not a network ({error}). Write it like 10.210.0.0/16.')
            continue
        if not network.prefixlen <= pool["size"] <= network.max_prefixlen:
            out.append(
                f"{where}.size: {pool['size']} does not cut {network} into networks. "
                f"Allowed: {network.prefixlen} to {network.max_prefixlen} (a prefix length)."
            )
        for other, theirs in seen:
            if network.version == theirs.version and network.overlaps(theirs):
                out.append(f"{where}.base: {network} overlaps docker_engine_address_pools[{other}] ({theirs}).")
        seen.append((index, network))
    return out


def _certificate_errors(where: str, text: Any) -> List[str]:
    if "PRIVATE KEY" in str(text):
        return [
            f"{where}: holds a private key. A registry's CA certificate belongs there; take the key out and renew it."
        ]
    block = r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
    if not re.fullmatch(rf"\s*(?:{block}\s*)+", str(text)):
        return [f"{where}: is not a certificate in PEM form (-----BEGIN CERTIFICATE----- …)."]
    return []


def _version_errors(where: str, value: Any) -> List[str]:
    if VERSION.fullmatch(str(value)):
        return []
    return [
        f'{where}: "{value}" is not a version. Give one exactly, like 1.20.0; "latest" would differ from host to host.'
    ]


def fingerprint_errors(where: str, values: Sequence[str]) -> List[str]:
    out = [] if values else [f"{where}: is empty. Without a fingerprint anybody's key would do."]
    for index, value in enumerate(values):
        try:
            openpgp.normal(str(value))
        except openpgp.OpenPGPError as error:
            out.append(f"{where}[{index}]: {error}.")
    return out


def toolkit_plan(inputs: Mapping[str, Any]) -> Dict[str, Any]:
    """nvidia_container_toolkit: packages, settings for the engine, and every error in the inputs."""
    errors = _toolkit_errors(inputs)
    if errors:
        return {"errors": errors}
    version, packaging = inputs["version"], PACKAGING[inputs["family"]]
    form = "{}={}-*" if packaging == "apt" else "{}-{}-*"
    runtime = {"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}
    limits = (
        "This engine is older than 25 and knows no CDI. GPUs go through the nvidia runtime there (docker run --runtime "
        "nvidia -e NVIDIA_VISIBLE_DEVICES=0): a systemctl daemon-reload can take a running container's GPU away, and "
        "devnode.gpu's workspaces need an engine of 25 or newer."
    )
    modern = merged({"features": {"cdi": True}}, runtime if inputs["nvidia_runtime"] else {})
    docker = [{"since": "25.0", "settings": modern}, {"before": "25.0", "settings": runtime, "note": limits}]
    return {
        "errors": [],
        "packaging": packaging,
        "repository": inputs["repository"] or TOOLKIT_REPOSITORIES[packaging],
        "packages": [form.format(name, version) for name in TOOLKIT_PACKAGES] if not inputs["files"] else [],
        "names": list(TOOLKIT_PACKAGES),
        "versioned": docker if "docker" in inputs["runtimes"] else [],
    }


def _toolkit_errors(inputs: Mapping[str, Any]) -> List[str]:
    out = _version_errors("nvidia_container_toolkit_version", inputs["version"])
    out += _version_errors("nvidia_container_toolkit_minimum_version", inputs["minimum_version"])
    if not out and version_of(inputs["version"]) < version_of(inputs["minimum_version"]):
        open_cves = [cve for cve, fixed in TOOLKIT_CVES if version_of(inputs["version"]) < version_of(fixed)]
        known = f" It has {', '.join(open_cves)} (ways out of a container)." if open_cves else ""
        out.append(
            f"nvidia_container_toolkit_version: {inputs['version']} is below nvidia_container_toolkit_minimum_version "
            f"({inputs['minimum_version']}).{known} Ask for {inputs['minimum_version']} or newer."
        )
    if inputs["family"] not in PACKAGING:
        out.append(
            f"This host is of the family {inputs['family']}, and NVIDIA has no packages of its toolkit for that. "
            f"There are some for: {', '.join(PACKAGING)} and their relatives."
        )
    if inputs["family"] == "RedHat" and "$(ARCH)" in inputs["repository"]:
        out.append(
            f"nvidia_container_toolkit_repository: {inputs['repository']} is for apt, and this host takes RPMs. "
            "Name the mirror's stable/rpm/$basearch for it."
        )
    if inputs["files"]:
        if inputs["family"] == "RedHat":
            out.append(
                "nvidia_container_toolkit_files: are Debian packages, and this host takes RPMs. Give it a "
                "mirror instead (nvidia_container_toolkit_repository)."
            )
        if inputs["repository"]:
            out.append(
                "nvidia_container_toolkit_files, nvidia_container_toolkit_repository: both are given. "
                "Packages come either from files or from a repository; remove one."
            )
        for index, one in enumerate(inputs["files"]):
            if not re.fullmatch(r"[0-9a-fA-F]{64}", str(one["sha256"])):
                out.append(
                    f"nvidia_container_toolkit_files[{index}].sha256: is not a SHA-256 checksum (64 hex digits)."
                )
    else:
        out += fingerprint_errors("nvidia_container_toolkit_repository_fingerprints", inputs["fingerprints"])
    for index, value in enumerate(inputs["runtimes"]):
        if value not in RUNTIMES:
            out.append(
                f'nvidia_container_toolkit_runtimes[{index}]: "{value}" is not a runtime that this role knows. '
                f"Allowed: {', '.join(RUNTIMES)}."
            )
    for index, value in enumerate(inputs["devices"]):
        if not CDI_NAME.fullmatch(str(value)):
            out.append(
                f'nvidia_container_toolkit_devices[{index}]: "{value}" is not a CDI device. '
                "Allowed: vendor/class=name, like nvidia.com/gpu=0."
            )
    return out
