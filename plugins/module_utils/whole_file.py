# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are replaced in one step: who reads one sees the old or the new one, whole, also after a crash.

For files in directories that nobody else may write to; file_set has its own way (fileset_disk), which minds links.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Union


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
