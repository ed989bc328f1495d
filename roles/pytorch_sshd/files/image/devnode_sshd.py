# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of the container's sshd."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devnode_base import RUN, WORKSPACE, WorkspaceError, command, people, put
from devnode_environment import sshd_setenv

HOST_KEYS = Path("/etc/devnode/host_keys")
SSHD_CONFIG = RUN / "sshd_config"
SSHD = "/usr/sbin/sshd"
PORT = 2222


def put_sshd(config: Mapping[str, Any], variables: Mapping[str, str]) -> bool:
    """Write sshd's configuration once sshd itself has read it and found it good."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    new = RUN / "sshd_config.check"
    put(new, sshd_config(config, variables, ssh_version(), algorithms(config["algorithms"])), 0o600)
    command([SSHD, "-t", "-f", str(new)])
    return put(SSHD_CONFIG, new.read_text(), 0o600)


def ssh_version() -> tuple[int, int]:
    """The version of the image's OpenSSH."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", said)
    if not found:
        raise WorkspaceError(f"the image's ssh does not say its version: {said.strip()!r}")
    return int(found.group(1)), int(found.group(2))


def algorithms(wanted: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Of each list what this sshd knows, in the order wanted: an unknown name would keep sshd from starting."""
    query = {"KexAlgorithms": "kex", "Ciphers": "cipher", "MACs": "mac"}
    known = {option: set(command(["ssh", "-Q", query[option]]).split()) for option in wanted}
    return {option: [name for name in names if name in known[option]] for option, names in wanted.items()}


def sshd_config(
    config: Mapping[str, Any], variables: Mapping[str, str], version: tuple[int, int], chosen: Mapping[str, list[str]]
) -> str:
    """The whole configuration; the image's /etc/ssh/sshd_config is not read."""
    yes_no = {True: "yes", False: "no"}
    lines = [
        "# Written by devnode-workspace from /etc/devnode/workspace/workspace.json.",
        f"Port {PORT}",
        *host_keys(HOST_KEYS),
        "PidFile none",
        "LogLevel VERBOSE",
        "# Keys only, and they lie where only root writes.",
        f"AuthorizedKeysFile {WORKSPACE}/keys/%u",
        *([f"RevokedKeys {WORKSPACE}/revoked_keys"] if config.get("revoked") else []),
        f"AllowUsers {' '.join(person['name'] for person in people(config))}",
        "AuthenticationMethods publickey",
        "PermitRootLogin no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "HostbasedAuthentication no",
        "UsePAM yes",
        "LoginGraceTime 30",
        "MaxSessions 64",
        "# Everybody comes from the bastion's address: one person's mistakes must not lock out the others.",
        "MaxStartups 100:30:200",
        *_penalties(config["exempt_networks"], version),
        "# Forwarding: to this container's own loopback only (VS Code, Jupyter); an agent where the project allows it.",
        "AllowTcpForwarding local",
        "PermitOpen 127.0.0.1:* localhost:* [::1]:*",
        "PermitListen none",
        f"AllowAgentForwarding {yes_no[bool(config['agent_forwarding'])]}",
        "AllowStreamLocalForwarding no",
        "GatewayPorts no",
        "PermitTunnel no",
        "X11Forwarding no",
        "PermitUserEnvironment no",
        "PermitUserRC no",
        "PrintMotd no",
        "ClientAliveInterval 30",
        "ClientAliveCountMax 6",
        *(f"{option} {','.join(names)}" for option, names in sorted(chosen.items()) if names),
        "Subsystem sftp /usr/lib/openssh/sftp-server",
    ]
    return "\n".join([*lines, sshd_setenv(variables)])


def host_keys(folder: Path) -> list[str]:
    """The keys, and all certificates: sshd serves the one that fits its key, also when a rotation has changed that.

    What they are stands behind each, so that another key or certificate is another configuration, which sshd reads.
    """
    lines = []
    for option, pattern, suffix in (
        ("HostKey", "ssh_host_*_key", ".pub"),
        ("HostCertificate", "ssh_host_*-cert.pub", ""),
    ):
        for path in sorted(folder.glob(pattern)):
            public = path.with_name(f"{path.name}{suffix}")
            data = public.read_bytes() if public.exists() else b""
            lines += [f"{option} {path}", f"# sha256 {hashlib.sha256(data).hexdigest()}"]
    return lines


def _penalties(exempt: list[str], version: tuple[int, int]) -> list[str]:
    if version < (9, 8):
        return []
    return [f"PerSourcePenaltyExemptList {','.join(exempt)}"] if exempt else ["PerSourcePenalties no"]
