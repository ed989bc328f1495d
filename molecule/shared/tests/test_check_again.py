# SPDX-License-Identifier: GPL-3.0-or-later
"""On a finished host, check mode must announce nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

RECAP = re.compile(
    r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)", re.MULTILINE
)

COMPLAINTS = ("[DEPRECATION", "is unsafe in some situations")


def playbook_arguments() -> list[str]:
    """What the scenario adds to every run of ansible-playbook, from the configuration that Molecule merged."""
    merged = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())
    return [str(word) for word in merged["ansible"]["executor"]["args"]["ansible_playbook"]]


def test_check_mode_on_the_finished_host_changes_nothing() -> None:
    done = subprocess.run(
        [
            "ansible-playbook",
            "--check",
            "--diff",
            "--inventory",
            os.environ["MOLECULE_INVENTORY_FILE"],
            *playbook_arguments(),
            "--skip-tags=molecule-notest,notest,molecule-idempotence-notest",
            os.path.join(os.environ["MOLECULE_SCENARIO_DIRECTORY"], "converge.yml"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
    )
    recap = RECAP.findall(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert recap, done.stdout
    assert all(counts == ["0", "0", "0"] for _, _, *counts, _ in recap), done.stdout
    # Tasks are the price of a run, so a scenario may say how many results a host may have (results.json).
    results = {host: int(ok) + int(skipped) for host, ok, *_, skipped in recap}
    limits = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"], "results.json")
    allowed = json.loads(limits.read_text()) if limits.exists() else {}
    assert not {host: results[host] for host in allowed if results[host] > allowed[host]}, results
    # What Ansible will refuse one day, or says in every run of everybody's.
    assert not [line for line in (done.stdout + done.stderr).splitlines() if any(word in line for word in COMPLAINTS)]
