# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of the lab: bridges of the engine, separate from each other."""

from __future__ import annotations

import zlib
from ipaddress import ip_address
from pathlib import Path

from .shell import LabError, attempt, docker

# 10.203.10 and .20 are the demo's; scenarios take any other /24 above these.
FIRST_SCENARIO_SUBNET = 64
SUBNETS = [f"10.203.{third}.0/24" for third in range(FIRST_SCENARIO_SUBNET, 256)]
MANAGEMENT_OFFSET = 10


def preferred_subnets(name: str) -> list[str]:
    """All scenario subnets, from the one that this name always gets when it is free."""
    start = zlib.crc32(name.encode()) % len(SUBNETS)
    return SUBNETS[start:] + SUBNETS[:start]


def address_in(subnet: str, index: int) -> str:
    return f"{subnet.rsplit('.', 1)[0]}.{MANAGEMENT_OFFSET + index}"


def name_servers(*files: Path) -> tuple[str, ...]:
    """This machine's name servers that a host can reach as well (no loopback ones), from the first file with any."""
    for path in files or (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        found = [words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1]
        usable = tuple(ip for ip in found if not ip_address(ip.partition("%")[0]).is_loopback)
        if usable:
            return usable
    return ()


def exists(name: str) -> bool:
    return attempt(["docker", "network", "inspect", name]).returncode == 0


def subnet_of(name: str) -> str:
    return docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", name).strip()


def ensure(name: str, subnet: str = "", labels: tuple[str, ...] = ()) -> str:
    """A bridge of that name; returns its subnet."""
    if exists(name):
        return subnet_of(name)
    for candidate in [subnet] if subnet else preferred_subnets(name):
        words = [word for label in ("devnode.lab=1", *labels) for word in ("--label", label)]
        done = attempt(["docker", "network", "create", "--subnet", candidate, *words, name])
        if done.returncode == 0:
            return candidate
        if "overlap" not in done.stderr.lower():
            raise LabError(f"network {name} ({candidate}): {done.stderr.strip()}")
    raise LabError(
        f"network {name}: {subnet or 'every subnet 10.203.64.0/24 to 10.203.255.0/24'} is taken on this machine. "
        "Look with `docker network ls` and `ip route`, and take away what is left over."
    )


def remove(name: str) -> None:
    if exists(name):
        docker("network", "rm", name)
