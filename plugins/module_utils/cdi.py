# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CDI specifications as nvidia-ctk writes them, and the GPUs they are for. Pure functions; standard library only."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

GPU_LINE = re.compile(r"^GPU (?P<index>\d+): (?P<name>.*) \(UUID: (?P<uuid>GPU-[0-9a-f-]+)\)\s*$")
MIG_LINE = re.compile(r"^\s+MIG .*Device\s+(?P<index>\d+): \(UUID: (?P<uuid>MIG-[0-9a-f-]+)\)\s*$")
KEY = re.compile(r"^(?P<indent>\s*)(?P<dash>-\s+)?(?P<key>[A-Za-z]+):\s*(?P<value>.*?)\s*$")
NAME = re.compile(r"[a-z0-9.-]+/[a-zA-Z0-9._-]+=[a-zA-Z0-9._:-]+")


class CdiError(ValueError):
    """A specification that cannot be read; the text is for people."""


@dataclass(frozen=True)
class Gpu:
    index: str  # "0", or "0:1" for a MIG device
    uuid: str
    name: str


def parse_gpus(listing: str) -> List[Gpu]:
    """What `nvidia-smi -L` lists. A GPU that is cut into MIG devices is given by these."""
    out: List[Gpu] = []
    parent: Gpu = Gpu("", "", "")
    whole: Dict[str, Gpu] = {}
    cut = set()
    for line in listing.splitlines():
        found = GPU_LINE.match(line)
        if found:
            parent = Gpu(found.group("index"), found.group("uuid"), found.group("name"))
            whole[parent.index] = parent
            out.append(parent)
            continue
        found = MIG_LINE.match(line)
        if found and parent.index:
            cut.add(parent)
            out.append(Gpu(f"{parent.index}:{found.group('index')}", found.group("uuid"), parent.name))
    return [gpu for gpu in out if gpu not in cut]


def parse_devices(listing: str) -> List[str]:
    """What `nvidia-ctk cdi list` prints, without its log lines."""
    return [line.strip() for line in listing.splitlines() if NAME.fullmatch(line.strip())]


def device_paths(text: str) -> Dict[str, List[str]]:
    """The paths on the host that each device of a specification needs, by its full name; JSON or nvidia-ctk's YAML."""
    text = text.lstrip("\ufeff")
    if text.lstrip().startswith("{"):
        try:
            return _from_json(json.loads(text))
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise CdiError(f"it is not a CDI specification ({error})") from error
    return _from_yaml(text)


def too_new(text: str, below: str) -> List[str]:
    """What is wrong with a specification's format where runtimes read only older ones."""
    found = re.search(r"^\s*[{\"]*cdiVersion\"?\s*:\s*[\"']?(\d+(?:\.\d+)*)", text, re.MULTILINE) or re.search(
        r"\"cdiVersion\"\s*:\s*\"(\d+(?:\.\d+)*)\"", text
    )
    if not below or not found or _numbers(found.group(1)) < _numbers(below):
        return []
    return [f"its format {found.group(1)} is too new for a runtime of this host, which reads those before {below}"]


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _from_json(spec: Dict[str, Any]) -> Dict[str, List[str]]:
    common = _edit_paths(spec.get("containerEdits") or {})
    kind = spec["kind"]
    return {
        f"{kind}={device['name']}": _edit_paths(device.get("containerEdits") or {}) + common
        for device in spec.get("devices") or []
    }


def _edit_paths(edits: Dict[str, Any]) -> List[str]:
    nodes = [node.get("hostPath") or node["path"] for node in edits.get("deviceNodes") or []]
    return nodes + [mount["hostPath"] for mount in edits.get("mounts") or []]


def _from_yaml(text: str) -> Dict[str, List[str]]:
    """nvidia-ctk's YAML has one key per line; hosts need no YAML library to read the few keys that count here."""
    kind = ""
    section = ""  # devices | containerEdits, at the top level
    within = ""  # deviceNodes | mounts | hooks | …
    start = ""  # the indentation of a device's dash
    common: List[str] = []
    items: List[Tuple[List[str], List[str]]] = []  # (names, paths) of each device
    for line in text.splitlines():
        found = KEY.match(line)
        if not found:
            continue
        indent, dash, key = found.group("indent"), found.group("dash"), found.group("key")
        value = _unquoted(found.group("value"))
        if not indent and not dash:
            section, within, start = key, "", "?"
            kind = value if key == "kind" else kind
            continue
        if section == "devices" and dash and start in ("?", indent):
            start, within = indent, ""
            items.append(([], []))
        if section == "devices" and key == "name" and len(indent) + len(dash or "") == len(start) + 2:
            items[-1][0].append(value)
        elif not value:
            within = key
        elif (within, key) in (("deviceNodes", "path"), ("deviceNodes", "hostPath"), ("mounts", "hostPath")):
            (items[-1][1] if section == "devices" else common).append(value)
    if not kind:
        raise CdiError("it is not a CDI specification (it has no kind)")
    return {f"{kind}={name}": paths + common for names, paths in items for name in names}


def _unquoted(value: str) -> str:
    value = value.split(" #")[0].strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def missing_gpus(gpus: Sequence[Gpu], devices: Sequence[str], kind: str = "nvidia.com/gpu") -> List[str]:
    """GPUs that the driver shows and no CDI device stands for, neither by index nor by UUID."""
    known = set(devices)
    return [
        f"{kind}={gpu.index}"
        for gpu in gpus
        if f"{kind}={gpu.index}" not in known and f"{kind}={gpu.uuid}" not in known
    ]


def unknown(wanted: Sequence[str], devices: Sequence[str]) -> List[str]:
    return [name for name in wanted if name not in set(devices)]


def unresolved(paths: Dict[str, List[str]], exists: Sequence[str]) -> List[Tuple[str, str]]:
    """(device, path) for every path that a device needs and the host does not have."""
    have = set(exists)
    return [(device, path) for device, needed in sorted(paths.items()) for path in needed if path not in have]
