# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also a program of the host, which prints and exits
"""Put a set of files on this host, or put the old set back.

The one engine behind ``file_set``: the module imports it, and for the guard the same text is installed on
the host as ``/usr/local/libexec/devnode/guard``, where systemd runs it. It must therefore import nothing but
the standard library and must not lean on Ansible or on files that Ansible leaves in a temporary directory.

What is on disk, all below ``/var/lib/devnode`` and readable by root only (except that directory itself):

``file_set/NAME.json``
    The manifest: what the set NAME owns here.
``transaction/NAME/``
    A change that is under way: both sides of it (old and new states with their contents) and the commands
    that belong to it. It is written in full before a live file is touched, so that whoever comes next, after
    whatever happened, can finish the change or take it back.
``guard/NAME/state.json``
    How far a guarded change has come; afterwards, what the guard did, until somebody has read it.
``backup/NAME/STAMP/``
    The old sides of the last changes.
``original/NAME/SHA256``
    What was at a path before the set took it over: put back when the set gives the path up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
import time
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

BASE = "/var/lib/devnode"
RUN = "/run/devnode-guard"
PROGRAM = "/usr/local/libexec/devnode/guard"
BOOT_UNIT = "/etc/systemd/system/devnode-guard-boot.service"
WATCH_UNIT = "/etc/systemd/system/devnode-guard@.service"
BACKUPS_KEPT = 10
SIZE_LIMIT = 64 * 1024 * 1024
OUTPUT_KEPT = 4000
# Phases in which a guarded change is neither confirmed nor taken back.
ARMED_PHASES = ("armed", "applying", "waiting", "rolling_back")
COMMAND_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/root",
}

BOOT_UNIT_TEXT = """\
# Installed by the Ansible collection devnode.gpu (file_set, guard). It does nothing unless a change that could
# cut off the operator was still unconfirmed when the host went down: then it puts the old files back, before the
# network, the firewall and sshd start.
[Unit]
Description=Put back unconfirmed devnode.gpu changes
DefaultDependencies=no
RequiresMountsFor={base} /usr/local /etc
After=local-fs.target
Before=sysinit.target network-pre.target nftables.service firewalld.service
Before=ssh.service ssh.socket sshd.service sshd.socket shutdown.target
Conflicts=shutdown.target
ConditionPathExistsGlob={base}/guard/*/state.json

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program} boot
SyslogIdentifier=devnode-guard
TimeoutStartSec=120

[Install]
WantedBy=sysinit.target
"""

WATCH_UNIT_TEXT = """\
# Installed by the Ansible collection devnode.gpu (file_set, guard). Makes one guarded change and takes it back when
# no new connection confirms it in time. Its state is on disk, so that it can be killed and go on.
[Unit]
Description=Guarded change of the file set %i
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={program} run %i
SyslogIdentifier=devnode-guard
Restart=on-failure
RestartSec=500ms
OOMScoreAdjust=-900
TimeoutStopSec=10
KillMode=mixed
"""

State = Dict[str, Any]
Command = Dict[str, Any]
Outcome = Dict[str, Any]


class EngineError(Exception):
    """Something that a person has to be told, in words."""


# --- small file helpers ----------------------------------------------------------------------------------------


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def secrets_of(content: bytes) -> List[str]:
    """What of a sensitive file must not be shown, should a command print it. Short lines are left out: they are rarely
    a secret, and hiding them would make every message unreadable."""
    text = content.decode("utf-8", "replace")
    return [line.strip() for line in [text, *text.splitlines()] if len(line.strip()) >= 12]


def _fsync_dir(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_name(path: str) -> str:
    """A name beside `path` that programs reading a ``*.d`` directory pass over, the same one each time, so that
    what a killed run left behind is overwritten by the next."""
    directory, base = os.path.split(path)
    if len(base) > 200:
        base = sha256(base.encode("utf-8", "surrogateescape"))
    return os.path.join(directory, "." + base + ".devnode-tmp")


def _sweep(paths: Iterable[str]) -> None:
    """Take away what a killed run was about to move into place."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), parent_of(path) as parent:
            os.unlink(os.path.basename(_temporary_name(path)), dir_fd=parent)


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
    base, temporary = os.path.basename(path), os.path.basename(_temporary_name(path))
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


def _relabel(paths: List[str]) -> None:
    if paths and os.path.exists("/sys/fs/selinux/enforce") and shutil.which("restorecon"):
        subprocess.run(["restorecon", "--", *paths], check=False, env=COMMAND_ENV, stdin=subprocess.DEVNULL)


def write_json(path: str, value: Any) -> None:
    make_private(os.path.dirname(path))
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    write_atomic(path, text.encode("utf-8"), 0o600)
    _fsync_dir(os.path.dirname(path))


def read_json(path: str) -> Any:
    """The value in `path`, or None where there is no such file."""
    try:
        with open(path, "rb") as stream:
            return json.loads(stream.read().decode("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EngineError(
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
                    raise EngineError(
                        f"another run has been changing this host for {wait:.0f} s ({base}/.lock is taken). "
                        f"Wait for it to end (`fuser {base}/.lock` shows it), then run again."
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


# --- what is there, and making it so ---------------------------------------------------------------------------


def inspect(path: str) -> State:
    """The state of one path on this host, never following a link."""
    try:
        with parent_of(path) as parent:
            state = inspect_at(parent, path)
    except (FileNotFoundError, NotADirectoryError):
        return {"path": path, "type": "absent"}
    if state.get("sha256") == "":
        raise EngineError(f"{path} is larger than {SIZE_LIMIT >> 20} MiB; no file of a set is. Move it away first.")
    return state


def read_file(path: str) -> bytes:
    """What is in a regular file that no link leads to."""
    try:
        with parent_of(path) as parent:
            data = read_at(parent, os.path.basename(path))
    except OSError as error:
        raise EngineError(f"could not read {path}: {error.strerror}; it was changed meanwhile") from error
    if data is None:
        raise EngineError(f"could not read {path}: it is not a file, or larger than {SIZE_LIMIT >> 20} MiB")
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


def _depth(state: State) -> Tuple[int, str]:
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
        base, temporary = os.path.basename(path), os.path.basename(_temporary_name(path))
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
                raise EngineError(f"the stored contents for {path} are damaged; it was left alone")
            write_at(parent, path, data, state["mode"], state["uid"], state["gid"])
        touched[os.path.dirname(path)] = None

    absent = sorted((s for s in todo if s["type"] == "absent"), key=_depth, reverse=True)
    wanted = sorted((s for s in todo if s["type"] not in ("absent", "other")), key=_depth)
    # A directory that becomes a file has to be emptied before the file can take its name.
    blocked = [
        s["path"]
        for s in wanted
        if s["type"] != "directory" and os.path.isdir(s["path"]) and not os.path.islink(s["path"])
    ]
    early = [s for s in absent if any(s["path"].startswith(path + "/") for path in blocked)]
    where = "?"
    try:
        _sweep(state["path"] for state in todo)
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
        raise EngineError(f"could not write {where}: {error.strerror}") from error
    _relabel(fresh)
    for directory in touched:
        with contextlib.suppress(OSError):
            _fsync_dir(directory)
    return kept


def run_command(command: Command) -> Outcome:
    """Run one command without a shell and without a terminal; its output is kept short."""
    argv = [str(word) for word in command["argv"]]
    timeout = int(command.get("timeout") or 60)
    started = time.monotonic()
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
            cwd="/",
            env=COMMAND_ENV,
        )
        code, output = done.returncode, done.stdout
    except FileNotFoundError:
        code, output = 127, b"no such program on this host"
    except PermissionError:
        code, output = 126, b"not executable"
    except subprocess.TimeoutExpired as error:
        code, output = 124, (error.stdout or b"") + b"\nno end after %d s: stopped" % timeout
    text = output.decode("utf-8", "replace").strip()
    if len(text) > OUTPUT_KEPT:
        text = "[...] " + text[-OUTPUT_KEPT:]
    return {"argv": argv, "rc": code, "output": text, "seconds": round(time.monotonic() - started, 2)}


def wanted_commands(commands: Iterable[Command], changed: Iterable[str]) -> List[Command]:
    """Those whose ``when_changed`` patterns match a changed path; without patterns, always."""
    paths = list(changed)
    result = []
    for command in commands:
        patterns = command.get("when_changed") or []
        if not patterns or any(fnmatch.fnmatchcase(path, pattern) for path in paths for pattern in patterns):
            result.append(command)
    return result


def run_all(commands: Iterable[Command], stop: bool = True) -> List[Outcome]:
    outcomes = []
    for command in commands:
        outcome = run_command(command)
        outcomes.append(outcome)
        if outcome["rc"] != 0 and stop:
            break
    return outcomes


def masked(outcomes: List[Outcome], secret: List[str]) -> List[Outcome]:
    """What the commands printed, without what sensitive files say: it goes to the journal and to the controller."""
    for outcome in outcomes:
        for text in secret:
            outcome["output"] = outcome["output"].replace(text, "********")
    return outcomes


def failed(outcomes: List[Outcome]) -> Optional[Outcome]:
    return next((outcome for outcome in outcomes if outcome["rc"] != 0), None)


# --- manifests -------------------------------------------------------------------------------------------------


def manifest_path(name: str, kind: str = "file_set", base: str = BASE) -> str:
    return os.path.join(base, kind, name + ".json")


def load_manifest(name: str, kind: str = "file_set", base: str = BASE) -> Dict[str, Any]:
    """What the set owns: ``entries`` by path (or by account name). Empty for a new set."""
    value = read_json(manifest_path(name, kind, base))
    if value is None:
        return {"version": 1, "name": name, "entries": {}}
    if value.get("version") != 1:
        raise EngineError(
            f"{manifest_path(name, kind, base)} was written by a newer version of devnode.gpu "
            f"(format {value.get('version')!r}, this one knows 1). Use that version for this host."
        )
    return dict(value)


def save_manifest(manifest: Dict[str, Any], kind: str = "file_set", base: str = BASE) -> None:
    """An empty manifest is no manifest."""
    path = manifest_path(manifest["name"], kind, base)
    if any(manifest.get(key) for key in ("entries", "groups")):
        write_json(path, manifest)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if kind == "file_set":
        _drop_originals(manifest, base)


def original_path(name: str, digest: str, base: str = BASE) -> str:
    return os.path.join(base, "original", name, digest)


def read_original(name: str, original: Dict[str, Any], base: str = BASE) -> Optional[bytes]:
    """What was in a file before the set took it over, or None when that is lost."""
    try:
        with open(original_path(name, original["sha256"], base), "rb") as stream:
            data = stream.read()
    except OSError:
        return None
    return data if sha256(data) == original["sha256"] else None


def _drop_originals(manifest: Dict[str, Any], base: str) -> None:
    """Those that no path of the set needs any more."""
    needed = {entry.get("original", {}).get("sha256") for entry in manifest["entries"].values()}
    directory = os.path.dirname(original_path(manifest["name"], "x", base))
    with contextlib.suppress(OSError):
        for digest in os.listdir(directory):
            if digest not in needed:
                os.unlink(os.path.join(directory, digest))
        os.rmdir(directory)  # only when it is empty


def owned_by_others(name: str, kind: str = "file_set", base: str = BASE) -> Dict[str, str]:
    """What the other sets on this host own: path (or account) -> set."""
    owners: Dict[str, str] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(base), kind, "*.json"))):
        other = os.path.basename(path)[: -len(".json")]
        if other != name:
            for key, entry in load_manifest(other, kind, base)["entries"].items():
                if not entry.get("implicit"):
                    owners[key] = other
    return owners


# --- a change --------------------------------------------------------------------------------------------------


class Transaction:
    """One change of a set, on disk: ``transaction.json`` and the contents in ``old/`` and ``new/``."""

    def __init__(self, data: Dict[str, Any], base: str = BASE) -> None:
        self.data = data
        self.base = base

    @property
    def name(self) -> str:
        return str(self.data["name"])

    @property
    def directory(self) -> str:
        return os.path.join(self.base, "transaction", self.name)

    @property
    def superseded(self) -> str:
        """Where the interrupted change that this one takes over is for a moment. (No set's name begins with a dot.)"""
        return os.path.join(self.base, "transaction", ".earlier-" + self.name)

    @property
    def building(self) -> str:
        return os.path.join(self.base, "transaction", ".new-" + self.name)

    @classmethod
    def load(cls, name: str, base: str = BASE) -> Optional[Transaction]:
        empty = cls({"name": name}, base)
        if not os.path.isdir(empty.directory) and os.path.isdir(empty.superseded):
            os.rename(empty.superseded, empty.directory)
        data = read_json(os.path.join(empty.directory, "transaction.json"))
        return None if data is None else cls(data, base)

    def install(self) -> None:
        """Move what was built into its place; what is there is always complete."""
        shutil.rmtree(self.superseded, ignore_errors=True)
        if os.path.isdir(self.directory):
            os.rename(self.directory, self.superseded)
        os.rename(self.building, self.directory)
        _fsync_dir(os.path.dirname(self.directory))
        shutil.rmtree(self.superseded, ignore_errors=True)

    def save(self) -> None:
        write_json(os.path.join(self.directory, "transaction.json"), self.data)

    @property
    def touched_live_files(self) -> bool:
        return bool(self.data["phase"] != "prepared")

    def discard(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def write_new(self) -> None:
        """Write the new side. From here on an interruption leaves something to finish or take back."""
        self.data["phase"] = "written"
        self.save()
        _sweep(state["path"] for state in self.data["old"])
        self.data["kept"] = put(self.data["new"], self.directory)

    def activate(self) -> List[Outcome]:
        return masked(run_all(wanted_commands(self.data["activate"], self.data["changed"])), self._secrets())

    def verify(self) -> List[Outcome]:
        return masked(run_all(self.data["verify"]), self._secrets())

    def _secrets(self) -> List[str]:
        """What a command of this change must not show: of both sides, the longest first."""
        found: Dict[str, None] = {}
        for state in [*self.data["old"], *self.data["new"]]:
            if state.get("sensitive") and state.get("blob"):
                with contextlib.suppress(OSError), open(os.path.join(self.directory, state["blob"]), "rb") as stream:
                    found.update(dict.fromkeys(secrets_of(stream.read())))
        return sorted(found, key=len, reverse=True)

    def apply(self) -> Optional[Dict[str, Any]]:
        """Write, activate, verify. What went wrong, or None."""
        try:
            self.write_new()
        except EngineError as error:
            return {"reason": "write", "msg": str(error)}
        outcomes = self.data["outcomes"] = []
        for reason, step in (("activate", self.activate), ("verify", self.verify)):
            done = step()
            outcomes += done
            bad = failed(done)
            if bad:
                return {"reason": reason, "command": bad}
        return None

    def rollback(self, at_boot: bool = False) -> Dict[str, Any]:
        """Put the old side back and activate it. What is marked ``never_restore`` stays as it is now: a key or a
        person that was taken away does not come back because something else went wrong."""
        left = sorted(s["path"] for s in self.data["old"] if s.get("never_restore"))
        old = [s for s in self.data["old"] if not s.get("never_restore")]
        report: Dict[str, Any] = {"restored": sorted(s["path"] for s in old), "not_restored": left, "errors": []}
        secret = self._secrets()
        # The disk may be full. The new contents have had their use.
        shutil.rmtree(os.path.join(self.directory, "new"), ignore_errors=True)
        try:
            put(old, self.directory)
        except EngineError as error:
            # One path that cannot be written must not keep the others from being put back; first what needs no space.
            report["errors"].append(str(error))
            gone = sorted((s for s in old if s["type"] == "absent"), key=_depth, reverse=True)
            for state in gone + sorted((s for s in old if s["type"] != "absent"), key=_depth):
                with contextlib.suppress(EngineError, OSError):
                    put([state], self.directory)
        if at_boot:
            # Services start by themselves after this, from the old files. Asking for them now would wait for ever.
            units = any(path.startswith(("/etc/systemd/", "/usr/lib/systemd/")) for path in report["restored"])
            commands: List[Command] = [{"argv": ["systemctl", "daemon-reload"]}] if units else []
        else:
            commands = self.data["activate"] if self.data["reactivate"] is None else self.data["reactivate"]
            commands = wanted_commands(commands, self.data["changed"])
        report["commands"] = masked(run_all(commands, stop=False), secret)
        report["errors"] += [
            "%s: exit %d: %s" % (" ".join(o["argv"]), o["rc"], o["output"]) for o in report["commands"] if o["rc"]
        ]
        manifest = self._manifest_after_rollback()
        try:
            save_manifest(manifest, base=self.base)
            self.discard()
        except OSError:
            self.discard()  # makes room
            try:
                save_manifest(manifest, base=self.base)
            except OSError as error:
                report["errors"].append(f"could not write {manifest_path(self.name, base=self.base)}: {error.strerror}")
        return report

    def _manifest_after_rollback(self) -> Dict[str, Any]:
        before: Dict[str, Any] = dict(self.data["manifest_before"])
        after: Dict[str, Any] = self.data["manifest_after"]
        entries = dict(before["entries"])
        for state in self.data["old"]:
            if state.get("never_restore"):
                entries.pop(state["path"], None)
        for path, entry in after["entries"].items():
            ours_still = entry["type"] == "directory" and os.path.isdir(path)
            if path not in entries and (entry.get("never_restore") or ours_still):
                entries[path] = entry
        before["entries"] = entries
        return before

    def finish(self) -> Optional[str]:
        """The change stands: it is in the manifest, and its old side becomes the backup."""
        after = dict(self.data["manifest_after"])
        entries = dict(after["entries"])
        for path in self.data.get("kept", []):
            # Somebody else's files are in it. It stays ours, and goes when they are gone.
            if path in self.data["manifest_before"]["entries"]:
                entries[path] = self.data["manifest_before"]["entries"][path]
        after["entries"] = entries
        self._keep_originals(entries)
        save_manifest(after, base=self.base)
        if not self.data["backup"]:
            self.discard()
            return None
        shutil.rmtree(os.path.join(self.directory, "new"), ignore_errors=True)
        target: str = self.data["backup"]
        make_private(os.path.dirname(target))
        os.rename(self.directory, target)
        stamps = sorted(os.listdir(os.path.dirname(target)))
        for stamp in stamps[:-BACKUPS_KEPT]:
            shutil.rmtree(os.path.join(os.path.dirname(target), stamp), ignore_errors=True)
        return target

    def _keep_originals(self, entries: Dict[str, Any]) -> None:
        old = {state["path"]: state for state in self.data["old"]}
        for path, entry in entries.items():
            digest = entry.get("original", {}).get("sha256")
            state = old.get(path, {})
            if digest and state.get("blob") and state.get("sha256") == digest:
                with open(os.path.join(self.directory, state["blob"]), "rb") as stream:
                    data = stream.read()
                place = original_path(self.name, digest, self.base)
                make_private(os.path.dirname(place))
                write_atomic(place, data, 0o600)


# --- the guard -------------------------------------------------------------------------------------------------


def _clock() -> float:
    """Seconds that go on while the host sleeps and do not jump when its time is set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _guard_path(name: str, base: str) -> str:
    return os.path.join(base, "guard", name, "state.json")


def _marker(name: str) -> str:
    """Gone after a restart of the host."""
    return os.path.join(RUN, name)


def _confirmed(name: str) -> str:
    """Which change was confirmed last, should the answer to that get lost. (No set's name begins with a dot.)"""
    return os.path.join(RUN, ".confirmed-" + name)


def watched(name: str) -> bool:
    """Is the service there that makes the change and ends it?"""
    outcome = run_command({"argv": ["systemctl", "is-active", f"devnode-guard@{name}.service"]})
    return outcome["output"] in ("active", "activating", "reloading")


def guard_state(name: str, base: str = BASE) -> Optional[Dict[str, Any]]:
    value = read_json(_guard_path(name, base))
    return None if value is None else dict(value)


def save_guard(state: Dict[str, Any], base: str = BASE) -> None:
    write_json(_guard_path(state["name"], base), state)


def clear_guard(name: str, base: str = BASE) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_guard_path(name, base))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_marker(name))


def guard_names(base: str = BASE) -> List[str]:
    found = glob.glob(os.path.join(glob.escape(base), "guard", "*", "state.json"))
    return sorted(os.path.basename(os.path.dirname(path)) for path in found)


def armed(base: str = BASE) -> List[Dict[str, Any]]:
    states = (guard_state(name, base) for name in guard_names(base))
    return [state for state in states if state and state["phase"] in ARMED_PHASES]


def _say(text: str) -> None:
    print(text, flush=True)


def _roll_back(state: Dict[str, Any], reason: str, detail: Dict[str, Any], base: str, at_boot: bool = False) -> None:
    """Called with the lock held."""
    name = state["name"]
    _say(f"file set {name}: putting the old files back: {reason}")
    state.update(phase="rolling_back", reason=reason)
    # A full disk must not keep the old files away. What is on disk instead is also a phase that is taken back.
    with contextlib.suppress(OSError):
        save_guard(state, base)
    transaction = Transaction.load(name, base)
    report = transaction.rollback(at_boot) if transaction else {"errors": ["the old files are gone"]}
    state.update(phase="rolled_back", time=time.strftime("%Y-%m-%dT%H:%M:%S%z"), **report)
    state.update(detail)
    try:
        save_guard(state, base)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_marker(name))
    except OSError as error:
        # Nothing is left to take back, so nobody may try again: only the journal can tell.
        _say(f"file set {name}: could not keep the report: {error.strerror}")
        clear_guard(name, base)
    for problem in report["errors"]:
        _say(f"file set {name}: {problem}")
    _say(f"file set {name}: rolled back: " + ", ".join(report.get("restored", [])))


def run_guard(name: str, base: str = BASE) -> int:
    """The service: make the change, then wait for the confirmation or the end of the time."""
    with locked(base):
        state = guard_state(name, base)
        if state is None or state["phase"] not in ARMED_PHASES:
            return 0
        transaction = Transaction.load(name, base)
        if state["phase"] == "armed" and transaction is not None:
            state["phase"] = "applying"
            save_guard(state, base)
            bad = transaction.apply()
            transaction.save()
            if bad:
                text = bad.get("msg") or "`{0}` ended with {1}".format(
                    " ".join(bad["command"]["argv"]), bad["command"]["rc"]
                )
                _roll_back(state, f"{bad['reason']} failed: {text}", {"command": bad.get("command")}, base)
                return 0
            state.update(phase="waiting", nonce=secrets.token_hex(16), deadline=_clock() + state["window"])
            save_guard(state, base)
            _say(f"file set {name}: changed; waiting {state['window']} s for a new connection to confirm it")
        elif state["phase"] != "waiting":
            _roll_back(state, "the change was interrupted", {}, base)
            return 0
    while True:
        state = guard_state(name, base)
        if state is None or state["phase"] != "waiting":
            return 0
        left = state["deadline"] - _clock()
        if left > 0:
            time.sleep(min(left, 0.2))
            continue
        with locked(base):
            state = guard_state(name, base)
            if state is not None and state["phase"] == "waiting":
                _roll_back(state, f"no new connection confirmed it within {state['window']} s", {}, base)
        return 0


def confirm(name: str, nonce: str, base: str = BASE) -> Dict[str, Any]:
    """The new connection is there. Only who has seen the change applied knows the nonce, so a connection that was
    opened before cannot confirm."""
    with locked(base):
        state = guard_state(name, base)
        if state is None or state["phase"] != "waiting":
            return state or {"name": name, "phase": "none"}
        if not secrets.compare_digest(str(state["nonce"]), nonce):
            return {"name": name, "phase": "waiting", "error": "wrong nonce"}
        transaction = Transaction.load(name, base)
        backup = transaction.finish() if transaction else None
        with contextlib.suppress(OSError):
            write_atomic(_confirmed(name), str(state["id"]).encode(), 0o600)
        clear_guard(name, base)
        return {"name": name, "id": state["id"], "phase": "confirmed", "backup": backup}


def await_applied(name: str, identity: str, seconds: float, base: str = BASE) -> Dict[str, Any]:
    """Wait a little until the change has been made (or taken back) and say how it stands."""
    end = time.monotonic() + seconds
    while True:
        state = guard_state(name, base)
        if state is None or state["id"] != identity:
            return {"name": name, "phase": "confirmed" if _was_confirmed(name, identity) else "none"}
        if state["phase"] in ("waiting", "rolled_back") or time.monotonic() >= end:
            break
        time.sleep(0.05)
    if state["phase"] == "waiting":
        state["seconds_left"] = round(state["deadline"] - _clock(), 1)
    return state


def _was_confirmed(name: str, identity: str) -> bool:
    try:
        with open(_confirmed(name), encoding="utf-8") as stream:
            return stream.read() == identity
    except OSError:
        return False


def seen(name: str, identity: str, base: str = BASE) -> Dict[str, Any]:
    """Somebody has been told what the guard did; the next run need not say it again."""
    with locked(base):
        state = guard_state(name, base)
        if state is not None and state["id"] == identity and state["phase"] == "rolled_back":
            clear_guard(name, base)
    return {"name": name, "phase": "none"}


def recover(name: str, reason: str, base: str = BASE, at_boot: bool = False) -> None:
    """A change that nobody watches any more. Called with the lock held."""
    state = guard_state(name, base)
    if state is None or state["phase"] not in ARMED_PHASES:
        return
    if state["phase"] == "armed":
        transaction = Transaction.load(name, base)
        if transaction:
            transaction.discard()
        clear_guard(name, base)
        return
    _roll_back(state, reason, {}, base, at_boot)


def boot(base: str = BASE) -> int:
    """Take back what a restart interrupted. One set that cannot be helped does not keep the others from it."""
    code = 0
    for name in guard_names(base):
        try:
            # A finished one needs nothing, so no lock either: a run may hold it while it starts this service.
            unfinished = (guard_state(name, base) or {}).get("phase") in ARMED_PHASES
            # `systemctl soft-reboot` leaves the marker, and nobody who watches.
            if unfinished and not (os.path.exists(_marker(name)) and watched(name)):
                with locked(base):
                    recover(name, "the host restarted before the change was confirmed", base, at_boot=True)
        except Exception as error:  # whatever is wrong with this one
            _say(f"file set {name}: {error}")
            code = 1
    return code


def main(argv: List[str]) -> int:
    if len(argv) == 1 and argv[0] == "boot":
        return boot()
    if len(argv) == 2 and argv[0] == "run":
        return run_guard(argv[1])
    if len(argv) == 4 and argv[0] == "await":
        answer = await_applied(argv[1], argv[2], float(argv[3]))
    elif len(argv) == 3 and argv[0] == "confirm":
        answer = confirm(argv[1], argv[2])
    elif len(argv) == 3 and argv[0] == "seen":
        answer = seen(argv[1], argv[2])
    elif argv == ["status"]:
        answer = {"armed": armed(), "states": [guard_state(name) for name in guard_names()]}
    else:
        print(
            "usage: guard status | run NAME | boot | await NAME ID SECONDS | confirm NAME NONCE | seen NAME ID",
            file=sys.stderr,
        )
        return 2
    print("devnode-guard: " + json.dumps(answer, sort_keys=True))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EngineError as problem:
        sys.exit("devnode-guard: " + str(problem))
