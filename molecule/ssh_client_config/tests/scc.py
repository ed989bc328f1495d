# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of people's homes share."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
import testinfra

# Dear ones, and those that need more packages on the hosts (prepare.yml).
full_run = pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="in the full run (DEVNODE_TESTS=full)")

SSH = "ssh -o BatchMode=yes"
TOOL = "~/.ssh/devnode/devnode-ssh"


def one_system(host: Any) -> None:
    """For what is the same with every ssh and takes long: on one of them in the gate."""
    if os.environ.get("DEVNODE_TESTS") != "full" and host.backend.get_hostname() != "debian13":
        pytest.skip("on Debian 13 in the gate, on both in the full run (DEVNODE_TESTS=full)")


def run_as(host: Any, person: str, command: str) -> Any:
    """A command in a person's own shell, with nobody at the keyboard.

    ssh's own 255 comes back as 254, because testinfra would take it for a failure of its connection.
    """
    return host.run(
        "timeout 120 su - %s -c %s </dev/null || { code=$?; test $code = 255 && code=254; exit $code; }",
        person,
        command,
    )


def good(host: Any, command: str, person: str = "ada") -> str:
    """What a command that must succeed prints."""
    done = run_as(host, person, command)
    assert done.rc == 0, f"{command}: {done.stdout[-500:]}{done.stderr[-500:]}"
    return str(done.stdout)


def accepted(host: Any, person: str = "ada") -> int:
    """How often somebody has logged in on this host."""
    pattern = f"Accepted publickey for {person} "
    return int(host.check_output("journalctl -q -t sshd -t sshd-session | grep -c %s || true", pattern))


def other(host: Any) -> Any:
    """The other host, which is this one's bastion."""
    (name,) = {"debian12", "debian13"} - {host.backend.get_hostname()}
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={os.environ['MOLECULE_INVENTORY_FILE']}")


def timed(host: Any, command: str) -> float:
    """Seconds that a command of ada's takes until it succeeds, however often it has to be typed."""
    started = time.monotonic()
    while run_as(host, "ada", command).rc != 0:
        assert time.monotonic() - started < 60, f"{command}: it never works again"
        time.sleep(0.3)
    return time.monotonic() - started
