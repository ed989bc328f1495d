# SPDX-License-Identifier: GPL-3.0-or-later
"""What people find in a workspace, over a real login."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest
from pytorch_sshd_lab import CONTAINER, EPHEMERAL, NOTE, node_address, ok, ssh, ssh_words, wait_until

# What the image and the workspace set, and every kind of session must have.
NAMES = ("PATH", "LANG", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "PYTORCH_VERSION")


def variables(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)


@pytest.fixture(scope="module")
def truth(host: Any) -> dict[str, str]:
    """What `docker exec` sees."""
    return variables(host.check_output("docker exec devnode-nlp env -0"))


def test_owner_and_member_log_in_and_nobody_else() -> None:
    assert ok("nlp", "ada", "id -un; id -u; pwd").split() == ["ada", "2001", "/home/ada"]
    assert ok("nlp", "grace", "id -u").strip() == "2002"
    assert ok("vision", "grace", "id -u").strip() == "2002"
    assert "Permission denied (publickey)" in ssh("vision", "ada", "id").stderr
    assert "Permission denied (publickey)" in ssh("nlp", "root", "id", "-i", str(EPHEMERAL / "people" / "ada")).stderr


def test_a_wrong_key_is_refused() -> None:
    words = ssh_words("nlp", "ada", "-i", str(EPHEMERAL / "people" / "grace"))
    words.remove(str(EPHEMERAL / "people" / "ada"))
    words.remove("-i")
    done = subprocess.run([*words, "id"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert "Permission denied (publickey)" in done.stderr


def test_crontab_takes_a_table_and_refuses_a_wrong_one() -> None:
    """What the job wrote is looked at further down: cron starts jobs at full minutes."""
    job = "* * * * * env -0 >cron.new && mv cron.new cron.env"
    ok("nlp", "ada", f"rm -f cron.env; echo '{job}' | crontab -")
    wrong = ssh("nlp", "ada", "printf '# mine\\n* * * * x true\\n' | crontab -")
    assert (wrong.returncode, "line 2: bad day-of-week" in wrong.stderr) == (1, True), wrong.stderr
    ok("nlp", "ada", f"echo '{job}' | crontab -")
    assert ok("nlp", "ada", "crontab -l").strip() == job
    assert ssh("nlp", "grace", "crontab -l").returncode == 1


def test_torch_computes() -> None:
    imports = "import torch, torchvision, torchaudio, pandas"
    code = f"{imports}; print((torch.ones(64, 64) @ torch.ones(64, 64)).sum().item())"
    assert float(ok("nlp", "ada", f"python3 -c '{code}'")) == 64**3


def test_dataloader_with_4_workers_shares_1_gb_through_shm() -> None:
    """Four batches of 256 MB, held by the main process at the same time; in 64 MB this ends with a bus error."""
    code = (
        "import os, torch; from torch.utils.data import DataLoader as D\n"
        "class Data(torch.utils.data.Dataset):\n"
        "  def __len__(self): return 4\n"
        "  def __getitem__(self, i): return torch.full((256, 1024, 256), float(i))\n"
        "batches = list(D(Data(), batch_size=1, num_workers=4))\n"
        'held = os.statvfs("/dev/shm"); print((held.f_blocks - held.f_bfree) * held.f_frsize >> 20)\n'
        "print(sum(b.numel() * b.element_size() for b in batches) >> 20, sorted(b[0, 0, 0, 0].item() for b in batches))"
    )
    held, size, values = ok("team", "ada", f"python3 -c '{code}'").split(None, 2)
    assert (int(held) >= 1024, size, values.strip()) == (True, "1024", "[0.0, 1.0, 2.0, 3.0]")


def test_environment_of_an_editors_server(truth: dict[str, str]) -> None:
    """VS Code starts its server by a script given to `ssh -T HOST bash`; the server outlives the connection."""
    server = "setsid sh -c 'env -0 >editor.new && mv editor.new editor.env'"
    words = [*ssh_words("nlp", "ada", "-T"), "bash"]
    script = f"rm -f editor.env; ({server} &) </dev/null >/dev/null 2>&1\n"
    subprocess.run(words, input=script, text=True, check=True, timeout=30)
    wait_until("the server runs", lambda: ssh("nlp", "ada", "test -e editor.env").returncode == 0, 20)
    found = variables(ok("nlp", "ada", "cat editor.env"))
    assert {name: found.get(name) for name in NAMES} == {name: truth[name] for name in NAMES}
    assert found["DATA_NOTE"] == NOTE


@pytest.mark.parametrize("command", ["env -0", "bash -lc 'env -0'", "sh -lc 'env -0'"])
def test_environment_of_a_command_and_of_login_shells(truth: dict[str, str], command: str) -> None:
    found = variables(ok("nlp", "ada", command))
    assert {name: found.get(name) for name in NAMES} == {name: truth[name] for name in NAMES}
    assert found["DATA_NOTE"] == NOTE == truth["DATA_NOTE"]


def test_environment_of_an_interactive_session(truth: dict[str, str]) -> None:
    done = subprocess.run(
        ssh_words("nlp", "ada", "-tt"), input="env -0 | base64 -w0; exit\n", capture_output=True, text=True, timeout=30
    )
    longest = max(done.stdout.split(), key=len)
    found = variables(base64.b64decode(longest).decode())
    assert {name: found.get(name) for name in (*NAMES, "DATA_NOTE")} == {
        name: truth[name] for name in (*NAMES, "DATA_NOTE")
    }


def test_environment_of_sftp(host: Any, truth: dict[str, str]) -> None:
    words = ssh_words("nlp", "ada", "-s")
    with subprocess.Popen([*words, "sftp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        look = "cat /proc/$(pgrep -u 2001 -x sftp-server)/environ"
        wait_until("sftp-server runs", lambda: host.run(look).rc == 0, 10)
        found = variables(host.check_output(look))
        session.terminate()
    assert {name: found.get(name) for name in NAMES} == {name: truth[name] for name in NAMES}


def test_environment_under_sudo_and_su(host: Any, truth: dict[str, str]) -> None:
    for command in ("sudo -u ada env -0", "su -s /bin/sh ada -c 'env -0'"):
        found = variables(host.check_output(f"docker exec devnode-nlp {command}"))
        assert {name: found.get(name) for name in NAMES} == {name: truth[name] for name in NAMES}, command


def test_root_only_where_it_was_asked_for(host: Any, truth: dict[str, str]) -> None:
    found = variables(ok("team", "ada", "sudo -n env -0"))
    assert (found["USER"], found["PATH"]) == ("root", truth["PATH"])
    made = ok("team", "grace", "sudo -n install -o root -m 0600 /dev/null /opt/a && stat -c %U /opt/a")
    assert made.strip() == "root"
    assert ssh("nlp", "ada", "sudo -n id").returncode != 0
    assert ssh("team", "ada", "sudo -n mknod /tmp/disk b 8 0; sudo -n mount -t tmpfs none /mnt").returncode != 0
    assert ssh("team", "ada", "ls /tmp/disk").returncode != 0


def test_login_begins_in_tmux_where_it_was_asked_for() -> None:
    def typed(workspace: str) -> str:
        # What is typed waits in the terminal until there is a shell that reads it.
        text = "echo in=$(test -n \"$TMUX\" && tmux display-message -p '#S')=; exit\n"
        words, env = ssh_words(workspace, "ada", "-tt"), {**os.environ, "TERM": "xterm"}
        with subprocess.Popen(words, text=True, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
            try:
                if workspace == "team":
                    wait_until("tmux runs", lambda: ssh("team", "ada", "tmux has-session -t main").returncode == 0, 20)
                return str(session.communicate(text, timeout=30)[0])
            finally:
                session.kill()

    assert "in=main=" in typed("team")
    assert "in==" in typed("nlp")
    assert "TMUX" not in ok("team", "ada", "env")


def test_limits_of_files() -> None:
    assert ok("team", "ada", "ulimit -Sn; ulimit -Hn").split() == ["1024", "4096"]


def test_what_goes_wrong_in_one_stays_there(host: Any) -> None:
    """A program that takes all memory is ended alone; one that forks or fills /dev/shm without end meets its limit."""
    ok("team", "ada", "tmux new-session -d -s job 'sleep 300'")
    hog = ssh("team", "ada", "python3 -c 'x = [bytearray(1 << 20) for _ in range(4000)]'; echo ended by $?")
    assert hog.stdout.strip() == "ended by 137"
    assert ok("team", "ada", "tmux has-session -t job && pgrep -cx sleep").strip() == "1"
    ok("team", "ada", "tmux kill-server")

    # Then there is something to do for the first process, on which the workspace lives; it cannot start a program now.
    started = host.check_output("docker inspect -f '{{.State.StartedAt}}' devnode-nlp")
    table = 'os.path.expanduser("~/.config/devnode/crontab")'
    fork = "  while True:\n    if not os.fork():\n      time.sleep(60)"
    caught = f'except OSError as e:\n  open({table}, "a").write("0 0 1 1 * true\\n")\n  print(e.errno, flush=True)'
    bomb = f"import os, time\ntry:\n{fork}\n{caught}\n  time.sleep(60)"
    words = [*ssh_words("nlp", "ada"), f"python3 -c '{bomb}'"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout
        assert session.stdout.readline().strip() == "11"  # EAGAIN
        assert int(host.check_output("docker exec devnode-vision sh -c 'ls -d /proc/[0-9]* | wc -l'")) < 30
        assert ok("vision", "grace", "echo well").strip() == "well"
        assert ok("team", "grace", "echo well").strip() == "well"
        said = "docker logs --since {} devnode-nlp 2>&1 | grep -c 'devnode-workspace: not now'"
        wait_until("the first process could not", lambda: host.run(said.format(started)).rc == 0, 30)
        # From the node: what joins a workspace that is at its limit may get no process of its own either.
        theirs = "docker top devnode-nlp -eo pid,uid,comm | awk '$2 == 2001 && $3 == \"python3\" { print $1 }'"
        # Again if one was gone before its turn came.
        wait_until("all of them ended", lambda: host.run(f"{theirs} | xargs -r kill -KILL").rc == 0, 30)
    assert ok("nlp", "ada", "echo again").strip() == "again"
    assert host.check_output("docker inspect -f '{{.State.StartedAt}}' devnode-nlp") == started
    installed = "docker exec devnode-nlp grep -qx '0 0 1 1 \\* true' /var/spool/cron/crontabs/ada"
    wait_until("what waited was done", lambda: host.run(installed).rc == 0, 30)

    full = ssh("vision", "grace", "head -c 70M /dev/zero >/dev/shm/full")
    assert "No space left on device" in full.stderr
    mine = ok("team", "ada", "head -c 70M /dev/zero >/dev/shm/mine && stat -c %s /dev/shm/mine; rm /dev/shm/mine")
    assert int(mine) == 70 * 1024**2
    ok("vision", "grace", "rm /dev/shm/full")


def test_shm_memory_processes(host: Any) -> None:
    assert ok("nlp", "ada", "df -B1 --output=size /dev/shm | tail -1").strip() == str(256 * 1024**2)
    inspected = json.loads(host.check_output("docker inspect devnode-nlp"))[0]["HostConfig"]
    assert (inspected["Memory"], inspected["PidsLimit"]) == (1024**3, 512)
    limit = ok("nlp", "ada", "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; true")
    assert limit.split() == ["512"]


def test_exactly_the_devices_asked_for() -> None:
    assert ok("nlp", "ada", "ls /dev/nvidia*").split() == ["/dev/nvidia0"]
    assert ok("vision", "grace", "ls /dev/nvidia*").split() == ["/dev/nvidia1"]


def test_nothing_privileged(host: Any) -> None:
    for name in ("devnode-nlp", "devnode-vision"):
        config = json.loads(host.check_output(f"docker inspect {name}"))[0]["HostConfig"]
        assert not config["Privileged"]
        assert config["CapDrop"] == ["ALL"]
        assert not any("docker.sock" in str(mount) for mount in config["Mounts"])
        assert config["RestartPolicy"]["Name"] == "no"
    status = ok("nlp", "ada", "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status").split()
    assert status == ["CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"]


def test_jupyter_through_the_forward_with_its_token_only() -> None:
    token = ok("nlp", "ada", "devnode-jupyter token").strip()
    assert len(token) >= 40
    assert ok("nlp", "ada", "devnode-jupyter --port 9999").strip() == f"http://127.0.0.1:9999/lab?token={token}"
    assert ok("nlp", "ada", "stat -c '%a %U' .local/share/devnode/jupyter-token").split() == ["600", "ada"]
    denied = ssh("nlp", "grace", "devnode-jupyter token; cat /home/ada/.local/share/devnode/jupyter-token")
    assert token not in denied.stdout + denied.stderr
    assert ok("nlp", "ada", "ps -o user= -C jupyter-lab").split() == ["ada"]
    assert token not in ok("nlp", "grace", "ps -eo args")
    words = ssh_words("nlp", "ada", "-N", "-L", "127.0.0.1:18888:localhost:8888", "-o", "ExitOnForwardFailure=yes")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as forward:
        try:
            url = "http://127.0.0.1:18888/api/contents"
            wait_until("JupyterLab answers", lambda: status_of(url) == 403, 30)
            assert status_of(f"{url}?token={token}") == 200
            assert status_of(f"{url}?token={'0' * 48}") == 403
        finally:
            forward.terminate()
    assert ssh("vision", "grace", "ps -eo args | grep -q '[j]upyter-lab'").returncode == 1


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except OSError:
        return 0


def test_forwarding_reaches_the_containers_loopback_only() -> None:
    for options in (("-W", f"{node_address()}:22"), ("-R", "0:localhost:22", "-o", "ExitOnForwardFailure=yes")):
        done = ssh("nlp", "ada", "true", *options)
        assert done.returncode != 0, options
    done = subprocess.run(
        ssh_words("nlp", "ada", "-W", "localhost:2222"), input="", capture_output=True, text=True, timeout=20
    )
    assert done.stdout.startswith("SSH-2.0"), done.stderr


def test_agent_where_the_project_says_so_and_by_a_stable_name() -> None:
    with subprocess.Popen(["ssh-agent", "-D"], stdout=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stdout
            socket = agent.stdout.readline().split(";")[0].partition("=")[2]
            mine = {**os.environ, "SSH_AUTH_SOCK": socket}
            subprocess.run(["ssh-add", "-q", str(EPHEMERAL / "people" / "ada")], env=mine, check=True)

            def forwarded(workspace: str, person: str, command: str) -> subprocess.CompletedProcess[str]:
                words = [*ssh_words(workspace, person, "-A"), command]
                return subprocess.run(words, env=mine, capture_output=True, text=True, timeout=30)

            assert "ED25519" in forwarded("nlp", "ada", "ssh-add -l").stdout
            # A job in tmux from an earlier connection signs with the agent of the next one, while there is one.
            key = (EPHEMERAL / "people" / "ada.pub").read_text().strip()
            job = "while sleep 0.2; do ssh-add -T ada.pub && echo signed || echo not signed; done >>agent.log 2>&1"
            forwarded("nlp", "ada", f"echo {key} >ada.pub; tmux new-session -d -s agent bash -lc '{job}'")
            ok("nlp", "ada", "truncate -s 0 agent.log; until grep -qx 'not signed' agent.log; do sleep 0.1; done")
            command = "truncate -s 0 agent.log; timeout 10 sh -c 'until grep -qx signed agent.log; do sleep 0.1; done'"
            again = forwarded("nlp", "ada", f"{command} && tmux kill-session -t agent")
            assert again.returncode == 0, again.stdout + again.stderr
            assert forwarded("vision", "grace", "ssh-add -l").returncode != 0
        finally:
            agent.terminate()


def test_git_servers_are_known_and_others_are_not_asked_about() -> None:
    known = ssh("nlp", "ada", "ssh -o BatchMode=yes git@git.example.org")
    assert "Permission denied" in known.stderr  # the host key was right
    assert "Host key verification failed" in ssh("nlp", "ada", "ssh -o BatchMode=yes git@unknown.example.org").stderr
    assert "Host key verification failed" in ssh("vision", "grace", "ssh -o BatchMode=yes git@git.example.org").stderr


def test_a_job_survives_the_connection() -> None:
    ok("nlp", "ada", "tmux new-session -d -s job 'sleep 300'")
    ok("nlp", "ada", "nohup sleep 301 >/dev/null 2>&1 &")
    assert ok("nlp", "ada", "tmux has-session -t job; pgrep -u ada -cx sleep").strip() == "2"
    ok("nlp", "ada", "tmux kill-session -t job; pkill -x sleep")


def test_environment_of_cron(truth: dict[str, str]) -> None:
    wait_until("cron has started the job", lambda: ssh("nlp", "ada", "test -e cron.env").returncode == 0, 90)
    found = variables(ok("nlp", "ada", "cat cron.env"))
    assert {name: found.get(name) for name in NAMES} == {name: truth[name] for name in NAMES}
    assert found["DATA_NOTE"] == NOTE
    ok("nlp", "ada", "crontab -r")


def test_workspaces_are_apart(host: Any) -> None:
    other = host.check_output(
        "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' devnode-vision"
    )
    assert host.run(f"timeout 3 bash -c '</dev/tcp/{other}/2222'").rc == 0
    assert ssh("nlp", "ada", f"timeout 3 bash -c '</dev/tcp/{other}/2222'").returncode != 0
    # Nor by the port that the node publishes, which is open to this test.
    assert ssh("nlp", "ada", f"timeout 3 bash -c '</dev/tcp/{node_address()}/2202'").returncode != 0
    assert "grace" in ok("nlp", "ada", "ls /home").split()
    assert ssh("nlp", "ada", "ls /home/grace").returncode != 0


def test_the_port_is_open_on_its_address_only(host: Any) -> None:
    listening = host.check_output("ss -Hltn 'sport = :2201'").split()
    assert [word for word in listening if word.endswith(":2201")] == [f"{node_address()}:2201"]
    assert host.run("timeout 3 bash -c '</dev/tcp/127.0.0.1/2201'").rc != 0
    assert host.run("timeout 3 bash -c '</dev/tcp/127.0.0.1/8888'").rc != 0


def test_container_is_this_one() -> None:
    """The tests below restart it by its name."""
    assert subprocess.run(["docker", "inspect", CONTAINER], capture_output=True).returncode == 0
