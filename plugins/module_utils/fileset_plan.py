# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done so that a host has a set of files: what is wanted, what the manifest says and what
is live give a plan. Pure: no file is read or written here.

A *state* is a dictionary as `fileset_states.inspect` returns it: ``path``, ``type`` (``file``, ``directory``,
``link``, ``absent``, ``other``) and, where they apply, ``mode``, ``uid``, ``gid``, ``sha256``, ``target``,
``children``. A wanted state may also say ``seed`` (made once, then somebody else's business), ``shared`` (others write
to it as well: once it is no longer listed it stays), ``never_restore`` (a rollback leaves it alone), ``sensitive`` and
``implicit`` (a parent directory nobody listed).
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Set

State = Dict[str, Any]
Entry = Dict[str, Any]

FORBIDDEN_PREFIXES = (
    "/proc",
    "/sys",
    "/dev",
    "/run/devnode-guard",
    *(f"/var/lib/devnode/{name}" for name in ("file_set", "account_set", "transaction", "backup", "original", "guard")),
)
_STAYS = ("seed", "shared")
_REMEMBERED = ("type", "sha256", "mode", "uid", "gid", "target", *_STAYS, "implicit", "never_restore", "sensitive")


@dataclass
class Change:
    """One path that will be different."""

    path: str
    before: State
    after: State
    sensitive: bool = False
    never_restore: bool = False
    original: bool = False  # the set gives the path up, and what was there before it comes back


@dataclass
class Plan:
    changes: List[Change] = field(default_factory=list)
    foreign: List[Dict[str, str]] = field(default_factory=list)
    kept: List[str] = field(default_factory=list)
    errors: List[str] = field(default_factory=list)
    entries: Dict[str, Entry] = field(default_factory=dict)

    @property
    def changed_paths(self) -> List[str]:
        return sorted(change.path for change in self.changes)

    @property
    def originals(self) -> List[str]:
        return sorted(change.path for change in self.changes if change.original)

    @property
    def removed(self) -> List[str]:
        return sorted(c.path for c in self.changes if c.after["type"] == "absent")

    def manifest(self, name: str) -> Dict[str, Any]:
        """What the set owns when the plan is done."""
        return {"version": 1, "name": name, "entries": self.entries}


def path_problem(path: str) -> Optional[str]:
    """Why this path cannot be used, or None."""
    if not path.startswith("/"):
        return "is not absolute"
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        return "contains a control character"
    if posixpath.normpath(path) != path or path.startswith("//") or path == "/":
        return f"is not in its plain form (meant: {posixpath.normpath('/' + path.lstrip('/'))!r})"
    for prefix in FORBIDDEN_PREFIXES:
        if path == prefix or path.startswith(prefix + "/"):
            return f"lies below {prefix}, which is not for files of a set"
    return None


def parents(path: str) -> List[str]:
    """``/a/b/c`` -> ``/a``, ``/a/b``."""
    parts = path.strip("/").split("/")[:-1]
    return ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]


def check_wanted(wanted: Sequence[State], owners: Mapping[str, str], name: str) -> List[str]:
    """Everything that is wrong with the list itself, before the host is looked at."""
    errors: List[str] = []
    seen: Dict[str, int] = {}
    for index, state in enumerate(wanted):
        path = state["path"]
        problem = path_problem(path)
        if problem:
            errors.append(f"files[{index}].path: {path!r} {problem}.")
        if path in seen:
            errors.append(f"files[{index}].path: {path!r} is listed already, as files[{seen[path]}].")
        seen.setdefault(path, index)
        owner = owners.get(path)
        if owner and state["type"] not in ("directory", "absent"):
            errors.append(
                f"files[{index}].path: {path!r} belongs to the file set {owner!r} on this host; two sets would "
                f"overwrite each other at every run. Leave it out of {name!r}, or remove it from {owner!r} first."
            )
    kinds = {state["path"]: state["type"] for state in wanted}
    for index, state in enumerate(wanted):
        if state["type"] == "absent":
            continue
        for parent in parents(state["path"]):
            if kinds.get(parent, "directory") != "directory":
                errors.append(
                    f"files[{index}].path: {state['path']!r} lies below {parent!r}, which this set wants to be "
                    f"{'absent' if kinds[parent] == 'absent' else 'a ' + kinds[parent]}."
                )
    return errors


def _differs(live: State, known: Mapping[str, Any]) -> List[str]:
    """In what the live state differs from what is known or wanted."""
    if live["type"] != known["type"]:
        return ["removed" if live["type"] == "absent" else "type"]
    if live["type"] == "absent":
        return []
    if live["type"] == "link":
        return [] if live["target"] == known["target"] else ["target"]
    what = []
    if live["type"] == "file" and live["sha256"] != known["sha256"]:
        what.append("content")
    if live["mode"] != known["mode"]:
        what.append("mode")
    if (live["uid"], live["gid"]) != (known["uid"], known["gid"]):
        what.append("owner")
    return what


def remember(state: Mapping[str, Any]) -> Entry:
    """What the manifest keeps of a state."""
    return {key: state[key] for key in _REMEMBERED if state.get(key) is not None and state[key] is not False}


def make_plan(
    wanted: Sequence[State],
    manifest: Mapping[str, Entry],
    inspect: Callable[[str], State],
    also_known: Optional[Mapping[str, Sequence[State]]] = None,
) -> Plan:
    """`inspect` tells the live state of a path. `also_known` are states that an interrupted run of ours may have
    left: not somebody else's doing."""
    plan = Plan()
    cache: Dict[str, State] = {}

    def live(path: str) -> State:
        """Never through a link: what is on its other side is not at this path."""
        if path not in cache:
            real = all(live(parent)["type"] == "directory" for parent in parents(path))
            cache[path] = inspect(path) if real else {"path": path, "type": "absent"}
        return cache[path]

    targets = {state["path"]: dict(state) for state in wanted}
    _add_parents(plan, targets, manifest, live)
    dropped = [path for path in manifest if path not in targets and not any(map(manifest[path].get, _STAYS))]
    back = {p for p in dropped if manifest[p].get("original") and live(p)["type"] not in ("absent", "directory")}
    going: Set[str] = {p for p in dropped if live(p)["type"] not in ("absent", "directory")} - back
    going |= {p for p, s in targets.items() if s["type"] == "absent" and live(p)["type"] not in ("absent", "directory")}
    # Deepest first, so that a directory knows which of its children go.
    removable = [p for p in dropped if live(p)["type"] == "directory"]
    removable += [p for p, s in targets.items() if s["type"] != "directory" and live(p)["type"] == "directory"]
    for path in sorted(removable, key=lambda p: -p.count("/")):
        children = {posixpath.join(path, child) for child in live(path).get("children", [])}
        if children <= going:
            going.add(path)

    for path in sorted(targets):
        _plan_wanted(plan, targets[path], live(path), manifest.get(path), going, also_known or {})
    for path in sorted(dropped):
        state = live(path)
        if state["type"] == "absent":
            continue
        entry = manifest[path]
        if path not in going and path not in back:
            plan.kept.append(path)
            plan.entries[path] = dict(entry)
            continue
        if not entry.get("implicit"):
            _note_foreign(plan, path, state, entry, also_known or {})
        plan.changes.append(
            Change(
                path,
                state,
                {"path": path, **entry["original"]} if path in back else {"path": path, "type": "absent"},
                bool(entry.get("sensitive")),
                bool(entry.get("never_restore")),
                path in back,
            )
        )
    return plan


def _add_parents(
    plan: Plan, targets: Dict[str, State], manifest: Mapping[str, Entry], live: Callable[[str], State]
) -> None:
    """Directories that somebody has to make so that the listed paths can be there."""
    needed: Set[str] = set()
    for path, state in targets.items():
        if state["type"] != "absent":
            needed.update(parents(path))
    for parent in sorted(needed - set(targets)):
        state = live(parent)
        if state["type"] == "absent":
            targets[parent] = _made_directory(parent)
        elif state["type"] == "directory":
            if parent in manifest:
                targets[parent] = {**state, "implicit": True}
        elif parent in manifest and not manifest[parent].get("seed"):
            # A file of ours that makes room.
            targets[parent] = _made_directory(parent)
        elif live(posixpath.dirname(parent))["type"] == "directory":
            what = f"a link to {state['target']!r}" if state["type"] == "link" else f"a {state['type']}"
            below = next(p for p in sorted(targets) if p.startswith(parent + "/"))
            plan.errors.append(
                f"{below!r}: {parent!r} is {what} on this host, not a directory. Nothing is written through links: "
                f"name the real path."
            )


def _made_directory(path: str) -> State:
    return {"path": path, "type": "directory", "mode": 0o755, "uid": 0, "gid": 0, "implicit": True}


def _plan_wanted(
    plan: Plan,
    wanted: State,
    live: State,
    entry: Optional[Entry],
    going: Set[str],
    also_known: Mapping[str, Sequence[State]],
) -> None:
    path = wanted["path"]
    if wanted["type"] == "absent":
        if live["type"] == "absent":
            return
        if live["type"] == "directory" and path not in going:
            plan.kept.append(path)
            return
    else:
        plan.entries[path] = remember(wanted)
        if entry and entry.get("original") and not wanted.get("shared"):
            plan.entries[path]["original"] = entry["original"]
        if wanted.get("seed") and live["type"] != "absent":
            return
        if not wanted.get("implicit") and not _differs(live, wanted):
            return
        if wanted.get("implicit") and live["type"] == "directory":
            return
        if live["type"] == "directory" and wanted["type"] != "directory" and path not in going:
            plan.errors.append(
                f"{path!r} is a directory with contents on this host, and a {wanted['type']} is wanted there. "
                f"Nothing is removed that this set did not make: move it away first."
            )
            return
        if live["type"] in ("file", "link", "other") and wanted["type"] == "directory" and entry is None:
            plan.errors.append(
                f"{path!r} is a {live['type']} on this host, and a directory is wanted there. Move it away first."
            )
            return
        if live["type"] == "other":
            plan.errors.append(f"{path!r} is a socket, pipe or device on this host. Move it away first.")
            return
    if entry is not None and not any(map(entry.get, ("implicit", *_STAYS))):
        _note_foreign(plan, path, live, entry, also_known)
    taken_over = entry is None and live["type"] in ("file", "link") and wanted["type"] != "absent"
    if taken_over and not (wanted.get("never_restore") or wanted.get("shared")):
        plan.entries[path]["original"] = remember(live)
    known: Mapping[str, Any] = entry or {}
    plan.changes.append(
        Change(
            path,
            live,
            wanted,
            bool(wanted.get("sensitive") or known.get("sensitive")),
            bool(wanted.get("never_restore") or known.get("never_restore")),
        )
    )


def _note_foreign(plan: Plan, path: str, live: State, entry: Entry, also_known: Mapping[str, Sequence[State]]) -> None:
    if any(not _differs(live, state) for state in also_known.get(path, ())):
        return
    what = _differs(live, entry)
    if what:
        plan.foreign.append({"path": path, "what": ", ".join(what)})


def join_transactions(changes: Iterable[Change], earlier_old: Sequence[State]) -> List[State]:
    """The old side of a change that also has to take an interrupted one back: what was there before *that*."""
    old = {state["path"]: state for state in earlier_old}
    result = list(earlier_old)
    for change in changes:
        if change.path not in old:
            state = {key: value for key, value in change.before.items() if key != "children"}
            for flag in ("never_restore", "sensitive"):
                if getattr(change, flag):
                    state[flag] = True
            result.append(state)
    return result
