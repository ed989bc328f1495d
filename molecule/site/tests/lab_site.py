# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers of the site tests: the engineer's kit and the lab's containers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

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


def inside(container: str, *argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A command in one of the lab's hosts, beside ssh (how the lab itself looks at things)."""
    return subprocess.run(
        ["docker", "exec", f"devnode-lab-{container}", *argv], capture_output=True, text=True, timeout=timeout
    )
