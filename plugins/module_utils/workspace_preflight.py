# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the declared workspaces would run into here, found before anything is changed with the culprit's name."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
import socket
from dataclasses import dataclass, field
from typing import Dict, List, Sequence, Set, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import (
    cdi,
    cuda_compat,
    whole_file,
    workspace_activity,
    workspace_container,
    workspace_parse,
)
from ansible_collections.devnode.gpu.plugins.module_utils.workspace import Workspace
from ansible_collections.devnode.gpu.plugins.module_utils.workspace_engine import Container, Engine, Found, Run

CDI_PATTERNS = ("/etc/cdi/*", "/var/run/cdi/*")
WEB_UNIT = "devnode-web.service"
MOVES = "which is to move to another port"
SMI = ("--query-gpu=index,uuid,driver_version,compute_cap,name", "--format=csv,noheader")


@dataclass
class Verdict:
    """What is refused, and what is only to be known."""

    refused: List[str] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi describes it."""

    index: str
    uuid: str
    driver: str
    capability: str
    name: str


@dataclass
class Preflight:
    """Looks; changes nothing."""

    run: Run
    engine: Engine
    found: Found
    recreate: str = "idle"
    base: str = ""  # the image that the workspaces' own is made from
    checking: bool = False
    people: "Sequence[str] | None" = None  # everybody who is still here; None: not known

    def judge(self, workspaces: Sequence[Workspace], purge: Sequence[str] = ()) -> Verdict:
        """Everything at once."""
        verdict = Verdict()
        declared = {item.name: item for item in workspaces}
        for item in workspaces:
            where = f'workspace "{item.name}"'
            if item.container in self.found.strangers:
                verdict.refused.append(
                    f"{where}: a container {item.container} is there that this role did not make. Rename or remove it."
                )
            verdict.refused += self._port_problems(where, item, declared)
            verdict.refused += self._web_problems(where, item)
            verdict.refused += self._gpus_in_use(where, item, declared)
            for mount in item.mounts:
                if not os.path.isdir(mount.source):
                    text = f"{where}: mount source {mount.source} is not there on this host."
                    if self.checking:  # an earlier role may make it, as miniconda makes its prefix
                        verdict.warnings.append(f"{text} The real run ends here unless something before it makes it.")
                    else:
                        verdict.refused.append(f"{text} Create or mount it first.")
        verdict.refused += self._gpu_problems(workspaces)
        self._compatibility(workspaces, verdict)
        verdict.refused += [
            f'purge: "{name}" is declared on this host. Take its entry away first: purging ends what people keep.'
            for name in purge
            if name in declared
        ]
        return verdict

    # GPUs

    def _gpu_problems(self, workspaces: Sequence[Workspace]) -> List[str]:
        asking = [item for item in workspaces if item.gpus]
        known = known_devices()
        if not asking or (self.checking and not known):
            return []  # the toolkit's role has not run for real yet
        if self.found.engine and not self.found.cdi and not self.checking:
            names = ", ".join(item.name for item in asking)
            return [
                f"this host's engine does not inject CDI devices, which the GPUs of {names} need. It takes Docker 25 "
                'or newer with "features": {"cdi": true} in daemon.json (the default since 28.3).'
            ]
        has = f"it has {', '.join(known)}" if known else "no CDI specification names any; see nvidia-ctk cdi list"
        return [
            f'workspace "{item.name}": GPU "{device}" does not exist on this host ({has}).'
            for item in asking
            for device in item.gpus
            if device not in known
        ]

    def _gpus_in_use(self, where: str, item: Workspace, declared: Dict[str, Workspace]) -> List[str]:
        """GPUs that another workspace is to give up, but that somebody still uses there."""
        mine = self.found.containers.get(item.name)
        have = workspace_container.shape_gpus(mine.shape) if mine and mine.running else []
        problems = []
        for holder in self.found.containers.values():
            other = declared.get(holder.workspace)
            still = set(other.gpus) if other else set()  # what both are declared with was compared already
            taken = [
                device
                for device in item.gpus
                for held in workspace_container.shape_gpus(holder.shape)
                if workspace_parse.same_gpu(device, held) and held not in still and device not in have
            ]
            if not (taken and holder.running) or holder.workspace == item.name or item.gpu_shared:
                continue
            culprit = self._kept(item, holder, declared, "which is to give it up")
            if culprit:
                what = f'GPU "{taken[0]}" is held by {culprit}'
                problems.append(f"{where}: {what}. Wait until it is free, or choose another.")
        return problems

    def _compatibility(self, workspaces: Sequence[Workspace], verdict: Verdict) -> None:
        """Whether what is in the image runs on this driver and these GPUs; the error at run time would not say."""
        gpus = self._gpus() if any(item.gpus for item in workspaces) else []
        for item in workspaces:
            image = item.image or self.base
            asked = cuda_compat.asked_by_image(image)
            mine = gpus_of(item, gpus)
            if not (asked.torch and mine):
                continue
            try:
                said = cuda_compat.check(
                    mine[0].driver, [gpu.capability for gpu in mine if gpu.capability], asked.cuda, asked.torch
                )
            except cuda_compat.CompatError:
                continue  # an nvidia-smi that does not say (its own error is not about this image)
            models = ", ".join(sorted({gpu.name for gpu in mine}))
            text = f'workspace "{item.name}": image {image} on {models}: {said.text}'
            if not said.runs:
                verdict.refused.append(text)
            elif said.note:
                verdict.warnings.append(text)

    def _gpus(self) -> List[Gpu]:
        if not shutil.which("nvidia-smi"):
            return []
        code, out, _dummy = self.run(["nvidia-smi", *SMI])
        return parse_gpus(out) if code == 0 else []

    # Ports

    def _port_problems(self, where: str, item: Workspace, declared: Dict[str, Workspace]) -> List[str]:
        family = socket.AF_INET6 if ":" in item.bind_address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((item.bind_address, item.port))
            except OSError as exc:
                if exc.errno == errno.EADDRNOTAVAIL:
                    return [f"{where}: bind_address {item.bind_address} is not an address of this host."]
                if exc.errno == errno.EADDRINUSE:
                    culprit = self._holder(item, declared)
                    place = f"port {item.port} on {item.bind_address}"
                    return [f"{where}: {place} is taken by {culprit}. Choose another port."] if culprit else []
                raise
        return []

    def _holder(self, item: Workspace, declared: Dict[str, Workspace]) -> str:
        """Who listens there; nobody to speak of if it is a workspace of ours that will give it up in time."""
        if self.found.engine:
            names = self.engine.ask("ps", "--filter", f"publish={item.port}", "--format", "{{.Names}}").split()
            ours = [one for one in self.found.containers.values() if one.name in names]
            if ours:
                return next((text for text in (self._kept(item, one, declared) for one in ours) if text), "")
            if names:
                return f"container {names[0]}"
        return listener(item.port)[1] or "another process"

    def _web_problems(self, where: str, item: Workspace) -> List[str]:
        """The port of its HTTPS, which our own nginx may have, and what it is to read."""
        if item.web is None:
            return []
        problems = [
            f"{where}: web.{name} {path} is not there on this host. Put it there first, or name none."
            for name, path in (("certificate", item.web.certificate), ("key", item.web.key))
            if path and not os.path.isfile(path)
        ]
        number, holder = listener(item.web.port)
        if holder and WEB_UNIT not in whole_file.text(f"/proc/{number}/cgroup"):
            problems.append(f"{where}: web.port {item.web.port} is taken by {holder}. Choose another port.")
        return problems

    def _kept(self, item: Workspace, holder: Container, declared: Dict[str, Workspace], to_change: str = MOVES) -> str:
        """Why another workspace of ours keeps this port (or GPU) for now; empty if it does not."""
        if holder.workspace == item.name or self.recreate == "always":
            return ""
        other = declared.get(holder.workspace)
        state = "which is no longer declared" if other is None else to_change
        if other is not None and self.recreate == "never":
            return f'workspace "{holder.workspace}", {state} (recreate is set to never)'
        logins = self.engine.logins_in(holder)
        # Those of somebody who left keep a workspace that is no longer declared no longer.
        running = self.engine.doing(
            holder, logins, workspace_activity.who_left(logins, self.people) if other is None else ()
        )
        return f'workspace "{holder.workspace}", {state} but is in use ({"; ".join(running)})' if running else ""


def listener(port: int) -> Tuple[str, str]:
    """Who listens on a port of this host: the process's number, and its name for people. Both empty if nobody does."""
    inodes: Set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            with open(table, encoding="ascii") as source:
                inodes |= listening_inodes(source.read(), port)
    links = {f"socket:[{inode}]" for inode in inodes}
    for link in glob.glob("/proc/[0-9]*/fd/*") if links else ():
        try:
            if os.readlink(link) in links:
                number = link.split("/")[2]
                return number, f"{whole_file.text(f'/proc/{number}/comm').strip()} (pid {number})"
        except OSError:
            continue
    return "", "another process" if links else ""


def known_devices() -> List[str]:
    """The devices that the CDI specifications of this host name."""
    names: List[str] = []
    for pattern in CDI_PATTERNS:
        for path in sorted(glob.glob(pattern)):
            if path.endswith((".yaml", ".json")):
                with contextlib.suppress(cdi.CdiError), open(path, encoding="utf-8", errors="replace") as source:
                    names += cdi.device_paths(source.read())
    return sorted(set(names))


def parse_gpus(text: str) -> List[Gpu]:
    """The answer to the question SMI."""
    rows = [[word.strip() for word in line.split(",", 4)] for line in text.splitlines()]
    return [
        Gpu(row[0], row[1], row[2], row[3] if re.fullmatch(r"[0-9]+\.[0-9]+", row[3]) else "", row[4])
        for row in rows
        if len(row) == 5 and row[0].isdigit()
    ]


def gpus_of(item: Workspace, gpus: Sequence[Gpu]) -> List[Gpu]:
    """Those that a workspace asks for; a MIG device 0:1 is a part of GPU 0. A MIG UUID may be of any."""
    names: Set[str] = {device.split("=")[1] for device in item.gpus}
    if any(name == "all" or name.startswith("MIG-") for name in names):
        return list(gpus)
    wanted: Tuple[str, ...] = tuple(name.split(":")[0] for name in names)
    return [gpu for gpu in gpus if gpu.index in wanted or gpu.uuid in wanted]


def listening_inodes(table: str, port: int) -> "Set[str]":
    """The sockets that listen on a port, from a table of /proc/net."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {row[9] for row in rows if len(row) > 9 and row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
