# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine of a host says of workspaces: bulk questions, however many there are."""

from __future__ import annotations

import glob
import json
import os
import shutil
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import workspace_activity
from ansible_collections.devnode.gpu.plugins.module_utils.workspace import LABEL, LABEL_SHAPE

WANTS_DIR = "/etc/systemd/system/multi-user.target.wants"
Run = Callable[[List[str]], Tuple[int, str, str]]


class HostError(Exception):
    """What is wrong on this host, why it matters, what to do."""


@dataclass
class Container:
    """One container of ours, as the engine sees it."""

    id: str
    name: str
    workspace: str
    shape: str
    image_id: str
    running: bool


@dataclass
class Found:
    """Everything that one look at the host gives."""

    engine: bool = False
    cdi: bool = False
    containers: Dict[str, Container] = field(default_factory=dict)  # by workspace
    strangers: List[str] = field(default_factory=list)  # other containers' names
    networks: List[str] = field(default_factory=list)
    enabled: List[str] = field(default_factory=list)  # names of workspaces that start at boot
    image_ids: Dict[str, str] = field(default_factory=dict)


class Engine:
    """The docker command line."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def ask(self, *words: str) -> str:
        """A command that must succeed."""
        code, out, err = self._run(["docker", *words])
        if code != 0:
            raise HostError(f"docker {words[0]}: {tail(err or out)}")
        return out

    def try_(self, *words: str) -> Tuple[int, str]:
        """A command that may fail."""
        code, out, err = self._run(["docker", *words])
        return code, out + err

    def look(self, images: Iterable[str]) -> Found:
        """Four questions, however many workspaces there are."""
        if not shutil.which("docker"):
            return Found()
        code, out = self.try_("info", "--format", "{{json .}}")
        info = json.loads(out.strip().splitlines()[0]) if code == 0 and out.startswith("{") else {}
        if not info.get("ServerVersion"):
            return Found()
        found = Found(engine=True, cdi=bool(info.get("CDISpecDirs")), enabled=_enabled())
        listed = [line.split("\t") for line in self.ask("ps", "--all", "--no-trunc", "--format", _PS).splitlines()]
        found.strangers = [name for _dummy, name, label in listed if not label]
        ours = [number for number, _dummy, label in listed if label]
        if ours:
            for item in json.loads(self.ask("container", "inspect", *ours)):
                container = _container(item)
                found.containers[container.workspace] = container
        wanted = sorted(set(images))
        found.image_ids = self.image_ids(wanted)
        found.networks = self.ask("network", "ls", "--filter", f"label={LABEL}", "--format", "{{.Name}}").split()
        return found

    def image_ids(self, images: Sequence[str]) -> Dict[str, str]:
        """The ids of those images that are here."""
        found = {}
        for image in images:
            code, out = self.try_("image", "inspect", "--format", "{{.Id}}", image)
            if code == 0:
                found[image] = out.strip()
        return found

    def doing(self, container: Container, logins: Mapping[int, str], but: Iterable[int] = ()) -> List[str]:
        """What people run in a container, in words; without those who do not count."""
        if not container.running:
            return []
        code, out = self.try_("top", container.id, "-eo", "uid,pid,lstart,args")
        if code != 0:
            return [f"unknown: docker top says {tail(out, 1)}"]
        return workspace_activity.busy([one for one in workspace_activity.parse_top(out) if one.uid not in but], logins)

    def logins_in(self, container: Container) -> Dict[int, str]:
        """The people of a workspace of which nothing else is known any more."""
        code, out = self.try_("exec", container.id, "cat", "/etc/passwd") if container.running else (1, "")
        rows = [line.split(":") for line in out.splitlines()] if code == 0 else []
        return {int(row[2]): row[0] for row in rows if len(row) == 7 and row[2].isdigit()}


_PS = '{{.ID}}\t{{.Names}}\t{{.Label "' + LABEL + '"}}'


def _container(item: Dict[str, Any]) -> Container:
    labels = item["Config"]["Labels"]
    return Container(
        id=item["Id"],
        name=item["Name"].lstrip("/"),
        workspace=labels[LABEL],
        shape=labels.get(LABEL_SHAPE, ""),
        image_id=item["Image"],
        running=bool(item["State"]["Running"]),
    )


def _enabled() -> List[str]:
    prefix, suffix = "devnode-workspace@", ".service"
    links = glob.glob(f"{WANTS_DIR}/{prefix}*{suffix}")
    return sorted(os.path.basename(link)[len(prefix) : -len(suffix)] for link in links)


def tail(text: str, lines: int = 8) -> str:
    """The last lines of what a command said."""
    return "\n".join(text.strip().splitlines()[-lines:])
