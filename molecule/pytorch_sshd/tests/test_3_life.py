# SPDX-License-Identifier: GPL-3.0-or-later
"""A workspace's life: changes, people who leave, recreation, refusals, reboot, removal. In this order."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import ExitStack
from typing import Any

import pytest
from pytorch_sshd_lab import (
    CONTAINER,
    EPHEMERAL,
    PORTS,
    converge,
    known_hosts,
    node_address,
    ok,
    session,
    ssh,
    ssh_words,
    wait_until,
)


def container_id(host: Any, name: str = "devnode-nlp") -> str:
    return str(host.check_output(f"docker inspect -f '{{{{.Id}}}}' {name}"))


def test_refused_before_anything_is_changed(host: Any) -> None:
    """A port that something else holds, a GPU and a mount that are not there: all in one message, by name."""
    listener = f"python3 -m http.server --bind {node_address()} 2299"
    host.check_output(f"systemd-run --unit=squatter {listener}")
    wait_until("the squatter listens", lambda: host.run("ss -Hltn 'sport = :2299'").stdout, 10)
    before = container_id(host)
    # An old driver, and a GPU that PyTorch with this CUDA has no code for.
    smi = "#!/bin/sh\necho 0, GPU-0, 470.57.02, 9.0, NVIDIA H100\necho 1, GPU-1, 570.124.06, 6.0, Tesla P100\n"
    host.check_output("printf %s >/usr/local/bin/nvidia-smi && chmod 755 /usr/local/bin/nvidia-smi", smi)
    official = {"image": "pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel", "bind_address": node_address()}
    official |= {"owner": {"name": "ada", "uid": 2001}, "gpus": ["nvidia.com/gpu=1"], "gpu_shared": True}
    try:
        wrong = {"name": "vision", "port": 2299, "gpus": ["nvidia.com/gpu=7"], "bind_address": node_address()}
        wrong |= {"owner": {"name": "grace", "uid": 2002}, "mounts": [{"source": "/nowhere", "target": "/data"}]}
        more = [{**official, "name": "pascal", "port": 2210}, {**official, "name": "old", "port": 2211}]
        more[1] |= {"gpus": ["nvidia.com/gpu=0"]}
        listed = {"pytorch_sshd_workspaces": ["{{ nlp_ }}", "{{ vision }}", *more], "pytorch_sshd_purge": ["nlp"]}
        listed |= {"nlp_": "{{ nlp | combine({'gpu_shared': true}) }}"}
        code, out, changed = converge("--extra-vars", json.dumps(listed), vision=wrong, nlp_shm_size="128m")
    finally:
        host.check_output("systemctl stop squatter; rm /usr/local/bin/nvidia-smi")
    assert code != 0
    assert changed == 0
    assert f"port 2299 on {node_address()} is taken by python3 (pid " in out
    assert 'GPU "nvidia.com/gpu=7" does not exist on this host (it has nvidia.com/gpu=0' in out
    assert "mount source /nowhere is not there" in out
    assert "on NVIDIA H100: CUDA 12.8 does not run with driver 470.57.02" in out
    assert "on Tesla P100: PyTorch 2.8.0 with CUDA 12.8 has no code for a GPU of compute capability 6.0" in out
    assert 'purge: "nlp" is declared on this host' in out
    assert container_id(host) == before


def test_health_is_asked_of_each_and_what_is_wrong_is_said(host: Any) -> None:
    code, out, changed = converge(playbook="health")
    assert (code, changed) == (0, 0), out
    host.check_output("docker exec devnode-vision mv /dev/nvidia1 /dev/gone")
    try:
        code, out, _ = converge(playbook="health", pytorch_sshd_check_only=["vision"])
    finally:
        host.check_output("docker exec devnode-vision mv /dev/gone /dev/nvidia1")
    assert code != 0
    assert 'workspace "vision": 0 GPU devices are in it, and 1 were asked for' in out


def test_recreated_only_when_nobody_is_in_it(host: Any) -> None:
    before, keys = container_id(host), known_hosts().read_text()
    ok("nlp", "ada", "echo kept > mine; tmux new-session -d -s train 'sleep 300'")
    code, out, changed = converge(nlp_shm_size="128m")
    assert code == 0, out
    assert changed == 0
    assert 'workspace "nlp" keeps its old container' in out
    assert "ada: sleep 300" in out
    assert container_id(host) == before

    ok("nlp", "ada", "tmux kill-server")
    _, _, announced = converge(check=True, nlp_shm_size="128m")
    assert announced == 1
    code, out, changed = converge(nlp_shm_size="128m")
    assert (code, changed) == (0, 1), out
    assert container_id(host) != before
    assert known_hosts().read_text() == keys
    assert ok("nlp", "ada", "cat mine; df -B1 --output=size /dev/shm | tail -1").split() == ["kept", str(128 * 1024**2)]
    assert ssh("nlp", "ada", "ls -ld /home/ada").stdout.startswith("drwx------")


def test_somebody_who_leaves_is_out_at_once_and_the_container_stays(host: Any) -> None:
    before = container_id(host)
    alone = {"nlp_shm_size": "128m", "nlp_keys": {"ada": [(EPHEMERAL / "people" / "ada.pub").read_text().strip()]}}
    with session("nlp", "grace", "sleep 300") as grace:
        wait_until("grace is in", lambda: host.run("docker top devnode-nlp | grep -q 'sleep 300'").rc == 0, 30)
        code, out, _ = converge("--extra-vars", '{"nlp_members": []}', **alone)
        assert code == 0, out
        assert grace.wait(30) != 0
    assert container_id(host) == before
    assert "Permission denied" in ssh("nlp", "grace", "id").stderr
    assert ok("nlp", "ada", "getent passwd grace || echo gone; stat -c %u /home/grace").split() == ["gone", "2002"]
    code, out, _ = converge(nlp_shm_size="128m")
    assert code == 0, out
    assert ok("nlp", "grace", "pwd").strip() == "/home/grace"


def test_who_loses_a_key_loses_the_session_that_it_opened(host: Any) -> None:
    """A rotation: the new key is in, the old one is out with what it had opened. The others stay, jobs as well.

    ada comes with a certificate, too, for a key that no list has; that key is revoked in the same run.
    """
    people = EPHEMERAL / "people"
    if not (people / "grace2").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(people / "grace2")], check=True)
    keys = {name: [(people / f"{name}.pub").read_text().strip()] for name in ("ada", "grace", "grace2")}
    rotated = {"ada": keys["ada"], "grace": keys["grace2"]}
    ok("nlp", "grace", "tmux new-session -d -s job 'sleep 300'")
    assert "Permission denied" in ssh("nlp", "grace", "id", key="signed").stderr  # it names ada
    assert "Permission denied" in ssh("vision", "grace", "id", key="signed").stderr
    running = "docker exec devnode-nlp sh -c 'pgrep -xc sleep'"
    with ExitStack() as sessions:
        # One after the other: of two logins at one moment sshd's log does not say which is which, and then each counts
        # as opened by both keys.
        opened = []
        for number, (person, key) in enumerate((("grace", ""), ("ada", ""), ("ada", "signed"))):
            opened.append(sessions.enter_context(session("nlp", person, f"sleep {301 + number}", key=key)))
            there = str(2 + number)  # with the job in tmux
            wait_until("they are in", lambda there=there: host.run(running).stdout.strip() == there, 30)
        old, other, signed = opened
        revoked = (people / "signed.pub").read_text().strip()
        code, out, _ = converge(nlp_shm_size="128m", nlp_keys=rotated, nlp_revoked=[revoked])
        assert code == 0, out
        assert "ended sessions of grace" in out
        assert "ended sessions of ada" in out
        assert old.wait(30) != 0
        assert signed.wait(30) != 0
        assert other.poll() is None
    assert "Permission denied" in ssh("nlp", "ada", "id", key="signed").stderr
    assert "Permission denied" in ssh("nlp", "grace", "id").stderr
    new = ("-o", f"IdentityFile={people / 'grace2'}")
    assert ok("nlp", "grace", "tmux has-session -t job && tmux kill-server; id -un", *new).strip() == "grace"
    code, out, _ = converge(nlp_shm_size="128m")
    assert code == 0, out


@pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: six runs of roles and modules")
def test_the_host_key_changes_in_stages_and_sessions_stay(host: Any) -> None:
    def go(stage: str) -> str:
        arguments = f"stage={stage} directory=/var/lib/devnode/workspaces/nlp/host_keys wait_hours=0"
        arguments += f" address={node_address()} port={PORTS['nlp']} reload=docker,kill,--signal=HUP,devnode-nlp"
        inventory = os.environ["MOLECULE_INVENTORY_FILE"]
        words = ["ansible", "-i", inventory, "-b", "-m", "devnode.gpu.host_key", "-a", arguments, "debian13"]
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
        env |= {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
        done = subprocess.run(words, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(json.loads(done.stdout.partition("=> ")[2])["fingerprint"])

    before = go("publish")
    code, out, _ = converge(nlp_shm_size="128m")  # hands both keys over
    assert code == 0, out
    assert len([line for line in known_hosts().read_text().splitlines() if line.startswith("nlp.")]) == 2
    assert ok("nlp", "ada", "true") == ""
    with session("nlp", "ada", "sleep 303") as ada:
        wait_until("ada is in", lambda: host.run("docker top devnode-nlp | grep -q 'sleep 303'").rc == 0, 30)
        assert go("serve") != before
        assert ada.poll() is None
    assert ok("nlp", "ada", "true") == ""
    go("drop")
    assert converge(nlp_shm_size="128m")[0] == 0
    assert ok("nlp", "ada", "true") == ""
    assert len([line for line in known_hosts().read_text().splitlines() if line.startswith("nlp.")]) == 1


def test_stops_quickly_and_lets_jobs_say_goodbye(host: Any) -> None:
    """Also a job that takes a moment, below a shell that would just end: in a tmux, and by ssh with no terminal."""
    job = "trap 'sleep 0.3; echo saved > $1; exit' TERM; touch $1.runs; sleep 300 & wait"
    ok("nlp", "ada", f"rm -f in-*; cat > job.sh <<'END'\n{job}\nEND\ntmux new-session -d 'bash job.sh in-tmux; true'")
    words = [*ssh_words("nlp", "ada"), "bash job.sh in-ssh; echo not reached"]
    both = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_until("both jobs run", lambda: ssh("nlp", "ada", "ls in-tmux.runs in-ssh.runs").returncode == 0, 20)
    started = time.monotonic()
    host.check_output("systemctl stop devnode-workspace@nlp.service")
    took = time.monotonic() - started
    assert host.check_output("docker inspect -f '{{.State.ExitCode}}' devnode-nlp") in ("0", "143")
    assert took < 4, took  # the engine's own kill would come after 5 s; the bench measures (below 2 s)
    assert both.communicate(timeout=10)[0] == b""
    code, out, changed = converge(nlp_shm_size="128m")
    assert (code, changed) == (0, 1), out
    assert ok("nlp", "ada", "cat in-tmux in-ssh").split() == ["saved", "saved"]


def test_engine_restart_leaves_the_job_and_its_device(host: Any) -> None:
    ok("nlp", "ada", "tmux new-session -d -s job 'sleep 300'")
    host.check_output("systemctl daemon-reload && systemctl restart docker")
    assert ok("nlp", "ada", "tmux has-session -t job && echo there > /dev/nvidia0 && pgrep -cx sleep").strip() == "1"
    ok("nlp", "ada", "tmux kill-server")


def test_comes_back_after_a_reboot(host: Any) -> None:
    keys = known_hosts().read_text()
    subprocess.run(["docker", "restart", "--time", "20", CONTAINER], check=True, capture_output=True)
    wait_until("nlp is back", lambda: ssh("nlp", "ada", "true").returncode == 0, 90)
    wait_until("vision is back", lambda: ssh("vision", "grace", "true").returncode == 0, 30)
    assert ok("nlp", "ada", "cat mine; ls /dev/nvidia*").split() == ["kept", "/dev/nvidia0"]
    code, out, changed = converge(nlp_shm_size="128m")
    assert (code, changed) == (0, 0), out
    assert known_hosts().read_text() == keys


def test_removed_with_its_entry_and_the_home_is_kept(host: Any) -> None:
    only_nlp = ("--extra-vars", '{"pytorch_sshd_workspaces": ["{{ nlp }}"]}')
    ok("vision", "grace", "setsid -f sleep 300 >/dev/null 2>&1 </dev/null")
    code, out, _ = converge(*only_nlp, nlp_shm_size="128m")
    assert code == 0, out
    assert not host.file("/etc/systemd/system/multi-user.target.wants/devnode-workspace@vision.service").exists
    heir = {"name": "heir", "port": PORTS["vision"], "bind_address": node_address()}
    heir |= {"owner": {"name": "ada", "uid": 2001}, "gpus": ["nvidia.com/gpu=1"]}
    code, out, changed = converge("--extra-vars", json.dumps({"pytorch_sshd_workspaces": ["{{ nlp }}", heir]}))
    assert (code != 0, changed) == (True, 0)
    assert 'is taken by workspace "vision", which is no longer declared but is in use (grace: sleep 300' in out
    assert 'GPU "nvidia.com/gpu=1" is held by workspace "vision", which is no longer declared but is in use' in out
    time.sleep(6)  # longer than the container's own program takes to see that its description is gone
    assert host.check_output("docker exec devnode-vision pgrep -cx sleep") == "1"
    assert ssh("vision", "grace", "true").returncode != 0
    code, out, _ = converge(*only_nlp, nlp_shm_size="128m", pytorch_sshd_recreate="always")
    assert code == 0, out
    names = host.check_output("docker ps -a --format '{{.Names}}'; docker network ls --format '{{.Name}}'").split()
    assert "devnode-nlp" in names
    assert "devnode-vision" not in names
    assert "devnode-vision-home" in host.check_output("docker volume ls -q").split()
    assert not host.file("/etc/devnode/workspaces/vision").exists
    assert host.run("systemctl is-enabled devnode-workspace@vision.service").rc != 0
    assert host.check_output("docker volume ls -q --filter label=devnode.workspace=team") == "devnode-team-home"
    purge = {"nlp_shm_size": "128m", "pytorch_sshd_purge": ["vision"]}
    _, _, announced = converge(*only_nlp, check=True, **purge)
    code, out, changed = converge(*only_nlp, **purge)
    assert (code, changed, announced) == (0, 1, 1), out
    assert "devnode-vision-home" not in host.check_output("docker volume ls -q").split()
    assert "devnode-team-home" in host.check_output("docker volume ls -q").split()
    assert not host.file("/var/lib/devnode/workspaces/vision").exists
    with_socket = f"timeout 2 bash -c '</dev/tcp/{node_address()}/{PORTS['vision']}'"
    assert host.run(with_socket).rc != 0
