# SPDX-License-Identifier: GPL-3.0-or-later
"""People's accounts and homes in the container."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import devnode_cron
from devnode_base import WorkspaceError, command

MARK = "devnode workspace"  # the comment of the accounts that are ours to remove


def put_accounts(wanted: list[dict[str, Any]]) -> list[str]:
    """Accounts with the uids that the inventory fixes; those of people who left go, their files stay."""
    names = {person["name"] for person in wanted}
    changed = [f"removed {gone}" for gone in _ours() if gone not in names and _remove(gone)]
    return changed + [f"added {person['name']}" for person in wanted if _ensure(person["name"], int(person["uid"]))]


def _ours() -> list[str]:
    return [entry.pw_name for entry in pwd.getpwall() if entry.pw_gecos.split(",")[0] == MARK]


def uids() -> dict[str, int]:
    """The accounts that are ours, with their numbers."""
    return {name: pwd.getpwnam(name).pw_uid for name in _ours()}


def _ensure(name: str, uid: int) -> bool:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        found = None
    if found and found.pw_uid != uid:
        raise WorkspaceError(
            f"{name} has uid {found.pw_uid} here, and the inventory says {uid}; a running container keeps its uids: "
            "recreate the workspace"
        )
    if not found:
        command(["groupadd", "--gid", str(uid), name])
        words = ["--uid", str(uid), "--gid", str(uid), "--no-create-home", "--home-dir", f"/home/{name}"]
        command(["useradd", *words, "--shell", "/bin/bash", "--comment", MARK, "--password", "*", name])
    return make_home(Path("/home") / name, uid) or not found


def make_home(home: Path, uid: int, skeleton: Path = Path("/etc/skel")) -> bool:
    """A new home gets its first files and its owner once. One that exists is never walked through."""
    if home.exists():
        return False
    new = home.with_name(f".{home.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    if skeleton.is_dir():
        shutil.copytree(skeleton, new, symlinks=True)
    else:
        new.mkdir()
    for folder, folders, files in os.walk(new):
        for entry in (*folders, *files):
            os.chown(os.path.join(folder, entry), uid, uid, follow_symlinks=False)
    new.chmod(0o700)
    os.chown(new, uid, uid)
    new.rename(home)
    return True


def _remove(name: str) -> bool:
    entry = pwd.getpwnam(name)
    # The account goes first, so that nothing new can start; then what still runs under its number.
    subprocess.run(["userdel", "--force", name], capture_output=True, check=False)
    devnode_cron.Crontabs().drop(name)
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if re.search(rf"^Uid:\t\d+\t{entry.pw_uid}\t", status.read_text(), re.MULTILINE):
                os.kill(int(status.parent.name), signal.SIGKILL)
        except OSError:
            continue
    return True
