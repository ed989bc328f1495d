# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role alone, as its README shows it, from the installed file, on a host that had a life before.

`settled` has an engine with settings of its own, a container that others use, sshd settings and an account of its own.
A role is applied before any that it could lean on, so that it works because it works alone. What the examples name and
this lab has not (addresses, packages, hardware) is replaced in GIVEN; everything else is the README's.

Not shown here, because the sources do not answer: NVIDIA's driver from its repository (the example's `cuda_repo`; the
one that is there is looked at), and an engine from Docker's repository (the host has one, which this is about).
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from doc_blocks import ROOT
from scenario_hosts import FOLDER, Done, root, ssh, wait_until
from stranger import INSTALL, Adopter, changes, console, deprecated, made, new_key, standins

FULL = os.environ.get("DEVNODE_TESTS") == "full"
ORDER = (
    "pytorch_sshd", "nvidia_container_toolkit", "nvidia_driver", "docker_engine", "miniconda",
    "bastion", "host_firewall", "ssh_server", "ssh_client_config",
)  # fmt: skip
# What can take away what was there before: Docker's settings, who gets in, by which way.
IN_GATE = ("docker_engine", "host_firewall", "ssh_server", "ssh_client_config")
EXAMPLE = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


class Settled:
    """The host, and what was its own before."""

    def __init__(self, adopter: Adopter) -> None:
        self.adopter = adopter
        self.controller = ssh("settled", "echo $SSH_CONNECTION").stdout.split()
        self.address = self.controller[2]
        self.ada = new_key("ada")
        public = new_key("deploy")
        root(
            "settled",
            "id deploy 2>/dev/null || useradd -m -s /bin/bash -p '*' deploy\n"
            "cd ~deploy; install -d -o deploy -m 700 .ssh; cd .ssh\n"
            f"echo '{public}' >authorized_keys; chown deploy authorized_keys; chmod 600 authorized_keys\n"
            "mkdir -p /srv/datasets; echo data >/srv/datasets/one",
        )
        self.before = self.container()

    def container(self) -> str:
        return console("settled", "docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' theirs")

    def policy(self, **who: str) -> dict[str, str]:
        """sshd's effective settings for somebody."""
        words = ",".join(f"{key}={value}" for key, value in {"host": "x", "addr": "192.0.2.9", **who}.items())
        lines = console("settled", f"sshd -T -C {words}").lower().splitlines()
        return dict(line.split(" ", 1) for line in lines if " " in line)

    def is_as_its_people_know_it(self) -> None:
        """After any of the roles."""
        assert self.container() == self.before, "their container was restarted"
        with urllib.request.urlopen(f"http://{self.address}:8088/hostname", timeout=10) as answer:
            assert answer.read().strip()
        daemon = json.loads(console("settled", "cat /etc/docker/daemon.json"))
        assert daemon["max-concurrent-uploads"] == 3
        assert daemon["labels"] == ["room=4"]
        assert daemon["features"]["cdi"] is True
        assert json.loads(console("settled", "docker info -f '{{json .Labels}}'")) == ["room=4"]
        assert console("settled", "cat /etc/ssh/sshd_config.d/20-theirs.conf").startswith("PasswordAuthentication yes")
        assert self.policy(user="deploy")["versionaddendum"] == "theirs"
        assert ssh("settled", "id -un", user="deploy", key="deploy").stdout.strip() == "deploy"
        assert ssh("settled", "sudo -n id -un").stdout.strip() == "root"


@pytest.fixture(scope="module")
def adopter() -> Iterator[Adopter]:
    yield from made()


@pytest.fixture(scope="module")
def settled(adopter: Adopter) -> Settled:
    done = adopter.run(INSTALL.text)
    assert done.returncode == 0, done.stdout + done.stderr
    place = adopter.work / "alone"
    (place / "files").mkdir(parents=True)
    (place / "files" / "vision.yml").write_text("dependencies: [labplot]\n")
    (place / "files" / "registry-ca.pem").write_text((FOLDER / "extra_ca.crt").read_text())
    connection = {"ansible_ssh_common_args": f"-F {FOLDER}/ssh_config", "ansible_become": True}
    (place / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"settled": connection}}}))
    return Settled(adopter)


def example(role: str, one: Settled) -> dict[str, Any]:
    """The play of a role's README, with this lab's values."""
    readme = one.adopter.collections / "devnode" / "gpu" / "roles" / role / "README.md"
    found = EXAMPLE.search(readme.read_text())
    assert found, readme
    key = " ".join(one.ada.split()[:2])
    text = re.sub(r"ssh-ed25519 AAAA(…|\.\.\.)", key, found[1]).replace("192.0.2.0/24", f"{one.controller[0]}/32")
    [play] = yaml.safe_load(text)
    # The role that is shown comes last; others before it are what it needs where nothing is yet.
    [shown] = play["roles"][-1:]
    assert shown["role"] == f"devnode.gpu.{role}"
    given = GIVEN.get(role, lambda _one, _vars: {})(one, shown["vars"])
    return {
        **play,
        "hosts": play["hosts"] if play["hosts"] == "localhost" else "settled",
        "roles": [{**shown, "vars": {**shown["vars"], **given}}],
    }


# What stands in the examples and is not here --------------------------------------------------------------------------


def _workspace(one: Settled, example: dict[str, Any]) -> dict[str, Any]:
    [workspace] = example["pytorch_sshd_workspaces"]
    smaller = {"bind_address": one.address, "memory": "1g", "shm_size": "256m"}
    mine = {key: value for key, value in standins().items() if key.startswith("pytorch_sshd_")}
    return {**mine, "pytorch_sshd_min_free": "2g", "pytorch_sshd_workspaces": [{**workspace, **smaller}]}


def _toolkit(_one: Settled, _example: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in standins().items() if key.startswith("nvidia_container_toolkit_")}


def _driver(_one: Settled, _example: dict[str, Any]) -> dict[str, Any]:
    return {"nvidia_driver_source": "preinstalled"}


def _engine(_one: Settled, _example: dict[str, Any]) -> dict[str, Any]:
    """Without addresses: another bridge would end what is on it (test_an_engine_that_cannot_be_restarted_waits)."""
    limits = {key: value for key, value in standins().items() if key.startswith("docker_engine_")}
    return {**limits, "docker_engine_source": "existing", "docker_engine_bip": "", "docker_engine_address_pools": []}


def _conda(_one: Settled, example: dict[str, Any]) -> dict[str, Any]:
    mine = {key: value for key, value in standins().items() if key.startswith("miniconda_")}
    first, second = example["miniconda_environments"]
    return {**mine, "miniconda_environments": [{"name": first["name"], "packages": ["labplot"]}, second]}


def _bastion(one: Settled, example: dict[str, Any]) -> dict[str, Any]:
    [ada] = example["bastion_relay_users"]
    return {"bastion_relay_users": [{**ada, "targets": [{"host": one.address, "port": 22}]}]}


def _firewall(one: Settled, example: dict[str, Any]) -> dict[str, Any]:
    """Their container stays in reach because it is declared; so do the workspaces."""
    ports = {"theirs": 8088, **({"nlp": 2201} if FULL else {})}
    here = {"address": one.address, "sources": [f"{one.controller[0]}/32"]}
    published = [{"name": name, "port": port, **here} for name, port in ports.items()]
    [ada] = example["host_firewall_egress"]
    return {
        "host_firewall_containers": {"published": published, "outbound": True},
        "host_firewall_egress": [{**ada, "targets": [{"address": one.address, "port": 22}]}],
    }


def _kits(one: Settled, _example: dict[str, Any]) -> dict[str, Any]:
    return {"ssh_client_config_kits_dir": str(one.adopter.work / "kits-alone")}


GIVEN: dict[str, Callable[[Settled, dict[str, Any]], dict[str, Any]]] = {
    "pytorch_sshd": _workspace, "nvidia_container_toolkit": _toolkit, "nvidia_driver": _driver,
    "docker_engine": _engine, "miniconda": _conda, "bastion": _bastion, "host_firewall": _firewall,
    "ssh_client_config": _kits,
}  # fmt: skip


# What each role is for ------------------------------------------------------------------------------------------------


def to_workspace(one: Settled, command: str) -> Done:
    known = console("settled", "cat /var/lib/devnode/workspaces/nlp/host_keys/ssh_host_ed25519_key.pub").split()[:2]
    (FOLDER / "alone_known").write_text(f"nlp {' '.join(known)}\n")
    options = ("HostKeyAlias=nlp", f"UserKnownHostsFile={FOLDER}/alone_known", "Port=2201", f"HostName={one.address}")
    return ssh("nlp", command, user="ada", key="ada", options=options)


def a_workspace_with_its_gpu(one: Settled) -> None:
    done = to_workspace(one, "ls /dev/nvidia?; cat /data/one; python3 -c 'import torch; print(torch.__version__)'")
    assert done.stdout.split()[:2] == ["/dev/nvidia0", "data"], done.stderr
    assert done.stdout.split()[2:], done.stderr


def gpus_by_name(_one: Settled) -> None:
    assert "nvidia.com/gpu=1" in console("settled", "nvidia-ctk cdi list")
    image = standins()["pytorch_sshd_base_image"]
    seen = console("settled", f"docker run --rm --device nvidia.com/gpu=1 --entrypoint ls {image} /dev")
    assert "nvidia1" in seen.split()
    assert "nvidia0" not in seen.split()


def a_driver_that_is_good_enough(one: Settled) -> None:
    """CUDA 12.8, as the example asks, and nothing is said; of one newer than the driver's it says on what terms."""
    play = example("nvidia_driver", one)
    asked = run(one, "driver-as-asked", play)
    play["roles"][0]["vars"]["nvidia_driver_cuda"] = "13.1"
    newer = run(one, "driver-newer", play)
    assert asked.returncode == newer.returncode == 0, asked.stdout + newer.stdout
    assert "minor-version compatibility" not in asked.stdout + asked.stderr
    assert "minor-version compatibility" in newer.stdout + newer.stderr


def settings_beside_theirs(_one: Settled) -> None:
    assert console("settled", "docker info -f '{{.LiveRestoreEnabled}}'").strip() == "true"
    assert console("settled", "cat /etc/docker/certs.d/registry.example.com:5000/*").startswith("-----BEGIN")


def an_environment(_one: Settled) -> None:
    done = ssh("settled", "bash -lc 'conda activate nlp-py311 && python -c \"import labplot, sys; print(sys.prefix)\"'",
               user="deploy", key="deploy")  # fmt: skip
    assert done.stdout.strip() == "/opt/miniconda/envs/nlp-py311", done.stderr


def passage_and_nothing_else(one: Settled) -> None:
    ask = ("ProxyCommand=none",)
    assert ssh("settled", "id", user="ada", key="ada", options=ask).returncode != 0
    words = [
        "ssh",
        "-F",
        FOLDER / "ssh_config",
        "-o",
        "BatchMode=yes",
        "-o",
        "IdentitiesOnly=yes",
        "-i",
        FOLDER / "ada",
    ]

    def reached(target: str) -> str:
        argv = [*words, "-l", "ada", "-W", target, "settled"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, input="x\n")
        return done.stdout

    assert reached(f"{one.address}:22").startswith("SSH-2.0")
    assert reached(f"{one.address}:8088") == ""
    # The lockdown is theirs alone.
    assert ssh("settled", "id -un", user="deploy", key="deploy").stdout.strip() == "deploy"


def only_what_is_listed(one: Settled) -> None:
    console("settled", "systemd-run --unit=unlisted python3 -m http.server 8099")
    try:
        wait_until(lambda: ":8099" in console("settled", "ss -Hltn"), "a server on a port that is not listed", 20)
        with pytest.raises(TimeoutError):
            socket.create_connection((one.address, 8099), timeout=3)
    finally:
        console("settled", "systemctl stop unlisted")
    # Their container gets out: whoever is asked answers, if only that nothing listens there.
    ask = f"import socket; print(socket.socket().connect_ex(('{one.controller[0]}', 9)))"
    said = console("settled", f'docker exec theirs /usr/bin/timeout 10 /usr/bin/python3 -c "{ask}"')
    assert said.strip() in ("0", str(errno.ECONNREFUSED)), said
    if FULL:
        assert to_workspace(one, "true").returncode == 0


def operators_by_key_alone(one: Settled) -> None:
    assert ssh("settled", "sudo -n id -un", user="ops", key="ada").stdout.strip() == "root"
    for who in ("ops", "deploy", "automation"):
        assert one.policy(user=who)["passwordauthentication"] == "no"


def a_kit_that_leads_there(one: Settled) -> None:
    home = one.adopter.home / "laptop"
    shutil.rmtree(home, ignore_errors=True)
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    kit = one.adopter.work / "kits-alone" / "ada"
    # (ssh takes `~` from the account and not from HOME, so the file that the installer includes is named.)
    done = one.adopter.run(f"HOME={home} sh {kit}/install.sh && ssh -F {home}/.ssh/devnode/config -G nlp")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "devnode/config" in (home / ".ssh" / "config").read_text().splitlines()[0]
    assert "\nhostname 10.20.0.11\n" in done.stdout
    assert "\nproxyjump bastion\n" in done.stdout


EFFECTS: dict[str, Callable[[Settled], None]] = {
    "pytorch_sshd": a_workspace_with_its_gpu, "nvidia_container_toolkit": gpus_by_name,
    "nvidia_driver": a_driver_that_is_good_enough, "docker_engine": settings_beside_theirs,
    "miniconda": an_environment, "bastion": passage_and_nothing_else, "host_firewall": only_what_is_listed,
    "ssh_server": operators_by_key_alone, "ssh_client_config": a_kit_that_leads_there,
}  # fmt: skip


# The tests ------------------------------------------------------------------------------------------------------------


def run(one: Settled, name: str, play: dict[str, Any], *options: str) -> Done:
    (one.adopter.work / "alone" / f"{name}.yml").write_text(yaml.safe_dump([play]))
    done = one.adopter.run(f"ansible-playbook -i alone/hosts.yml {' '.join(options)} --diff alone/{name}.yml")
    assert not deprecated(done)
    return done


def test_they_are_all_roles() -> None:
    assert sorted(ORDER) == sorted(path.name for path in (ROOT / "roles").iterdir())


@pytest.mark.parametrize("role", ORDER)
def test_a_role_alone_does_what_it_is_for_and_takes_nothing_away(settled: Settled, role: str) -> None:
    if not FULL and role not in IN_GATE:
        pytest.skip("the full run: packages, an image, minutes")
    play = example(role, settled)
    first = run(settled, role, play)
    assert first.returncode == 0, first.stdout[-6000:] + first.stderr
    assert sum(changes(first.stdout).values()) > 0 or role == "nvidia_driver", first.stdout[-6000:]
    EFFECTS[role](settled)
    settled.is_as_its_people_know_it()
    again = run(settled, role, play)
    assert again.returncode == 0, again.stdout[-6000:] + again.stderr
    assert set(changes(again.stdout).values()) == {0}, again.stdout[-6000:]
    assert settled.container() == settled.before


@pytest.mark.skipif(not FULL, reason="the full run: role docker_engine's scenario has what it waits for")
def test_an_engine_that_cannot_be_restarted_waits(settled: Settled) -> None:
    """The example as it stands asks for another bridge, and something of theirs is on the one that is there."""
    play = example("docker_engine", settled)
    play["roles"][0]["vars"]["docker_engine_bip"] = "172.30.0.1/24"
    done = run(settled, "engine-waits", play)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert "theirs" in done.stdout + done.stderr, done.stdout[-6000:]
    settled.is_as_its_people_know_it()
    back = run(settled, "engine-back", example("docker_engine", settled))
    assert back.returncode == 0, back.stdout[-6000:] + back.stderr
    settled.is_as_its_people_know_it()


def test_a_firewall_that_does_not_know_their_container_is_refused(settled: Settled) -> None:
    """The example as it stands, which is for a host without containers."""
    play = example("host_firewall", settled)
    del play["roles"][0]["vars"]["host_firewall_containers"]
    done = run(settled, "firewall-refused", play)
    assert done.returncode != 0
    assert "host_firewall_containers" in done.stdout
    settled.is_as_its_people_know_it()
