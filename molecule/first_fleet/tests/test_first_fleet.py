# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/first-fleet.md, command by command, with the collection as `ansible-galaxy` installs it. In order: a day."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from doc_blocks import ROOT, to_run
from scenario_hosts import FOLDER, Done, ssh

PAGE = ROOT / "docs" / "first-fleet.md"
STEPS = to_run(PAGE, "first-fleet")
PREFIX = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-first_fleet"
COUNTS = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


class Adopter:
    """An operator's machine: an empty directory, a home with nothing of this tree in it, and the page's values."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.work = home / "fleet"
        self.collections = home / ".ansible" / "collections" / "ansible_collections"
        self.work.mkdir()
        self.values: dict[str, str] = {}

    def run(self, script: str, timeout: float = 900) -> Done:
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # Nothing but the home's collections: not this checkout, and not what the venv's `ansible` package brings.
        plain = {"HOME": str(self.home), "PATH": tools, "LANG": "C.UTF-8", "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "0"}
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.work,
            env={**plain, **self.values},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )


@pytest.fixture(scope="module")
def adopter() -> Iterator[Adopter]:
    # Short: ansible's control sockets lie below it.
    home = Path(tempfile.mkdtemp(prefix="ff.", dir="/tmp"))
    one = Adopter(home)
    subprocess.run(
        [Path(sys.executable).parent / "ansible-galaxy", "collection", "build", "--output-path", one.work, ROOT],
        check=True,
        capture_output=True,
    )
    _dependencies(one)
    one.values = _values()
    yield one
    one.run("for one in .ansible/cp/*; do ssh -O exit -o ControlPath=$one x; done 2>/dev/null || true")
    shutil.rmtree(home)


def _dependencies(one: Adopter) -> None:
    """The declared ones and theirs, as Galaxy would bring them; here from the venv's `ansible` package."""
    import ansible_collections

    bundled = next(Path(place) for place in ansible_collections.__path__ if "site-packages" in place)
    open_ones = list(yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"])
    while open_ones:
        place = Path(*open_ones.pop().split("."))
        if not (one.collections / place).exists():
            (one.collections / place).parent.mkdir(parents=True, exist_ok=True)
            (one.collections / place).symlink_to(bundled / place)
            manifest = json.loads((bundled / place / "MANIFEST.json").read_text())
            open_ones += manifest["collection_info"]["dependencies"]


def _values() -> dict[str, str]:
    def address(machine: str, network: str) -> str:
        template = f'{{{{(index .NetworkSettings.Networks "{PREFIX}-{network}").IPAddress}}}}'
        argv = ["docker", "inspect", "-f", template, f"{PREFIX}-{machine}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    for person in ("olga", "ada"):
        (FOLDER / person).unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", person, "-f", FOLDER / person], check=True)
    bastion = address("bastion", "public")
    controller = ssh("bastion", "echo $SSH_CONNECTION").stdout.split()[0]
    return {
        "BASTION": bastion,
        "BASTION_PRIVATE": address("bastion", "private"),
        "NODE": address("gpu-01", "private"),
        "OFFICE": bastion.rpartition(".")[0] + ".0/24",
        "CONTROLLER": controller,
        "ACCOUNT": "automation",
        "ACCOUNT_KEY": str(FOLDER / "automation"),
        "OLGA": (FOLDER / "olga.pub").read_text().strip(),
        "ADA": (FOLDER / "ada.pub").read_text().strip(),
        "BASTION_FINGERPRINT": _fingerprint("bastion"),
        "NODE_FINGERPRINT": _fingerprint("gpu-01"),
    }


def console(machine: str, command: str) -> str:
    """At the machine itself: once the fleet is up, this machine reaches its nodes through the bastion only."""
    argv = ["docker", "exec", f"{PREFIX}-{machine}", "sh", "-c", command]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _fingerprint(machine: str) -> str:
    return console(machine, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]


def _mirrors(one: Adopter) -> None:
    """What a fleet with mirrors of its own sets; they are the stand-ins."""
    facts = json.loads((FOLDER / "standins.json").read_text())
    settings = {
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
    place = one.work / "inventory" / "group_vars" / "devnode_nodes" / "mirrors.yml"
    place.write_text(json.dumps(settings))


def changes(output: str) -> dict[str, int]:
    """Changed results per host of the last run, which must have failed nowhere."""
    recap = output.rpartition("PLAY RECAP")[2]
    found = COUNTS.findall(recap)
    assert found, output[-4000:]
    assert all(row[2:] == ("0", "0") for row in found), output[-4000:]
    return {host: int(changed) for host, changed, *_ in found}


def test_the_file_holds_what_users_need_and_nothing_else(adopter: Adopter) -> None:
    archive = next(adopter.work.glob("devnode-gpu-*.tar.gz"))
    with tarfile.open(archive) as opened:
        names = {member.name.partition("/")[0] for member in opened}
    assert names == {
        "CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "COPYING", "FILES.json", "LICENSES", "MANIFEST.json",
        "README.md", "README.zh-CN.md", "changelogs", "docs", "inventory", "meta", "playbooks", "plugins", "roles",
    }  # fmt: skip
    with tarfile.open(archive) as opened:
        inside = [member.name for member in opened]
    assert not [name for name in inside if "__pycache__" in name or name.startswith("inventory/lab")]


def test_installs_from_git(adopter: Adopter) -> None:
    done = adopter.run(
        f"git clone -q --bare {ROOT} repo.git && git -c safe.directory='*' -C repo.git log -1 --format=%h && "
        "ansible-galaxy collection install --no-deps -p from-git git+file://$PWD/repo.git && "
        "test -e from-git/ansible_collections/devnode/gpu/roles/bastion/tasks/main.yml && rm -rf from-git repo.git"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_installs_as_the_page_says(adopter: Adopter) -> None:
    done = adopter.run(STEPS[0].text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (adopter.collections / "devnode" / "gpu" / "MANIFEST.json").exists()
    done = adopter.run(STEPS[1].text)
    assert done.returncode == 0, done.stdout + done.stderr
    _mirrors(adopter)


@pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: nine roles, a minute")
def test_each_role_runs_alone_as_its_readme_shows(adopter: Adopter) -> None:
    """Before anything else is there: the examples of the READMEs, a play each. Looked at, not done."""
    key = " ".join(adopter.values["ADA"].split()[:2])
    plays = []
    for readme in sorted((adopter.collections / "devnode" / "gpu" / "roles").glob("*/README.md")):
        example = re.search(r"```yaml\n(.*?)```", readme.read_text(), re.DOTALL)
        assert example, readme
        text = example[1].replace("192.0.2.0/24", f"{adopter.values['CONTROLLER']}/32")
        text = text.replace("bind_address: 10.0.0.11", f"bind_address: {adopter.values['NODE']}")
        for play in yaml.safe_load(re.sub(r"ssh-ed25519 AAAA(…|\.\.\.)", key, text)):
            # The role that is shown comes last; others before it are what it needs.
            play["roles"] = play["roles"][-1:]
            plays.append({**play, "hosts": {"gpu": "gpu-01", "all": "bastion"}.get(play["hosts"], play["hosts"])})
    assert len(plays) == len(list((ROOT / "roles").glob("*/meta/argument_specs.yml")))
    console("gpu-01", "mkdir /srv/datasets")
    (adopter.work / "alone.yml").write_text(yaml.safe_dump(plays))
    (adopter.work / "files").mkdir()
    (adopter.work / "files" / "vision.yml").write_text("dependencies: [labplot]\n")
    (adopter.work / "files" / "registry-ca.pem").write_text((FOLDER / "extra_ca.crt").read_text())
    settings = json.loads((adopter.work / "inventory" / "group_vars" / "devnode_nodes" / "mirrors.yml").read_text())
    settings |= {
        "ansible_ssh_common_args": f"-F {FOLDER}/ssh_config",
        "ansible_become": True,
        "docker_engine_source": "existing",
        "docker_engine_version": "",
        "nvidia_driver_source": "preinstalled",
        "ssh_client_config_kits_dir": str(adopter.work / "kits-alone"),
    }
    done = adopter.run(f"ansible-playbook --check --diff -i bastion,gpu-01 -e '{json.dumps(settings)}' alone.yml")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert all(changes(done.stdout)[host] > 0 for host in ("bastion", "gpu-01"))
    assert not (adopter.work / "kits-alone").exists()


def test_meets_the_hosts_only_with_the_right_fingerprints(adopter: Adopter) -> None:
    wrong = {"NODE_FINGERPRINT": adopter.values["BASTION_FINGERPRINT"]}
    right = adopter.values
    adopter.values = {**right, **wrong}
    done = adopter.run(STEPS[2].text)
    adopter.values = right
    assert done.returncode != 0
    assert "was expected" in done.stdout, done.stdout + done.stderr
    done = adopter.run(STEPS[2].text)
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = (adopter.work / "inventory" / "known_hosts").read_text()
    assert [line.split()[0] for line in recorded.splitlines()] == ["bastion", "gpu-01"]


def test_sees_then_does(adopter: Adopter) -> None:
    check, _, real = STEPS[3].text.partition("\n")
    theirs = console("gpu-01", "docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' theirs")
    before = console("gpu-01", "cat /etc/docker/daemon.json; ls /etc/ssh/sshd_config.d /etc/nftables.d 2>&1 || true")
    done = adopter.run(check)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert all(changes(done.stdout)[host] > 0 for host in ("bastion", "gpu-01"))
    after = console("gpu-01", "cat /etc/docker/daemon.json; ls /etc/ssh/sshd_config.d /etc/nftables.d 2>&1 || true")
    assert after == before

    done = adopter.run(real)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert all(changes(done.stdout)[host] > 0 for host in ("bastion", "gpu-01"))
    assert console("gpu-01", "docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' theirs") == theirs

    done = adopter.run(real)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert set(changes(done.stdout).values()) == {0}, done.stdout[-6000:]


def test_what_was_theirs_is_still_theirs(adopter: Adopter) -> None:
    settings = json.loads(console("gpu-01", "cat /etc/docker/daemon.json"))
    assert (settings["max-concurrent-uploads"], settings["labels"], settings["live-restore"]) == (3, ["room=4"], True)
    effective = console("gpu-01", "sshd -T").lower()
    assert "versionaddendum theirs" in effective
    assert "passwordauthentication no" in effective  # asked for by the policy, whatever else says


def test_a_laptop_with_the_kit_is_in(adopter: Adopter) -> None:
    laptop = f"{PREFIX}-laptop"

    def on_laptop(script: str, stdin: bytes = b"") -> Done:
        argv = ["docker", "exec", "-i", laptop, "su", "-", "ada", "-c", script]
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=120)
        return Done(argv, done.returncode, done.stdout.decode(), done.stderr.decode())

    subprocess.run(["docker", "exec", laptop, "useradd", "-m", "-s", "/bin/bash", "ada"], check=True)
    key = (FOLDER / "ada").read_bytes()
    assert on_laptop("umask 077; mkdir -p .ssh; cat >.ssh/id_ed25519", key).returncode == 0
    kit = subprocess.run(
        ["tar", "-C", adopter.work / "inventory" / "kits", "-c", "ada"], capture_output=True, check=True
    ).stdout
    assert on_laptop("tar -x", kit).returncode == 0
    [block] = to_run(PAGE, "first-fleet-laptop")
    done = on_laptop(f"set -e\n{block.text}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^GPU \d", done.stdout, re.MULTILINE)) == 1
    assert "sudo" not in on_laptop("ssh -o BatchMode=yes bastion id").stdout
