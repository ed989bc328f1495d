# SPDX-License-Identifier: GPL-3.0-or-later
"""First contact with the real fleet, as an operator would do it: bastion from here, nodes through it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from lab_site import LAB, ROOT

NAMES = ("bastion", "client", "gpu-01", "gpu-02")


def _fingerprint(name: str) -> str:
    """What the machine's console would show: the lab read the keys through the engine."""
    command = ["ssh-keygen", "-l", "-F", name, "-f", str(LAB / "known_hosts")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(line.split()[2] for line in shown.splitlines() if not line.startswith("#"))


def _enroll(record: Path, expected: dict[str, str]) -> subprocess.CompletedProcess[str]:
    given = {"devnode_known_hosts": str(record), "devnode_host_fingerprints": expected}
    return subprocess.run(
        ["ansible-playbook", "-i", "inventory/lab", "playbooks/enroll.yml", "-e", json.dumps(given)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_keys_are_recorded_after_the_comparison(tmp_path: Path) -> None:
    record = tmp_path / "known_hosts"
    done = _enroll(record, {name: _fingerprint(name) for name in NAMES})
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in record.read_text().splitlines()] == list(NAMES)
    again = _enroll(record, {})
    assert again.returncode == 0, again.stdout + again.stderr
    assert "changed=1" not in again.stdout


def test_another_fingerprint_records_nothing(tmp_path: Path) -> None:
    record = tmp_path / "known_hosts"
    done = _enroll(record, {name: _fingerprint("gpu-01") for name in NAMES})
    assert done.returncode != 0
    assert "was expected" in done.stdout
    assert not record.exists()
