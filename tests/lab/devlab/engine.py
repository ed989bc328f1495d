# SPDX-License-Identifier: GPL-3.0-or-later
"""A container engine: the one that runs, or Debian's, installed and started here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

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
    why = _why_not_ours(os.geteuid(), _os_release().get("ID", ""), _os_release().get("ID_LIKE", ""))
    if why:
        raise LabError(NO_ENGINE.format(why=why))
    if not (shutil.which("docker") and shutil.which("dockerd")):
        say("No container engine here: installing Debian's docker.io.")
        with step("Installing docker.io"):
            _install()
    if not answers():
        with step("Starting the container engine"):
            _start()


def describe() -> str:
    version = run(["docker", "info", "--format", "{{.ServerVersion}}, storage {{.Driver}}, cgroup v{{.CgroupVersion}}"])
    pid = f", started by us with pid {PID_FILE.read_text().strip()}" if PID_FILE.exists() else ""
    return f"docker {version.strip()}{pid}"


def _why_not_ours(uid: int, os_id: str, like: str) -> str:
    if uid != 0:
        return "It is not installed from here because you are not root."
    if not {"debian", "ubuntu"} & {os_id, *like.split()}:
        return f"It is not installed from here because this is {os_id or 'an unknown system'}, not Debian or Ubuntu."
    return ""


def _os_release() -> dict[str, str]:
    path = Path("/etc/os-release")
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}


def _install() -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env=env)
    run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "docker.io", *_extra_packages()], env=env)


def _extra_packages() -> list[str]:
    """Since Debian 13 and Ubuntu 24.04 the client and the builder are packages of their own."""
    wanted = ["docker-cli", "docker-buildx", "iptables"]
    return [name for name in wanted if "Candidate: (none)" not in _policy(name)]


def _policy(name: str) -> str:
    return attempt(["apt-cache", "policy", name]).stdout or "Candidate: (none)"


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
