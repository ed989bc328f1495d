# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of host keys beside the inventory: an ordinary OpenSSH known_hosts file.

A line that this collection wrote carries its scope behind the key, where ssh expects a comment: `devnode:enrolled` or
`devnode:workspaces@gpu-01`. It changes and removes lines of the scope that is being written and no others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Collection, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey, public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

MARK = "devnode:"


class ChangedKeyError(ValueError):
    """A name already has another key."""

    def __init__(self, changed: List[Tuple[str, str, str]]) -> None:
        self.changed = changed  # (alias, fingerprint on record, fingerprint now)
        super().__init__(", ".join(alias for alias, _old, _new in changed))


@dataclass(frozen=True)
class Line:
    """One line that names keys; foreign lines are kept as they are."""

    alias: str
    key: PublicKey
    scope: str

    def __str__(self) -> str:
        return f"{self.alias} {self.key.bare} {MARK}{self.scope}"


@dataclass
class Record:
    """A record that was read."""

    foreign: List[str] = field(default_factory=list)
    ours: List[Line] = field(default_factory=list)
    keys: Dict[str, Tuple[PublicKey, ...]] = field(default_factory=dict)
    errors: List[Tuple[int, str]] = field(default_factory=list)

    def text(self) -> str:
        """The file: foreign lines first and in their order, then ours, sorted."""
        ours = sorted({str(line): line for line in self.ours}.values(), key=lambda line: (line.alias, str(line)))
        lines = [*self.foreign, *(str(line) for line in ours)]
        return "".join(line + "\n" for line in lines)


def parse(text: str) -> Record:
    """Read a known_hosts file. Hashed names, patterns, CA and revocation lines are kept, but name no key here."""
    record = Record()
    lines = text.split("\n")
    for number, raw in enumerate(lines[:-1] if not lines[-1] else lines, 1):
        words = raw.split(None, 1)
        if len(words) < 2 or raw.lstrip().startswith(("#", "@", "|")):
            record.foreign.append(raw)
            continue
        try:
            key = public_key(words[1])
        except InvalidError as error:
            record.errors.append((number, error.why))
            record.foreign.append(raw)
            continue
        bare = _bare(key)
        for alias in words[0].split(","):
            record.keys[alias] = (*record.keys.get(alias, ()), bare)
        if key.comment.startswith(MARK) and "," not in words[0]:
            record.ours.append(Line(words[0], bare, key.comment[len(MARK) :]))
        else:
            record.foreign.append(raw)
    return record


def merge(
    record: Record,
    scope: str,
    entries: Mapping[str, Sequence[PublicKey]],
    replace: Collection[str] = (),
    prune: bool = True,
) -> Record:
    """The record with these keys in the scope.

    Raises ChangedKeyError where a name is on record with other keys and not in `replace`, or on record in a foreign
    line. With `prune`, names of the scope that are not in `entries` any more are removed. A host whose key is replaced
    was made anew, so its workspaces' keys go as well: the next run records them over its verified connection.
    """
    entries = {alias: [_bare(key) for key in keys] for alias, keys in entries.items()}
    changed = [found for alias in sorted(entries) for found in _changed(alias, record, entries[alias])]
    foreign_names = {alias for alias in entries if alias in record.keys} - {line.alias for line in record.ours}
    refused = [found for found in changed if found[0] not in replace or found[0] in foreign_names]
    if refused:
        raise ChangedKeyError(refused)
    gone = {f"workspaces@{found[0]}" for found in changed} | ({scope} if prune else set())
    kept = [line for line in record.ours if line.alias not in entries and line.scope not in gone]
    new_lines = [Line(alias, key, scope) for alias in entries if alias not in foreign_names for key in entries[alias]]
    return parse(Record(foreign=record.foreign, ours=[*kept, *new_lines]).text())


def rotate(record: Record, scope: str, entries: Mapping[str, Sequence[PublicKey]]) -> Record:
    """The record with exactly these keys of their type for the names; keys of other types stay.

    At least one of them has to be on record already. Lines that somebody else wrote for such a name become ours,
    because a key that is dropped must be gone from them as well.
    """
    unknown = [
        (alias, record.keys[alias][0].fingerprint if alias in record.keys else "nothing", entries[alias][0].fingerprint)
        for alias in sorted(entries)
        if not set(record.keys.get(alias, ())) & {_bare(key) for key in entries[alias]}
    ]
    if unknown:
        raise ChangedKeyError(unknown)
    foreign = [line for raw in record.foreign for line in _without(raw, set(entries))]
    scopes = {line.alias: line.scope for line in record.ours}
    ours = [line for line in record.ours if line.alias not in entries]
    for alias, keys in entries.items():
        types = {key.type for key in keys}
        kept = [key for key in record.keys[alias] if key.type not in types]
        ours += [Line(alias, _bare(key), scopes.get(alias, scope)) for key in (*kept, *keys)]
    return parse(Record(foreign=foreign, ours=ours).text())


def _without(raw: str, aliases: "set[str]") -> List[str]:
    """A foreign line without these names; nothing when no name is left."""
    words = raw.split(None, 1)
    if len(words) < 2 or raw.lstrip().startswith(("#", "@", "|")):
        return [raw]
    names = words[0].split(",")
    left = [name for name in names if name not in aliases]
    return [raw] if left == names else [f"{','.join(left)} {words[1]}"] if left else []


def _bare(key: PublicKey) -> PublicKey:
    return PublicKey(key.type, key.base64)


def _changed(alias: str, record: Record, now: Sequence[PublicKey]) -> List[Tuple[str, str, str]]:
    """Whether a name would silently get another key than it has on record.

    Keys may come and go (a type that is new, a rotation announced by both keys at once), as long as one key that is
    known stays, and every new key either is of a new type or comes beside a known one of its type.
    """
    known = record.keys.get(alias, ())
    if not known:
        return []
    if not set(known) & set(now):
        return [(alias, known[0].fingerprint, now[0].fingerprint if now else "none")]
    for key in now:
        same_type = [old for old in known if old.type == key.type]
        if key not in known and same_type and not set(same_type) & set(now):
            return [(alias, same_type[0].fingerprint, key.fingerprint)]
    return []
