# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Specifications of workspaces: read, checked each and against each other, with every problem in words."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import validators, workspace_web
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show
from ansible_collections.devnode.gpu.plugins.module_utils.workspace import GPU_RE, Login, Mount, Workspace
from ansible_collections.devnode.gpu.plugins.module_utils.workspace_web import Web

PIDS_LOW, PIDS_HIGH = 64, 4194304
GRACE_HIGH = 600  # seconds; the unit's TimeoutStopSec is above it

GPU_ALLOWED = "a device's full name, such as nvidia.com/gpu=0 or nvidia.com/gpu=all"
# Where no mount may go: anywhere below the first, exactly onto the second.
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "usr", "var")
SYSTEM_DIRS = tuple(f"/{top}" for top in _SYSTEM)
SYSTEM_TOPS = tuple(f"/{top}" for top in ("", "home", "opt", "tmp"))


class _Reader:
    """Takes a specification apart and collects everything that is wrong with it."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: List[str] = []

    def say(self, place: str, value: Any, why: str) -> None:
        self.problems.append(f"{self.where}{place}: {show(value)} {why}.")

    def take(self, place: str, value: Any, check: Callable[[Any], Any], otherwise: Any) -> Any:
        try:
            return check(value)
        except InvalidError as exc:
            self.say(place, value, str(exc))
            return otherwise

    def items(self, place: str, value: Any) -> List[Any]:
        if value in (None, ""):
            return []
        if isinstance(value, (list, tuple)):
            return list(value)
        self.say(place, value, "is not a list")
        return []

    def each(self, place: str, value: Any, check: Callable[[Any], Any]) -> Tuple[Any, ...]:
        found = (self.take(f"{place}[{i}]", item, check, None) for i, item in enumerate(self.items(place, value)))
        return tuple(item for item in found if item is not None)

    def pairs(self, place: str, value: Any) -> Dict[Any, Any]:
        if value in (None, ""):
            return {}
        if isinstance(value, dict):
            return dict(value)
        self.say(place, value, "is not a mapping")
        return {}


def parse(specs: Sequence[Any], variable: str = "pytorch_sshd_workspaces") -> Tuple[List[Workspace], List[str]]:
    """Read the specifications. Returns the sound ones, sorted by name, and every problem in words."""
    found: List[Tuple[int, Workspace]] = []
    problems: List[str] = []
    for number, spec in enumerate(specs):
        reader = _Reader(f"{variable}[{number}]")
        if not isinstance(spec, dict):
            reader.say("", spec, "is not a mapping")
        elif spec.get("state") in (None, "present", "absent"):
            workspace = _workspace(reader, spec)
            if spec.get("state") != "absent":
                found.append((number, workspace))
        else:
            reader.say(".state", spec["state"], "is not one of the choices. Allowed: present, absent")
        problems += reader.problems
    problems += _clashes(found, variable)
    return sorted((workspace for _dummy, workspace in found), key=lambda item: item.name), problems


def _workspace(reader: _Reader, spec: Mapping[str, Any]) -> Workspace:
    take, get = reader.take, spec.get
    name = take(".name", get("name"), validators.name, "")
    owner = _login(reader, ".owner", get("owner"))
    members = tuple(
        _login(reader, f".members[{i}]", item) for i, item in enumerate(reader.items(".members", get("members")))
    )
    workspace = Workspace(
        name=name,
        port=take(".port", get("port"), validators.port, 0),
        bind_address=take(".bind_address", get("bind_address"), validators.ip, ""),
        owner=owner,
        members=tuple(sorted(members, key=lambda item: item.name)),
        keys=_keys(reader, get("keys")),
        user_ca_keys=reader.each(".user_ca_keys", get("user_ca_keys"), lambda key: public_key(key).bare),
        revoked_keys=reader.each(".revoked_keys", get("revoked_keys"), lambda key: public_key(key).bare),
        gpus=tuple(sorted(reader.each(".gpus", get("gpus"), gpu))),
        gpu_shared=take(".gpu_shared", get("gpu_shared") or False, validators.boolean, False),
        cpus=take(".cpus", get("cpus"), validators.cpus, "") if get("cpus") else "",
        memory=take(".memory", get("memory"), validators.size, "") if get("memory") else "",
        pids=take(".pids", get("pids") or 4096, lambda v: validators.integer(v, PIDS_LOW, PIDS_HIGH), 4096),
        shm_size=take(".shm_size", get("shm_size") or "8g", validators.size, "8g"),
        stop_grace=take(".stop_grace", _or(get("stop_grace"), 1), lambda v: validators.integer(v, 0, GRACE_HIGH), 1),
        ulimits=_ulimits(reader, get("ulimits")),
        sudo=take(".sudo", get("sudo") or False, validators.boolean, False),
        tmux=take(".tmux", get("tmux") or False, validators.boolean, False),
        mounts=_mounts(reader, get("mounts")),
        env=_env(reader, get("env")),
        jupyter=take(".jupyter", True if get("jupyter") is None else get("jupyter"), validators.boolean, True),
        web=_web(reader, get("web"), owner),
        agent_forwarding=take(".agent_forwarding", get("agent_forwarding") or False, validators.boolean, False),
        known_hosts=reader.each(".known_hosts", get("known_hosts"), known_hosts_line),
        exempt_networks=reader.each(".exempt_networks", get("exempt_networks"), validators.network),
        project=take(".project", get("project"), validators.name, "") if get("project") else "",
        host_key_alias=take(".host_key_alias", get("host_key_alias") or name or None, validators.host_alias, ""),
        image=take(".image", get("image"), validators.image, "") if get("image") else "",
    )
    _check_people(reader, workspace)
    return workspace


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _login(reader: _Reader, place: str, value: Any) -> Login:
    if not isinstance(value, dict):
        reader.say(place, value, "is not a mapping with name and uid")
        return Login("", 0)
    return Login(
        reader.take(f"{place}.name", value.get("name"), validators.login, ""),
        reader.take(f"{place}.uid", value.get("uid"), validators.uid, 0),
    )


def _keys(reader: _Reader, value: Any) -> Dict[str, Tuple[str, ...]]:
    found = {}
    for login, keys in sorted(reader.pairs(".keys", value).items(), key=lambda item: str(item[0])):
        name = reader.take(".keys", login, validators.login, "")
        found[name] = reader.each(f".keys.{name}", keys, lambda key: public_key(key).line)
    return found


def _mounts(reader: _Reader, value: Any) -> Tuple[Mount, ...]:
    found = []
    for number, item in enumerate(reader.items(".mounts", value)):
        place = f".mounts[{number}]"
        if not isinstance(item, dict):
            reader.say(place, item, "is not a mapping with source and target")
            continue
        read_only = True if item.get("read_only") is None else item["read_only"]
        mount = Mount(
            reader.take(f"{place}.source", item.get("source"), validators.path, ""),
            reader.take(f"{place}.target", item.get("target"), mount_target, ""),
            reader.take(f"{place}.read_only", read_only, validators.boolean, True),
        )
        if mount.source == "/" or mount.source.startswith(("/proc", "/sys", "/run/docker", "/var/run")):
            reader.say(f"{place}.source", mount.source, "would give the workspace control over the host")
        found.append(mount)
    return tuple(sorted(found, key=lambda item: item.target))


def _env(reader: _Reader, value: Any) -> Dict[str, str]:
    found = {}
    for name, text in sorted(reader.pairs(".env", value).items(), key=lambda item: str(item[0])):
        key = reader.take(".env", name, validators.env_name, "")
        found[key] = reader.take(f".env.{key}", text, validators.env_value, "")
    return found


def _ulimits(reader: _Reader, value: Any) -> Dict[str, str]:
    found = {}
    for name, limit in sorted(reader.pairs(".ulimits", value).items(), key=lambda item: str(item[0])):
        key = reader.take(".ulimits", name, validators.ulimit_name, "")
        found[key] = reader.take(f".ulimits.{name}", limit, validators.ulimit, "")
    return found


def _web(reader: _Reader, value: Any, owner: Login) -> Optional[Web]:
    given = reader.pairs(".web", value)
    if not given:
        return None
    for key in sorted(set(given) - {"name", "port", "networks", "users", "certificate", "key"}, key=str):
        reader.say(".web", key, "is no key of this. Allowed: name, port, networks, users, certificate, key")
    if not given.get("networks"):
        reader.say(".web.networks", given.get("networks"), "names no network; nobody gets in without one")
    web = Web(
        name=reader.take(".web.name", given.get("name"), validators.host, ""),
        port=reader.take(".web.port", given.get("port"), workspace_web.web_port, 0),
        networks=reader.each(".web.networks", given.get("networks"), validators.network),
        users=tuple(sorted(reader.each(".web.users", given.get("users"), validators.login))) or (owner.name,),
        certificate=reader.take(".web.certificate", given["certificate"], validators.path, "")
        if given.get("certificate")
        else "",
        key=reader.take(".web.key", given["key"], validators.path, "") if given.get("key") else "",
    )
    if bool(web.certificate) != bool(web.key):
        reader.say(".web.key", web.key, "and certificate belong together: both, or none and the host makes one")
    return web


def _check_people(reader: _Reader, workspace: Workspace) -> None:
    people = [login for login in (workspace.owner, *workspace.members) if login.name]
    for kind, values in (("name", [p.name for p in people]), ("uid", [str(p.uid) for p in people if p.uid])):
        for double in sorted({value for value in values if values.count(value) > 1}):
            reader.say(".members", double, f"is the {kind} of two people of this workspace")
    for stranger in sorted(set(workspace.keys) - {login.name for login in people} - {""}):
        reader.say(".keys", stranger, "has keys but is neither owner nor member")
    if workspace.web:
        for stranger in sorted(set(workspace.web.users) - {login.name for login in people} - {""}):
            reader.say(".web.users", stranger, "is neither owner nor member")
        if not workspace.jupyter:
            reader.say(".web", workspace.web.name, "leads to JupyterLab, which jupyter: false switches off")
    names = [mount.target for mount in workspace.mounts if mount.target]
    for double in sorted({target for target in names if names.count(target) > 1}):
        reader.say(".mounts", double, "is the target of two mounts")


def gpu(value: Any) -> str:
    """One GPU by its CDI name."""
    if not isinstance(value, str) or not GPU_RE.fullmatch(value):
        raise InvalidError("is not a GPU", GPU_ALLOWED)
    return value


def mount_target(value: Any) -> str:
    """Where data may appear in a workspace: not over the system or what makes it a workspace."""
    target = validators.path(value)
    below = any(target == top or target.startswith(f"{top}/") for top in SYSTEM_DIRS)
    if below or target in SYSTEM_TOPS:
        raise InvalidError("belongs to the workspace's own system", "a directory such as /data or /home/NAME/data")
    return target


def known_hosts_line(value: Any) -> str:
    """One line of a known_hosts file: names and a public key, no marker."""
    allowed = "'name type key', as in a known_hosts file"
    if not isinstance(value, str) or not value.isprintable() or len(value.split()) < 3:
        raise InvalidError("is not a line of known_hosts", allowed)
    names, key = value.strip().split(None, 1)
    if not re.fullmatch(r"[A-Za-z0-9.,:\[\]_-]+", names):
        raise InvalidError("does not begin with host names", allowed)
    return f"{names} {public_key(key).bare}"


def _clashes(found: List[Tuple[int, Workspace]], variable: str) -> List[str]:
    problems = []
    for place, what, value in (
        (".name", "name", lambda item: item.name),
        (".port", "address and port", lambda item: (item.bind_address, item.port)),
    ):
        taken: Dict[Any, str] = {}
        for number, workspace in found:
            key = value(workspace)
            if key in taken and workspace.name:
                given = show(workspace.port if place == ".port" else workspace.name)
                problems.append(f"{variable}[{number}]{place}: {given} is the {what} of {taken[key]} too.")
            taken.setdefault(key, f'workspace "{workspace.name}"')
    asked = [(f"{variable}[{number}].web", item.name, item.web) for number, item in found if item.web]
    for where, name, given, why in workspace_web.clashes(asked):
        problems.append(f"{where}.{name}: {show(given)} {why}.")
    taken_ports = {(item.bind_address, item.port): item.name for _dummy, item in found}
    for number, item in found:
        holder = taken_ports.get((item.bind_address, item.web.port)) if item.web else None
        if item.web and holder:
            where, given = f"{variable}[{number}].web.port", show(item.web.port)
            problems.append(f'{where}: {given} is the port of workspace "{holder}".')
    return problems + _gpu_clashes(found, variable)


def _gpu_clashes(found: List[Tuple[int, Workspace]], variable: str) -> List[str]:
    problems = []
    claims: List[Tuple[str, Workspace]] = []
    for number, workspace in found:
        for device in workspace.gpus:
            for other, holder in claims:
                if holder is workspace or not same_gpu(device, other) or (workspace.gpu_shared and holder.gpu_shared):
                    continue
                problems.append(
                    f'{variable}[{number}].gpus: {show(device)} is claimed by workspace "{holder.name}" too ({other}). '
                    "Give each its own, or set gpu_shared: true in both."
                )
            claims.append((device, workspace))
    return problems


def same_gpu(one: str, other: str) -> bool:
    """Whether two claims are for the same device."""
    kinds = one.split("=")[0] == other.split("=")[0]
    return kinds and (one == other or "all" in (one.split("=")[1], other.split("=")[1]))
