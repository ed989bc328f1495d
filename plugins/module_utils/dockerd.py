# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Docker engine on this host is, runs and listens to. Reads only; needs no docker client and no SDK."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import socket
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

# argv -> (exit code, stdout, stderr)
Runner = Callable[[List[str]], Tuple[int, str, str]]

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROPERTIES = (
    "ActiveState",
    "DropInPaths",
    "Environment",
    "EnvironmentFiles",
    "ExecStart",
    "FragmentPath",
    "InvocationID",
    "LoadState",
    "MainPID",
    "UnitFileState",
)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, url: str, timeout: float = 20.0) -> Any:
    """The engine's answer to a GET; None when it gives none."""
    connection = _UnixConnection(path, timeout)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@dataclass
class Unit:
    """A systemd service as it is now."""

    name: str
    properties: Dict[str, str] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        return self.properties.get("LoadState") == "loaded"

    @property
    def active(self) -> bool:
        return self.properties.get("ActiveState") in ("active", "reloading")

    @property
    def enabled(self) -> bool:
        return self.properties.get("UnitFileState") in ("enabled", "enabled-runtime", "static", "alias", "generated")

    @property
    def invocation(self) -> str:
        return self.properties.get("InvocationID", "")

    @property
    def files(self) -> str:
        """Where its command line may come from, for a message."""
        parts = [self.properties.get("FragmentPath", ""), self.properties.get("DropInPaths", "")]
        parts += re.findall(r"(\S+) \(ignore_errors", self.properties.get("EnvironmentFiles", ""))
        return ", ".join(part for part in " ".join(parts).split() if part)

    def argv(self) -> List[str]:
        """Its arguments, with the variables of the unit's environment put in."""
        found = re.search(r"argv\[\]=(.*?) ; ignore_errors=", self.properties.get("ExecStart", ""))
        if not found:
            return []
        environment = self._environment()

        def value(match: re.Match[str]) -> str:
            return environment.get(match.group(1) or match.group(2), "")

        return _split(re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, found.group(1)))[1:]

    def _environment(self) -> Dict[str, str]:
        out = _pairs(_split(self.properties.get("Environment", "")))
        for path in re.findall(r"(\S+) \(ignore_errors", self.properties.get("EnvironmentFiles", "")):
            try:
                with open(path, encoding="utf-8") as file:
                    lines = [line.strip() for line in file]
            except OSError:
                continue
            for line in lines:
                if line and line[0] not in "#;":
                    name, _dummy, value = line.partition("=")
                    out[name.strip()] = " ".join(_split(value))
        return out

    def started(self) -> Optional[float]:
        """When its main process started, in seconds since the epoch."""
        try:
            with open(f"/proc/{int(self.properties.get('MainPID', '0'))}/stat", encoding="ascii") as file:
                ticks = int(file.read().rsplit(")", 1)[1].split()[19])
            with open("/proc/stat", encoding="ascii") as file:
                boot = next(int(line.split()[1]) for line in file if line.startswith("btime "))
        except (OSError, ValueError, StopIteration):
            return None
        return boot + ticks / os.sysconf("SC_CLK_TCK")


def _split(text: str) -> List[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _pairs(words: List[str]) -> Dict[str, str]:
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals}


def read_unit(run: Runner, name: str) -> Unit:
    code, out, _dummy = run(["systemctl", "show", name, "--property", ",".join(PROPERTIES)])
    lines = out.splitlines() if code == 0 else []
    return Unit(name, {key: value for key, _dummy, value in (line.partition("=") for line in lines)})


def find(program: str) -> Optional[str]:
    return shutil.which(program, path=SEARCH)


def gpu_processes(run: Runner) -> List[str]:
    """The compute processes on this host's GPUs, as "pid name"."""
    smi = find("nvidia-smi")
    if not smi:
        return []
    code, out, _dummy = run([smi, "--query-compute-apps=pid,process_name", "--format=csv,noheader"])
    if code != 0:
        return []
    return [" ".join(line.replace(",", " ").split()) for line in out.splitlines() if re.match(r"\s*\d+\s*,", line)]


def running_containers(path: str) -> Optional[List[Dict[str, Any]]]:
    found = ask(path, "/containers/json")
    return found if isinstance(found, list) else None


def container_names(containers: List[Dict[str, Any]], labels: List[str]) -> List[str]:
    """Their names; with the labels by which people know them."""
    out = []
    for one in containers:
        name = (one.get("Names") or [one.get("Id", "?")[:12]])[0].lstrip("/")
        marks = [f"{key}={value}" for key, value in sorted((one.get("Labels") or {}).items()) if key in labels]
        out.append(f"{name} ({', '.join(marks)})" if marks else name)
    return sorted(out)


def routes(run: Runner) -> List[Tuple[str, str]]:
    """(destination, device) of every route of this host, in all tables but the local one."""
    out = []
    for family in ("-4", "-6"):
        code, text, _dummy = run(["ip", "-json", family, "route", "show", "table", "all"])
        try:
            found = json.loads(text or "[]") if code == 0 else []
        except ValueError:
            found = []
        for route in found:
            unicast = route.get("type", "unicast") == "unicast" and route.get("table") != "local"
            if unicast and "dst" in route and route.get("dev"):
                out.append((route["dst"], route["dev"]))
    return out


def connection_peer() -> Optional[str]:
    """The address that this run's SSH connection comes from: found in the environment of the processes above us."""
    pid = os.getpid()
    for _dummy in range(16):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                found = re.search(rb"(?:^|\0)SSH_CONNECTION=(\S+) ", file.read())
            if found:
                return found.group(1).decode("ascii", "replace").split("%")[0]
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                pid = int(stat.read().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError, IndexError):
            return None
        if pid <= 1:
            return None
    return None


LIMIT_LINES = {
    "core": "Max core file size",
    "memlock": "Max locked memory",
    "nofile": "Max open files",
    "nproc": "Max processes",
    "stack": "Max stack size",
}
CAP_SYS_RESOURCE = 24


def limit_ceilings(limits: str, status: str, nr_open: str) -> Dict[str, int]:
    """The highest hard limits that a container can get; names without one are left out.

    From the texts of /proc/1/limits, /proc/1/status and /proc/sys/fs/nr_open. Who may raise limits is bound by
    nothing but
    nr_open; where PID 1 may not (inside another container), its own hard limits are the most.
    """
    out: Dict[str, int] = {}
    if nr_open.strip().isdigit():
        out["nofile"] = int(nr_open)
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)", status, re.MULTILINE)
    if not bounding or int(bounding.group(1), 16) >> CAP_SYS_RESOURCE & 1:
        return out
    for name, title in LIMIT_LINES.items():
        found = re.search(rf"^{title}\s+\S+\s+(\d+)\s", limits, re.MULTILINE)
        if found:
            out[name] = min(int(found.group(1)), out.get(name, int(found.group(1))))
    return out


def read_limit_ceilings() -> Dict[str, int]:
    texts = []
    for path in ("/proc/1/limits", "/proc/1/status", "/proc/sys/fs/nr_open"):
        try:
            with open(path, encoding="utf-8") as file:
                texts.append(file.read())
        except OSError:
            texts.append("")
    return limit_ceilings(*texts)
