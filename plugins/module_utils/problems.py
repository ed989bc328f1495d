# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads lists of mappings that people wrote, and tells everything that is wrong with them together."""

from __future__ import annotations

from typing import Any, Callable, Optional, TypeVar

from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

T = TypeVar("T")


class Problems:
    """Collects what is wrong."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, where: str, value: Any, why: str) -> None:
        """Something that one check alone cannot see."""
        self.found.append(f"{where}: {show(value)} {why}")

    def take(self, where: str, value: Any, check: Callable[[Any], T]) -> Optional[T]:
        """The value as checked, or None with the problem noted."""
        try:
            return check(value)
        except InvalidError as error:
            self.add(where, value, str(error))
            return None

    def each(self, where: str, values: Any, check: Callable[[Any], T], what: str = "") -> list[T]:
        """Those of a list that pass."""
        if not isinstance(values, (list, tuple)):
            self.add(where, values, f"is not a list{what}")
            return []
        taken = (self.take(f"{where}[{index}]", value, check) for index, value in enumerate(values))
        return [value for value in taken if value is not None]

    def fields(self, where: str, value: Any, needed: set[str], optional: set[str]) -> bool:
        """Whether a value is a mapping with the fields that it must have, and no others."""
        allowed = f"Allowed: {', '.join(sorted(needed | optional))}"
        if not isinstance(value, dict):
            self.add(where, value, f"is not a mapping. {allowed}")
            return False
        missing, strange = needed - set(value), {str(key) for key in value} - needed - optional
        if missing:
            self.found.append(f"{where}: has no {', '.join(sorted(missing))}")
        if strange:
            self.found.append(f"{where}: unknown {', '.join(sorted(strange))}. {allowed}")
        return not missing and not strange
