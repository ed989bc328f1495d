# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workspaces as data: read and checked, their files, their containers, and what has to be done about them.

Nothing here looks at a host; see workspace_host for that.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import validators, workspace_web
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show
from ansible_collections.devnode.gpu.plugins.module_utils.workspace_web import Web

CONFIG_DIR = "/etc/devnode/workspaces"
STATE_DIR = "/var/lib/devnode/workspaces"
LABEL = "devnode.workspace"
LABEL_SHAPE = "devnode.shape"
SSHD_PORT = 2222
PIDS_LOW, PIDS_HIGH = 64, 4194304
GRACE_HIGH = 600  # seconds; the unit's TimeoutStopSec is above it

GPU_RE = re.compile(r"(?P<kind>[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9_-]*)=(?P<device>[A-Za-z0-9][A-Za-z0-9_.:-]*)")
GPU_ALLOWED = "a device's full name, such as nvidia.com/gpu=0 or nvidia.com/gpu=all"

# Where no mount may go: anywhere below the first, exactly onto the second.
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "usr", "var")
SYSTEM_DIRS = tuple(f"/{top}" for top in _SYSTEM)
SYSTEM_TOPS = tuple(f"/{top}" for top in ("", "home", "opt", "tmp"))
# What sshd and the accounts need, and no more: becoming a person, the sandbox of sshd, a new home, ending sessions.
CAPABILITIES = ("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_CHROOT")
# What installing packages as root takes besides. Still not: devices, network, other people's processes on the host.
SUDO_CAPABILITIES = ("FSETID", "NET_BIND_SERVICE", "SETFCAP", "SETPCAP")


@dataclass(frozen=True)
class Login:
    """Somebody with an account in a workspace."""

    name: str
    uid: int


@dataclass(frozen=True)
class Mount:
    """A directory of the host in a workspace."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Workspace:
    """One container that people live in. Everything here has been checked."""

    name: str
    port: int
    bind_address: str
    owner: Login
    members: Tuple[Login, ...] = ()
    keys: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    user_ca_keys: Tuple[str, ...] = ()
    revoked_keys: Tuple[str, ...] = ()
    gpus: Tuple[str, ...] = ()
    gpu_shared: bool = False
    cpus: str = ""
    memory: str = ""
    pids: int = 4096
    shm_size: str = "8g"
    stop_grace: int = 1
    ulimits: Dict[str, str] = field(default_factory=dict)
    sudo: bool = False
    tmux: bool = False
    mounts: Tuple[Mount, ...] = ()
    env: Dict[str, str] = field(default_factory=dict)
    jupyter: bool = True
    web: Optional[Web] = None
    agent_forwarding: bool = False
    known_hosts: Tuple[str, ...] = ()
    exempt_networks: Tuple[str, ...] = ()
    project: str = ""
    host_key_alias: str = ""
    image: str = ""

    @property
    def container(self) -> str:
        """The container's name; also that of its network."""
        return f"devnode-{self.name}"

    @property
    def unit(self) -> str:
        """The unit that starts it."""
        return f"devnode-workspace@{self.name}.service"

    @property
    def home_volume(self) -> str:
        """The volume that holds the homes. It survives everything but a purge."""
        return f"devnode-{self.name}-home"


@dataclass(frozen=True)
class Options:
    """What is the same for all workspaces of a host."""

    image: str = ""
    environment_allow: Tuple[str, ...] = ()
    algorithms: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    extra_hosts: Dict[str, str] = field(default_factory=dict)
    config_dir: str = CONFIG_DIR
    state_dir: str = STATE_DIR


# --- reading ---------------------------------------------------------------------------------------------------------


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


# --- files on the host -----------------------------------------------------------------------------------------------


def config_json(workspace: Workspace, options: Options) -> str:
    """What the container reads about itself. No secrets; changes here need no new container."""
    content = {
        "name": workspace.name,
        "owner": {"name": workspace.owner.name, "uid": workspace.owner.uid},
        "members": [{"name": item.name, "uid": item.uid} for item in workspace.members],
        # Sessions that another key has opened, or that nobody on the list has signed for, are ended.
        "keys": {login.name: _counting(workspace, login) for login in _by_name(workspace)},
        "agent_forwarding": workspace.agent_forwarding,
        "jupyter": workspace.jupyter,
        "sudo": workspace.sudo,
        "tmux": workspace.tmux,
        "stop_grace": workspace.stop_grace,
        "exempt_networks": list(workspace.exempt_networks),
        "revoked": [public_key(key).fingerprint for key in workspace.revoked_keys],
        "environment": sorted({*options.environment_allow, *workspace.env}),
        "algorithms": {name: list(values) for name, values in sorted(options.algorithms.items())},
    }
    return json.dumps(content, indent=2) + "\n"


def config_files(workspaces: Iterable[Workspace], options: Options) -> List[Dict[str, Any]]:
    """The entries for file_set: one folder per workspace, which its container sees read-only."""
    entries: List[Dict[str, Any]] = [{"path": options.config_dir, "state": "directory"}]
    for workspace in workspaces:
        folder = f"{options.config_dir}/{workspace.name}"
        entries += [{"path": folder, "state": "directory"}, {"path": f"{folder}/keys", "state": "directory"}]
        # A rollback must not bring back a person or a key that was taken away.
        kept = {"never_restore": True}
        entries.append({"path": f"{folder}/workspace.json", "content": config_json(workspace, options), **kept})
        entries.append({"path": f"{folder}/known_hosts", "content": _lines(workspace.known_hosts)})
        entries.append({"path": f"{folder}/revoked_keys", "content": _lines(workspace.revoked_keys), **kept})
        for login in _by_name(workspace):
            # A certificate counts for the login that it names, as one more key of that person.
            signed = (f'cert-authority,principals="{login.name}" {key}' for key in workspace.user_ca_keys)
            keys = (*workspace.keys.get(login.name, ()), *signed)
            entries.append({"path": f"{folder}/keys/{login.name}", "content": _lines(keys), **kept})
    return entries


def _by_name(workspace: Workspace) -> List[Login]:
    return sorted((workspace.owner, *workspace.members), key=lambda item: item.name)


def _counting(workspace: Workspace, login: Login) -> List[str]:
    """Fingerprints of what lets somebody in: their keys, and the authorities that sign for them."""
    keys = (*workspace.keys.get(login.name, ()), *workspace.user_ca_keys)
    revoked = {public_key(key).bare for key in workspace.revoked_keys}
    return [public_key(key).fingerprint for key in keys if public_key(key).bare not in revoked]


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def config_digest(workspace: Workspace, options: Options) -> str:
    """Names the content of workspace.json."""
    return hashlib.sha256(config_json(workspace, options).encode()).hexdigest()


# --- the container ---------------------------------------------------------------------------------------------------


def create_arguments(workspace: Workspace, options: Options) -> List[str]:
    """How `docker create` makes the container. Anything that changes this changes the container."""
    address = f"[{workspace.bind_address}]" if ":" in workspace.bind_address else workspace.bind_address
    words = [
        *("--hostname", workspace.name),
        *("--restart", "no"),
        *("--network", workspace.container),
        *("--publish", f"{address}:{workspace.port}:{SSHD_PORT}/tcp"),
        *("--mount", f"type=volume,source={workspace.home_volume},target=/home"),
        *("--mount", _bind(f"{options.config_dir}/{workspace.name}", "/etc/devnode/workspace", True)),
        *("--mount", _bind(f"{options.state_dir}/{workspace.name}/host_keys", "/etc/devnode/host_keys", True)),
        *("--tmpfs", "/run:mode=0755"),
        *("--shm-size", workspace.shm_size),
        *("--pids-limit", str(workspace.pids)),
        *("--stop-timeout", str(workspace.stop_grace + 4)),
        *("--cap-drop", "ALL"),
    ]
    capabilities = sorted((*CAPABILITIES, *SUDO_CAPABILITIES)) if workspace.sudo else CAPABILITIES
    words += [word for name in capabilities for word in ("--cap-add", name)]
    words += [] if workspace.sudo else ["--security-opt", "no-new-privileges"]
    words += [word for name, limit in sorted(workspace.ulimits.items()) for word in ("--ulimit", f"{name}={limit}")]
    words += ["--cpus", workspace.cpus] if workspace.cpus else []
    words += ["--memory", workspace.memory, "--memory-swap", workspace.memory] if workspace.memory else []
    words += [word for device in workspace.gpus for word in ("--device", device)]
    words += [
        word for item in workspace.mounts for word in ("--mount", _bind(item.source, item.target, item.read_only))
    ]
    words += [word for name, ip in sorted(options.extra_hosts.items()) for word in ("--add-host", f"{name}:{ip}")]
    words += [word for name, value in sorted(workspace.env.items()) for word in ("--env", f"{name}={value}")]
    return [*words, image_of(workspace, options)]


def image_of(workspace: Workspace, options: Options) -> str:
    """The image that a workspace runs."""
    return workspace.image or options.image


def _bind(source: str, target: str, read_only: bool) -> str:
    return f"type=bind,source={source},target={target}" + (",readonly" if read_only else "")


def shape(workspace: Workspace, options: Options) -> str:
    """The container's making as a label: compared at every run, and readable in a diff."""
    return json.dumps(create_arguments(workspace, options), separators=(",", ":"))


def shape_lines(label: str) -> List[str]:
    """A shape for people: one option a line."""
    try:
        words = [str(word) for word in json.loads(label)]
    except (ValueError, TypeError):
        return [label]
    options = words[:-1]  # each is a name and a value
    return [" ".join(options[i : i + 2]) for i in range(0, len(options), 2)] + [f"image {words[-1]}"]


def shape_gpus(label: str) -> List[str]:
    """The GPUs that a container was made with."""
    lines = (line.partition(" ") for line in shape_lines(label))
    return [value for option, _dummy, value in lines if option == "--device" and GPU_RE.fullmatch(value)]


WINDOW_RE = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


def in_window(window: str, minute: int) -> bool:
    """Whether a minute of the day lies in HH:MM-HH:MM, which may go over midnight. Never in an empty one."""
    if not window:
        return False
    found = WINDOW_RE.fullmatch(window)
    if not found:
        raise InvalidError("is not a window", "HH:MM-HH:MM, such as 02:00-05:00")
    hours, minutes, to_hours, to_minutes = (int(part) for part in found.groups())
    begin, end = hours * 60 + minutes, to_hours * 60 + to_minutes
    return begin <= minute < end if begin < end else minute >= begin or minute < end


# --- what the host says ----------------------------------------------------------------------------------------------


def cdi_devices(text: str) -> List[str]:
    """The full device names of one CDI specification, JSON or YAML as nvidia-ctk writes it (no YAML library needed)."""
    try:
        spec = json.loads(text)
        return [f"{spec['kind']}={device['name']}" for device in spec.get("devices") or []]
    except (ValueError, KeyError, TypeError):
        pass
    kind, names, inside = "", [], False
    for line in text.splitlines():
        top = re.match(r"([A-Za-z]+):\s*(.*)$", line)
        if top:
            inside = top.group(1) == "devices"
            kind = _plain(top.group(2)) if top.group(1) == "kind" else kind
        named = re.match(r"[\s-]+name:\s*(.+)$", line)
        if inside and named:
            names.append(_plain(named.group(1)))
    return [f"{kind}={name}" for name in names] if kind else []


def _plain(scalar: str) -> str:
    text = scalar.split(" #")[0].strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


@dataclass(frozen=True)
class Process:
    """One process of a container, as seen from the host."""

    uid: int
    started: str
    command: str


def parse_top(text: str) -> List[Process]:
    """`docker top NAME -eo uid,pid,lstart,args`."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split(None, 7)
        if len(words) == 8 and words[0].isdigit() and words[1].isdigit():
            found.append(Process(int(words[0]), words[5], words[7]))
    return found


JUPYTER_PROGRAMS = ("/opt/jupyter/bin/jupyter-lab", "/usr/local/bin/devnode-jupyter")
# What runs as root in every workspace. Anything else of root's was started with sudo, or by an operator.
OWN_PROGRAMS = re.compile(
    r"/usr/bin/tini|/usr/local/sbin/devnode-workspace|/usr/local/lib/devnode/.*|/usr/sbin/(sshd|cron|CRON)"
    r"|(/\S*/)?sshd(-[a-z]+)?:?"
)


def _program(command: str) -> str:
    """What a command line runs: its first word, or the script that a Python runs. Any other word is an argument."""
    first, second = [*command.split(None, 2), "", ""][:2]
    return second if second and re.fullmatch(r"python[0-9.]*", first.rsplit("/", 1)[-1]) else first


def busy(processes: Iterable[Process], logins: Mapping[int, str]) -> List[str]:
    """What people are doing in a container, in words. An idle JupyterLab is not a person's work."""
    found = []
    for process in processes:
        program = _program(process.command)
        if program in JUPYTER_PROGRAMS or 0 < process.uid < validators.UID_MIN:
            continue
        if process.uid == 0 and (OWN_PROGRAMS.fullmatch(program) or process.command.endswith("<defunct>")):
            continue
        command = process.command if len(process.command) <= 60 else process.command[:57] + "..."
        found.append(f"{logins.get(process.uid, process.uid or 'root')}: {command} (since {process.started})")
    return found


def who_left(logins: Mapping[int, str], people: "Iterable[str] | None") -> "Set[int]":
    """The uids of those who are nobody's colleague any more. Nobody is taken to have left when people are not known."""
    here = None if people is None else set(people)
    return {uid for uid, name in logins.items() if here is not None and uid >= validators.UID_MIN and name not in here}
