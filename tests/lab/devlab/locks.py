# SPDX-License-Identifier: GPL-3.0-or-later
"""Two that need the same thing at once: one makes it, the other waits and finds it made."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """At a time, of all processes that name this file."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def beside(folder: Path) -> Path:
    """The lock of a folder that its builder may remove and make anew."""
    return folder.parent / f".{folder.name}.lock"
