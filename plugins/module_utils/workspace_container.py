# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the container of a workspace is made of, and the files on the host that it reads."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, Iterable, List

from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.workspace import GPU_RE, Login, Options, Workspace

SSHD_PORT = 2222
# What sshd and the accounts need, and no more: becoming a person, the sandbox of sshd, a new home, ending sessions.
CAPABILITIES = ("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_CHROOT")
# What installing packages as root takes besides. Still not: devices, network, other people's processes on the host.
SUDO_CAPABILITIES = ("FSETID", "NET_BIND_SERVICE", "SETFCAP", "SETPCAP")


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
