# SPDX-License-Identifier: GPL-3.0-or-later
"""A Molecule scenario's hosts. molecule/shared/{create,destroy}.yml call this with the scenario's platforms.

A platform uses the docker driver's own fields: name, image (a system of the lab: debian12, debian13),
labels.engine ("true": the host can run a container engine), networks ([{name, ipv4_address}]; default: one network).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import hosts, images, keys, networks, trust
from .shell import LabError

DEFAULT_NETWORK = "default"


@dataclass(frozen=True)
class Scenario:
    name: str
    folder: Path
    platforms: list[dict[str, Any]]

    @property
    def prefix(self) -> str:
        return f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-{self.name}"

    def container(self, name: str) -> str:
        return f"{self.prefix}-{name}"


def network_names(scenario: Scenario) -> dict[str, str]:
    """The platforms' names for networks, and what the engine calls them."""
    short = [place["name"] for platform in scenario.platforms for place in _places(platform)]
    return {name: f"{scenario.prefix}-{name}" for name in dict.fromkeys(short)}


def _places(platform: dict[str, Any]) -> list[dict[str, str]]:
    return platform.get("networks") or [{"name": DEFAULT_NETWORK}]


def host_spec(scenario: Scenario, index: int, subnets: dict[str, str]) -> hosts.HostSpec:
    """The host of a platform. Addresses are given, so that they outlive a restart of the host."""
    platform = scenario.platforms[index]
    system = platform.get("image", "")
    if system not in images.SYSTEMS:
        raise LabError(
            f'molecule platforms[{index}].image: "{system}" is not a system of the lab. '
            f"Allowed: {', '.join(images.SYSTEMS)}."
        )
    full_names = network_names(scenario)
    attachments = tuple(
        hosts.Attachment(full_names[place["name"]], _address(place, index, subnets)) for place in _places(platform)
    )
    return hosts.HostSpec(
        container=scenario.container(platform["name"]),
        hostname=platform["name"],
        os=system,
        engine=str(platform.get("labels", {}).get("engine", "false")).lower() == "true",
        attachments=attachments,
        aliases=(platform["name"],),
        peers=tuple(_peers(scenario, index, subnets)),
        name_servers=networks.name_servers(),
    )


def _address(place: dict[str, str], index: int, subnets: dict[str, str]) -> str:
    return place.get("ipv4_address") or networks.address_in(subnets[place["name"]], index)


def _peers(scenario: Scenario, index: int, subnets: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The other hosts by name, each at its address in the first network that both are in."""
    mine = [place["name"] for place in _places(scenario.platforms[index])]
    for other, platform in enumerate(scenario.platforms):
        shared = [place for place in _places(platform) if place["name"] in mine]
        if other != index and shared:
            yield platform["name"], _address(shared[0], other, subnets)


def create(scenario: Scenario) -> None:
    scenario.folder.mkdir(parents=True, exist_ok=True)
    public_key = keys.ensure_key(scenario.folder / keys.AUTOMATION, keys.AUTOMATION)
    subnets = {short: networks.ensure(full) for short, full in network_names(scenario).items()}
    specs = [host_spec(scenario, index, subnets) for index in range(len(scenario.platforms))]
    for system in dict.fromkeys(spec.os for spec in specs):
        images.ensure(system)
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda spec: hosts.up(spec, public_key), specs))
    # For images that are built on the hosts, from where the internet is seen as from here.
    keys.write_private(scenario.folder / "extra_ca.crt", trust.extra_certificates(specs[0].container))
    targets = [hosts.target(spec.container, spec.hostname, spec.attachments[0].network) for spec in specs]
    hosts.write_access(scenario.folder, targets)
    for one in targets:
        hosts.wait_for_ssh(one.address)
    hosts.end_masters(one.address for one in targets)


def destroy(scenario: Scenario) -> None:
    for platform in scenario.platforms:
        name = scenario.container(platform["name"])
        hosts.leave(name)
        hosts.down(name)
    for name in network_names(scenario).values():
        networks.remove(name)
    for path in (
        *[scenario.folder / name for name in ("ssh_config", "known_hosts", "extra_ca.crt")],
        *scenario.folder.glob(f"{keys.AUTOMATION}*"),
    ):
        path.unlink(missing_ok=True)
