# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run checks on a set of files before it is live: in a mount namespace of their own, in which the new files
already lie at their real paths and removed ones are gone. No live file is touched.

The new files are laid over the real directories with a read-only overlay. Where the kernel refuses that (an
overlay cannot be stacked without end, and some file systems cannot be below one), the directories concerned are
copied, changed and bound in place.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import stat
import tempfile
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import run_command
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import parent_of
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_states import read_at

State = Dict[str, Any]
# What the fallback copies at most; more means that the set lies in a directory that is not a configuration's.
COPY_LIMIT = 64 * 1024 * 1024
MOUNT_FAILED = 125


class StageError(Exception):
    """The new files could not be shown to the checks."""


def overlay_roots(paths: Iterable[str], is_dir: Any = os.path.isdir) -> List[str]:
    """The fewest existing directories below which all `paths` lie."""
    found = set()
    for path in paths:
        parent = os.path.dirname(path)
        while parent != "/" and not is_dir(parent):
            parent = os.path.dirname(parent)
        found.add(parent)
    roots: List[str] = []
    for root in sorted(found):
        if not any(root == other or root.startswith(other.rstrip("/") + "/") for other in roots):
            roots.append(root)
    return roots


def mounts_below(root: str, mountinfo: str) -> List[str]:
    """Mount points inside `root`, which an overlay on it would hide."""
    points = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
            if point.startswith(root.rstrip("/") + "/"):
                points.append(point)
    return sorted(set(points))


def _script(lines: Sequence[str]) -> str:
    """A shell program that mounts, then becomes the command given as its arguments."""
    steps = [line + f" || exit {MOUNT_FAILED}" for line in lines]
    return "\n".join([*steps, 'exec "$@"'])


def _quoted(*words: str) -> str:
    return " ".join(shlex.quote(word) for word in words)


def as_user(name: str) -> List[str]:
    """What makes a command run with nothing but the rights of that account, and without the terminal of ours."""
    try:
        group = pwd.getpwnam(name).pw_gid
    except KeyError:
        raise StageError(f"there is no user {name!r} on this host to run a check as; nothing was changed") from None
    drop = ["setpriv", "--reuid", name, "--regid", str(group), "--clear-groups", "--no-new-privs"]
    return ["setsid", "--wait", *drop]


class Stage:
    """A private place with the changed files, and the mounts that show them."""

    def __init__(self, changes: Sequence[Tuple[State, Optional[bytes]]]) -> None:
        """`changes`: the wanted states, with the contents of those that are files."""
        self.changes = sorted(changes, key=lambda item: (str(item[0]["path"]).count("/"), item[0]["path"]))
        # /run is memory: contents that are secret never reach the disk, and nothing survives a restart.
        parent = "/run" if os.path.isdir("/run") and os.access("/run", os.W_OK) else None
        self.directory = tempfile.mkdtemp(prefix="devnode-staging-", dir=parent)
        self.roots = overlay_roots(str(state["path"]) for state, _content in changes)
        self.prefix: List[str] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_exception: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def prepare(self) -> None:
        """Choose a way to show the files, and try it."""
        if not self.roots:
            return
        problems = []
        for way in (self._overlay, self._copies):
            try:
                script = way()
            except (OSError, StageError) as error:
                problems.append(str(error))
                continue
            prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
            outcome = run_command({"argv": [*prefix, "true"], "timeout": 60})
            if outcome["rc"] == 0:
                self.prefix = prefix
                return
            problems.append(outcome["output"] or f"exit {outcome['rc']}")
        raise StageError(
            "the new files cannot be shown to the checks without making them live, so nothing was changed: "
            + "; ".join(problems)
            + ". On this host root must be able to mount (CAP_SYS_ADMIN), and `unshare` (util-linux) must be there."
        )

    def run(self, command: Mapping[str, Any]) -> Dict[str, Any]:
        drop = as_user(command["user"]) if command.get("user") else []
        outcome = run_command({**command, "argv": [*self.prefix, *drop, *command["argv"]]})
        outcome["argv"] = [str(word) for word in command["argv"]]
        return outcome

    # --- overlay --------------------------------------------------------------------------------------------

    def _overlay(self) -> str:
        if "/" in self.roots:
            raise StageError("a directory directly below / is new; make it in an earlier task")
        lines = []
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            mountinfo = stream.read()
        for number, root in enumerate(self.roots):
            if any(character in root for character in ":,\\\n"):
                raise StageError(f"{root!r} has a character that mount options cannot carry")
            upper = os.path.join(self.directory, f"upper{number}")
            _mirror_directory(root, upper)
            for state, content in self.changes:
                if str(state["path"]).startswith(root + "/"):
                    self._lay(root, upper, state, content)
            inner = mounts_below(root, mountinfo)
            if inner:
                real = os.path.join(self.directory, f"real{number}")
                os.mkdir(real)
                lines.append(_quoted("mount", "--rbind", root, real))
            lines.append(_quoted("mount", "-t", "overlay", "devnode", "-o", f"ro,lowerdir={upper}:{root}", root))
            for point in inner:
                lines.append(_quoted("mount", "--bind", real + point[len(root) :], point))
        return _script(lines)

    def _lay(self, root: str, upper: str, state: State, content: Optional[bytes]) -> None:
        path = str(state["path"])
        copy = upper + path[len(root) :]
        walked = root
        for part in os.path.dirname(path)[len(root) :].strip("/").split("/"):
            walked = os.path.join(walked, part) if part else walked
            there = upper + walked[len(root) :]
            if not os.path.lexists(there):
                if not os.path.isdir(walked):
                    if state["type"] == "absent":
                        return
                    raise StageError(f"{walked!r} is not a directory")
                _mirror_directory(walked, there)
            elif not os.path.isdir(there):
                return  # below something that is being removed
        if state["type"] == "absent":
            if os.path.isdir(copy) and not os.path.islink(copy):
                shutil.rmtree(copy)
            elif os.path.lexists(copy):
                os.unlink(copy)
            if os.path.lexists(path):
                os.mknod(copy, stat.S_IFCHR | 0o600, os.makedev(0, 0))  # overlayfs: "nothing here"
            return
        _write(copy, state, content)

    # --- copies ---------------------------------------------------------------------------------------------

    def _copies(self) -> str:
        if "/" in self.roots:
            raise StageError("a directory directly below / is new; make it in an earlier task")
        lines = []
        left = COPY_LIMIT
        for number, root in enumerate(self.roots):
            copy = os.path.join(self.directory, f"copy{number}")
            left -= _copy_tree(root, copy, left)
            for state, content in self.changes:
                path = str(state["path"])
                if not path.startswith(root + "/"):
                    continue
                there = copy + path[len(root) :]
                if state["type"] == "absent":
                    if os.path.isdir(there) and not os.path.islink(there):
                        shutil.rmtree(there)
                    elif os.path.lexists(there):
                        os.unlink(there)
                else:
                    _write(there, state, content)
            lines.append(_quoted("mount", "--bind", copy, root))
        return _script(lines)


def _open_directory(path: str) -> int:
    """A directory that no link leads to: who owns one on the way could put a link there at any time."""
    with parent_of(path + "/") as place:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)


def _mirror_directory(real: str, copy: str) -> None:
    """The uppermost layer decides about a directory's owner and mode."""
    descriptor = _open_directory(real)
    try:
        _make_like(descriptor, copy)
    finally:
        os.close(descriptor)


def _make_like(directory: int, copy: str) -> None:
    os.mkdir(copy, 0o700)
    info = os.fstat(directory)
    os.chown(copy, info.st_uid, info.st_gid)
    os.chmod(copy, stat.S_IMODE(info.st_mode))


def _copy_tree(source: str, target: str, limit: int) -> int:
    """Like ``cp -a`` for directories, files and links. Returns the bytes copied."""
    descriptor = _open_directory(source)
    try:
        return _copy_open(descriptor, source, target, limit)
    finally:
        os.close(descriptor)


def _copy_open(directory: int, source: str, target: str, limit: int) -> int:
    used = 0
    _make_like(directory, target)
    for name in os.listdir(directory):
        there = os.path.join(target, name)
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=directory), there)
            os.chown(there, info.st_uid, info.st_gid, follow_symlinks=False)
        elif stat.S_ISDIR(info.st_mode):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, flags, dir_fd=directory)
            try:
                used += _copy_open(below, os.path.join(source, name), there, limit - used)
            finally:
                os.close(below)
        elif stat.S_ISREG(info.st_mode):
            used += info.st_size
            data = read_at(directory, name) if used <= limit else None
            if data is None:
                raise StageError(f"{source!r} holds more than {COPY_LIMIT // 1024 // 1024} MiB: too much to copy")
            with open(there, "wb") as stream:
                stream.write(data)
            os.chown(there, info.st_uid, info.st_gid)
            os.chmod(there, stat.S_IMODE(info.st_mode))
    return used


def _write(copy: str, state: State, content: Optional[bytes]) -> None:
    if os.path.isdir(copy) and not os.path.islink(copy):
        if state["type"] != "directory":
            shutil.rmtree(copy)
    elif os.path.lexists(copy):
        os.unlink(copy)
    if state["type"] == "directory":
        if not os.path.isdir(copy):
            os.mkdir(copy, 0o700)
        os.chown(copy, state["uid"], state["gid"])
        os.chmod(copy, state["mode"])
    elif state["type"] == "link":
        os.symlink(state["target"], copy)
    elif state["type"] == "file":
        with open(copy, "wb") as stream:
            stream.write(content or b"")
        os.chown(copy, state["uid"], state["gid"])
        os.chmod(copy, state["mode"])
