# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the inventory's plain variables to the typed parts of the topology, field by field."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import client_values, validators
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey, public_key
from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import Entry, Problems, read_entries
from ansible_collections.devnode.gpu.plugins.module_utils.topology_types import (
    Client,
    Forward,
    GitHost,
    Host,
    Machine,
    Mount,
    Person,
    Project,
    Workspace,
)
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError
from ansible_collections.devnode.gpu.plugins.module_utils.workspace_web import EPHEMERAL, Web, web_port

HOST_KEYS = (
    *("devnode_address", "devnode_ip", "devnode_private_ip", "devnode_ssh_port", "devnode_ssh_ports_also"),
    "devnode_bastion",
)
USER_KEYS = ("name", "uid", "keys", "operator", "state", "client")
CLIENT_KEYS = (
    "platform",
    "openssh",
    "account",
    "base_dir",
    "control_dir",
    "home",
    "multiplexing",
    "bastion_identity_files",
    "workspace_identity_files",
    "project_keys",
    "identities_outside_home",
    "tmux",
)
# What a managed machine may say for everybody who works there. The rest is a person's, or follows from their account.
MACHINE_KEYS = ("openssh", "multiplexing", *CLIENT_KEYS[CLIENT_KEYS.index("bastion_identity_files") :])
MACHINE_HOST_KEYS = ("devnode_client_people", "devnode_client")
PROJECT_KEYS = ("name", "agent_forwarding", "git_hosts")
WORKSPACE_KEYS = (
    "name",
    "node",
    "nodes",
    "owner",
    "members",
    "port",
    "gpus",
    "gpu_shared",
    "image",
    "cpus",
    "memory",
    "pids",
    "shm_size",
    "stop_grace",
    "ulimits",
    "sudo",
    "tmux",
    "mounts",
    "forwards",
    "project",
    "env",
    "jupyter",
    "web",
    "default",
    "agent_forwarding_shared",
    "state",
)
WEB_KEYS = ("name", "port", "networks", "users", "certificate", "key")
STATES = ("present", "absent")


def state(value: Any) -> bool:
    """Whether something is to be there."""
    return validators.choice(value, STATES) == "present"


def workspace_port(value: Any) -> int:
    """The port of a workspace on its node."""
    number = validators.integer(value, 1024, 65535)
    if EPHEMERAL[0] <= number <= EPHEMERAL[1]:
        raise InvalidError(
            "is one of those that the kernel takes for outgoing connections",
            f"1024-{EPHEMERAL[0] - 1}, {EPHEMERAL[1] + 1}-65535",
        )
    return number


def git_name(value: Any) -> str:
    """The name of a git server, as it stands in a clone's address."""
    return validators.host_alias(validators.host(value))


def openssh(value: Any) -> str:
    """A client's OpenSSH version."""
    client_values.version(value if isinstance(value, str) else str(value))
    return str(value)


def host_key(value: Any) -> PublicKey:
    """A server's public key, without a comment."""
    key = public_key(value)
    return PublicKey(key.type, key.base64)


def parse_host(problems: Problems, name: str, variables: Mapping[str, Any]) -> Optional[Host]:
    """One bastion or node from its host variables."""
    where = Entry(problems, f"host {name}", {key: variables.get(key) for key in HOST_KEYS}, HOST_KEYS)
    try:
        validators.host_alias(name)
    except InvalidError as error:
        where.bad("", name, error.why, error.allowed)
    address = where.get("devnode_address", validators.host)
    default_ip = ""
    if where.ok and not where.has("devnode_ip"):
        try:
            default_ip = validators.ip(address)
        except InvalidError:
            where.bad("devnode_ip", "", "is missing, and devnode_address is a name", "the host's IP address")
    ip = where.get("devnode_ip", validators.ip, default_ip)
    private_ip = where.get("devnode_private_ip", validators.ip, ip)
    ssh_port = where.get("devnode_ssh_port", validators.port, 22)
    also = where.each("devnode_ssh_ports_also", validators.port)
    bastion = where.get("devnode_bastion", validators.host_alias, "")
    return Host(name, address, ip, private_ip, ssh_port, bastion, also) if where.ok else None


def _keys(user: Entry) -> Tuple[Tuple[PublicKey, ...], Tuple[PublicKey, ...]]:
    """The keys for the bastion and for workspaces."""
    given = user.data.get("keys")
    if not isinstance(given, Mapping):
        both = user.each("keys", public_key, required=True)
        return both, both
    purposes = Entry(user.problems, f"{user.path}.keys", given, ("bastion", "workspace"))
    bastion = purposes.each("bastion", public_key, required=True)
    workspace = purposes.each("workspace", public_key, required=True)
    user.ok = user.ok and purposes.ok
    return bastion, workspace


def _client(user: Entry) -> Client:
    if not user.has("client"):
        return Client()
    raw = Entry(user.problems, f"{user.path}.client", user.data["client"], CLIENT_KEYS)
    client = _client_fields(raw)
    user.ok = user.ok and raw.ok
    return client


def _client_fields(raw: Entry) -> Client:
    path = client_values.home_path
    return Client(
        platform=raw.get("platform", lambda value: validators.choice(value, client_values.PLATFORMS), ""),
        openssh=raw.get("openssh", openssh, ""),
        account=raw.get("account", validators.login, ""),
        base_dir=raw.get("base_dir", path, ""),
        control_dir=raw.get("control_dir", path, ""),
        home=raw.get("home", validators.path, ""),
        multiplexing=raw.get("multiplexing", client_values.multiplexing, ""),
        bastion_identity_files=raw.each("bastion_identity_files", path),
        workspace_identity_files=raw.each("workspace_identity_files", path),
        project_keys=_mapping(raw, "project_keys", validators.name, path),
        identities_outside_home=raw.get("identities_outside_home", validators.boolean, False),
        tmux=raw.get("tmux", validators.boolean, False),
    )


def parse_machine(problems: Problems, name: str, variables: Mapping[str, Any]) -> Tuple[Entry, Machine]:
    """A machine in devnode_clients from its host variables."""
    given = {key: variables.get(key) for key in MACHINE_HOST_KEYS}
    where = Entry(problems, f"host {name}", given, MACHINE_HOST_KEYS)
    # An empty list is nobody; only without one everybody is meant.
    named = where.has("devnode_client_people")
    people = where.each("devnode_client_people", validators.login) if named else None
    client = Client()
    if where.has("devnode_client"):
        raw = Entry(problems, f"host {name}.devnode_client", given["devnode_client"], MACHINE_KEYS)
        client = _client_fields(raw)
    return where, Machine(name, people, client)


def _mapping(entry: Entry, key: str, check_key: Any, check_value: Any) -> Dict[str, str]:
    """A field that is a mapping of texts."""
    if not entry.has(key):
        return {}
    given = entry.data[key]
    if not isinstance(given, Mapping):
        entry.bad(key, given, "is not a mapping")
        return {}
    found: Dict[str, str] = {}
    for name in sorted(given, key=str):
        try:
            found[check_key(name)] = check_value(given[name])
        except InvalidError as error:
            entry.bad(f"{key}.{name}", given[name], error.why, error.allowed)
    return found


def parse_users(problems: Problems, data: Any) -> List[Tuple[Entry, Optional[Person]]]:
    """devnode_users."""
    found: List[Tuple[Entry, Optional[Person]]] = []
    for user in read_entries(problems, "devnode_users", data, USER_KEYS):
        present = user.get("state", state, True)
        name = user.get("name", validators.login)
        uid = user.get("uid", validators.uid)
        operator = user.get("operator", validators.boolean, False)
        # Somebody who left may stay listed without keys, so that the uid is not given away again.
        keys = _keys(user) if present is not False or user.has("keys") else ((), ())
        client = _client(user)
        person = Person(name, uid, keys[0], keys[1], operator, present, client)
        found.append((user, person if user.ok else None))
    return found


def parse_projects(problems: Problems, data: Any) -> List[Tuple[Entry, Optional[Project]]]:
    """devnode_projects."""
    found: List[Tuple[Entry, Optional[Project]]] = []
    for entry in read_entries(problems, "devnode_projects", data, PROJECT_KEYS):
        git_hosts: List[GitHost] = []
        for raw in entry.entries("git_hosts", ("name", "port", "keys")):
            git = GitHost(
                name=raw.get("name", git_name),
                port=raw.get("port", validators.port, 22),
                keys=raw.each("keys", host_key, required=True),
            )
            git_hosts.append(git)
            entry.ok = entry.ok and raw.ok
        name = entry.get("name", validators.name)
        forwarding = entry.get("agent_forwarding", validators.boolean, False)
        found.append((entry, Project(name, forwarding, tuple(git_hosts)) if entry.ok else None))
    return found


def _gpus(entry: Entry) -> Tuple[str, ...]:
    given = entry.data.get("gpus")
    if given in (None, "none", []):
        return ()
    if given == "all":
        return ("all",)
    if isinstance(given, str) and not given.startswith(("GPU-", "MIG-")) and not given[:1].isdigit():
        entry.bad("gpus", given, "is not a choice of GPUs", "all, none, or a list of indices or UUIDs")
        return ()
    return entry.each("gpus", validators.gpu)


def _nodes(entry: Entry, known: Mapping[str, Tuple[str, ...]]) -> Tuple[str, ...]:
    """The nodes meant by `node` or `nodes`; names of groups stand for the nodes in them."""
    if entry.has("node") == entry.has("nodes"):
        problem = "and nodes are both given" if entry.has("node") else "is missing (or nodes)"
        entry.ok = False
        entry.problems.missing(f"{entry.path}.node", problem, "one of the two")
        return ()
    key = "node" if entry.has("node") else "nodes"
    found: List[str] = []
    for name in entry.each(key, validators.host_alias, required=True):
        if name in known:
            found.extend(node for node in known[name] if node not in found)
        elif name is not None:
            allowed = ", ".join(sorted(node for node in known if known[node] == (node,))[:20])
            entry.bad(key, name, "is no host or group in devnode_nodes", allowed or "none: the group is empty")
    return tuple(found)


def parse_workspaces(
    problems: Problems, data: Any, known_nodes: Mapping[str, Tuple[str, ...]]
) -> List[Tuple[Entry, Optional[Workspace]]]:
    """devnode_workspaces. Those with `state: absent` are left out, whatever else they say."""
    found: List[Tuple[Entry, Optional[Workspace]]] = []
    for entry in read_entries(problems, "devnode_workspaces", data, WORKSPACE_KEYS):
        name = entry.get("name", validators.name)
        if entry.get("state", state, True) is False:
            continue
        mounts = tuple(_mount(raw, entry) for raw in entry.entries("mounts", ("source", "target", "read_only")))
        forwards = tuple(_forward(raw, entry) for raw in entry.entries("forwards", ("name", "port")))
        workspace = Workspace(
            name=name,
            nodes=_nodes(entry, known_nodes),
            owner=entry.get("owner", validators.login),
            port=entry.get("port", workspace_port),
            members=entry.each("members", validators.login),
            gpus=_gpus(entry),
            gpu_shared=entry.get("gpu_shared", validators.boolean, False),
            image=_optional(entry, "image", validators.image),
            cpus=_optional(entry, "cpus", validators.cpus),
            memory=_optional(entry, "memory", validators.size),
            pids=entry.get("pids", lambda value: validators.integer(value, 64, 4194304), 4096),
            shm_size=entry.get("shm_size", validators.size, "8g"),
            stop_grace=entry.get("stop_grace", lambda value: validators.integer(value, 0, 600), 1),
            ulimits=_mapping(entry, "ulimits", validators.ulimit_name, validators.ulimit),
            sudo=entry.get("sudo", validators.boolean, False),
            tmux=entry.get("tmux", validators.boolean, False),
            mounts=mounts,
            forwards=forwards,
            project=_optional(entry, "project", validators.name),
            env=_mapping(entry, "env", validators.env_name, validators.env_value),
            jupyter=entry.get("jupyter", validators.boolean, True),
            web=_web(entry),
            default=entry.get("default", validators.boolean, False),
            agent_forwarding_shared=entry.get("agent_forwarding_shared", validators.boolean, False),
        )
        found.append((entry, workspace if entry.ok else None))
    return found


def _optional(entry: Entry, key: str, check: Any) -> str:
    """A text that may be left empty."""
    return "" if entry.data.get(key) == "" else entry.get(key, check, "")


def _web(entry: Entry) -> Optional[Web]:
    """JupyterLab by HTTPS, if it is asked for."""
    if not entry.has("web"):
        return None
    raw = Entry(entry.problems, f"{entry.path}.web", entry.data["web"], WEB_KEYS)
    web = Web(
        name=raw.get("name", validators.host),
        port=raw.get("port", web_port),
        networks=tuple(sorted(raw.each("networks", validators.network, required=True), key=str)),
        users=raw.each("users", validators.login),  # none named: the owner
        certificate=_optional(raw, "certificate", validators.path),
        key=_optional(raw, "key", validators.path),
    )
    if bool(web.certificate) != bool(web.key):
        raw.bad("key", web.key, "and certificate belong together", "both, or none: then the node makes one")
    entry.ok = entry.ok and raw.ok
    return web


def _mount(raw: Entry, parent: Entry) -> Mount:
    mount = Mount(
        source=raw.get("source", validators.path),
        target=raw.get("target", validators.path),
        read_only=raw.get("read_only", validators.boolean, True),
    )
    parent.ok = parent.ok and raw.ok
    return mount


def _forward(raw: Entry, parent: Entry) -> Forward:
    forward = Forward(name=raw.get("name", validators.name), port=raw.get("port", validators.port))
    parent.ok = parent.ok and raw.ok
    return forward
