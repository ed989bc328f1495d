# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a mapping into a dataclass, field by field, and writes it back. All that is wrong becomes sentences."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar

from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

T = TypeVar("T")


class Reader:
    """Reads the fields of one mapping; a wrong one becomes a sentence in `errors` and a harmless value."""

    def __init__(self, cls: Any, raw: Any, where: str, errors: List[str]) -> None:
        self.where = where
        self.errors = errors
        self.defaults = _defaults(cls)
        self.readable = isinstance(raw, dict)
        self.raw: Dict[Any, Any] = raw if self.readable else {}
        if not self.readable:
            errors.append(f"{where}: {show(raw)} is no mapping. Its fields are: {', '.join(self.defaults)}.")
        for key in self.raw:
            if key not in self.defaults:
                errors.append(f"{where}: {show(key)} is no field. There are: {', '.join(self.defaults)}.")

    def one(self, name: str, validate: Callable[[Any], T], required: Optional[T] = None) -> T:
        """The field's value. `required`: it has to be there, and this stands for it after an error."""
        default: Any = self.defaults[name] if required is None else required
        value = self.raw.get(name)
        if value is None or (value == "" and default == ""):
            if required is not None and self.readable:
                self.errors.append(f"{self.where}.{name}: it is missing.")
            return default  # type: ignore[no-any-return]
        return self._valid(name, value, validate, default)

    def many(self, name: str, validate: Callable[[Any], T], required: bool = False) -> Tuple[T, ...]:
        """The field's list of values."""
        values = self._list(name, required)
        if values is None:
            return self.defaults[name] or ()
        found = [self._valid(name, value, validate, None, index) for index, value in enumerate(values)]
        return tuple(value for value in found if value is not None)

    def objects(self, name: str, build: Callable[[Any, str, List[str]], T]) -> Tuple[T, ...]:
        """The field's list of mappings."""
        values = self._list(name, False) or ()
        return tuple(build(item, f"{self.where}.{name}[{index}]", self.errors) for index, item in enumerate(values))

    def _list(self, name: str, required: bool) -> Optional[List[Any]]:
        value = self.raw.get(name)
        if value is None or (required and value in ([], ())):
            if required and self.readable:
                self.errors.append(f"{self.where}.{name}: it is missing. There must be at least one.")
            return None
        if isinstance(value, (list, tuple)):
            return list(value)
        self.errors.append(f"{self.where}.{name}: {show(value)} is no list.")
        return None

    def _valid(self, name: str, value: Any, validate: Callable[[Any], T], default: Any, index: int = -1) -> T:
        try:
            return validate(value)
        except InvalidError as error:
            at = f"{self.where}.{name}" if index < 0 else f"{self.where}.{name}[{index}]"
            allowed = f" Allowed: {error.allowed}." if error.allowed else ""
            self.errors.append(f"{at}: {show(value)} {error.why}.{allowed}")
            return default  # type: ignore[no-any-return]


def once(validate: Callable[[Any], T]) -> Callable[[Any], T]:
    """The same function, which looks at each text once only: in a fleet, every person's view has the same ones."""
    known = lru_cache(maxsize=65536)(validate)
    return lambda value: known(value) if isinstance(value, str) else validate(value)


@lru_cache(maxsize=None)
def _defaults(cls: Any) -> Dict[str, Any]:
    return {spec.name: None if spec.default is MISSING else spec.default for spec in fields(cls)}


def plain(value: Any) -> Any:
    """Plain data, without what is at its default."""
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    found = {}
    for name, default in _defaults(value.__class__).items():
        item = getattr(value, name)
        if item != default:
            found[name] = plain(item)
    return found
