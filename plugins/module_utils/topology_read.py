# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading mappings and lists field by field, noting everything that is wrong instead of stopping at the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, Tuple, TypeVar, cast

from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the inventory."""

    path: str
    value: str
    why: str
    allowed: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.value} {self.why}".replace("  ", " ")
        text += f". Allowed: {self.allowed}" if self.allowed else ""
        # A path or a list of what is allowed can hold names that are wrong themselves: nothing unprintable gets out.
        return "".join(letter if letter.isprintable() else "?" for letter in text)


class TopologyError(ValueError):
    """The inventory cannot be used; every reason is in problems."""

    def __init__(self, problems: List[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class Problems:
    """Where readers note what is wrong."""

    def __init__(self) -> None:
        self.found: List[Problem] = []

    def add(self, path: str, value: Any, why: str, allowed: str = "") -> None:
        """Note one problem."""
        self.found.append(Problem(path, show(value), why, allowed))

    def missing(self, path: str, why: str, allowed: str = "") -> None:
        """Note something that is not there at all, so that there is no value to show."""
        self.found.append(Problem(path, "", why, allowed))


class _Required:
    """Stands for: this field has no default."""


REQUIRED = _Required()


class Entry:
    """One mapping of the inventory. `ok` turns false with the first thing wrong in it."""

    def __init__(self, problems: Problems, path: str, data: Any, known: Tuple[str, ...]) -> None:
        self.problems = problems
        self.path = path
        self.ok = True
        self.data: Mapping[str, Any] = {}
        if not isinstance(data, Mapping):
            self.bad("", data, "is not a mapping", "keys " + ", ".join(known))
            return
        self.data = data
        for key in data:
            if key not in known:
                self.bad("", key, "is no key of this", ", ".join(known))

    def bad(self, key: str, value: Any, why: str, allowed: str = "") -> None:
        """Note a problem with one field."""
        self.ok = False
        self.problems.add(f"{self.path}.{key}" if key else self.path, value, why, allowed)

    def has(self, key: str) -> bool:
        """Whether the field is given (null counts as not given)."""
        return self.data.get(key) is not None

    def get(self, key: str, check: Callable[[Any], T], default: Any = REQUIRED) -> T:
        """One field in its normal form. After a problem the result means nothing and ok is false."""
        if not self.has(key):
            if default is REQUIRED:
                self.ok = False
                self.problems.missing(f"{self.path}.{key}", "is missing")
            return cast(T, default)
        return self._checked(key, self.data[key], check)

    def each(self, key: str, check: Callable[[Any], T], required: bool = False) -> Tuple[T, ...]:
        """A field that is a list of plain values; one value alone is a list of one."""
        if not self.has(key):
            if required:
                self.get(key, check)
            return ()
        value = self.data[key]
        items = value if isinstance(value, (list, tuple)) else [value]
        if required and not items:
            self.bad(key, value, "is empty", "at least one")
        many = isinstance(value, (list, tuple))
        found = [self._checked(f"{key}[{at}]" if many else key, item, check) for at, item in enumerate(items)]
        for at, item in enumerate(found):
            if self.ok and item in found[:at]:
                self.bad(f"{key}[{at}]", items[at], "is listed twice")
        return tuple(found)

    def entries(self, key: str, known: Tuple[str, ...]) -> List[Entry]:
        """A field that is a list of mappings."""
        if not self.has(key):
            return []
        return read_entries(self.problems, f"{self.path}.{key}", self.data[key], known, self)

    def _checked(self, key: str, value: Any, check: Callable[[Any], T]) -> T:
        try:
            return check(value)
        except InvalidError as error:
            self.bad(key, value, error.why, error.allowed)
            return cast(T, None)


def read_entries(problems: Problems, path: str, data: Any, known: Tuple[str, ...], parent: Any = None) -> List[Entry]:
    """A list of mappings."""
    if not isinstance(data, (list, tuple)):
        problems.add(path, data, "is not a list", "a list of mappings with the keys " + ", ".join(known))
        if parent is not None:
            parent.ok = False
        return []
    return [Entry(problems, f"{path}[{at}]", item, known) for at, item in enumerate(data)]
