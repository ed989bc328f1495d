# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What container runtimes need so that GPUs can be given to their containers. Pure functions; standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import containerd_config

RUNTIMES = ("docker", "containerd", "crio", "podman")
# The first version that takes devices by their CDI names.
CDI_SINCE: Dict[str, Tuple[int, ...]] = {"docker": (25,), "containerd": (1, 7), "crio": (1, 23), "podman": (4, 1)}
# The first version that reads CDI's format 0.7.0, which the toolkit writes since 1.19 (NVIDIA's release notes).
FORMAT_07_SINCE: Dict[str, Tuple[int, ...]] = {"docker": (26, 1), "containerd": (1, 7, 16), "podman": (5, 1)}
OLDER_FORMAT = "no-additional-gids-for-device-nodes"
CRIO_DROP_IN = "/etc/crio/crio.conf.d/80-devnode-gpu.conf"
# The way before CDI; with both, a container gets its GPU twice, and fails.
PODMAN_HOOKS = (
    "/usr/share/containers/oci/hooks.d/oci-nvidia-hook.json",
    "/etc/containers/oci/hooks.d/oci-nvidia-hook.json",
)


@dataclass
class Plan:
    """What has to be done on one host."""

    errors: List[str] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    features: List[str] = field(default_factory=list)  # of nvidia-ctk cdi generate
    containerd: str = ""  # "", in_place or drop_in
    cdi: Dict[str, bool] = field(default_factory=dict)  # by runtime
    nvidia_runtime: Dict[str, bool] = field(default_factory=dict)


def version_of(text: str) -> Tuple[int, ...]:
    """The first version in what a program prints about itself; empty when there is none."""
    found = re.search(r"(?<![\w.])v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def plan(wanted: Sequence[str], said: Mapping[str, str], nvidia_runtime: bool, coming: bool) -> Plan:
    """`said` is what each program that is there prints as its version; `coming`: what lacks may still be installed."""
    out = Plan()
    for name in wanted:
        if name not in RUNTIMES:
            out.errors.append(
                f'nvidia_container_toolkit_runtimes: "{name}" is not a runtime that this role knows. '
                f"Allowed: {', '.join(RUNTIMES)}."
            )
            continue
        have = version_of(said.get(name, ""))
        if not have:
            if name == "docker" or coming:
                continue  # daemon.json is written before an engine comes, and check mode announces packages only
            out.errors.append(
                f"nvidia_container_toolkit_runtimes: {name} is asked for, and this host has none. Install it before "
                "this role runs (the role installs no runtime), or take it off the list."
            )
            continue
        _decide(out, name, have, nvidia_runtime)
    return out


def _decide(out: Plan, name: str, have: Tuple[int, ...], nvidia_runtime: bool) -> None:
    shown = ".".join(str(part) for part in have)
    cdi = have >= CDI_SINCE[name]
    if name == "podman" and not cdi:
        out.errors.append(
            f"nvidia_container_toolkit_runtimes: podman {shown} knows no CDI, the only way that this role sets up for "
            "it. Podman 4.1 or newer is needed (Debian 12 and Ubuntu 24.04 have it)."
        )
        return
    if not cdi and name != "docker":
        out.notes.append(
            f"{name} {shown} knows no CDI ({'.'.join(str(part) for part in CDI_SINCE[name])} and newer do). GPUs go "
            "through the nvidia runtime there, and a systemctl daemon-reload can take a running container's GPU away."
        )
    out.cdi[name] = cdi
    out.nvidia_runtime[name] = nvidia_runtime or not cdi
    if name == "containerd":
        out.containerd = "drop_in" if have >= (2,) else "in_place"
    if cdi and have < FORMAT_07_SINCE.get(name, ()) and OLDER_FORMAT not in out.features:
        out.features.append(OLDER_FORMAT)
        out.notes.append(
            f"{name} {shown} does not read CDI's format 0.7.0, so specifications are written in an older one. In "
            "containers, programs that are not root reach devices by their permissions only, not by their group."
        )


def crio_drop_in(cdi: bool, runtime: bool) -> str:
    out = containerd_config.HEADER
    if cdi:
        out += '\n[crio.runtime]\ncdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]\n'
    if runtime:
        out += f'\n[crio.runtime.runtimes.nvidia]\nruntime_path = "{containerd_config.RUNTIME}"\nruntime_type = "oci"\n'
    return out


def trouble(before: containerd_config.Effect, after: containerd_config.Effect, wanted: Plan) -> str:
    """What containerd itself shows to be wrong with a new configuration; empty when nothing."""
    gone = sorted(before.runtimes - after.runtimes)
    if gone:
        return f"would lose the runtime {', '.join(gone)}"
    if after.cdi is not wanted.cdi["containerd"]:
        return "would still have CDI off"
    if wanted.nvidia_runtime["containerd"] and "nvidia" not in after.runtimes:
        return "would not know the nvidia runtime"
    return ""
