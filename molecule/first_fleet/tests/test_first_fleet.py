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

import bundled
import pytest
import yaml
from doc_blocks import ROOT, to_run
from scenario_hosts import FOLDER, Done, processes, ssh, wait_until

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
            self.warnings += [line for line in (done.stdout + done.stderr).splitlines() if "[WARNING]" in line]
        return done


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
    bundled.archives(one.work)
    one.values = _values()
    yield one
    one.run("for one in .ansible/cp/*; do ssh -O exit -o ControlPath=$one x; done 2>/dev/null || true")
    shutil.rmtree(home)


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
        "ansible-galaxy collection install --offline -p from-git git+file://$PWD/repo.git community-crypto-*.tar.gz && "
        "test -e from-git/ansible_collections/devnode/gpu/roles/bastion/tasks/main.yml && rm -rf from-git repo.git"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_installs_as_the_page_says(adopter: Adopter) -> None:
    # Who forgets a file is told which.
    done = adopter.run("ansible-galaxy collection install --offline devnode-gpu-*.tar.gz")
    assert done.returncode != 0
    assert "* community.crypto:>=3.0.0,<4.0.0 (dependency of devnode.gpu:" in done.stdout + done.stderr
    done = adopter.run(STEPS[0].text)
    assert done.returncode == 0, done.stdout + done.stderr
    there = {
        str(path.parent.relative_to(adopter.collections)) for path in adopter.collections.glob("*/*/MANIFEST.json")
    }
    assert there == {"devnode/gpu", "community/crypto"}
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


def test_a_job_runs_it_again_with_nothing_but_an_agent(adopter: Adopter) -> None:
    """docs/ci: the very step of the workflow. The key is on no disk meanwhile; nothing changes, and nothing is left."""
    templates = adopter.collections / "devnode" / "gpu" / "docs" / "ci"
    shutil.copy(templates / "fleet.sh", adopter.work)
    jobs = yaml.safe_load((templates / "github" / "fleet-run.yml").read_text())["jobs"]
    [step] = [one["run"] for one in jobs["apply"]["steps"] if "FLEET_KEY" in one.get("env", {})]
    temporary = adopter.home / "job"
    temporary.mkdir()
    key, away = FOLDER / "automation", FOLDER / "automation.away"
    key.rename(away)
    try:
        done = adopter.run(step, FLEET_KEY=away.read_text(), RUNNER_TEMP=str(temporary))
    finally:
        away.rename(key)
    log = (adopter.work / "apply.txt").read_text()
    assert done.returncode == 0, log[-6000:] + done.stderr
    assert set(changes(log).values()) == {0}, log[-6000:]
    assert "[WARNING]" not in log
    assert done.stdout.startswith("PLAY RECAP")
    assert list(temporary.iterdir()) == []
    wait_until(lambda: not processes(str(temporary)), "the job's agent and connections have ended", 10)


def test_a_job_gets_in_with_a_certificate(adopter: Adopter) -> None:
    """As docs/ci.md says, with ssh-keygen as the authority: to the bastion, and through it to the node."""
    make = (
        "ssh-keygen -q -t ed25519 -N '' -f authority && ssh-keygen -q -t ed25519 -N '' -f key && "
        "ssh-keygen -q -s authority -I job -n fleet -V +10m key.pub && cat authority.pub"
    )
    line = f'cert-authority,principals="fleet" {adopter.run(make).stdout.strip()}'
    for machine in ("bastion", "gpu-01"):
        console(machine, f"echo '{line}' >>~automation/.ssh/authorized_keys")
    (adopter.work / "ping.yml").write_text("[{hosts: devnode, gather_facts: false, tasks: [ansible.builtin.ping: {}]}]")
    done = adopter.run("bash fleet.sh ping.txt ping.yml", FLEET_KEY=f"{adopter.work}/key")
    assert done.returncode == 0, (adopter.work / "ping.txt").read_text() + done.stderr
    assert set(changes(done.stdout)) == {"bastion", "gpu-01"}
    # It was the certificate: the key alone opens nothing.
    (adopter.work / "key-cert.pub").unlink()
    done = adopter.run("bash fleet.sh ping.txt ping.yml", FLEET_KEY=f"{adopter.work}/key")
    assert done.returncode == 4
    assert "Permission denied" in (adopter.work / "ping.txt").read_text()


def test_what_is_in_a_machine(adopter: Adopter) -> None:
    """docs/gpu-host.md."""
    plain, asked = (adopter.run(block.text) for block in to_run(ROOT / "docs" / "gpu-host.md", "gpu-info"))
    assert plain.returncode == asked.returncode == 0, plain.stdout + plain.stderr + asked.stdout + asked.stderr
    assert "CHANGED" not in plain.stdout
    assert '"gpus"' in plain.stdout
    assert '"compatibility"' in asked.stdout


def test_nothing_beside_the_inventory_is_taken_for_hosts(adopter: Adopter) -> None:
    """After the runs have left their records there."""
    assert (adopter.work / "inventory" / "known_hosts").exists()
    graph = adopter.run("ansible-inventory -i inventory/hosts.yml --graph").stdout
    groups = set(re.findall(r"@(\w+):", graph))
    assert groups == {"all", "ungrouped", "devnode", "devnode_bastions", "devnode_nodes"}
    assert sorted(path.name for path in (adopter.work / "inventory").iterdir() if path.is_dir()) == ["group_vars"]


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
        ["tar", "-C", adopter.work / "inventory-kits", "-c", "ada"], capture_output=True, check=True
    ).stdout
    assert on_laptop("tar -x", kit).returncode == 0
    # docs/client.md, from the installer to its end: with an agent, and as an editor with an ssh of its own would go.
    client = ROOT / "docs" / "client.md"
    script = "\n".join(block.text for block in to_run(client, "client-linux"))
    done = on_laptop(f"set -e; trap 'kill $SSH_AGENT_PID' EXIT\n{script}")
    assert done.returncode == 0, done.stdout + done.stderr
    workspace = console("gpu-01", "docker exec devnode-nlp hostname").strip()
    assert done.stdout.splitlines().count(workspace) == 2, done.stdout
    assert re.search(r"^nlp +open ", done.stdout, re.MULTILINE)
    [block] = to_run(client, "client-linux-away")
    assert on_laptop(block.text).returncode == 0
    assert on_laptop("test -e .ssh/devnode || test -e .ssh/config").returncode == 1
    # docs/first-fleet.md goes on.
    [block] = to_run(PAGE, "first-fleet-laptop")
    done = on_laptop(f"set -e\n{block.text}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^GPU \d", done.stdout, re.MULTILINE)) == 1
    assert "sudo" not in on_laptop("ssh -o BatchMode=yes bastion id").stdout


# Of a first look at a host that has not got everything yet; of their container, which a restart would end;
# and Ansible's own word, once on each new host, that it makes root's folder for temporary files.
EXPECTED = ("is not on this host yet", "In a real run", "docker.service: a restart", "Module remote_tmp ")


def test_nothing_was_warned_of(adopter: Adopter) -> None:
    """All of the above. A folder given as the inventory, for one, would have been 18 warnings for each person."""
    unexpected = [line for line in adopter.warnings if not any(words in line for words in EXPECTED)]
    assert not unexpected, "\n".join(unexpected)
