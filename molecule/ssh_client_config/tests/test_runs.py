# SPDX-License-Identifier: GPL-3.0-or-later
"""What further runs do: refuse what is managed elsewhere, take a person away, take everything away.

A run is for both hosts at once, so these tests are not made once for each host as the others are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest
import testinfra
from scc import SSH, TOOL, full_run, good
from scenario_hosts import wait_until

OTHERS = "/home/ada/.ssh/config /home/rita/.ssh/config /home/sam/dotfiles"

ENVIRONMENT = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}


@pytest.fixture(scope="module")
def hosts() -> list[Any]:
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    return [testinfra.get_host(f"ansible://{name}?ansible_inventory={inventory}") for name in ("debian12", "debian13")]


def converge(**variables: Any) -> str:
    """Run the scenario's play again with other input."""
    done = subprocess.run(command(**variables), capture_output=True, text=True, env=ENVIRONMENT)
    return done.stdout + done.stderr


def command(**variables: Any) -> list[str]:
    return [
        "ansible-playbook",
        f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}",
        f"--extra-vars={json.dumps(variables)}",
        os.path.join(os.environ["MOLECULE_SCENARIO_DIRECTORY"], "converge.yml"),
    ]


def test_managed_elsewhere_is_refused_before_anything_changes(hosts: list[Any]) -> None:
    before = [host.check_output(f"sha256sum {OTHERS}") for host in hosts]
    text = converge(scenario_more=[{"person": "rita"}, {"person": "sam"}])
    assert "/home/rita/.ssh/config: it is read-only" in text
    assert "/home/sam/.ssh/config: it is a link to /home/sam/dotfiles" in text
    assert "yourself: Include ~/.ssh/devnode/config" in text
    assert text.count("changed=0") == 2
    assert [host.check_output(f"sha256sum {OTHERS}") for host in hosts] == before
    for host in hosts:
        assert not host.file("/home/rita/.ssh/devnode").exists
        assert host.file("/home/sam/.ssh/config").is_symlink


def test_wrong_views_are_refused_together() -> None:
    text = converge(scenario_more=[{"person": "rita", "multiplexing": "forever"}, {"person": "sam", "openssh": "1.0"}])
    assert "ssh_client_config_views[3].multiplexing" in text
    assert "ssh_client_config_views[4].openssh" in text
    assert text.count("changed=0") == 2


def test_unknown_accounts_are_refused_together() -> None:
    text = converge(scenario_more=[{"person": "nobody1"}, {"person": "nobody2"}])
    assert 'no account "nobody1"' in text
    assert 'no account "nobody2"' in text
    assert text.count("changed=0") == 2


def test_a_person_who_is_no_longer_listed_loses_it(hosts: list[Any]) -> None:
    assert converge(scenario_people=["ada", "linus"]).count("failed=0") == 2
    for host in hosts:
        assert host.file("/home/grace/.ssh/config").content == b"Host old\r\n    User somebody\r\n"
        assert not host.file("/home/grace/.ssh/devnode").exists
        assert not host.file("/home/grace/.ssh/cm").exists
        assert host.file("/home/ada/.ssh/devnode/config").exists


def test_everything_is_taken_away(hosts: list[Any]) -> None:
    assert converge(scenario_state="absent").count("failed=0") == 2
    for host in hosts:
        assert host.file("/home/ada/.ssh/config").content_string.startswith("Host *\n    User nobody\n")
        assert sorted(host.file("/home/ada/.ssh").listdir()) == [
            "authorized_keys",
            "config",
            "id_ed25519",
            "id_ed25519.pub",
            "id_ed25519_bastion",
            "id_ed25519_corpus",
        ]
        # linus had no ~/.ssh at all.
        assert not host.file("/home/linus/.ssh").exists
        for record in ("file_set/ssh_client_config.json", "ssh_include/ssh_client_config.json"):
            assert not host.file(f"/var/lib/devnode/{record}").exists
    assert converge(scenario_state="absent").count("changed=0") == 2


@full_run
def test_a_run_that_was_killed_in_the_middle_is_completed_by_the_next(hosts: list[Any]) -> None:
    """Killed once the first home has its Include line: on that host the files are still to come, or just coming."""

    def begun() -> bool:
        return any(host.run("grep -q devnode /home/ada/.ssh/config").rc == 0 for host in hosts)

    assert not begun()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": ENVIRONMENT}
    with subprocess.Popen(command(), start_new_session=True, **quiet) as run:
        try:
            wait_until(begun, "the Include line of ada")
        finally:
            os.killpg(run.pid, signal.SIGKILL)
    for host in hosts:
        good(host, "ssh -G github.com")
    assert converge().count("failed=0") == 2
    for host in hosts:
        assert good(host, f"{SSH} nlp id -un").strip() == "ada"
        good(host, f"{TOOL} close --all")
    assert converge().count("changed=0") == 2
