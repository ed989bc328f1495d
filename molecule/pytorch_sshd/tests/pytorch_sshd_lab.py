# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers: people's ssh into the workspaces, from the machine that runs the tests, and the role run again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
PORTS = {"nlp": 2201, "vision": 2202, "team": 2203, "plain": 2204}
CONTAINER = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-pytorch_sshd-debian13"
NOTE = 'it\'s a "note" # with \\ and spaces'


def node_address() -> str:
    found = re.search(r"HostName (\S+)", (EPHEMERAL / "ssh_config").read_text())
    assert found
    return found[1]


def known_hosts() -> Path:
    """The workspaces' host keys as the role handed them over; nothing is ever trusted at first sight."""
    keys = json.loads((EPHEMERAL / "host_keys.json").read_text())
    path = EPHEMERAL / "workspace_known_hosts"
    path.write_text("".join(f"{alias} {key}\n" for alias, found in keys.items() for key in found))
    return path


def ssh_words(
    workspace: str, person: str, *options: str, key: str = "", known: Path | None = None, alias: str = ""
) -> list[str]:
    """Somebody's ssh, with the host keys that the role handed over, or with another file."""
    identity = EPHEMERAL / "people" / (key or person)
    return [
        *("ssh", "-F", "none", "-p", str(PORTS[workspace]), "-l", person, "-i", str(identity)),
        *("-o", f"HostKeyAlias={alias or f'{workspace}.debian13'}"),
        *("-o", f"UserKnownHostsFile={known or known_hosts()}"),
        *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"),
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *options, node_address()),
    ]


def ssh(workspace: str, person: str, command: str, *options: str, key: str = "") -> subprocess.CompletedProcess[str]:
    words = [*ssh_words(workspace, person, *options, key=key), command]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def ok(workspace: str, person: str, command: str, *options: str) -> str:
    done = ssh(workspace, person, command, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def session(workspace: str, person: str, command: str, key: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Somebody's session, which ends with the block at the latest."""
    with subprocess.Popen([*ssh_words(workspace, person, key=key), command], stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def converge(*words: str, check: bool = False, playbook: str = "converge", **extra: Any) -> tuple[int, str, int]:
    """The role again, with other values: return code, output, number of changes."""
    argv, env = _role(words, check, playbook, extra)
    done = subprocess.run(argv, capture_output=True, text=True, env=env)
    recap = re.search(r"changed=(\d+)", done.stdout)
    return done.returncode, done.stdout + done.stderr, int(recap[1]) if recap else -1


def converge_started(**extra: Any) -> subprocess.Popen[str]:
    """The same, not waited for."""
    argv, env = _role((), False, "converge", extra)
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=env)


def _role(words: Any, check: bool, playbook: str, extra: Any) -> tuple[list[str], dict[str, str]]:
    argv = ["ansible-playbook", "--inventory", os.environ["MOLECULE_INVENTORY_FILE"], "--diff", *words]
    argv += ["--check"] if check else []
    argv += ["--extra-vars", json.dumps(extra), str(SCENARIO / f"{playbook}.yml")]
    pretty = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_CALLBACK_FORMAT_PRETTY": "0"}
    return argv, {**os.environ, **pretty}


def wait_until(what: str, so: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, what
        time.sleep(0.3)
