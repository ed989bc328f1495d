# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs site.yml on the fleet, with one line of progress per task and the whole output in a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .paths import LAB_DIR, ROOT
from .shell import LabError, say

HEADING = re.compile(r"^(PLAY|TASK|RUNNING HANDLER) \[(.*)\]")
COUNTS = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s.*", re.MULTILINE)
TAIL_LINES = 60


@dataclass(frozen=True)
class Recap:
    table: str
    changed: int


def read_recap(output: str) -> Recap:
    """The table at the end of a run, and how many changes it counts on hosts (what is written here is not one)."""
    table = output.rpartition("PLAY RECAP")[2].partition("\n")[2].strip()
    changed = sum(int(count) for host, count in COUNTS.findall(table) if host != "localhost")
    return Recap(table, changed)


def run_site() -> Recap:
    log = LAB_DIR / "site.log"
    program = Path(sys.executable).with_name("ansible-playbook")
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "DEVNODE_LAB_DIR": str(LAB_DIR),
        # Otherwise a task is announced only when its first host is done.
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true",
    }
    env.pop("ANSIBLE_FORCE_COLOR", None)
    argv = [str(program), "-i", str(ROOT / "inventory" / "lab"), str(ROOT / "site.yml")]
    started = time.monotonic()
    with (
        log.open("w") as copy,
        subprocess.Popen(
            argv,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        for line in process.stdout or ():
            copy.write(line)
            heading = HEADING.match(line)
            if heading and "Validating arguments against arg spec" not in heading[2]:
                say(_progress(heading[1], heading[2], time.monotonic() - started))
    output = log.read_text()
    if process.returncode != 0:
        tail = "\n".join(output.splitlines()[-TAIL_LINES:])
        raise LabError(f"site.yml ended with {process.returncode}; the whole output is in {log}:\n{tail}")
    return read_recap(output)


def _progress(kind: str, title: str, seconds: float) -> str:
    return f"    {title}" if kind == "PLAY" else f"      {seconds:4.0f} s  {title}"
