# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are replaced in one step: who reads one sees the old or the new one, whole, also after a crash; and copies
of what was replaced.

For files in directories that nobody else may write to; file_set has its own way (fileset_disk), which minds links.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from typing import Iterable, Union

BACKUPS_KEPT = 10


def write(path: str, content: Union[str, bytes], mode: int = 0o644) -> None:
    """Its directory has to be there."""
    _replace(path, content, mode, -1, -1)


def rewrite(path: str, content: Union[str, bytes], mode: int = 0o644) -> None:
    """Like `write`, but a file that is there keeps its owner and its permissions."""
    try:
        like = os.stat(path)
    except FileNotFoundError:
        write(path, content, mode)
    else:
        _replace(path, content, like.st_mode & 0o7777, like.st_uid, like.st_gid)


def text(path: str) -> str:
    """What a file says; nothing where there is none, or none that may be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read()
    except OSError:
        return ""


def stamp() -> str:
    """A name for this moment. Later ones sort behind it, and no two are the same."""
    now = time.time_ns()
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"


def keep(path: str, folder: str) -> str:
    """A copy of a file, for root alone, beside the last ones of it. Returns where it is."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    name = path.strip("/").replace("/", "-")
    kept = os.path.join(folder, f"{name}.{stamp()}")
    shutil.copy2(path, kept)
    drop_oldest(kept, name + ".")
    return kept


def keep_together(paths: Iterable[str], folder: str) -> str:
    """Copies of files that are replaced at one time, under their names in a folder of their own."""
    kept = os.path.join(folder, stamp())
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.mkdir(kept, mode=0o700)
    for path in paths:
        shutil.copy2(path, os.path.join(kept, os.path.basename(path)))
    drop_oldest(kept)
    return kept


def drop_oldest(newest: str, prefix: str = "") -> None:
    """Never the newest, whatever older ones are called: the clock may have been ahead."""
    folder, own = os.path.split(newest)
    others = sorted(name for name in os.listdir(folder) if name.startswith(prefix) and name != own)
    for entry in others[: 1 - BACKUPS_KEPT]:
        place = os.path.join(folder, entry)
        if os.path.isdir(place):
            shutil.rmtree(place)
        else:
            os.unlink(place)


def _replace(path: str, content: Union[str, bytes], mode: int, uid: int, gid: int) -> None:
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".devnode-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(PermissionError):  # only root can give a file away
            os.chown(temporary, uid, gid)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
