# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container engine's daemon.json, shared by several owners: what to merge, and what a change asks of the engine.

An owner (a role) declares settings; its leaves are put into the document and remembered, with what stood there
before. A leaf that its owner no longer declares goes back to that. Everything else in the document belongs to
somebody else and stays, at every depth. Pure functions; standard library only.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Set, Tuple, Union

Document = Dict[str, Any]
Path = Tuple[str, ...]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

# dockerd takes these over at SIGHUP (daemon/reload.go), but only when the file names them: a key that was taken away
# keeps its old value until a restart. `features` is left out on purpose: CDI and the image store are set up at start.
RELOADABLE = frozenset(
    (
        "allow-nondistributable-artifacts",
        "debug",
        "default-runtime",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    )
)
# live-restore finds running containers again only if these stay as they were.
CUTS_LIVE_RESTORE = frozenset(
    (
        "bip",
        "bip6",
        "bridge",
        "cgroup-parent",
        "containerd",
        "containerd-namespace",
        "data-root",
        "exec-opts",
        "exec-root",
        "fixed-cidr",
        "fixed-cidr-v6",
        "ip6tables",
        "iptables",
        "ipv6",
        "storage-driver",
        "storage-opts",
        "userland-proxy",
        "userns-remap",
    )
)
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
_MISSING = object()


class DaemonJsonError(ValueError):
    """The document or the settings cannot be used; the text is for people."""


# Documents ------------------------------------------------------------------------------------------------------------


def parse(text: str, name: str) -> Document:
    """The document in a file. Only space is an empty document, as for dockerd."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DaemonJsonError(
            f"{name} is not valid JSON ({error}). It was left as it is, because nobody can tell what of it counts. "
            f"Repair it (`python3 -m json.tool {name}` shows the place), or move it away, and run again."
        ) from error
    if not isinstance(found, dict):
        raise DaemonJsonError(
            f"{name} holds {_kind(found)}, where dockerd expects an object. It was left as it is. "
            "Repair it and run again."
        )
    return found


def render(document: Mapping[str, Any], like: str = "") -> str:
    """The text of a document, indented as the file was."""
    indent = re.search(r"^([ \t]+)\S", like, re.MULTILINE)
    return json.dumps(document, indent=indent.group(1) if indent else 2, ensure_ascii=False) + "\n"


def compact(settings: Mapping[str, Any]) -> Document:
    """Settings without what means "not set": null, empty text, empty lists and objects."""
    out: Document = {}
    for key, value in settings.items():
        kept = compact(value) if isinstance(value, Mapping) else value
        if kept is None or (isinstance(kept, (str, list, tuple, dict)) and len(kept) == 0):
            continue
        out[key] = kept
    return out


def merged(*many: Mapping[str, Any]) -> Document:
    """One document out of several; later ones win, leaf by leaf."""
    out: Document = {}
    for one in many:
        for key, value in one.items():
            both = isinstance(value, Mapping) and isinstance(out.get(key), dict)
            out[key] = merged(out[key], value) if both else copy.deepcopy(value)
    return out


def leaves(settings: Mapping[str, Any], at: Path = ()) -> Dict[Path, Any]:
    """Every value that is not an object, and every empty object, by its path."""
    out: Dict[Path, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            out.update(leaves(value, (*at, key)))
        else:
            out[(*at, key)] = value
    return out


# Ownership ------------------------------------------------------------------------------------------------------------


@dataclass
class Ownership:
    """Who set which leaf, what stood there before, and which objects were made on the way."""

    owners: Dict[str, Dict[Path, Any]] = field(default_factory=dict)
    before: Dict[Path, Any] = field(default_factory=dict)  # only where something was
    created: Set[Path] = field(default_factory=set)

    def to_json(self) -> Dict[str, Any]:
        return {
            "owners": {name: _pairs(held) for name, held in sorted(self.owners.items()) if held},
            "before": _pairs(self.before),
            "created": [list(path) for path in sorted(self.created)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ownership:
        return cls(
            owners={name: _from_pairs(held) for name, held in data.get("owners", {}).items()},
            before=_from_pairs(data.get("before", [])),
            created={tuple(path) for path in data.get("created", [])},
        )


def _pairs(held: Mapping[Path, Any]) -> List[List[Any]]:
    return [[list(path), held[path]] for path in sorted(held)]


def _from_pairs(pairs: Iterable[Sequence[Any]]) -> Dict[Path, Any]:
    return {tuple(path): value for path, value in pairs}


@dataclass
class Merge:
    """The outcome of a merge."""

    document: Document
    ownership: Ownership
    foreign: List[str] = field(default_factory=list)  # leaves of ours that somebody else had changed


def merge(current: Mapping[str, Any], ownership: Ownership, owner: str, settings: Mapping[str, Any]) -> Merge:
    """Put an owner's settings into the document, and take away what it no longer declares."""
    document = copy.deepcopy(dict(current))
    state = copy.deepcopy(ownership)
    mine_before = state.owners.get(owner, {})
    others = {name: held for name, held in state.owners.items() if name != owner}
    wanted = leaves(compact(settings))
    _refuse_disagreement(owner, wanted, others)
    shared = {path for held in others.values() for path in held}
    foreign = [
        dotted(path)
        for path, value in mine_before.items()
        if path in wanted and not _same(_get(document, path), value) and not _same(_get(document, path), wanted[path])
    ]

    for path in sorted(set(mine_before) - set(wanted) - shared, reverse=True):
        _take_away(document, state, path, mine_before[path])
    _remove_empty(document, state, set(wanted) | shared)
    owned_before = set(mine_before) | shared
    for path, value in wanted.items():
        _put(document, state, path, value, known=path in owned_before)
    if wanted:
        state.owners[owner] = {path: copy.deepcopy(value) for path, value in wanted.items()}
    else:
        state.owners.pop(owner, None)
    return Merge(document, state, sorted(foreign))


def _refuse_disagreement(owner: str, wanted: Mapping[Path, Any], others: Mapping[str, Mapping[Path, Any]]) -> None:
    errors = []
    for name, held in sorted(others.items()):
        for path, value in sorted(held.items()):
            for mine, asked in sorted(wanted.items()):
                overlap = mine[: len(path)] == path or path[: len(mine)] == mine
                if overlap and not (mine == path and _same(asked, value)):
                    errors.append(
                        f"{dotted(mine)}: {owner} wants {json.dumps(asked)}, but {name} has set {dotted(path)} to "
                        f"{json.dumps(value)}. Give both the same value, or take it out of one."
                    )
    if errors:
        raise DaemonJsonError("\n".join(errors))


def _take_away(document: Document, state: Ownership, path: Path, ours: Any) -> None:
    before = state.before.pop(path, _MISSING)
    if not _same(_get(document, path), ours):
        return  # somebody else has changed it since: it is theirs now
    if before is _MISSING:
        _delete(document, path)
    else:
        _walk(document, path)[path[-1]] = before


def _remove_empty(document: Document, state: Ownership, remaining: Set[Path]) -> None:
    """Objects that were made only to hold leaves of ours, deepest first."""
    for above in sorted(state.created, key=len, reverse=True):
        if not any(held[: len(above)] == above for held in remaining):
            state.created.discard(above)
            if _get(document, above) == {}:
                _delete(document, above)


def _put(document: Document, state: Ownership, path: Path, value: Any, known: bool) -> None:
    place = document
    for length, key in enumerate(path[:-1], start=1):
        if key not in place:
            place[key] = {}
            state.created.add(path[:length])
        place = place[key]
        if not isinstance(place, dict):
            raise DaemonJsonError(
                f"{dotted(path[:length])} is {_kind(place)} in the file, but {dotted(path)} has to go into it. "
                "That value is somebody else's and was left. Correct or remove it, then run again."
            )
    last = path[-1]
    if isinstance(place.get(last), dict) and place[last]:
        raise DaemonJsonError(
            f"{dotted(path)} is an object in the file, but {json.dumps(value)} is wanted there. "
            "What is in it is somebody else's and was left. Correct or remove it, then run again."
        )
    if not known and last in place:
        state.before[path] = copy.deepcopy(place[last])
    if not _same(place.get(last, _MISSING), value):
        place[last] = copy.deepcopy(value)


def _get(document: Mapping[str, Any], path: Path) -> Any:
    place: Any = document
    for key in path:
        if not isinstance(place, Mapping) or key not in place:
            return _MISSING
        place = place[key]
    return place


def _walk(document: Document, path: Path) -> Document:
    place = document
    for key in path[:-1]:
        place = place[key]
    return place


def _delete(document: Document, path: Path) -> None:
    if _get(document, path) is not _MISSING:
        del _walk(document, path)[path[-1]]


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and true are not."""
    if one is _MISSING or other is _MISSING:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def dotted(path: Path) -> str:
    return ".".join(path)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return {list: "a list", dict: "an object", str: "text", type(None): "null"}.get(type(value), "a number")


# The engine -----------------------------------------------------------------------------------------------------------


def version_of(text: str) -> Tuple[int, ...]:
    """(26, 1, 5) of "Docker version 26.1.5+dfsg1, build …" or "26.1"; () when there is none."""
    found = re.search(r"(\d+(?:\.\d+)+|\d+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def for_version(versioned: Sequence[Mapping[str, Any]], version: Tuple[int, ...]) -> Tuple[Document, List[str]]:
    """The settings, and the notes, of those entries that suit an engine. Nothing known of it: taken as new."""
    known = version or (9999,)
    chosen: List[Mapping[str, Any]] = []
    notes: List[str] = []
    for entry in versioned:
        since, before = version_of(str(entry.get("since") or "0")), version_of(str(entry.get("before") or ""))
        if known >= since and (not before or known < before):
            chosen.append(entry.get("settings") or {})
            if entry.get("note"):
                notes.append(str(entry["note"]))
    return merged(*chosen), notes


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


def changed_keys(loaded: Mapping[str, Any], wanted: Mapping[str, Any]) -> List[str]:
    return sorted(
        key for key in set(loaded) | set(wanted) if not _same(loaded.get(key, _MISSING), wanted.get(key, _MISSING))
    )


@dataclass(frozen=True)
class Running:
    """What the running engine is and carries."""

    loaded: Optional[Mapping[str, Any]]  # None: nobody knows what it has read
    live_restore: bool
    version: str = ""
    containers: Tuple[str, ...] = ()
    gpu_processes: Tuple[str, ...] = ()
    answers: bool = True


@dataclass(frozen=True)
class Step:
    """What to do with the engine."""

    action: str  # none | start | reload | restart | defer
    why: str = ""
    reload_first: bool = False  # makes live-restore effective, so that the restart keeps containers


def next_step(wanted: Mapping[str, Any], running: Optional[Running], installed: str, policy: str) -> Step:
    """How the engine gets to the wanted configuration without ending anybody's work. policy: safe, always or never."""
    if running is None:
        return Step("start", "it does not run")
    keys = ["(unknown)"] if running.loaded is None else changed_keys(running.loaded, wanted)
    newer = bool(installed and running.version and version_of(installed) != version_of(running.version))
    if not keys and not newer:
        return Step("none")
    why = "; ".join(
        [f"changed: {', '.join(keys)}"] * bool(keys)
        + [f"engine {installed} is installed, {running.version} runs"] * newer
    )
    if keys and not newer and all(key in RELOADABLE and key in wanted for key in keys):
        return Step("reload", why)
    if policy == "never":
        return Step("defer", f"a restart is needed ({why}), and restarts are not allowed (never)")
    if policy == "always":
        return Step("restart", why)
    if not running.answers:
        return Step("defer", f"a restart is needed ({why}), but the engine does not answer what runs on it")
    busy = [f"container {name}" for name in running.containers]
    busy += [f"GPU process {one}" for one in running.gpu_processes]
    if not busy:
        return Step("restart", why)
    if running.live_restore or wanted.get("live-restore") is True:
        # Unknown is unsafe: such a key may be among what was changed.
        cutting = sorted(CUTS_LIVE_RESTORE.intersection(keys)) or ["unknown settings"] * (running.loaded is None)
        if not cutting:
            return Step("restart", why, reload_first=not running.live_restore)
        reason = f"live-restore cannot keep containers through a change of {', '.join(cutting)}"
    else:
        reason = "live-restore is off"
    return Step("defer", f"a restart is needed ({why}), {reason}, and it would end: {', '.join(busy)}")


# Addresses ------------------------------------------------------------------------------------------------------------


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


# Limits ---------------------------------------------------------------------------------------------------------------


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
