# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the variables of role host_firewall to the pieces that its nftables template prints. Pure.

A piece is a plain dict: the template only loops over it. IPv4 and IPv6 are kept apart, since nftables sets are.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, TypeVar, Union

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

T = TypeVar("T")
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

RATE_RE = re.compile(r"([1-9][0-9]{0,6})/(second|minute|hour)(?: burst ([1-9][0-9]{0,6}))?")
# How long a source is remembered after its last new connection: long enough for its allowance to be full again.
REMEMBER = {"second": "1m", "minute": "10m", "hour": "4h"}
INTERFACE_RE = re.compile(r"[A-Za-z0-9_.-]{1,15}|[A-Za-z0-9_.-]{1,14}\*")


@dataclass(frozen=True)
class Present:
    """The connection that this run came by: its source, and the ports that sshd answers on."""

    source: str
    ports: tuple[int, ...]


@dataclass
class Plan:
    """What the template prints."""

    services: list[dict[str, Any]] = field(default_factory=list)
    egress_uids: list[int] = field(default_factory=list)
    egress: dict[str, list[str]] = field(default_factory=lambda: {"ip": [], "ip6": []})
    resolvers: dict[str, list[str]] = field(default_factory=lambda: {"ip": [], "ip6": []})
    published: list[dict[str, Any]] = field(default_factory=list)
    interfaces: list[str] = field(default_factory=list)
    outbound: bool = True
    has_containers: bool = False
    log_group: int = 0
    log: dict[str, str] = field(default_factory=lambda: {"allow": "", "deny": ""})


class FirewallError(ValueError):
    """Every problem of a rule set, one a line."""


class _Problems:
    def __init__(self) -> None:
        self.found: list[str] = []

    def take(self, where: str, value: Any, check: Callable[[Any], T]) -> Optional[T]:
        try:
            return check(value)
        except InvalidError as error:
            self.found.append(f"{where}: {show(value)} {error}")
            return None

    def each(self, where: str, values: Any, check: Callable[[Any], T]) -> list[T]:
        if not isinstance(values, (list, tuple)):
            self.found.append(f"{where}: {show(values)} is not a list")
            return []
        taken = (self.take(f"{where}[{index}]", value, check) for index, value in enumerate(values))
        return [value for value in taken if value is not None]

    def fields(self, where: str, value: Any, needed: set[str], optional: set[str]) -> bool:
        if not isinstance(value, dict):
            self.found.append(f"{where}: {show(value)} is not a mapping")
            return False
        missing, strange = needed - set(value), set(value) - needed - optional
        if missing:
            self.found.append(f"{where}: has no {', '.join(sorted(missing))}")
        if strange:
            allowed = ", ".join(sorted(needed | optional))
            self.found.append(f"{where}: unknown {', '.join(sorted(map(str, strange)))}. Allowed: {allowed}")
        return not missing and not strange


def rate(value: Any) -> Optional[dict[str, str]]:
    """A rate as nftables takes it, or None for no limit."""
    if value in ("", None):
        return None
    found = RATE_RE.fullmatch(str(value))
    if not found:
        raise InvalidError("is not a rate", 'NUMBER/second|minute|hour, with or without "burst NUMBER"')
    burst = found.group(3) or "5"  # nftables' own default
    return {"limit": f"{found.group(1)}/{found.group(2)} burst {burst} packets", "remember": REMEMBER[found.group(2)]}


def _protocol(value: Any) -> str:
    return validators.choice(value, ("tcp", "udp"))


def split(networks: list[str]) -> dict[str, list[str]]:
    """Networks by family, without overlaps: an interval set refuses those."""
    parsed = [ipaddress.ip_network(item) for item in networks]
    four = ipaddress.collapse_addresses(net for net in parsed if isinstance(net, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(net for net in parsed if isinstance(net, ipaddress.IPv6Network))
    return {"ip": [_short(net) for net in four], "ip6": [_short(net) for net in six]}


def _short(net: Network) -> str:
    return str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net)


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def _interface(value: Any) -> str:
    if not INTERFACE_RE.fullmatch(str(value)):
        raise InvalidError("is not an interface", "1-15 of A-Z a-z 0-9 _ . -, or the beginning of one and a *")
    return str(value)


def _sources(problems: _Problems, where: str, values: Any) -> dict[str, list[str]]:
    found = problems.each(where, values, validators.network)
    if isinstance(values, list) and not values:
        problems.found.append(f"{where}: is empty. Say 0.0.0.0/0 and ::/0 when everybody is meant, or drop the entry")
    return split(found)


def _services(problems: _Problems, values: Any) -> list[dict[str, Any]]:
    found = []
    names: set[str] = set()
    for index, value in enumerate(values):
        where = f"host_firewall_services[{index}]"
        if not problems.fields(where, value, {"name", "port", "sources"}, {"protocol", "rate"}):
            continue
        name = problems.take(f"{where}.name", value["name"], validators.name)
        if name in names:
            problems.found.append(f"{where}.name: {show(name)} is there twice")
        names.add(str(name))
        found.append(
            {
                "name": str(name).replace("-", "_"),  # in the names of sets
                "label": name,
                "port": problems.take(f"{where}.port", value["port"], validators.port),
                "protocol": problems.take(f"{where}.protocol", value.get("protocol", "tcp"), _protocol),
                "sources": _sources(problems, f"{where}.sources", value["sources"]),
                "rate": problems.take(f"{where}.rate", value.get("rate", ""), rate),
            }
        )
    return found


def _egress(problems: _Problems, values: Any, plan: Plan) -> None:
    uids: set[int] = set()
    rows: dict[str, set[tuple[int, str, int]]] = {"ip": set(), "ip6": set()}
    for index, value in enumerate(values):
        where = f"host_firewall_egress[{index}]"
        if not problems.fields(where, value, {"uid", "targets"}, {"name"}):
            continue
        uid = problems.take(f"{where}.uid", value["uid"], validators.uid)
        targets = value["targets"] if isinstance(value["targets"], list) else []
        if targets is not value["targets"]:
            problems.found.append(f"{where}.targets: {show(value['targets'])} is not a list")
        if uid is not None:
            uids.add(uid)
        for number, target in enumerate(targets):
            place = f"{where}.targets[{number}]"
            if problems.fields(place, target, {"address", "port"}, set()):
                address = problems.take(f"{place}.address", target["address"], validators.ip)
                port = problems.take(f"{place}.port", target["port"], validators.port)
                if uid is not None and address is not None and port is not None:
                    rows[_family(address)].add((uid, address, port))
    plan.egress_uids = sorted(uids)
    plan.egress = {
        family: [f"{uid} . {address} . {port}" for uid, address, port in sorted(found)]
        for family, found in rows.items()
    }


def _containers(problems: _Problems, value: Any, plan: Plan) -> None:
    where = "host_firewall_containers"
    if not problems.fields(where, value, set(), {"published", "outbound"}):
        return
    plan.outbound = bool(problems.take(f"{where}.outbound", value.get("outbound", True), validators.boolean))
    published = value.get("published", [])
    if not isinstance(published, list):
        problems.found.append(f"{where}.published: {show(published)} is not a list")
        return
    for index, entry in enumerate(published):
        place = f"{where}.published[{index}]"
        if not problems.fields(place, entry, {"name", "address", "port", "sources"}, set()):
            continue
        address = problems.take(f"{place}.address", entry["address"], validators.ip)
        sources = _sources(problems, f"{place}.sources", entry["sources"])
        family = _family(address or "")
        row = {
            "name": problems.take(f"{place}.name", entry["name"], validators.name),
            "family": family,
            "address": address,
            "port": problems.take(f"{place}.port", entry["port"], validators.port),
            "sources": sources[family],
        }
        if row["sources"]:
            plan.published.append(row)


def _log_group(value: Any) -> int:
    return validators.integer(value, 0, 65535)


def log_statements(group: int) -> dict[str, str]:
    """What goes before the verdict of a connection that is told to a log group: each at once, not in batches."""
    if not group:
        return {"allow": "", "deny": ""}
    return {word: f'log prefix "devnode-{word}" group {group} queue-threshold 1 ' for word in ("allow", "deny")}


def make_plan(
    services: list[Any],
    egress: list[Any],
    containers: dict[str, Any],
    interfaces: list[Any],
    resolvers: list[Any],
    log_group: Any = 0,
) -> Plan:
    """The role's variables as pieces, or FirewallError with everything that is wrong with them."""
    problems = _Problems()
    plan = Plan(has_containers=bool(containers))
    plan.services = _services(problems, services)
    _egress(problems, egress, plan)
    plan.resolvers = split(problems.each("host_firewall_egress_resolvers", resolvers, validators.ip))
    plan.log_group = problems.take("host_firewall_egress_log_group", log_group, _log_group) or 0
    plan.log = log_statements(plan.log_group)
    if containers:
        plan.interfaces = problems.each("host_firewall_container_interfaces", interfaces, _interface)
        _containers(problems, containers, plan)
    if problems.found:
        raise FirewallError("\n".join(problems.found))
    return plan


def admits(plan: Plan, source: str, ports: tuple[int, ...]) -> bool:
    """Whether a new TCP connection from an address to one of some ports would get in."""
    address = ipaddress.ip_address(source)
    return any(
        address in ipaddress.ip_network(net)
        for service in plan.services
        if service["protocol"] == "tcp" and service["port"] in ports
        for net in service["sources"][_family(source)]
    )


def refusals(plan: Plan, present: Optional[Present], bridges: list[str]) -> list[str]:
    """Why this rule set must not be put in place on this host."""
    found = []
    if present and not admits(plan, present.source, present.ports):
        ports = " or ".join(str(port) for port in present.ports)
        found.append(
            f"host_firewall_services: nothing lets {present.source} reach port {ports}/tcp, where this very run comes "
            "from, so it would lock itself out. Add a service with that port and address."
        )
    if bridges and not plan.has_containers:
        found.append(
            f"host_firewall_containers: is empty, but this host has container networks ({', '.join(bridges)}), which "
            "would be cut off. Set at least host_firewall_containers: {outbound: true}, or remove the engine."
        )
    return found
