# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # run_command has no time limit
"""What the conda modules do on a host: lock, write, run. What is there already: conda_places."""

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

from ansible_collections.devnode.gpu.plugins.module_utils import whole_file

# Our own notes about a prefix that must survive the prefix: what is being done to it, and the lock.
NOTES = Path("/var/lib/devnode/conda")
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


def has_account(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def _as_json(answer: dict[str, Any]) -> str:
    try:
        return json.dumps(answer)
    except (TypeError, ValueError) as error:
        return json.dumps({"error": f"the answer is no JSON: {error}"})


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
            # Whatever happens to the answer: there must not be two of the process that asked.
            try:
                with os.fdopen(sending, "w", encoding="utf-8") as pipe:
                    pipe.write(_as_json(answer))
            finally:
                os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    said = json.loads(text or '{"error": "the process ended without an answer"}')
    if "error" in said:
        raise HostError(str(said["error"]))
    return said["value"]
