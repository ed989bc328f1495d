# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker of one's own, without root: Debian 13's, set up by the commands of docs/gpu-host.md, by a person over ssh.

Debian 12's (20.10) knows no CDI.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from doc_blocks import ROOT, to_run
from scenario_hosts import ssh
from test_toolkit import IMAGE, UUID_0, UUID_1, cdi, image  # noqa: F401  fixtures
from visible import visible  # noqa: F401  fixture

PERSON = "person"
ADMIN, OWN = to_run(ROOT / "docs" / "gpu-host.md", "molecule/nvidia_container_toolkit/tests/test_rootless.py")


def typed(host: Any, *command: str) -> str:
    done = ssh(host.check_output("hostname"), *command, user=PERSON)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def person(host: Any) -> Iterator[None]:
    """Somebody with a login and no rights; the host looks to them as a machine does."""
    if os.environ.get("DEVNODE_TESTS") != "full" or host.system_info.release.startswith("12"):
        pytest.skip("Debian 13's, in the full run (DEVNODE_TESTS=full)")
    host.check_output(
        f"useradd --create-home --shell /bin/bash {PERSON}; "
        f"install -d -o {PERSON} -g {PERSON} -m 0700 /home/{PERSON}/.ssh; "
        f"install -o {PERSON} -g {PERSON} -m 0600 /home/automation/.ssh/authorized_keys /home/{PERSON}/.ssh"
    )
    yield
    host.check_output(
        f"loginctl disable-linger {PERSON}; loginctl terminate-user {PERSON}; "
        f"systemctl stop user-$(id -u {PERSON}).slice"
    )
    host.check_output(f"userdel --remove {PERSON}")


@pytest.fixture(scope="module")
def docker(host: Any, person: None) -> None:
    """What the page says, as it stands there.

    A machine has /dev/net/tun, and says which modules are in its kernel; a host in a container does neither.
    """
    host.check_output("mkdir -p /dev/net; test -e /dev/net/tun || mknod -m 0666 /dev/net/tun c 10 200")
    host.check_output(
        "grep -qs ip_tables /lib/modules/$(uname -r)/modules.builtin || "
        "echo kernel/net/ipv4/netfilter/ip_tables.ko >>/lib/modules/$(uname -r)/modules.builtin"
    )
    host.check_output(f"export DEBIAN_FRONTEND=noninteractive PERSON={PERSON}; {ADMIN.text}")
    typed(host, f"bash -euc '{OWN.text}'")


@pytest.mark.usefixtures("visible", "docker")
def test_a_docker_without_root_gives_the_gpu_that_was_asked_for_and_no_other(host: Any, image: str) -> None:  # noqa: F811
    host.check_output(f"docker save --output /tmp/tiny.tar {image}; chmod a+r /tmp/tiny.tar")
    typed(host, "docker load --quiet --input /tmp/tiny.tar")
    assert "rootless" in typed(host, "docker info --format '{{.SecurityOptions}}'")
    run = "docker run --rm --network=none"
    for device, uuid in ((0, UUID_0), (1, UUID_1)):
        found = typed(host, f"{run} --device nvidia.com/gpu={device} {IMAGE} nvidia-smi -L")
        assert found == f"GPU 0: NVIDIA L4 (UUID: {uuid})\n"
    nodes = typed(host, f"{run} --device nvidia.com/gpu=1 {IMAGE} ls /dev").split()
    assert [name for name in nodes if name.startswith("nvidia")] == [
        *("nvidia-uvm", "nvidia-uvm-tools", "nvidia1", "nvidiactl")
    ]
    assert "nvidia" not in typed(host, f"{run} {IMAGE} ls /dev")
    refused = ssh(host.check_output("hostname"), f"{run} --device nvidia.com/gpu=7 {IMAGE} true", user=PERSON)
    assert refused.returncode != 0
    assert "unresolvable CDI devices nvidia.com/gpu=7" in refused.stderr


@pytest.mark.usefixtures("visible", "docker")
def test_it_follows_the_gpus_when_it_starts(host: Any, image: str) -> None:  # noqa: F811
    """A person's engine has a link to the specification, not a copy; it reads it once."""

    def gpus(count: int) -> None:
        host.check_output(f"echo {count} >/etc/devnode-lab-gpu/count; systemctl restart devnode-lab-gpu")
        host.check_output("systemctl restart nvidia-cdi-refresh")
        typed(host, "systemctl --user restart docker")

    gpus(1)
    try:
        run = f"docker run --rm --network=none --device nvidia.com/gpu=1 {IMAGE} true"
        gone = ssh(host.check_output("hostname"), run, user=PERSON)
        assert "unresolvable CDI devices nvidia.com/gpu=1" in gone.stderr
    finally:
        gpus(2)
    typed(host, run)
