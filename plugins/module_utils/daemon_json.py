# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container engine's daemon.json, shared by several owners: what to merge. (daemon_change: what a change asks of the
engine; daemon_refusals: what cannot be.)

An owner (a role) declares settings; its leaves are put into the document and remembered, with what stood there
before. A leaf that its owner no longer declares goes back to that. Everything else in the document belongs to
somebody else and stays, at every depth. Pure functions; standard library only.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Set, Tuple

Document = Dict[str, Any]
Path = Tuple[str, ...]
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


def changed_keys(loaded: Mapping[str, Any], wanted: Mapping[str, Any]) -> List[str]:
    return sorted(
        key for key in set(loaded) | set(wanted) if not _same(loaded.get(key, _MISSING), wanted.get(key, _MISSING))
    )


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
