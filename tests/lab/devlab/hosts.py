# SPDX-License-Identifier: GPL-3.0-or-later
"""One host: a container that boots systemd. The options that make it work are here and nowhere else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import images, keys, trust
from .shell import LabError, attempt, docker, say, wait_for

# What systemd, sshd, nftables, fail2ban and a nested engine need. `--privileged` would be simpler, but fails
# where the machine itself lacks CAP_SYS_RESOURCE, and would hide what a role needs.
CAPABILITIES = (
    "SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "AUDIT_WRITE", "AUDIT_CONTROL", "MKNOD", "SYS_CHROOT",
    "SYSLOG", "DAC_READ_SEARCH", "IPC_LOCK", "SYS_NICE", "LINUX_IMMUTABLE",
)  # fmt: skip
TMPFS = ("/run", "/run/lock", "/tmp:exec,mode=1777")  # noqa: S108  the hosts' own
ENGINE_VOLUMES = ("/var/lib/docker", "/var/lib/containerd")
NOFILE = {"soft": 65536, "hard": 524288}
BOOT_SECONDS = 90
READY_STATES = ("running", "degraded")


@dataclass(frozen=True)
class Attachment:
    """A place in a network. An empty address: the engine chooses."""

    network: str
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    container: str
    hostname: str
    os: str = "debian13"
    image: str = ""  # default: the plain image of that system
    engine: bool = False
    attachments: tuple[Attachment, ...] = ()
    aliases: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    peers: tuple[tuple[str, str], ...] = ()  # names and addresses for /etc/hosts
    name_servers: tuple[str, ...] = ()  # none: the engine's own, which containers inside the host cannot reach
    mounts: tuple[str, ...] = ()  # of this machine, as `docker run --volume` takes them


def run_arguments(spec: HostSpec, image: str, ipv6: bool) -> list[str]:
    """`docker run` for a host, with its first network; the others are connected afterwards."""
    words = ["run", "--detach", "--name", spec.container, "--hostname", spec.hostname]
    words += [word for label in ("devnode.lab=1", *spec.labels) for word in ("--label", label)]
    words += [word for capability in CAPABILITIES for word in ("--cap-add", capability)]
    words += ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
    words += ["--cgroupns", "private"]
    words += [word for mount in TMPFS for word in ("--tmpfs", mount)]
    # A machine forwards nothing until somebody asks it to; containers inherit the engine's forwarding.
    words += ["--sysctl", "net.ipv4.ip_forward=0"]
    if ipv6:
        words += ["--sysctl", "net.ipv6.conf.all.disable_ipv6=0"]
    if spec.name_servers:
        words += ["--env", f"DEVNODE_LAB_DNS={' '.join(spec.name_servers)}"]
    words += [word for name, ip in spec.peers for word in ("--add-host", f"{name}:{ip}")]
    words += [word for mount in spec.mounts for word in ("--volume", mount)]
    if spec.engine:
        words += ["--env", "DEVNODE_LAB_ENGINE=1", "--device-cgroup-rule", "a *:* rwm"]
        words += [word for path in ENGINE_VOLUMES for word in ("--volume", path)]
    if spec.attachments:
        words += ["--network", *_attach(spec, spec.attachments[0])]
    return [*words, image]


def _attach(spec: HostSpec, place: Attachment) -> list[str]:
    words = [place.network]
    if place.address:
        words += ["--ip", place.address]
    option = "--network-alias" if place is spec.attachments[0] else "--alias"
    return words + [word for alias in spec.aliases for word in (option, alias)]


def up(spec: HostSpec, public_key: str) -> None:
    """Bring a host up until it has booted and lets the automation in."""
    if exists(spec.container):
        raise LabError(f"{spec.container} exists already. Take it away first: lab.py host down --name {spec.container}")
    image = spec.image or images.ensure(spec.os)
    docker(*run_arguments(spec, image, Path("/proc/sys/net/ipv6").is_dir()))
    for place in spec.attachments[1:]:
        first, *rest = _attach(spec, place)
        docker("network", "connect", *rest, first, spec.container)
    wait_booted(spec.container)
    authorize(spec.container, public_key)
    trust.give(spec.container)


def down(container: str) -> None:
    """Remove a host with its volumes."""
    attempt(["docker", "rm", "--force", "--volumes", container])


def exists(container: str) -> bool:
    return attempt(["docker", "container", "inspect", container]).returncode == 0


def addresses(container: str, network: str = "") -> list[str]:
    """All, or those in a network. A host that has stopped has none."""
    template = "{{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{$net.IPAddress}}\n{{end}}"
    pairs = [line.split() for line in docker("inspect", "--format", template, container).splitlines() if line.strip()]
    return [pair[1] for pair in pairs if len(pair) == 2 and network in ("", pair[0])]


def address(container: str, network: str = "") -> str:
    """The first address, or the one in a network."""
    found = addresses(container, network)
    if not found:
        raise LabError(f"{container} has no address" + (f" in network {network}" if network else ""))
    return found[0]


def wait_booted(container: str) -> None:
    """Wait for systemd to have started everything. Failed units are shown, and do not stop us: roles may add some."""
    state = ""
    end = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < end and state not in READY_STATES:
        left = max(1.0, end - time.monotonic())
        done = attempt(["docker", "exec", container, "systemctl", "is-system-running", "--wait"], timeout=left)
        state = done.stdout.strip()
        if state not in READY_STATES:
            time.sleep(0.3)
    if state not in READY_STATES:
        raise LabError(
            f"{container} did not boot within {BOOT_SECONDS} s ({state or 'no answer'}).\n{_evidence(container)}"
        )
    if state == "degraded":
        say(f"    {container} is degraded; failed units:\n{failed_units(container)}")


def failed_units(container: str) -> str:
    return attempt(["docker", "exec", container, "systemctl", "--failed", "--no-legend", "--plain"]).stdout.rstrip()


def _evidence(container: str) -> str:
    journal = attempt(["docker", "exec", container, "journalctl", "-b", "-p", "warning", "--no-pager", "-n", "30"])
    logs = attempt(["docker", "logs", "--tail", "30", container])
    return "\n".join([failed_units(container), journal.stdout, logs.stdout, logs.stderr]).strip()


def authorize(container: str, public_key: str) -> None:
    """What cloud-init does with the key that a machine was ordered with."""
    home = f"/home/{keys.AUTOMATION}/.ssh"
    script = f"umask 077; mkdir -p {home}; cat >{home}/authorized_keys; chown -R {keys.AUTOMATION}: {home}"
    docker("exec", "-i", container, "sh", "-c", script, stdin=public_key + "\n")


def open_files(container: str) -> dict[str, int]:
    """As many as containers in this host may have: where the machine itself may not raise its limit, nobody can."""
    hard = docker("exec", container, "sh", "-c", "ulimit -Hn").strip()
    most = NOFILE["hard"] if hard == "unlimited" else int(hard)
    return {name: min(value, most) for name, value in NOFILE.items()}


def wait_for_ssh(ip: str, port: int = 22) -> None:
    def open_port() -> bool:
        try:
            with socket.create_connection((ip, port), timeout=2):
                return True
        except OSError:
            return False

    wait_for(f"{ip}:{port} answers from this machine", open_port, 20)


def end_masters(addresses: Iterable[str]) -> None:
    """End Ansible's shared connections to hosts that go away, lest the next run waits for them."""
    socket_path = Path("~/.ansible/cp/%C").expanduser()
    for ip in addresses:
        attempt(["ssh", "-F", "none", "-l", keys.AUTOMATION, "-S", socket_path, "-O", "exit", ip], timeout=5)


def leave(container: str) -> None:
    """Before a host goes away, if it is there."""
    if exists(container):
        end_masters(addresses(container))


def target(container: str, name: str, network: str = "") -> keys.Target:
    return keys.Target(name=name, address=address(container, network), host_key=keys.read_host_key(container))


def write_access(folder: Path, targets: list[keys.Target]) -> None:
    """known_hosts and ssh_config beside the automation's key."""
    keys.write_private(folder / "known_hosts", keys.known_hosts(targets))
    keys.write_private(folder / "ssh_config", keys.ssh_config(targets, folder))
