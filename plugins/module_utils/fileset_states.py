# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also part of a program of the host
"""What is at a path, and making it so.

A state is a dictionary; `fileset_plan` says what is in it. Part of the guard's program, so: the standard library and
its other parts only (see `plugin_utils/guard_program.py`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
from typing import Any, Dict, Iterable, List, Optional, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import COMMAND_ENV
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import (
    FileSetError,
    fsync_dir,
    parent_of,
    sha256,
    sweep,
    temporary_name,
    write_at,
)

SIZE_LIMIT = 64 * 1024 * 1024

State = Dict[str, Any]


def inspect(path: str) -> State:
    """The state of one path on this host, never following a link."""
    try:
        with parent_of(path) as parent:
            state = inspect_at(parent, path)
    except (FileNotFoundError, NotADirectoryError):
        return {"path": path, "type": "absent"}
    if state.get("sha256") == "":
        raise FileSetError(f"{path} is larger than {SIZE_LIMIT >> 20} MiB; no file of a set is. Move it away first.")
    return state


def read_file(path: str) -> bytes:
    """What is in a regular file that no link leads to."""
    try:
        with parent_of(path) as parent:
            data = read_at(parent, os.path.basename(path))
    except OSError as error:
        raise FileSetError(f"could not read {path}: {error.strerror}; it was changed meanwhile") from error
    if data is None:
        raise FileSetError(f"could not read {path}: it is not a file, or larger than {SIZE_LIMIT >> 20} MiB")
    return data


def read_at(parent: int, base: str) -> Optional[bytes]:
    """What is in a regular file of a directory that is open already; None for anything else."""
    descriptor = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = stream.read(SIZE_LIMIT + 1)
    return data if len(data) <= SIZE_LIMIT else None


def inspect_at(parent: int, path: str) -> State:
    """Like `inspect`, in a directory that is open already. A file too large has no sum, so it is never right."""
    base = os.path.basename(path)
    try:
        info = os.stat(base, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return {"path": path, "type": "absent"}
    state: State = {"path": path, "mode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid}
    if stat.S_ISREG(info.st_mode):
        data = read_at(parent, base)
        state.update(type="file", sha256="" if data is None else sha256(data))
    elif stat.S_ISDIR(info.st_mode):
        descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            state.update(type="directory", children=sorted(os.listdir(descriptor)))
        finally:
            os.close(descriptor)
    elif stat.S_ISLNK(info.st_mode):
        state.update(type="link", target=os.readlink(base, dir_fd=parent))
    else:
        state.update(type="other")
    return state


def same(live: State, wanted: State) -> bool:
    """Is there nothing to do?"""
    if live["type"] != wanted["type"]:
        return False
    if wanted["type"] == "absent":
        return True
    if wanted["type"] == "link":
        return bool(live["target"] == wanted["target"])
    if wanted["type"] == "file" and live["sha256"] != wanted["sha256"]:
        return False
    return all(live[key] == wanted[key] for key in ("mode", "uid", "gid"))


def depth(state: State) -> Tuple[int, str]:
    path: str = state["path"]
    return (path.count("/"), path)


def put(states: Iterable[State], blobs: str) -> List[str]:
    """Make every path so. Directories first, then files and links, then removals from the deepest up. What is
    already so is left alone, so that it can be repeated after an interruption. Returns directories that stayed
    because somebody else's files are in them."""
    todo = list(states)
    kept: List[str] = []
    touched: Dict[str, None] = {}
    fresh: List[str] = []

    def gone(path: str) -> None:
        try:
            with parent_of(path) as parent:
                gone_at(parent, path)
        except (FileNotFoundError, NotADirectoryError):
            return  # on the other side of a link it would be somebody else's file

    def gone_at(parent: int, path: str) -> None:
        base = os.path.basename(path)
        live = inspect_at(parent, path)
        if live["type"] == "absent":
            return
        if live["type"] == "directory":
            try:
                os.rmdir(base, dir_fd=parent)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                    raise
                kept.append(path)
                return
        else:
            os.unlink(base, dir_fd=parent)
        touched[os.path.dirname(path)] = None

    def made(parent: int, state: State) -> None:
        path = state["path"]
        base, temporary = os.path.basename(path), os.path.basename(temporary_name(path))
        live = inspect_at(parent, path)
        if same(live, state):
            return
        if live["type"] not in ("absent", state["type"]) and "directory" in (live["type"], state["type"]):
            gone_at(parent, path)
            live = inspect_at(parent, path)
        if live["type"] == "absent":
            fresh.append(path)
        if state["type"] == "directory":
            if live["type"] == "absent":
                os.mkdir(base, 0o700, dir_fd=parent)
            descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.fchown(descriptor, state["uid"], state["gid"])
                os.fchmod(descriptor, state["mode"])
            finally:
                os.close(descriptor)
        elif state["type"] == "link":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            os.symlink(state["target"], temporary, dir_fd=parent)
            os.rename(temporary, base, src_dir_fd=parent, dst_dir_fd=parent)
        elif state["type"] == "file":
            with open(os.path.join(blobs, state["blob"]), "rb") as stream:
                data = stream.read()
            if sha256(data) != state["sha256"]:
                raise FileSetError(f"the stored contents for {path} are damaged; it was left alone")
            write_at(parent, path, data, state["mode"], state["uid"], state["gid"])
        touched[os.path.dirname(path)] = None

    absent = sorted((s for s in todo if s["type"] == "absent"), key=depth, reverse=True)
    wanted = sorted((s for s in todo if s["type"] not in ("absent", "other")), key=depth)
    # A directory that becomes a file has to be emptied before the file can take its name.
    blocked = [
        s["path"]
        for s in wanted
        if s["type"] != "directory" and os.path.isdir(s["path"]) and not os.path.islink(s["path"])
    ]
    early = [s for s in absent if any(s["path"].startswith(path + "/") for path in blocked)]
    where = "?"
    try:
        sweep(state["path"] for state in todo)
        for state in early:
            where = state["path"]
            gone(where)
        for state in wanted:
            where = state["path"]
            with parent_of(where) as parent:
                made(parent, state)
        for state in absent:
            where = state["path"]
            gone(where)
    except OSError as error:
        raise FileSetError(f"could not write {where}: {error.strerror}") from error
    _relabel(fresh)
    for directory in touched:
        with contextlib.suppress(OSError):
            fsync_dir(directory)
    return kept


def _relabel(paths: List[str]) -> None:
    if paths and os.path.exists("/sys/fs/selinux/enforce") and shutil.which("restorecon"):
        subprocess.run(["restorecon", "--", *paths], check=False, env=COMMAND_ENV, stdin=subprocess.DEVNULL)
