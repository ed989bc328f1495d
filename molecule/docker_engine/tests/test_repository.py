# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine from Docker's own repository: one version, held, its key checked; never over an engine that works.

The repository is the lab's stand-in: Debian's engine under Docker's names. It comes last: the engine is exchanged.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from scenario_hosts import Done, play, tiny_image, upgrades

SCRIPT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "tests" / "lab" / "docker_repository.sh"
PACKAGES = {"docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin"}
DISTRIBUTIONS = "docker.io docker-cli containerd runc"
SOURCES = "/etc/apt/sources.list.d"


@pytest.fixture(scope="module")
def fingerprint(host: Any) -> str:
    if os.environ.get("DEVNODE_TESTS") != "full" or host.system_info.release.startswith("12"):
        pytest.skip("exchanges Debian 13's engine, in the full run (DEVNODE_TESTS=full)")
    host.check_output(f"cat >/root/repository.sh <<'END'\n{SCRIPT.read_text()}\nEND")
    return host.check_output("sh /root/repository.sh /srv/docker 2>/dev/null")


def from_docker(host: Any, fingerprint: str, **more: str) -> Done:
    given = {
        "docker_engine_source": "docker",
        "docker_engine_repository": "file:///srv/docker/linux",
        "docker_engine_repository_fingerprints": [fingerprint],
        **more,
    }
    return play("--limit", host.check_output("hostname"), "--extra-vars", json.dumps(given))


def said(done: Done) -> str:
    return " ".join(done.stdout.replace("\\n", " ").split())


def test_it_is_not_installed_over_the_distributions_engine(host: Any, fingerprint: str) -> None:
    pid = host.check_output("systemctl show docker --property=MainPID --value")
    done = from_docker(host, fingerprint)
    assert done.returncode != 0
    assert "would remove containerd, docker-cli, docker.io, runc" in said(done), done.stdout
    assert "Remove it at a time that suits you" in said(done)
    assert host.check_output("systemctl show docker --property=MainPID --value") == pid


def test_one_version_is_installed_and_held(host: Any, fingerprint: str) -> None:
    host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get purge -y -q {DISTRIBUTIONS}")
    host.check_output(
        f"echo 'deb https://download.docker.com/linux/debian trixie stable' >{SOURCES}/docker.list; "
        f"rm -f {SOURCES}/docker.sources"
    )
    wrong = from_docker(host, "9DC858229FC7DD38854AE2D88D81803C0EBFCD88")
    assert "only 9DC858229FC7DD38854AE2D88D81803C0EBFCD88 is allowed" in said(wrong), wrong.stdout
    missing = from_docker(host, fingerprint, docker_engine_version="27.0.1")
    assert "29.0.0" in said(missing), missing.stdout
    assert not host.exists("dockerd")

    done = from_docker(host, fingerprint)
    assert done.returncode == 0, done.stdout
    assert host.check_output("dpkg-query --show --showformat='${Version}' docker-ce").startswith("5:28.5.2-1~debian.13")
    assert set(host.check_output("apt-mark showhold").split()) >= PACKAGES
    assert "docker" not in upgrades(host.check_output)
    assert host.check_output(f"ls {SOURCES}").split() == ["debian.sources", "docker.sources"]
    assert host.check_output(f"docker run --rm --network=none {tiny_image(host)} printf works") == "works"
    assert host.check_output("docker info --format '{{.LiveRestoreEnabled}}'") == "true"
    again = from_docker(host, fingerprint)
    assert "changed=0" in again.stdout, again.stdout
