# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a set of files needs of the disk: whole files or none, never through a link, one writer at a time.

Part of the guard's program, so: the standard library and its other parts only (see `plugin_utils/guard_program.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from typing import Any, Iterable, Iterator

BASE = "/var/lib/devnode"


class FileSetError(Exception):
    """Something that a person has to be told, in words."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fsync_dir(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(path: str) -> str:
    """A name beside `path` that programs reading a ``*.d`` directory pass over, the same one each time, so that
    what a killed run left behind is overwritten by the next."""
    directory, base = os.path.split(path)
    if len(base) > 200:
        base = sha256(base.encode("utf-8", "surrogateescape"))
    return os.path.join(directory, "." + base + ".devnode-tmp")


def sweep(paths: Iterable[str]) -> None:
    """Take away what a killed run was about to move into place."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), parent_of(path) as parent:
            os.unlink(os.path.basename(temporary_name(path)), dir_fd=parent)


def write_atomic(path: str, data: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Replace `path` in one step; readers see the old file or the new one, never a part."""
    parent = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        write_at(parent, path, data, mode, uid, gid)
    finally:
        os.close(parent)


@contextlib.contextmanager
def parent_of(path: str) -> Iterator[int]:
    """The directory of `path`, reached without following a link. Who owns a directory on the way can put a link
    there at any time; what is done through this descriptor does not end up on its other side."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open("/", flags)
    try:
        for part in os.path.dirname(path).split("/"):
            if part:
                below = os.open(part, flags, dir_fd=here)
                os.close(here)
                here = below
        yield here
    finally:
        os.close(here)


def write_at(parent: int, path: str, data: bytes, mode: int, uid: int, gid: int) -> None:
    """Like `write_atomic`, in a directory that is open already."""
    base, temporary = os.path.basename(path), os.path.basename(temporary_name(path))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600, dir_fd=parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            if os.geteuid() == 0:
                os.fchown(stream.fileno(), uid, gid)
            os.fchmod(stream.fileno(), mode)
            _copy_selinux_label(f"/proc/self/fd/{parent}/{base}", stream.fileno())
            os.fsync(stream.fileno())
        os.rename(temporary, base, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise


def _copy_selinux_label(source: str, target: int) -> None:
    """A replaced file keeps its label. A new one gets the policy's, see `_relabel`."""
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(target, "security.selinux", os.getxattr(source, "security.selinux", follow_symlinks=False))


def write_json(path: str, value: Any) -> None:
    make_private(os.path.dirname(path))
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    write_atomic(path, text.encode("utf-8"), 0o600)
    fsync_dir(os.path.dirname(path))


def read_json(path: str) -> Any:
    """The value in `path`, or None where there is no such file."""
    try:
        with open(path, "rb") as stream:
            return json.loads(stream.read().decode("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FileSetError(
            f"{path} is damaged ({error}). It says what this host's files belong to, so nothing was changed. "
            f"Restore it from a backup of the host, or move it away: then what it listed is no longer cleaned up."
        ) from error


def make_private(path: str) -> None:
    """The directory and what is missing above it, for root alone. (Others may pass through /var/lib/devnode.)"""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o755 if directory == BASE else 0o700)


@contextlib.contextmanager
def locked(base: str = BASE, wait: float = 60.0) -> Iterator[None]:
    """One writer at a time on this host, whatever it writes."""
    make_private(base)
    descriptor = os.open(os.path.join(base, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise FileSetError(
                        f"another run has been changing this host for {wait:.0f} s ({base}/.lock is taken). "
                        f"Wait for it to end (`fuser {base}/.lock` shows it), then run again."
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
