# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine or this host cannot do with a daemon.json: flags, addresses, limits. Pure functions."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Sequence, Tuple, Union

from ansible_collections.devnode.gpu.plugins.module_utils.daemon_json import DaemonJsonError

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

# What dockerd uses for networks that nobody gave an address (libnetwork/ipamutils).
BUILT_IN_POOLS = tuple([f"172.{n}.0.0/16" for n in range(17, 32)] + ["192.168.0.0/16"])

_SHORT_FLAGS = {
    "D": "debug",
    "G": "group",
    "H": "hosts",
    "b": "bridge",
    "g": "data-root",
    "l": "log-level",
    "p": "pidfile",
    "s": "storage-driver",
}
_FLAG_KEYS = {
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "default-address-pool": "default-address-pools",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "graph": "data-root",
    "host": "hosts",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}


def flags_of(argv: Sequence[str]) -> Dict[str, str]:
    """The daemon.json keys that a dockerd command line sets, with the flag as it was written."""
    out: Dict[str, str] = {}
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name = word[2:].split("=", 1)[0]
            out.setdefault(_FLAG_KEYS.get(name, name), f"--{name}")
        elif len(word) > 1 and word[0] == "-" and word[1] in _SHORT_FLAGS:
            out.setdefault(_SHORT_FLAGS[word[1]], f"-{word[1]}")
    return out


def clashes(document: Mapping[str, Any], argv: Sequence[str]) -> Dict[str, str]:
    """Keys given both in the file and as a flag: dockerd refuses to start with these."""
    given = flags_of(argv)
    # dockerd itself lets these two be given in both places.
    return {key: given[key] for key in document if key in given and key not in ("config-file", "runtimes")}


def own_networks(document: Mapping[str, Any]) -> Dict[str, FrozenSet[Network]]:
    """The networks that this engine may take for its bridges, by the setting they come from."""
    out: Dict[str, FrozenSet[Network]] = {}
    for key in ("bip", "bip6", "fixed-cidr", "fixed-cidr-v6"):
        if document.get(key):
            out[key] = frozenset([_network(key, document[key])])
    pools = document.get("default-address-pools") or []
    if pools:
        out["default-address-pools"] = frozenset(_network("default-address-pools", pool.get("base")) for pool in pools)
    return out


def _network(key: str, value: Any) -> Network:
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError as error:
        raise DaemonJsonError(f'{key}: "{value}" is not a network ({error}). Write it like 172.30.0.0/16.') from error


def overlaps(
    networks: Mapping[str, Iterable[Network]], routes: Iterable[Tuple[str, str]], peers: Iterable[str]
) -> List[str]:
    """Where the engine's networks meet a route (destination, device) of this host or the address that we come from."""
    found = []
    taken: List[Tuple[Network, str]] = []
    for destination, device in routes:
        if destination != "default" and not re.match(r"docker|br-|veth|lo$", device):
            network = ipaddress.ip_network(destination, strict=False)
            if network.prefixlen > 0:
                taken.append((network, f"the route to {network} (device {device})"))
    taken += [(ipaddress.ip_network(peer), f"{peer}, where this run comes from") for peer in peers]
    for key in sorted(networks):
        for ours in sorted(networks[key], key=str):
            for theirs, what in taken:
                if ours.version == theirs.version and ours.overlaps(theirs):
                    found.append(f"{key} ({ours}) overlaps {what}")
    return found


def limit_troubles(document: Mapping[str, Any], ceilings: Mapping[str, int]) -> List[str]:
    """Default limits that this machine cannot give, so that no container would start. ceilings: the most, by name."""
    out = []
    for name, limit in sorted((document.get("default-ulimits") or {}).items()):
        most = ceilings.get(name)
        asked = limit.get("Hard") if isinstance(limit, dict) else None
        if most is None or not isinstance(asked, int) or 0 <= asked <= most:
            continue
        shown = "unlimited" if asked == -1 else asked
        out.append(
            f"default-ulimits.{name}: the hard limit asked for is {shown}, and the most this machine gives is {most}"
        )
    return out
