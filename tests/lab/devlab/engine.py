# SPDX-License-Identifier: GPL-3.0-or-later
"""A container engine: the one that runs, or Debian's, installed and started here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from . import needs
from .shell import LabError, attempt, run, say, step, wait_for

PID_FILE = Path("/run/devnode-lab-dockerd.pid")
LOG_FILE = Path("/var/log/devnode-lab-dockerd.log")
NO_ENGINE = (
    "No container engine answers, and the lab's hosts are containers.\n{why}\n"
    "Start Docker so that `docker info` works for this user, or run as root on Debian or Ubuntu."
)


def answers() -> bool:
    return attempt(["docker", "info", "--format", "{{.ServerVersion}}"], timeout=20).returncode == 0


def ensure() -> None:
    """Find an engine, or install and start one where that is ours to do."""
    if answers():
        return
    why = needs.not_ours()
    if why:
        raise LabError(NO_ENGINE.format(why=why))
    if not (shutil.which("docker") and shutil.which("dockerd")):
        say("No container engine runs here: installing docker.io.")
        needs.refresh()
        needs.install(_packages())
    if not answers():
        with step("Starting the container engine"):
            _start()


def describe() -> str:
    version = run(["docker", "info", "--format", "{{.ServerVersion}}, storage {{.Driver}}, cgroup v{{.CgroupVersion}}"])
    pid = f", started by us with pid {PID_FILE.read_text().strip()}" if PID_FILE.exists() else ""
    return f"docker {version.strip()}{pid}"


def _packages() -> list[str]:
    """Since Debian 13 the client, and what the engine needs for its networks, are packages of their own."""
    return ["docker.io", *(name for name in ("docker-cli", "iptables") if needs.available(name))]


def _start() -> None:
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"])
    else:
        with LOG_FILE.open("ab") as log:
            daemon = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        PID_FILE.write_text(f"{daemon.pid}\n")
    try:
        wait_for("the engine answers", answers, 60)
    except LabError as exc:
        tail = "\n".join(LOG_FILE.read_text().splitlines()[-15:]) if LOG_FILE.exists() else ""
        raise LabError(NO_ENGINE.format(why=f"It was started, but: {exc}\n{tail}")) from exc
