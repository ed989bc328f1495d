# SPDX-License-Identifier: GPL-3.0-or-later
"""The people of the demo: keys made for this lab, and the agent that holds the project's key."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

from . import keys
from .paths import LAB_DIR
from .shell import LabError, attempt, docker, run

NAMES = ("ops", "ada", "grace")
PURPOSES = ("bastion", "workspace")
OWNER, PROJECT = "ada", "corpus"
# Where ssh looks for them on a machine about which the inventory says nothing else.
DEFAULT_PATHS = {"bastion": ".ssh/id_ed25519_bastion", "workspace": ".ssh/id_ed25519"}


def make_keys() -> None:
    for name in NAMES:
        for purpose in PURPOSES:
            keys.ensure_key(LAB_DIR / "people" / name / purpose, f"{name} {purpose}")


def settle(container: str, name: str) -> None:
    """An account with the person's keys in its home, as the owner of that machine makes it. Twice does no harm."""
    account = f"id -u {name} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash {name}"
    docker("exec", container, "sh", "-c", account)
    for purpose in PURPOSES:
        path = DEFAULT_PATHS[purpose]
        keep = f"umask 077; mkdir -p .ssh; cat >{path}"
        private = (LAB_DIR / "people" / name / purpose).read_text()
        docker("exec", "-i", container, "su", "-", name, "-c", keep, stdin=private)


def sockets() -> Path:
    """A short, private folder for sockets: the path of one has at most 104 bytes, and a checkout's may have more."""
    note = LAB_DIR / "sockets"
    if note.exists() and Path(note.read_text().strip()).is_dir():
        return Path(note.read_text().strip())
    folder = Path(tempfile.mkdtemp(prefix="devnode-", dir="/tmp"))
    keys.write_private(note, f"{folder}\n")
    return folder


def agent_socket() -> Path:
    return sockets() / f"agent-{PROJECT}"


def project_key() -> str:
    """The project's key lives in an agent and in no file; returns its public half."""
    public = LAB_DIR / "people" / OWNER / f"project_{PROJECT}.pub"
    if public.exists() and _agent_holds(public.read_text()):
        return public.read_text().strip()
    stop_agent()
    private = public.with_suffix("")
    for path in (public, private):
        path.unlink(missing_ok=True)
    line = keys.ensure_key(private, f"{OWNER} project {PROJECT}")
    _start_agent(private)
    private.unlink()
    return line


def _agent_holds(public: str) -> bool:
    listed = attempt(["ssh-add", "-L"], env={**os.environ, "SSH_AUTH_SOCK": str(agent_socket())})
    return " ".join(public.split()[:2]) in listed.stdout


def _start_agent(private: Path) -> None:
    agent_socket().unlink(missing_ok=True)
    said = run(["ssh-agent", "-s", "-a", agent_socket()])
    found = re.search(r"SSH_AGENT_PID=(\d+)", said)
    if not found:
        raise LabError(f"ssh-agent did not say its process id:\n{said}")
    (LAB_DIR / "agent.pid").write_text(found[1] + "\n")
    run(["ssh-add", "-q", private], env={**os.environ, "SSH_AUTH_SOCK": str(agent_socket())})


def agent_pid() -> int:
    """The lab's agent, 0 when it does not run. A process that only has its number is not it."""
    note = LAB_DIR / "agent.pid"
    if not note.exists():
        return 0
    pid = int(note.read_text())
    words = Path(f"/proc/{pid}/cmdline")
    alive = words.exists() and str(agent_socket()).encode() in words.read_bytes()
    return pid if alive else 0


def stop_agent() -> None:
    pid = agent_pid()
    if pid:
        os.kill(pid, signal.SIGTERM)
    (LAB_DIR / "agent.pid").unlink(missing_ok=True)


def leave() -> None:
    """End what runs for the people: the agent and every shared connection."""
    stop_agent()
    if (LAB_DIR / "sockets").exists():
        for path in sockets().iterdir():
            if path.is_socket() and not path.name.startswith("agent-"):
                attempt(["ssh", "-F", "none", "-S", path, "-O", "exit", "lab"], timeout=5)
        shutil.rmtree(sockets(), ignore_errors=True)
