# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # run_command has no time limit
"""What the conda modules do on a host: look, lock, write, run. The decisions are in conda_install and conda_env."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ansible_collections.devnode.gpu.plugins.module_utils import conda_install, conda_state, conda_values, whole_file

# Our own notes about a prefix that must survive the prefix: what is being done to it, and the lock.
NOTES = Path("/var/lib/devnode/conda")
# conda reads every *.json in conda-meta as a package record, so our files there have no such ending.
MARKER = "conda-meta/devnode-install"
ENVIRONMENT_STATE = "conda-meta/devnode-environment"
# Stands in the environment of every process that works on a prefix for us, so that the next run knows its leftovers.
WORKS_ON = "DEVNODE_CONDA_PREFIX"
LEFTOVERS_END = 30  # seconds for killed processes to go; a process that waits for a disk or for NFS is late


class HostError(Exception):
    """Something that a person has to know: what happened, why it matters, what to do."""


def notes(prefix: Path, suffix: str) -> Path:
    return NOTES / (str(prefix).strip("/").replace("/", "-") + suffix)


@contextlib.contextmanager
def locked(prefix: Path, timeout: int) -> Iterator[None]:
    """One run at a time may change a prefix. The kernel releases the lock when a run dies.

    What a dead run had started may still be writing: nobody waits for its result, so it is ended first.
    """
    deadline = time.monotonic() + timeout
    while True:
        NOTES.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            file = notes(prefix, ".lock").open("w", encoding="utf-8")
        except FileNotFoundError:  # its folder went in between
            continue
        with file:
            _wait_for(file, prefix, timeout, deadline)
            if _is_at(file, notes(prefix, ".lock")):  # a removal takes the file away too
                end_leftovers(prefix)
                os.environ[WORKS_ON] = str(prefix)
                try:
                    yield
                finally:
                    del os.environ[WORKS_ON]
                return


def end_leftovers(prefix: Path) -> None:
    """End the processes, of this run or of a dead one, that work on a prefix. Only while its lock is held."""
    deadline = time.monotonic() + LEFTOVERS_END
    while pids := _working_on(prefix):
        if time.monotonic() > deadline:
            raise HostError(
                f"{prefix}: what an interrupted run had started is still working on it, and does not end: "
                f"{', '.join(map(str, pids))}. Look at it with ps -fp; it may be waiting for a disk."
            )
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _working_on(prefix: Path) -> list[int]:
    mark = f"{WORKS_ON}={prefix}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # Gone in between, or not ours to read: the processes of a person, seen by another.
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _wait_for(file: TextIO, prefix: Path, timeout: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise HostError(
                    f"{prefix}: another run has been changing it for more than {timeout} s. Wait until it is "
                    f"done, or look who holds {file.name} (fuser {file.name})."
                ) from None
            time.sleep(0.5)


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def forget_notes(prefix: Path) -> None:
    """After a removal, while the lock is held."""
    for suffix in (".doing", ".creating", ".owners", ".lock"):
        notes(prefix, suffix).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        NOTES.rmdir()


def write(path: Path, text: str) -> None:
    """Replace a file in one step; after a crash there is the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    whole_file.write(str(path), text)


def read(path: Path) -> str:
    """A small file's text; empty when it is not there or cannot be read as text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def tail(self, lines: int = 40) -> str:
        """What it said last, for a person."""
        text = self.err.strip() or self.out.strip()
        return "\n".join(text.splitlines()[-lines:])


# What must not leak from the caller's session into conda: another environment, and silent consent (CI=true accepts
# Anaconda's terms).
_UNSET = re.compile(
    r"CI|CONDARC|MAMBARC|PYTHON.*|_CE_.*|_CONDA_.*|CONDA_(PREFIX.*|DEFAULT_ENV|SHLVL|EXE|PYTHON_EXE|PROMPT_MODIFIER"
    r"|PLUGINS_AUTO_ACCEPT_TOS|ENVS_(DIRS|PATH)|ROOT.*|ALWAYS_.*)"
)


def run(argv: list[str], timeout: int, extra: dict[str, str] | None = None) -> Ran:
    """Run a command that must never ask anything, with the environment that root has by itself."""
    environment = {key: value for key, value in os.environ.items() if not _UNSET.fullmatch(key)}
    environment |= {
        "HOME": pwd.getpwuid(os.geteuid()).pw_dir,
        "LC_ALL": "C.UTF-8",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        **(extra or {}),
    }
    old = os.umask(0o022)
    try:
        ended = subprocess.run(
            argv,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        if working_on := os.environ.get(WORKS_ON):  # only the command itself was ended, not what it had started
            end_leftovers(Path(working_on))
        return Ran(124, "", f"{argv[0]} did not end within {timeout} s and was stopped.")
    except OSError as error:
        return Ran(127, "", f"{argv[0]}: {error.strerror}")
    finally:
        os.umask(old)
    return Ran(ended.returncode, ended.stdout.decode("utf-8", "replace"), ended.stderr.decode("utf-8", "replace"))


def remove_tree(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def gpus() -> dict[str, Any]:
    """The NVIDIA driver and its GPUs' compute capabilities; empty on a host without them."""
    program = shutil.which("nvidia-smi", path="/usr/bin:/usr/local/bin:/bin:/usr/local/nvidia/bin")
    ran = run([program, "--query-gpu=driver_version,compute_cap", "--format=csv,noheader"], 60) if program else None
    rows = [line.split(", ") for line in ran.out.splitlines()] if ran and not ran.code else []
    rows = [row for row in rows if len(row) == 2 and re.fullmatch(r"[0-9.]+", row[0])]
    if rows:
        known = {row[1].strip() for row in rows if re.fullmatch(r"[0-9]+\.[0-9]+", row[1].strip())}
        return {"driver": rows[0][0], "capabilities": sorted(known)}
    found = re.search(r"\b([0-9]{3,4}\.[0-9]+(?:\.[0-9]+)?)\b", read(Path("/proc/driver/nvidia/version")))
    return {"driver": found.group(1) if found else "", "capabilities": []}


# --- the prefix ------------------------------------------------------------------------------------------------------


def _base_package(prefix: Path, name: str) -> str:
    """Version of a package in base, from the names of its records; the newest if an upgrade left two."""
    pattern = re.compile(re.escape(name) + r"-([0-9][^-]*)-[^-]+\.json")
    found = [
        match.group(1)
        for item in (prefix / "conda-meta").glob(f"{name}-*.json")
        if (match := pattern.fullmatch(item.name))
    ]
    return max(found, key=conda_install.version_key, default="")


@dataclass(frozen=True)
class Place:
    """A directory of environments: the prefix's, for all users, or one in somebody's home."""

    environments: Path
    unfinished: Path  # names of what a run began to create and did not finish

    def directories(self) -> list[Path]:
        if not self.environments.is_dir():
            return []
        return sorted(
            item
            for item in self.environments.iterdir()
            if item.is_dir() and not item.is_symlink() and item.name[0] != "."
        )


def shared(prefix: Path) -> Place:
    return Place(prefix / "envs", notes(prefix, ".creating"))


def private(home: Path) -> Place:
    """Where conda puts a user's environments when the prefix belongs to root. Only for a process of that user."""
    return Place(home / ".conda/envs", home / ".conda/.devnode-creating")


def owners(prefix: Path) -> set[str]:
    """People in whose homes the role made environments. Root's note: a home can say nothing to root."""
    try:
        return {str(item) for item in json.loads(read(notes(prefix, ".owners")) or "[]")}
    except (ValueError, TypeError):
        return set()


def note_owners(prefix: Path, names: set[str]) -> None:
    _note(notes(prefix, ".owners"), names)


def _note(path: Path, names: set[str]) -> None:
    if names:
        write(path, json.dumps(sorted(names)) + "\n")
    else:
        path.unlink(missing_ok=True)


def has_account(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def as_user(name: str, function: Callable[[Path], Any]) -> Any:
    """Call a function with a person's rights and home, in a process of its own; its result must fit into JSON.

    Homes belong to people, who may put a link where root would write: so root never works in one.
    """
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise HostError(f"owner: {name} has no account on this host. Make the account first.") from None
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        answer: dict[str, Any] = {}
        try:
            os.close(receiving)
            os.initgroups(name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            os.environ.update(HOME=account.pw_dir, USER=name, LOGNAME=name)
            os.umask(0o022)
            answer["value"] = function(Path(account.pw_dir))
        except HostError as error:
            answer["error"] = str(error)
        except OSError as error:
            answer["error"] = f"{error.filename or account.pw_dir}: {error.strerror} (as {name})"
        except BaseException as error:
            answer["error"] = f"{type(error).__name__}: {error} (as {name})"
        finally:
            with os.fdopen(sending, "w", encoding="utf-8") as pipe:
                json.dump(answer, pipe)
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    said = json.loads(text or '{"error": "the process ended without an answer"}')
    if "error" in said:
        raise HostError(str(said["error"]))
    return said["value"]


def find_installation(prefix: Path) -> conda_install.Found:
    """Look at a prefix, without starting anything in it."""
    if not prefix.is_dir() or not any(prefix.iterdir()):
        return conda_install.Found()
    traces = ("conda-meta", "_conda", "install_tmp", "preconda.tar.bz2", "pkgs", "bin/conda")
    parts = ("bin/conda", "bin/python", "conda-meta/history")
    missing = [part for part in parts if not (prefix / part).exists()]
    conda, python = _base_package(prefix, "conda"), _base_package(prefix, "python")
    missing += [f"package {name}" for name, version in (("conda", conda), ("python", python)) if not version]
    if (prefix / "install_tmp").exists():
        missing.append("end of its installation (install_tmp is still there)")
    try:
        interrupted = str(json.loads(read(notes(prefix, ".doing")) or "{}").get("doing", ""))
    except (ValueError, AttributeError):
        interrupted = "installation"
    return conda_install.Found(
        exists=True,
        conda_like=any((prefix / trace).exists() for trace in traces),
        missing=tuple(missing),
        conda=conda,
        python=".".join(python.split(".")[:2]),
        marker=conda_install.Marker.load(read(prefix / MARKER)),
        interrupted=interrupted,
        environments=len(shared(prefix).directories()),
    )


# --- environments ----------------------------------------------------------------------------------------------------


def contents(directory: Path) -> tuple[str, ...]:
    """What is installed in an environment, read from names of files: cheap enough for every run."""
    found = [f"conda:{item.name[:-5]}" for item in (directory / "conda-meta").glob("*.json")]
    for info in directory.glob("lib/python3*/site-packages/*.dist-info"):
        if read(info / "INSTALLER").strip() == "pip":
            name, _dummy, version = info.name[: -len(".dist-info")].partition("-")
            found.append(f"pip:{conda_values.canonical_pip(name)}=={version}")
    return tuple(sorted(found))


def creating(place: Place) -> set[str]:
    """Environments that a run began to create and did not finish."""
    try:
        return {str(item) for item in json.loads(read(place.unfinished) or "[]")}
    except (ValueError, TypeError):
        return set()


def note_creating(place: Place, names: set[str]) -> None:
    _note(place.unfinished, names)


def find_environments(place: Place) -> dict[str, conda_state.Found]:
    """The environments in a place, without starting conda."""
    unfinished = creating(place)
    found: dict[str, conda_state.Found] = {}
    for directory in place.directories():
        state = conda_state.State.load(read(directory / ENVIRONMENT_STATE))
        half_made = state is None and directory.name in unfinished
        found[directory.name] = conda_state.Found(state, contents(directory), half_made)
    return found


def forget_home(home: Path) -> None:
    """Remove what the role made in somebody's home. Only for a process of that user."""
    place = private(home)
    for name, found in find_environments(place).items():
        if found.state is not None or found.half_made:
            remove_tree(place.environments / name)
    place.unfinished.unlink(missing_ok=True)
