# SPDX-License-Identifier: GPL-3.0-or-later
"""Role ssh_server on a host that has no sshd and no sudo yet, such as an image that is being built."""

from __future__ import annotations

import os

import pytest
from scenario_hosts import SCENARIO, Done, outside, play, ssh

REMOVE = ("env", "SUDO_FORCE_REMOVE=yes", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "remove")


def by_the_engine(host: str, *arguments: str) -> Done:
    """The scenario's play as root in the container: there is no ssh to come by."""
    container = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-{SCENARIO.name}-{host}"
    way = {"connection": "community.docker.docker", "host": container, "user": "root", "become": "false"}
    words = [word for name, value in way.items() for word in ("-e", f"ansible_{name}={value}")]
    return play("--limit", host, *words, *arguments)


def recap(done: Done) -> str:
    return done.stdout.rpartition("PLAY RECAP")[2]


@pytest.mark.parametrize("host", ["debian12", "debian13"])
def test_a_host_without_sshd_and_sudo_gets_them(host: str) -> None:
    removed = outside(host, *REMOVE, "openssh-server", "sudo")
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert outside(host, "ls", "/usr/sbin/sshd", "/usr/sbin/visudo").returncode != 0

    dry = by_the_engine(host, "--check", "--diff")
    assert dry.returncode == 2, dry.stdout
    assert "+openssh-server\n+sudo" in dry.stdout.replace("\r", "")
    assert "a dry run installs nothing" in " ".join((dry.stdout + dry.stderr).split())
    assert outside(host, "ls", "/usr/sbin/sshd").returncode != 0

    done = by_the_engine(host)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=1 " in recap(done)
    assert ssh(host, "sudo -n true").returncode == 0

    # Only what is missing is installed.
    assert outside(host, *REMOVE, "sudo").returncode == 0
    dry = by_the_engine(host, "--check", "--diff")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "+sudo" in dry.stdout
    assert "+openssh-server" not in dry.stdout
    assert by_the_engine(host).returncode == 0
    assert "changed=0 " in recap(play("--limit", host))
