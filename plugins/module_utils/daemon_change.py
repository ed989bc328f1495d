# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change of daemon.json asks of the engine: nothing, a reload, a restart, or to wait. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.daemon_json import Document, changed_keys, merged

# dockerd takes these over at SIGHUP (daemon/reload.go), but only when the file names them: a key that was taken away
# keeps its old value until a restart. `features` is left out on purpose: CDI and the image store are set up at start.
RELOADABLE = frozenset(
    (
        "allow-nondistributable-artifacts",
        "debug",
        "default-runtime",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    )
)
# live-restore finds running containers again only if these stay as they were.
CUTS_LIVE_RESTORE = frozenset(
    (
        "bip",
        "bip6",
        "bridge",
        "cgroup-parent",
        "containerd",
        "containerd-namespace",
        "data-root",
        "exec-opts",
        "exec-root",
        "fixed-cidr",
        "fixed-cidr-v6",
        "ip6tables",
        "iptables",
        "ipv6",
        "storage-driver",
        "storage-opts",
        "userland-proxy",
        "userns-remap",
    )
)


def version_of(text: str) -> Tuple[int, ...]:
    """(26, 1, 5) of "Docker version 26.1.5+dfsg1, build …" or "26.1"; () when there is none."""
    found = re.search(r"(\d+(?:\.\d+)+|\d+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def for_version(versioned: Sequence[Mapping[str, Any]], version: Tuple[int, ...]) -> Tuple[Document, List[str]]:
    """The settings, and the notes, of those entries that suit an engine. Nothing known of it: taken as new."""
    known = version or (9999,)
    chosen: List[Mapping[str, Any]] = []
    notes: List[str] = []
    for entry in versioned:
        since, before = version_of(str(entry.get("since") or "0")), version_of(str(entry.get("before") or ""))
        if known >= since and (not before or known < before):
            chosen.append(entry.get("settings") or {})
            if entry.get("note"):
                notes.append(str(entry["note"]))
    return merged(*chosen), notes


@dataclass(frozen=True)
class Running:
    """What the running engine is and carries."""

    loaded: Optional[Mapping[str, Any]]  # None: nobody knows what it has read
    live_restore: bool
    version: str = ""
    containers: Tuple[str, ...] = ()
    gpu_processes: Tuple[str, ...] = ()
    answers: bool = True


@dataclass(frozen=True)
class Step:
    """What to do with the engine."""

    action: str  # none | start | reload | restart | defer
    why: str = ""
    reload_first: bool = False  # makes live-restore effective, so that the restart keeps containers


def next_step(wanted: Mapping[str, Any], running: Optional[Running], installed: str, policy: str) -> Step:
    """How the engine gets to the wanted configuration without ending anybody's work. policy: safe, always or never."""
    if running is None:
        return Step("start", "it does not run")
    keys = ["(unknown)"] if running.loaded is None else changed_keys(running.loaded, wanted)
    newer = bool(installed and running.version and version_of(installed) != version_of(running.version))
    if not keys and not newer:
        return Step("none")
    why = "; ".join(
        [f"changed: {', '.join(keys)}"] * bool(keys)
        + [f"engine {installed} is installed, {running.version} runs"] * newer
    )
    if keys and not newer and all(key in RELOADABLE and key in wanted for key in keys):
        return Step("reload", why)
    if policy == "never":
        return Step("defer", f"a restart is needed ({why}), and restarts are not allowed (never)")
    if policy == "always":
        return Step("restart", why)
    if not running.answers:
        return Step("defer", f"a restart is needed ({why}), but the engine does not answer what runs on it")
    busy = [f"container {name}" for name in running.containers]
    busy += [f"GPU process {one}" for one in running.gpu_processes]
    if not busy:
        return Step("restart", why)
    if running.live_restore or wanted.get("live-restore") is True:
        # Unknown is unsafe: such a key may be among what was changed.
        cutting = sorted(CUTS_LIVE_RESTORE.intersection(keys)) or ["unknown settings"] * (running.loaded is None)
        if not cutting:
            return Step("restart", why, reload_first=not running.live_restore)
        reason = f"live-restore cannot keep containers through a change of {', '.join(cutting)}"
    else:
        reason = "live-restore is off"
    return Step("defer", f"a restart is needed ({why}), {reason}, and it would end: {', '.join(busy)}")
