# SPDX-License-Identifier: GPL-3.0-or-later
"""The alert rules of docs/audit.md, tried on records.

Queries are in Lucene's syntax, which Graylog and Elasticsearch take. No such server runs here: this reads the part of
the syntax that the rules use, and compares a field as a whole, as Graylog does with fields of its own and
Elasticsearch with `keyword` fields. What there is a form (how many, of whom, in what time) stands in the last column
in words, and is read here as such.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "audit.md"
ROW = re.compile(r"^\| (?P<name>[^|]+?) \| `(?P<query>[^|]+)` \| (?P<alert>[^|]+?) \|$", re.MULTILINE)
ALERT = re.compile(
    r"(?P<amount>any|none|more than (?P<number>\d+))(?: different `(?P<different>\w+)`)?(?: of one `(?P<one>\w+)`)?"
    r"(?: in (?P<span>\d+) (?P<unit>minute|hour)s?)?(?: from (?P<from>\d\d):00 to (?P<to>\d\d):00 UTC)?"
)
TOKEN = re.compile(r'\s*(?:(?P<mark>[():])|"(?P<phrase>[^"]*)"|(?P<word>[^\s():"]+))')

Record = dict[str, Any]
Test = Callable[[Record], bool]


@dataclass(frozen=True)
class Rule:
    """One row."""

    name: str
    query: str
    matches: Test
    alert: re.Match[str]

    def fires(self, records: Sequence[Record], now: datetime | None = None) -> bool:
        """Whether these records, and no others, set it off."""
        found = sorted((record for record in records if self.matches(record)), key=at)
        if self.alert["from"]:
            first, last = int(self.alert["from"]), int(self.alert["to"])
            found = [one for one in found if at(one).hour >= first or at(one).hour < last]
        groups: dict[Any, list[Record]] = {}
        for record in found:
            groups.setdefault(record.get(self.alert["one"]) if self.alert["one"] else "", []).append(record)
        if self.alert["amount"] == "any":
            return bool(found)
        span = timedelta(**{f"{self.alert['unit']}s": int(self.alert["span"])})
        if self.alert["amount"] == "none":
            assert now is not None
            return any(now - at(group[-1]) > span for group in groups.values())
        return any(self._most(group, span) > int(self.alert["number"]) for group in groups.values())

    def _most(self, group: Sequence[Record], span: timedelta) -> int:
        """How many there are at most in any stretch of that time."""
        most, start = 0, 0
        for end, record in enumerate(group):
            while at(record) - at(group[start]) > span:
                start += 1
            stretch = group[start : end + 1]
            different = self.alert["different"]
            most = max(most, len({one.get(different) for one in stretch}) if different else len(stretch))
        return most


def at(record: Record) -> datetime:
    return datetime.fromisoformat(record["time"].replace("Z", "+00:00"))


def rules(page: str | None = None) -> dict[str, Rule]:
    """The table, by name. What cannot be read is an error."""
    text = (PAGE.read_text() if page is None else page).partition("## Alert rules")[2].partition("\n## ")[0]
    found = {}
    for row in ROW.finditer(text):
        alert = ALERT.fullmatch(row["alert"])
        if alert is None:
            raise ValueError(f"{row['name']}: {row['alert']!r} cannot be read")
        found[row["name"]] = Rule(row["name"], row["query"], query(row["query"]), alert)
    unread = [line for line in text.splitlines() if line.startswith("| ") and not ROW.match(line)][1:]
    if unread:
        raise ValueError(f"rows that cannot be read: {unread}")
    return found


def query(text: str) -> Test:
    """A query, ready to be asked."""
    tokens: list[tuple[str, str]] = []
    place = 0
    while text[place:].strip():
        token = TOKEN.match(text, place)
        if token is None:
            raise ValueError(f"{text!r} cannot be read from {text[place:]!r} on")
        tokens.append((str(token.lastgroup), str(token[str(token.lastgroup)])))
        place = token.end()
    reader = _Reader(text, tokens)
    test = reader.any_of()
    reader.end()
    return test


class _Reader:
    def __init__(self, text: str, tokens: list[tuple[str, str]]) -> None:
        self.text, self.tokens = text, tokens

    def _next_is(self, kind: str, value: str) -> bool:
        if self.tokens and self.tokens[0] == (kind, value):
            self.tokens.pop(0)
            return True
        return False

    def _take(self, *kinds: str) -> str:
        if not self.tokens or self.tokens[0][0] not in kinds:
            raise ValueError(f"{self.text!r}: something is missing before {self.tokens[:1]}")
        return self.tokens.pop(0)[1]

    def end(self) -> None:
        if self.tokens:
            raise ValueError(f"{self.text!r}: nothing can be made of {self.tokens}")

    def any_of(self) -> Test:
        parts = [self._all_of()]
        while self._next_is("word", "OR"):
            parts.append(self._all_of())
        return lambda record: any(part(record) for part in parts)

    def _all_of(self) -> Test:
        parts = [self._one()]
        while self._next_is("word", "AND"):
            parts.append(self._one())
        return lambda record: all(part(record) for part in parts)

    def _one(self) -> Test:
        if self._next_is("word", "NOT"):
            denied = self._one()
            return lambda record: not denied(record)
        if self._next_is("mark", "("):
            inner = self.any_of()
            if not self._next_is("mark", ")"):
                raise ValueError(f"{self.text!r}: a bracket is open")
            return inner
        if self._next_is("word", "*"):
            return lambda record: True
        field = self._take("word")
        if not self._next_is("mark", ":"):
            raise ValueError(f"{self.text!r}: {field} is no field")
        values = self._values()
        return lambda record: str(record.get(field)) in values

    def _values(self) -> set[str]:
        if not self._next_is("mark", "("):
            return {self._take("word", "phrase")}
        values = {self._take("word", "phrase")}
        while self._next_is("word", "OR"):
            values.add(self._take("word", "phrase"))
        if not self._next_is("mark", ")"):
            raise ValueError(f"{self.text!r}: a bracket is open")
        return values
