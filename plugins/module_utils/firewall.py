# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the variables of role host_firewall to the pieces that its nftables template prints. Pure.

A piece is a plain dict: the template only loops over it. IPv4 and IPv6 are kept apart, since nftables sets are.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.problems import Problems
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

RATE_RE = re.compile(r"([1-9][0-9]{0,6})/(second|minute|hour)(?: burst ([1-9][0-9]{0,6}))?")
# How long a source is remembered after its last new connection: long enough for its allowance to be full again.
REMEMBER = {"second": "1m", "minute": "10m", "hour": "4h"}
# In the list of name servers: those that the host itself asks.
HOSTS_OWN = "host"
# Where clouds tell a machine who it is, for whoever asks: link-local for all, Alibaba's, Oracle's. Azure's is not
# here, since all of it but two ports is name service. IPv6: link-local, Amazon's, Google's.
METADATA = ("169.254.0.0/16", "100.100.100.200", "192.0.0.192", "fe80::/10", "fd00:ec2::254", "fd20:ce::254")
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
    reach: list[dict[str, Any]] = field(default_factory=list)
    interfaces: list[str] = field(default_factory=list)
    outbound: bool = True
    has_containers: bool = False
    log_group: int = 0
    log: dict[str, str] = field(default_factory=lambda: {"allow": "", "deny": ""})
    metadata: dict[str, list[str]] = field(default_factory=lambda: split(list(METADATA)))
    # Name servers of the host at such an address, as on Google's machines. Containers ask the host's, by themselves or
    # through the engine.
    metadata_resolvers: dict[str, list[str]] = field(default_factory=lambda: {"ip": [], "ip6": []})
    # How often the table was found to be another than its file says, see firewall_live.
    again: int = 0
    # What nftables.service loads, when ours can go along in the same transaction.
    nftables_conf: str = ""


class FirewallError(ValueError):
    """Every problem of a rule set, one a line."""


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


def _sources(problems: Problems, where: str, values: Any) -> dict[str, list[str]]:
    found = problems.each(where, values, validators.network)
    if isinstance(values, list) and not values:
        problems.found.append(f"{where}: is empty. Say 0.0.0.0/0 and ::/0 when everybody is meant, or drop the entry")
    return split(found)


def _services(problems: Problems, values: Any) -> list[dict[str, Any]]:
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


def _egress(problems: Problems, values: Any, plan: Plan) -> None:
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


def _containers(problems: Problems, value: Any, plan: Plan) -> None:
    where = "host_firewall_containers"
    if not problems.fields(where, value, set(), {"published", "outbound", "reach"}):
        return
    plan.reach = _reach(problems, f"{where}.reach", value.get("reach", []))
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


def _reach(problems: Problems, where: str, values: Any) -> list[dict[str, Any]]:
    if not isinstance(values, list):
        problems.add(where, values, "is not a list")
        return []
    found = []
    for index, value in enumerate(values):
        place = f"{where}[{index}]"
        if problems.fields(place, value, {"address", "port"}, {"protocol"}):
            address = problems.take(f"{place}.address", value["address"], validators.ip)
            port = problems.take(f"{place}.port", value["port"], validators.port)
            protocol = problems.take(f"{place}.protocol", value.get("protocol", "tcp"), _protocol)
            found.append({"family": _family(address or ""), "address": address, "port": port, "protocol": protocol})
    return found


def _resolver(own: list[str], value: Any) -> list[str]:
    if value != HOSTS_OWN:
        return [validators.ip(value)]
    if not own:
        raise InvalidError("means the name servers of this host, and its /etc/resolv.conf lists none", "IP addresses")
    return own


def name_servers(resolv_conf: str) -> list[str]:
    """Whom a host asks, from its resolv.conf."""
    lines = (line.split() for line in resolv_conf.splitlines())
    found = (words[1].partition("%")[0] for words in lines if words[:1] == ["nameserver"] and len(words) > 1)
    return [address for address in found if _is_address(address)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _in_metadata(addresses: list[str]) -> list[str]:
    """Those of some addresses that containers would not reach. Not the host's own: nobody outside has those."""
    networks = [ipaddress.ip_network(network) for network in METADATA]
    return [one for one in addresses if any(ipaddress.ip_address(one) in network for network in networks)]


def make_plan(
    services: list[Any],
    egress: list[Any],
    containers: dict[str, Any],
    interfaces: list[Any],
    resolvers: list[Any],
    log_group: Any = 0,
    own_resolvers: Optional[list[str]] = None,
    upstream_resolvers: Optional[list[str]] = None,
) -> Plan:
    """The role's variables as pieces, or FirewallError with everything that is wrong with them."""
    problems = Problems()
    plan = Plan(has_containers=bool(containers))
    plan.services = _services(problems, services)
    _egress(problems, egress, plan)
    plan.log_group = problems.take("host_firewall_egress_log_group", log_group, _log_group) or 0
    plan.log = log_statements(plan.log_group)
    asked = problems.each("host_firewall_egress_resolvers", resolvers, lambda one: _resolver(own_resolvers or [], one))
    plan.resolvers = split([address for some in asked for address in some])
    if containers:
        plan.interfaces = problems.each("host_firewall_container_interfaces", interfaces, _interface)
        _containers(problems, containers, plan)
        plan.metadata_resolvers = split(_in_metadata([*(own_resolvers or []), *(upstream_resolvers or [])]))
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
