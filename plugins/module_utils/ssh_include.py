# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Include line at the very top of somebody's ~/.ssh/config, and nothing else of theirs.

It has to be the first line that says anything: ssh takes the first value that it finds, so a `Host *` or an option
above it would win over ours, and below a `Host` it would act for that host alone.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from dataclasses import dataclass
from typing import List, Optional

from ansible_collections.devnode.gpu.plugins.module_utils import whole_file

BELOW = b"# Your own settings go below this line."
_MAX_SIZE = 4 * 1024 * 1024


class RefusedError(Exception):
    """The file is not ours to edit: why."""


class UnsafeError(RefusedError):
    """The home itself is not in order; adding the line by hand would not help."""


def with_include(text: Optional[bytes], path: str) -> bytes:
    """The config with our line at its top, once. `text` is None where there is no file yet."""
    line = b"Include " + path.encode()
    if text is None:
        return line + b"\n" + BELOW + b"\n"
    if _first(text) == line:
        return text
    end = b"\r\n" if text.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
    return line + end + without_include(text, path)


def without_include(text: bytes, path: str) -> bytes:
    """The config without our line, wherever it stands and however it is written; all else to the byte as it was."""
    kept: List[bytes] = []
    ours = False
    for line in _lines(text):
        if ours and line.rstrip(b"\r\n") == BELOW:
            ours = False
            continue
        ours = _is_ours(line, path)
        if not ours:
            kept.append(line)
    return b"".join(kept)


def _lines(text: bytes) -> List[bytes]:
    """Lines as ssh counts them: a carriage return in the middle ends none."""
    return [line for line in re.split(rb"(?<=\n)", text) if line]


def _is_ours(line: bytes, path: str) -> bool:
    found = re.fullmatch(rb'[ \t]*include(?:[ \t]+|[ \t]*=[ \t]*)(?:"([^"]*)"|(\S+))[ \t\r\n]*', line, re.IGNORECASE)
    return found is not None and (found.group(1) or found.group(2)) == path.encode()


def _first(text: bytes) -> bytes:
    """The first line that says anything."""
    for line in _lines(text):
        stripped = line.strip()
        if stripped and not stripped.startswith(b"#"):
            return stripped
    return b""


@dataclass
class Outcome:
    """What was (or would be) done to one person's config."""

    account: str
    path: str = ""
    home: str = ""
    uid: int = -1
    gid: int = -1
    changed: bool = False
    created: bool = False
    refused: str = ""
    by_hand: bool = False  # whether the owner can add the line themselves
    backup: str = ""  # the text before, when it is about to change


def find(account: str) -> Optional[pwd.struct_passwd]:
    """The account, or None where there is none."""
    try:
        return pwd.getpwnam(account)
    except KeyError:
        return None


def check_ours(home: str, include: str, uid: int) -> None:
    """Refuse a home in which our files could be led astray: each directory on the way must be real and the person's."""
    steps = [part for part in os.path.dirname(include[2:]).split("/") if part]
    here = home
    for step in ["", *steps]:
        here = os.path.join(here, step) if step else here
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            if step:
                return
            raise UnsafeError(f"the home {home} does not exist") from None
        if not stat.S_ISDIR(found.st_mode):
            raise UnsafeError(f"{here} is no directory (a link is none either)")
        if found.st_uid not in (uid, 0):
            raise UnsafeError(f"{here} belongs to somebody else (uid {found.st_uid})")


def edit(home: str, include: str, present: bool, write: bool) -> Outcome:
    """Bring one config into its state. Runs with the rights of its owner, so that nothing else can be reached."""
    directory = os.path.join(home, ".ssh")
    path = os.path.join(directory, "config")
    outcome = Outcome(account="", path=path, home=home)
    before = _read(path)
    if before is None and not present:
        return outcome
    after = with_include(before, include) if present else without_include(before or b"", include)
    if after == before:
        return outcome
    outcome.changed = True
    outcome.created = before is None
    outcome.backup = (before or b"").decode("utf-8", "surrogateescape")
    _refuse_foreign(path, directory)
    if not write:
        return outcome
    if before is None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    if after or present or not (before or b"").endswith(BELOW + b"\n"):
        whole_file.rewrite(path, after, 0o600)
        return outcome
    os.unlink(path)
    if not os.listdir(directory):
        os.rmdir(directory)
    return outcome


def _read(path: str) -> Optional[bytes]:
    try:
        with open(path, "rb") as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise RefusedError("it is no ordinary file")
            text = source.read(_MAX_SIZE + 1)
    except FileNotFoundError:
        if os.path.islink(path):
            raise RefusedError("it is a link to a file that is not there") from None
        return None
    except PermissionError:
        raise RefusedError("its owner cannot read it") from None
    if len(text) > _MAX_SIZE:
        raise RefusedError("it is larger than 4 MiB")
    return text


def _refuse_foreign(path: str, directory: str) -> None:
    """Somebody who made the file a link or read-only manages it in another way."""
    if os.path.islink(path):
        raise RefusedError(f"it is a link to {os.readlink(path)}, so it is managed elsewhere")
    if os.path.exists(path) and not (os.access(path, os.W_OK) and os.stat(path).st_mode & 0o222):
        raise RefusedError("it is read-only, so it is managed elsewhere")
    if os.path.isdir(directory) and not os.access(directory, os.W_OK):
        raise RefusedError(f"{directory} is read-only")
