# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine that reads a daemon.json, and what is remembered about the file on this host."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible_collections.devnode.gpu.plugins.module_utils import dockerd, whole_file
from ansible_collections.devnode.gpu.plugins.module_utils.daemon_change import Running, version_of

VALIDATES_SINCE = (23, 0)


class Engine:
    """The engine on this host, as far as this task needs it."""

    def __init__(self, run: dockerd.Runner, params: Mapping[str, Any]) -> None:
        self.run = run
        self.params = params
        self.socket: str = params["socket"]
        self.program = dockerd.find("dockerd")
        self.unit = self.read_unit()
        self.version = self._version()

    def read_unit(self) -> dockerd.Unit:
        try:
            return dockerd.read_unit(self.run, self.params["service"])
        except OSError:
            return dockerd.Unit(self.params["service"])

    def _version(self) -> str:
        if self.program:
            found = re.search(r"version ([^\s,]+)", self.run([self.program, "--version"])[1])
            return found.group(1) if found else ""
        package = self.params["package"]
        if package and dockerd.find("apt-cache"):
            found = re.search(r"Candidate: (?:\d+:)?([^\s-]+)", self.run(["apt-cache", "policy", package])[1])
            return found.group(1) if found and found.group(1) != "(none)" else ""
        return ""

    def validate(self, path: str) -> str:
        """What dockerd says against a file; empty when nothing, or when this version cannot tell."""
        if not self.program or version_of(self.version) < VALIDATES_SINCE:
            return ""
        argv = [self.program, "--validate", "--config-file", path]
        code, out, err = self.run(argv + without_config_file(self.unit.argv()))
        return "" if code == 0 else (err or out).strip()

    def state(self, loaded: Optional[Mapping[str, Any]]) -> Optional[Running]:
        if not self.unit.active:
            return None
        info = dockerd.ask(self.socket, "/info")
        containers = dockerd.running_containers(self.socket)
        labels = self.params["labels"]
        return Running(
            loaded=loaded,
            live_restore=bool((info or {}).get("LiveRestoreEnabled")),
            version=(info or {}).get("ServerVersion", ""),
            containers=tuple(dockerd.container_names(containers or [], labels)),
            gpu_processes=tuple(dockerd.gpu_processes(self.run)),
            answers=info is not None and containers is not None,
        )

    def do(self, verb: str) -> str:
        """Start or restart it; what went wrong, or empty."""
        # systemd counts starts (three a minute for Docker's unit) and refuses the next one. That is meant for an engine
        # that crashes over and over; on a change that is wanted it would leave the host without its engine.
        self.run(["systemctl", "reset-failed", self.unit.name])
        code, _dummy, err = self.run(["systemctl", verb, self.unit.name])
        self.unit = self.read_unit()
        if code == 0 and self.unit.active and self._answers():
            return ""
        log = self.run(["journalctl", "--unit", self.unit.name, "--lines", "15", "--no-pager", "--output", "cat"])[1]
        return f"{err.strip()}\n{log.strip()}".strip()

    def reload(self) -> None:
        os.kill(int(self.unit.properties["MainPID"]), signal.SIGHUP)

    def wait_live_restore(self) -> bool:
        for _dummy in range(50):
            if (dockerd.ask(self.socket, "/info") or {}).get("LiveRestoreEnabled"):
                return True
            time.sleep(0.1)
        return False

    def _answers(self) -> bool:
        for _dummy in range(100):
            if dockerd.ask(self.socket, "/version", timeout=5) is not None:
                return True
            time.sleep(0.1)
        return False


def without_config_file(argv: Sequence[str]) -> List[str]:
    out: List[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config-file":
            next(words, None)
        elif not word.startswith("--config-file="):
            out.append(word)
    return out


class Record:
    """What we remember about one file: who owns which key, and what the running engine has read."""

    def __init__(self, state_dir: str, path: str) -> None:
        self.path = os.path.join(state_dir, "daemon_json", path.strip("/").replace("/", "-"))
        self.data: Dict[str, Any] = {}
        try:
            with open(self.path, encoding="utf-8") as file:
                self.data = json.load(file)
        except FileNotFoundError:
            pass

    def loaded(
        self, unit: dockerd.Unit, current: Mapping[str, Any], modified: Optional[float]
    ) -> Optional[Mapping[str, Any]]:
        """The configuration that the running engine has read, as far as one can know."""
        known = self.data.get("loaded", {})
        if known and known.get("invocation") == unit.invocation:
            return known["config"]  # type: ignore[no-any-return]
        started = unit.started()
        if modified is None:
            return current
        return current if started is not None and modified <= started + 1 else None

    def write(self) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        whole_file.write(self.path, json.dumps(self.data, indent=1, sort_keys=True) + "\n", 0o600)
