# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers of the site tests: the engineer's kit and the lab's containers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import testinfra
from testinfra.backend.base import CommandResult

ROOT = Path(__file__).resolve().parents[3]
LAB = Path(os.environ.get("DEVNODE_LAB_DIR", ROOT / ".lab"))
CONFIG = str(LAB / "engineer" / "config")


def ssh(alias: str, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """One command as the engineer types it. BatchMode turns any prompt into a failure."""
    return subprocess.run(
        ["ssh", "-F", CONFIG, "-o", "BatchMode=yes", alias, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def ssh_options(alias: str) -> list[tuple[str, str]]:
    """The effective client options, as ssh itself reads the kit."""
    done = subprocess.run(["ssh", "-G", "-F", CONFIG, alias], capture_output=True, text=True, check=True)
    return [(k.lower(), v) for k, _, v in (line.partition(" ") for line in done.stdout.splitlines())]


def on_client(command: str, person: str = "ada") -> CommandResult:
    """A command in a person's login shell on the client machine, with nobody at the keyboard."""
    return inside("client", "timeout 60 su - %s -c %s </dev/null", person, command)


def inside(machine: str, command: str, *args: str) -> CommandResult:
    """A command in one of the lab's hosts, beside ssh (how the lab itself looks at things)."""
    return testinfra.get_host(f"docker://devnode-lab-{machine}").run(command, *args)
