# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/first-fleet.md, command by command, with the collection as `ansible-galaxy` installs it. In order: a day."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Iterator

import pytest
import yaml
from doc_blocks import ROOT, to_run
from scenario_hosts import FOLDER, processes, wait_until
from stranger import (
    DESCRIBE,
    INSTALL,
    LOOK_AND_DO,
    MEET,
    PAGE,
    WARNED,
    Adopter,
    changes,
    console,
    hand_out,
    made,
    mirrors,
    on_laptop,
    page_values,
)


@pytest.fixture(scope="module")
def adopter() -> Iterator[Adopter]:
    for one in made():
        one.values = page_values()
        yield one


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
    done = adopter.run(INSTALL.text)
    assert done.returncode == 0, done.stdout + done.stderr
    there = {
        str(path.parent.relative_to(adopter.collections)) for path in adopter.collections.glob("*/*/MANIFEST.json")
    }
    assert there == {"devnode/gpu", "community/crypto"}
    done = adopter.run(DESCRIBE.text)
    assert done.returncode == 0, done.stdout + done.stderr
    mirrors(adopter)


def test_meets_the_hosts_only_with_the_right_fingerprints(adopter: Adopter) -> None:
    wrong = {"NODE_FINGERPRINT": adopter.values["BASTION_FINGERPRINT"]}
    right = adopter.values
    adopter.values = {**right, **wrong}
    done = adopter.run(MEET.text)
    adopter.values = right
    assert done.returncode != 0
    assert "was expected" in done.stdout, done.stdout + done.stderr
    done = adopter.run(MEET.text)
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = (adopter.work / "inventory" / "known_hosts").read_text()
    assert [line.split()[0] for line in recorded.splitlines()] == ["bastion", "gpu-01"]


def test_sees_then_does(adopter: Adopter) -> None:
    check, _, real = LOOK_AND_DO.text.partition("\n")
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
    assert not [words for words in WARNED if words in log]
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
    hand_out(adopter.work / "inventory-kits")
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
