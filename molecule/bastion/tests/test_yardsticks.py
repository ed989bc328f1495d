# SPDX-License-Identifier: GPL-3.0-or-later
"""What outside auditors say of a host as a cloud hands it out, and of the same host as a bastion.

The numbers go to tests/reports/yardsticks.md, which the report of `make test-full` has at its end.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from scenario_hosts import address, root

pytestmark = pytest.mark.skipif(
    os.environ.get("DEVNODE_TESTS") != "full", reason="two hosts more and minutes of Lynis: only in the full run"
)

ROOT = Path(__file__).resolve().parents[3]
LAB = ROOT / "tests" / "lab" / "lab.py"
REPORT = ROOT / "tests" / "reports" / "yardsticks.md"
HEAD = (
    "| system | ssh-audit before: failures, warnings | after | Lynis before: hardening index, warnings, suggestions "
    "| after |\n|---|---|---|---|---|\n"
)
BASTIONS = {"bastion": "debian12", "bastion13": "debian13"}
LYNIS = """
command -v lynis >/dev/null || { apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -y -q lynis; } >&2
lynis audit system --quick --no-colors --quiet >&2 || true
cat /var/log/lynis-report.dat
"""
# Lynis ends with another code than 0 when it has something to say, so its report is what counts.


@dataclass(frozen=True)
class Judgement:
    failures: int
    warnings: int
    index: int
    lynis_warnings: int
    suggestions: int

    def ssh(self) -> str:
        return f"{self.failures}, {self.warnings}"

    def lynis(self) -> str:
        return f"{self.index}, {self.lynis_warnings}, {self.suggestions}"


def ssh_audit(where: str) -> tuple[int, int]:
    """Failures and warnings, a note of each algorithm one."""
    program = Path(sys.executable).with_name("ssh-audit")
    done = subprocess.run(
        [program, "--json", "--skip-rate-test", where], capture_output=True, text=True, check=False, timeout=60
    )
    found = json.loads(done.stdout)
    notes = [entry.get("notes", {}) for kind in ("kex", "key", "enc", "mac") for entry in found[kind]]
    return sum(len(note.get("fail", ())) for note in notes), sum(len(note.get("warn", ())) for note in notes)


def lynis(report: str) -> tuple[int, int, int]:
    index = re.search(r"^hardening_index=(\d+)$", report, re.MULTILINE)
    assert index, report[-2000:]
    found = [len(re.findall(rf"^{word}\[\]=", report, re.MULTILINE)) for word in ("warning", "suggestion")]
    return int(index[1]), found[0], found[1]


@pytest.fixture
def untouched(request):
    """A host of the same image that nothing of ours was run on: its name."""
    system = request.param
    name = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-yardstick-{system}"
    lab = [sys.executable, str(LAB), "host"]
    subprocess.run([*lab, "up", "--name", name, "--os", system], check=True, capture_output=True, timeout=300)
    yield name
    subprocess.run([*lab, "down", "--name", name], check=True, capture_output=True, timeout=120)


def inside(container: str, script: str) -> str:
    done = subprocess.run(
        ["docker", "exec", "-i", container, "sh", "-eu"], input=script, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def address_of(container: str) -> str:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    argv = ["docker", "inspect", "-f", template, container]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(("bastion", "untouched"), BASTIONS.items(), indirect=["untouched"])
def test_a_bastion_is_better_than_what_it_was_made_of(bastion, untouched):
    before = Judgement(*ssh_audit(address_of(untouched)), *lynis(inside(untouched, LYNIS)))
    container = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-bastion-{bastion}"
    try:
        after = Judgement(*ssh_audit(address(bastion)), *lynis(inside(container, LYNIS)))
    finally:
        root(bastion, "DEBIAN_FRONTEND=noninteractive apt-get purge -y -q lynis >/dev/null 2>&1")
    rows = REPORT.read_text().splitlines()[2:] if REPORT.exists() else []
    row = f"| {BASTIONS[bastion]} | {before.ssh()} | {after.ssh()} | {before.lynis()} | {after.lynis()} |"
    kept = [line for line in rows if not line.startswith(f"| {BASTIONS[bastion]} |")]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(HEAD + "\n".join(sorted([*kept, row])) + "\n")
    print(row)
    assert (after.failures, after.warnings) == (0, 0)
    assert before.failures + before.warnings > 0
    assert after.index > before.index
    assert after.suggestions < before.suggestions
    assert after.lynis_warnings <= before.lynis_warnings
