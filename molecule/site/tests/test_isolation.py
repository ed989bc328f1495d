# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not work, tried from the client: around the bastion, past the list, and into a colleague's container."""

from __future__ import annotations

import subprocess

import pytest
from lab_site import CONFIG, inside, ssh

BASTION_PUBLIC = "10.203.10.10"
BASTION_PRIVATE = "10.203.20.10"
NODE = "10.203.20.11"
GIT = "10.203.20.30"
PRIVATE_NET = "10.203.20.0/24"
# bash opens the connection by itself, so that nothing has to be installed on the client.
PROBE = "exec 3<>/dev/tcp/{host}/{port}"

pytestmark = pytest.mark.usefixtures("lab")


def _reaches(source: str, host: str, port: int) -> bool:
    return inside(source, "timeout 3 bash -c %s", PROBE.format(host=host, port=port)).rc == 0


def test_the_client_reaches_the_bastions_ssh_and_nothing_else_there() -> None:
    assert _reaches("client", BASTION_PUBLIC, 22)
    for port in (80, 111, 2201, 5000, 8888):
        assert not _reaches("client", BASTION_PUBLIC, port)


@pytest.mark.parametrize("port", [22, 2201])
def test_the_client_does_not_reach_a_node(port: int) -> None:
    assert not _reaches("client", NODE, port)


@pytest.mark.parametrize("port", [22, 2201])
def test_a_route_through_the_bastion_does_not_help(port: int) -> None:
    added = inside("client", "ip route add %s via %s", PRIVATE_NET, BASTION_PUBLIC)
    assert added.rc == 0, added.stderr
    try:
        assert not _reaches("client", NODE, port)
        assert not _reaches("client", GIT, 22)
    finally:
        inside("client", "ip route del %s", PRIVATE_NET)


def test_the_node_answers_the_bastion_so_that_the_probes_above_mean_something() -> None:
    assert _reaches("bastion", NODE, 22)
    assert _reaches("bastion", NODE, 2201)


@pytest.mark.parametrize("source", ["git", "gpu-02"])
def test_other_hosts_in_the_private_network_do_not_reach_ssh_or_workspaces(source: str) -> None:
    assert not _reaches(source, NODE, 22)
    assert not _reaches(source, NODE, 2201)


@pytest.mark.parametrize(
    "target",
    [
        f"{NODE}:22",  # another port of a host on the list
        f"{GIT}:22",  # a host off the list
        "127.0.0.1:22",  # the bastion's own loopback
        f"{BASTION_PRIVATE}:22",
        "169.254.169.254:80",  # the metadata address
    ],
)
def test_the_bastion_relays_only_to_the_list(target: str) -> None:
    done = subprocess.run(
        ["ssh", "-F", CONFIG, "-o", "BatchMode=yes", "-o", "ControlPath=none", "-W", target, "bastion"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 255, (done.stdout, done.stderr)
    assert "SSH-2.0" not in done.stdout
    assert "administratively prohibited" in done.stderr


@pytest.mark.parametrize("option", ["-R 127.0.0.1:9999:127.0.0.1:22", "-D 9998", "-A", "-X", "-w any:any"])
def test_the_bastion_gives_no_session_whatever_is_asked_with_it(option: str) -> None:
    done = subprocess.run(
        ["ssh", "-F", CONFIG, "-o", "BatchMode=yes", "-o", "ControlPath=none", *option.split(), "bastion", "id"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode != 0
    assert "uid=" not in done.stdout


def test_a_colleagues_workspace_does_not_let_ada_in() -> None:
    """Ada may not even open a connection to Grace's port; the bastion refuses it."""
    done = subprocess.run(
        ["ssh", "-F", CONFIG, "-o", "BatchMode=yes", "-o", "ControlPath=none", "-W", "10.203.20.12:2201", "bastion"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 255
    assert "administratively prohibited" in done.stderr


def test_a_container_does_not_reach_its_node_or_the_metadata_address() -> None:
    for host, port in ((NODE, 22), ("172.17.0.1", 22), ("169.254.169.254", 80)):
        done = ssh("gpu-01", f"timeout 3 bash -c '{PROBE.format(host=host, port=port)}'")
        assert done.returncode != 0, f"{host}:{port} answers from inside the workspace"


def test_the_bastion_does_not_forward_packets() -> None:
    assert inside("bastion", "cat /proc/sys/net/ipv4/ip_forward").stdout.strip() == "0"


def test_no_private_key_of_a_person_is_on_any_server() -> None:
    for host in ("bastion", "gpu-01", "gpu-02"):
        found = inside(host, "grep -rlI 'PRIVATE KEY' /home /root /etc/devnode 2>/dev/null")
        assert found.stdout == "", f"{host}: {found.stdout}"
