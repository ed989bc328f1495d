#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a container a workspace: accounts, environment, sshd and JupyterLab, from one read-only file.

  devnode-workspace run      the container's main process: apply, then keep sshd, cron and JupyterLab running
  devnode-workspace apply    bring accounts and sshd to what the file says now; prints what changed as JSON
  devnode-workspace close    end every ssh session; jobs that do not hang on one stay

The file is /etc/devnode/workspace/workspace.json, mounted from the node. It holds no secrets. Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import devnode_cron
import devnode_farewell
import devnode_sessions
from devnode_accounts import put_accounts, uids
from devnode_base import RUN, WorkspaceError, people, put, read_config
from devnode_environment import container_environment, environment, put_environment
from devnode_sshd import SSHD, SSHD_CONFIG, put_sshd

JUPYTER = "/usr/local/bin/devnode-jupyter"


def main(argv: list[str]) -> int:
    """Run one of the commands."""
    try:
        if argv == ["apply"]:
            print(json.dumps({"changed": apply()}))
        elif argv == ["close"]:
            devnode_sessions.end_lost(uids(), {}, RUN / "logins", RUN / "keys", everything=True)
        elif argv == ["run"]:
            apply()
            return Supervisor().run()
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except WorkspaceError as exc:
        print(f"devnode-workspace: {exc}", file=sys.stderr)
        return 1
    return 0


def apply() -> list[str]:
    """Bring the container to what the file says; say what changed. Once at a time."""
    RUN.mkdir(mode=0o755, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config = read_config()
        variables = environment(container_environment(), config["environment"])
        changed = put_environment(variables)
        changed += put_session(config)
        changed += put_accounts(people(config))
        if put_sshd(config, variables):
            changed.append("sshd")
        changed += end_lost_sessions(config)
        if put(RUN / "jupyter", f"{int(config['jupyter'])}\n"):
            changed.append("jupyter")
    if changed:
        poke_supervisor()
    return changed


def end_lost_sessions(config: Mapping[str, Any]) -> list[str]:
    """Who lost a key is not kept in by a connection that it opened."""
    if "keys" not in config:
        return []  # written by a version of the role from before that: somebody went back to it, and this image goes on
    logins = {person["name"]: int(person["uid"]) for person in people(config)}
    keys = {**config["keys"], devnode_sessions.REVOKED: config.get("revoked", [])}
    ended = devnode_sessions.end_lost(logins, keys, RUN / "logins", RUN / "keys")
    return [f"ended sessions of {login} whose key is gone" for login in ended]


def poke_supervisor() -> None:
    """Tell the main process, if there is one, to look again."""
    try:
        os.kill(int((RUN / "supervisor.pid").read_text()), signal.SIGHUP)
    except (OSError, ValueError):
        return


def put_session(config: Mapping[str, Any]) -> list[str]:
    """Who may become root, and whether a login begins in tmux."""
    people_sudo = [f"{person['name']} ALL=(ALL:ALL) NOPASSWD: ALL" for person in people(config) if config.get("sudo")]
    places = (
        (Path("/etc/sudoers.d/devnode-people"), "\n".join([*people_sudo, ""]).lstrip("\n"), 0o440),
        (RUN / "tmux", f"{int(bool(config.get('tmux')))}\n", 0o644),
    )
    return [str(path) for path, text, mode in places if put(path, text, mode)]


class Supervisor:
    """Keeps sshd, cron and, if the workspace has one, JupyterLab running; ends everybody gently when told to stop."""

    TICK = 5.0
    GRACE = 1.0
    STEADY = 60.0

    def __init__(self) -> None:
        self.event = threading.Event()
        self.stopping = False
        self.reload = False
        self.sshd: subprocess.Popen[bytes] | None = None
        self.jupyter: subprocess.Popen[bytes] | None = None
        self.jupyter_after = 0.0  # when JupyterLab may be started again
        self.jupyter_pause = 2.0
        self.crontabs = devnode_cron.Crontabs()

    def run(self) -> int:
        """Until SIGTERM, or until sshd ends by itself."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._signalled)
        put(RUN / "supervisor.pid", f"{os.getpid()}\n")
        self.sshd = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(SSHD_CONFIG)], start_new_session=True, stderr=subprocess.PIPE
        )
        if self.sshd.stderr:
            devnode_sessions.start(self.sshd.stderr, RUN / "logins")
        while not self.stopping:
            if self.sshd.poll() is not None:
                print(f"devnode-workspace: sshd ended with {self.sshd.returncode}", file=sys.stderr)
                break
            if self.reload:
                self.reload = False
                self.sshd.send_signal(signal.SIGHUP)
            self._tend_or_wait()
            self.event.wait(self.TICK)
            self.event.clear()
        self._end_everybody()
        return 0 if self.stopping else 1

    def _signalled(self, number: int, _dummy: FrameType | None) -> None:
        self.stopping = self.stopping or number in (signal.SIGTERM, signal.SIGINT)
        self.reload = self.reload or number == signal.SIGHUP
        self.event.set()

    def _tend_or_wait(self) -> None:
        """The container ends with this process, and everybody's jobs with it. So where somebody has taken all processes
        or all memory, what cannot be started now waits for the next tick."""
        try:
            self._tend()
        except (OSError, subprocess.SubprocessError, RuntimeError, MemoryError) as exc:
            print(f"devnode-workspace: not now: {exc}", file=sys.stderr)

    def _tend(self) -> None:
        try:
            config = read_config()
        except WorkspaceError:
            # No longer declared, but somebody's job runs: the node removes this container when it has ended.
            self.crontabs.stop()
            return
        self._tend_jupyter(config)
        logins = {person["name"]: int(person["uid"]) for person in people(config)}
        self.crontabs.tend(logins, environment(container_environment(), config["environment"]))

    def _tend_jupyter(self, config: Mapping[str, Any]) -> None:
        running = self.jupyter is not None and self.jupyter.poll() is None
        if not config["jupyter"] or not Path(JUPYTER).exists():
            if running and self.jupyter:
                self.jupyter.terminate()
            return
        if running or time.monotonic() < self.jupyter_after:
            return
        self.jupyter_pause = min(self.jupyter_pause * 2, self.STEADY)
        self.jupyter_after = time.monotonic() + self.jupyter_pause
        self.jupyter = subprocess.Popen(
            [JUPYTER, "serve"],
            env=session_environment(config["owner"]["name"]),
            cwd="/",
            user=config["owner"]["uid"],
            group=config["owner"]["uid"],
            extra_groups=[],
            umask=0o022,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end_everybody(self) -> None:
        try:
            grace = float(read_config().get("stop_grace", self.GRACE))
        except WorkspaceError:
            grace = self.GRACE
        devnode_farewell.end_everybody(grace)


def session_environment(login: str) -> dict[str, str]:
    """What a session of this person would have."""
    allowed = environment(container_environment(), read_config()["environment"])
    return {**allowed, "HOME": f"/home/{login}", "USER": login, "LOGNAME": login, "SHELL": "/bin/bash"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
