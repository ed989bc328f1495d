# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys made at run time, and the ssh files that go with them. Host keys are read out of band, never scanned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .shell import docker, run

AUTOMATION = "automation"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


def ensure_key(path: Path, comment: str) -> str:
    """A key pair without a passphrase (it lives as long as the lab); returns the public line."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])
    return path.with_suffix(".pub").read_text().strip()


def read_host_key(container: str) -> str:
    """Type and key of a host, read through the engine: the way a cloud's console shows it."""
    return " ".join(docker("exec", container, "cat", HOST_KEY).split()[:2])


@dataclass(frozen=True)
class Target:
    """A host as ssh on this machine sees it."""

    name: str
    address: str
    host_key: str
    jump: str = ""


def known_hosts(targets: Iterable[Target]) -> str:
    return "".join(f"{target.name} {target.host_key}\n" for target in targets)


def merge_known_hosts(before: str, targets: Iterable[Target], recreated: set[str]) -> str:
    """Our hosts anew; others' lines stay, but for those of hosts that are not the same any more (`nlp.gpu-01`)."""
    ours = list(targets)
    names = {target.name for target in ours}
    kept = [
        line
        for line in before.splitlines()
        if line.strip() and _alias(line) not in names and _alias(line).rpartition(".")[2] not in recreated
    ]
    return known_hosts(ours) + "".join(f"{line}\n" for line in kept)


def _alias(line: str) -> str:
    return line.split()[0]


def ssh_config(targets: Iterable[Target], folder: Path, user: str = AUTOMATION) -> str:
    """For `ssh -F`: the automation's way to each host."""
    blocks = [_block(target) for target in targets]
    shared = f"""Host *
  User {user}
  IdentityFile "{folder / AUTOMATION}"
  IdentitiesOnly yes
  UserKnownHostsFile "{folder / "known_hosts"}"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  ForwardAgent no
"""
    return "".join([*blocks, shared])


def _block(target: Target) -> str:
    lines = [f"Host {target.name}", f"  HostName {target.address}", f"  HostKeyAlias {target.name}"]
    if target.jump:
        lines.append(f"  ProxyJump {target.jump}")
    return "\n".join(lines) + "\n\n"


def write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
