# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that the lab calls: there already, or installed from Debian when that is ours to do."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .paths import CACHE_DIR
from .shell import LabError, attempt, run, say, step

# Program and package, as a machine with only git, make and Python may lack them.
CLIENT = (("ssh", "openssh-client"), ("ssh-agent", "openssh-client"))
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
STANDINS = (("gpg", "gpg"), ("gpg-agent", "gpg-agent"), (KEYRING, "debian-archive-keyring"))


def ensure(programs: Sequence[tuple[str, str]], why: str) -> None:
    """Programs (or files, by their path) with the packages that bring them."""
    with _one_at_a_time():
        missing = [(program, package) for program, package in programs if not _there(program)]
        if not missing:
            return
        packages = sorted({package for _, package in missing})
        reason = not_ours()
        if reason:
            names = ", ".join(program for program, _ in missing)
            raise LabError(
                f"{names}: not installed, and {why}.\n{reason}\nInstall {' '.join(packages)}, then run this again."
            )
        say(f"Not installed here: {', '.join(packages)}, and {why}.")
        refresh()
        install(packages)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """apt does not wait for another apt that reads its lists."""
    folder = CACHE_DIR / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "apt").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _there(name: str) -> bool:
    """A program by its name, or a file by its path."""
    return Path(name).exists() if name.startswith("/") else shutil.which(name) is not None


def refresh() -> None:
    run(["apt-get", "update", "-q"])


def install(packages: Sequence[str]) -> None:
    with step(f"Installing {' '.join(packages)}"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], env=env)


def available(package: str) -> bool:
    """Whether this system's package lists have it."""
    shown = attempt(["apt-cache", "policy", package]).stdout
    return bool(shown) and "Candidate: (none)" not in shown


def not_ours() -> str:
    """Why nothing is installed from here; empty when it may be."""
    release = _os_release(Path("/etc/os-release"))
    return refusal(os.geteuid(), release.get("ID", ""), release.get("ID_LIKE", ""))


def refusal(uid: int, os_id: str, like: str) -> str:
    if uid != 0:
        return "It is not installed from here because you are not root."
    if not {"debian", "ubuntu"} & {os_id, *like.split()}:
        return f"It is not installed from here because this is {os_id or 'an unknown system'}, not Debian or Ubuntu."
    return ""


def _os_release(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}
