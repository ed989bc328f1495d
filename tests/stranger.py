# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody else's machine: an empty directory, a home of its own, the collection as `ansible-galaxy` installs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import bundled
from doc_blocks import ROOT, to_run
from scenario_hosts import FOLDER, SCENARIO, Done, ssh

PAGE = ROOT / "docs" / "first-fleet.md"
# The page's steps. Another block there has to be taken in here.
INSTALL, DESCRIBE, MEET, LOOK_AND_DO = to_run(PAGE, "first-fleet")
PREFIX = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-{SCENARIO.name}"
WARNED = ("[WARNING]", "[DEPRECATION WARNING]")
COUNTS = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


class Adopter:
    """An operator's machine: an empty directory and a home with nothing of this tree in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.work = home / "fleet"
        self.collections = home / ".ansible" / "collections" / "ansible_collections"
        self.work.mkdir()
        self.values: dict[str, str] = {}  # what every command there has in its environment
        self.warnings: list[str] = []

    def run(self, script: str, timeout: float = 900, **more: str) -> Done:
        """A shell script, as somebody at that machine. What Ansible warns of is kept."""
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # Nothing but the home's collections: not this checkout, and not what the venv's `ansible` package brings.
        plain = {"HOME": str(self.home), "PATH": tools, "LANG": "C.UTF-8", "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "0"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.work,
            env={**plain, **self.values, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if "ansible-galaxy" not in script:
            self.warnings += warned(done)
        return done


def warned(done: Done, words: Iterable[str] = WARNED) -> list[str]:
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if any(word in line for word in words)]


def deprecated(done: Done) -> list[str]:
    """What the next core refuses."""
    return warned(done, WARNED[1:])


def build(tree: Path, folder: Path) -> None:
    """The release file of a tree."""
    galaxy = Path(sys.executable).parent / "ansible-galaxy"
    subprocess.run([galaxy, "collection", "build", "--output-path", folder, tree], check=True, capture_output=True)


def made() -> Iterator[Adopter]:
    """The machine with the collections' files in its directory, until the end of the tests."""
    # Short: ansible's control sockets lie below it.
    home = Path(tempfile.mkdtemp(prefix="ff.", dir="/tmp"))
    one = Adopter(home)
    build(ROOT, one.work)
    bundled.archives(one.work)
    yield one
    one.run("for one in .ansible/cp/*; do ssh -O exit -o ControlPath=$one x; done 2>/dev/null || true")
    shutil.rmtree(home)


def new_key(person: str) -> str:
    """Somebody's key, made anew; the public one is returned."""
    (FOLDER / person).unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", person, "-f", FOLDER / person], check=True)
    return (FOLDER / f"{person}.pub").read_text().strip()


def console(machine: str, command: str) -> str:
    """At the machine itself, whatever becomes of its sshd."""
    argv = ["docker", "exec", f"{PREFIX}-{machine}", "sh", "-c", command]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def address(machine: str, network: str) -> str:
    """Of a machine in one of the scenario's networks."""
    template = f'{{{{(index .NetworkSettings.Networks "{PREFIX}-{network}").IPAddress}}}}'
    argv = ["docker", "inspect", "-f", template, f"{PREFIX}-{machine}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def fingerprint(machine: str) -> str:
    return console(machine, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]


def page_values() -> dict[str, str]:
    """What a reader of docs/first-fleet.md says of themselves, for the machines `bastion` and `gpu-01`."""
    bastion = address("bastion", "public")
    return {
        "BASTION": bastion,
        "BASTION_PRIVATE": address("bastion", "private"),
        "NODE": address("gpu-01", "private"),
        "OFFICE": bastion.rpartition(".")[0] + ".0/24",
        "CONTROLLER": ssh("bastion", "echo $SSH_CONNECTION").stdout.split()[0],
        "ACCOUNT": "automation",
        "ACCOUNT_KEY": str(FOLDER / "automation"),
        "OLGA": new_key("olga"),
        "ADA": new_key("ada"),
        "BASTION_FINGERPRINT": fingerprint("bastion"),
        "NODE_FINGERPRINT": fingerprint("gpu-01"),
    }


def mirrors(one: Adopter) -> None:
    """What a fleet with mirrors of its own sets; they are the stand-ins."""
    place = one.work / "inventory" / "group_vars" / "devnode_nodes" / "mirrors.yml"
    place.write_text(json.dumps(standins()))


def on_laptop(script: str, stdin: bytes = b"") -> Done:
    """As ada, on the machine `laptop`."""
    argv = ["docker", "exec", "-i", f"{PREFIX}-laptop", "su", "-", "ada", "-c", script]
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=120)
    return Done(argv, done.returncode, done.stdout.decode(), done.stderr.decode())


def hand_out(kits: Path) -> None:
    """ada's laptop, with her key and her kit, which she has yet to install."""
    subprocess.run(["docker", "exec", f"{PREFIX}-laptop", "useradd", "-m", "-s", "/bin/bash", "ada"], check=True)
    key = (FOLDER / "ada").read_bytes()
    assert on_laptop("umask 077; mkdir -p .ssh; cat >.ssh/id_ed25519", key).returncode == 0
    kit = subprocess.run(["tar", "-C", kits, "-c", "ada"], capture_output=True, check=True).stdout
    assert on_laptop("tar -x", kit).returncode == 0


def standins() -> dict[str, Any]:
    """Variables by which roles take the stand-ins; a mirror of theirs serves them on the host itself."""
    facts = json.loads((FOLDER / "standins.json").read_text())
    return {
        "nvidia_container_toolkit_repository": f"file:///srv/standins/nvidia/{facts['nvidia']['repository']}",
        "nvidia_container_toolkit_repository_key_url": f"file:///srv/standins/nvidia/{facts['nvidia']['key']}",
        "nvidia_container_toolkit_repository_fingerprints": [facts["nvidia"]["fingerprint"]],
        "miniconda_mirror": "own",
        "miniconda_mirrors": {
            "own": {
                "miniconda": "http://127.0.0.1:8077/conda",
                "channels": {"conda-forge": "http://127.0.0.1:8077/conda/" + facts["conda"]["channels"]},
            }
        },
        "miniconda_installer_sha256": facts["conda"]["installers"][-1]["sha256"],
        "miniconda_version": facts["conda"]["installers"][-1]["version"],
        "docker_engine_default_ulimits": {"nofile": {"soft": 4096, "hard": 8192}},
        "pytorch_sshd_base_image": facts["pytorch"]["reference"],
        "pytorch_sshd_extra_ca": (FOLDER / "extra_ca.crt").read_text(),
        "pytorch_sshd_pip_index_url": facts["pytorch"]["pip_index_url"],
    }


def changes(output: str) -> dict[str, int]:
    """Changed results per host of the last run, which must have failed nowhere."""
    recap = output.rpartition("PLAY RECAP")[2]
    found = COUNTS.findall(recap)
    assert found, output[-4000:]
    assert all(row[2:] == ("0", "0") for row in found), output[-4000:]
    return {host: int(changed) for host, changed, *_ in found}
