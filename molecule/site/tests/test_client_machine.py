# SPDX-License-Identifier: GPL-3.0-or-later
"""A managed workstation: ada has an account and her keys there, the rest came with site.yml. She types no option."""

from __future__ import annotations

import pytest
from lab_site import inside, on_client

pytestmark = pytest.mark.usefixtures("lab")

SSH = "ssh -o BatchMode=yes"


def test_ssh_lands_in_her_workspace_without_a_question() -> None:
    done = on_client(f"{SSH} gpu-01 'test -f /.dockerenv && id -un'")
    assert done.rc == 0, done.stderr
    assert done.stdout.split() == ["ada"]


def test_the_second_command_uses_the_first_ones_connection() -> None:
    assert on_client(f"{SSH} gpu-01 true").rc == 0
    check = on_client("ssh -O check gpu-01")
    assert check.rc == 0, check.stderr
    assert "Master running" in check.stderr


def test_scp_there_and_back() -> None:
    done = on_client(
        "date >sent.txt && scp -q -o BatchMode=yes sent.txt gpu-01:by-client.txt"
        " && scp -q -o BatchMode=yes gpu-01:by-client.txt back.txt && cmp sent.txt back.txt"
        f" && {SSH} gpu-01 rm by-client.txt && rm sent.txt back.txt"
    )
    assert done.rc == 0, done.stderr


@pytest.mark.parametrize("command", ["", "id"])
def test_the_bastion_itself_is_refused(command: str) -> None:
    done = on_client(f"{SSH} bastion {command}")
    assert done.rc == 255, (done.stdout, done.stderr)
    assert "uid=" not in done.stdout


def test_only_her_home_has_it_and_her_keys_are_as_they_were() -> None:
    """The other people of the fleet have no account on this machine (devnode_client_people)."""
    assert inside("client", "ls -d /home/*/.ssh/devnode").stdout.split() == ["/home/ada/.ssh/devnode"]
    listed = on_client("stat -c '%n %U %a' .ssh/id_ed25519 .ssh/id_ed25519_bastion")
    assert listed.stdout.splitlines() == [".ssh/id_ed25519 ada 600", ".ssh/id_ed25519_bastion ada 600"]


def test_an_unknown_host_key_ends_the_connection() -> None:
    done = on_client(f"{SSH} -S none -o HostKeyAlias=another gpu-01 true")
    assert done.rc == 255
    assert "Host key verification failed" in done.stderr
