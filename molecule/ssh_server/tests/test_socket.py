# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back under ssh.socket, which Ubuntu has from 22.10 on, and from an sshd that crashes, under either unit.

Under a socket it is systemd that listens, so a port that answers says nothing about sshd. In the gate on Debian 13,
whose socket is like Ubuntu's; Debian 12's, which starts an sshd for each connection, in the full run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from scenario_hosts import kill_while_waiting, outside, play, restart, root, ssh, wait_until

FULL = os.environ.get("DEVNODE_TESTS") == "full"
HOSTS = ("debian13", "debian12") if FULL else ("debian13",)
DROP_IN = "/etc/ssh/sshd_config.d/00-devnode.conf"
SOCKET = "/etc/systemd/system/ssh.socket.d/zz-devnode.conf"
PORTS = "ss -Hltn | awk '{print $4}' | grep -E ':(22|2222)$' | sort"
WINDOW = 8
LEEWAY = 20  # seconds for a busy machine; the window of the other tests is 600
# An sshd that ends by a signal under one policy, not at once. Its name is the script's, so that it comes by here when
# it is told to read its configuration again.
CRASHING = f"""#!/bin/bash
if grep -q '^MaxSessions 63$' {DROP_IN}; then sleep 0.3; kill -KILL $$; fi
exec -a "$0" /usr/sbin/sshd "$@"
"""
PROGRAM = "/usr/local/sbin/sshd-crashing"
UNIT = "/run/systemd/system/ssh.service.d/crashing.conf"
START = f"[Service]\nExecStart=\nExecStart={PROGRAM} -D $SSHD_OPTS\n"


def inside(host: str, script: str) -> str:
    """What a script prints in a host, also while nobody can log in."""
    done = outside(host, "sh", "-euc", script)
    assert done.returncode == 0, f"on {host}: {script}\n{done.stdout}{done.stderr}"
    return done.stdout


def answers(host: str) -> bool:
    return ssh(host, "true").returncode == 0


def policy(host: str) -> str:
    return inside(host, f"cat {DROP_IN}; ls -d {SOCKET} 2>/dev/null || :; mkdir -p /run/sshd; sshd -T | sort; {PORTS}")


def instead(*lines: str, port: int = 22) -> str:
    """Extra variables with these lines instead of the policy, and another port of the socket."""
    listen = f"[Socket]\nListenStream=\nListenStream=0.0.0.0:{port}\nListenStream=[::]:{port}\nBindIPv6Only=ipv6-only\n"
    activate = (["daemon-reload"], ["stop", "ssh.socket", "ssh.service"], ["start", "ssh.socket"])
    text = {
        "missing": [],
        "sections": [{"why": "A mistake.", "lines": lines}],
        "files": [{"path": SOCKET, "content": listen}],
        "activate": [{"argv": ["systemctl", *words]} for words in activate],
        "check_arguments": [],
        "next_port": 0,
    }
    return json.dumps({"__ssh_server_policy": text})


def started(host: str, unit: str) -> int:
    return int(inside(host, f"systemctl show -P ActiveEnterTimestampMonotonic {unit}"))


def start_and_kill(host: str, variables: str, window: int) -> None:
    window_is = f"ssh_server_guard_window={window}"
    kill_while_waiting("ssh_server", [host], "--limit", host, "-e", variables, "-e", window_is)


def next_run_says(host: str, reason: str) -> None:
    done = play("--limit", host)
    assert done.returncode == 0, done.stdout + done.stderr
    text = " ".join((done.stdout + done.stderr).split())
    assert "the host put the old files of 'ssh_server' back at" in text, text
    assert reason in text, text


@pytest.fixture
def crashing() -> Iterator[None]:
    """An sshd that works until the policy says one thing."""
    for host in HOSTS:
        inside(host, f"cat >{PROGRAM} <<'END'\n{CRASHING}END\nchmod 755 {PROGRAM}; mkdir -p $(dirname {UNIT})")
        inside(host, f"printf '%s' '{START}' >{UNIT}; systemctl daemon-reload; systemctl try-restart ssh.service")
    yield
    for host in HOSTS:
        inside(host, f"rm -r {PROGRAM} $(dirname {UNIT}); systemctl daemon-reload; systemctl try-restart ssh.service")
        wait_until(lambda host=host: answers(host), f"{host} lets us in")  # type: ignore[misc]


@pytest.fixture(scope="module")
def under_the_socket() -> Iterator[None]:
    """It is systemd that listens. What is connected stays so."""
    for host in HOSTS:
        # The lab's, for the first boot; it would be before and behind the socket.
        inside(host, "systemctl disable -q lab-first-boot.service")
        inside(host, "systemctl disable -q --now ssh.service; systemctl enable -q --now ssh.socket")
    yield
    for host in HOSTS:
        inside(host, "systemctl disable -q --now ssh.socket; systemctl stop ssh.service")
        inside(host, "systemctl enable -q --now ssh.service")
        wait_until(lambda host=host: answers(host), f"{host} lets us in")  # type: ignore[misc]


def a_crash_is_taken_back(host: str) -> None:
    before = policy(host)
    done = play("--limit", host, "-e", "ssh_server_max_sessions=63")
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, text
    assert "the host put the old files back by itself" in text, text
    wait_until(lambda: answers(host), f"{host} lets us in again")
    # It stays so: systemd has not given up on it.
    assert all(answers(host) for _number in range(3))
    assert policy(host) == before


@pytest.mark.usefixtures("crashing")
@pytest.mark.parametrize("host", HOSTS)
def test_an_sshd_that_crashes_when_it_reads_the_new_policy(host: str) -> None:
    a_crash_is_taken_back(host)


@pytest.mark.usefixtures("under_the_socket", "crashing")
def test_an_sshd_that_crashes_under_the_socket() -> None:
    """Each connection that looks whether it works starts it once more."""
    a_crash_is_taken_back("debian13")


KNOCKER = """import socket, time
while True:
    try:
        socket.create_connection(("127.0.0.1", 22), 1).close()
    except OSError:
        pass
    time.sleep(0.002)
"""


@pytest.mark.usefixtures("under_the_socket")
@pytest.mark.parametrize("host", HOSTS)
def test_somebody_connects_all_the_time_while_the_socket_is_made_anew(host: str) -> None:
    """Each connection starts the service, and systemd starts no socket whose service runs. There and back, twice.

    Who knocks takes a busy machine its seconds: here it is the listener that counts, not how soon a run confirms.
    """
    window = ("-e", "ssh_server_guard_window=120")
    assert play("--limit", host).returncode == 0
    before = policy(host)
    inside(host, f"cat >/root/knocker <<'END'\n{KNOCKER}END\nsystemd-run -q --unit=knocking python3 /root/knocker")
    try:
        for number in range(2):
            for more in (
                ("-e", f"ssh_server_max_sessions={50 + number} ssh_server_port=2222"),
                ("-e", "ansible_port=2222"),
            ):
                done = play("--limit", host, *window, *more)
                assert done.returncode == 0, done.stdout + done.stderr
                assert inside(host, "systemctl is-active ssh.socket").strip() == "active"
    finally:
        inside(host, "systemctl stop knocking; rm /root/knocker")
        if "2222" in inside(host, PORTS):  # the tests after a failed one come by port 22
            play("--limit", host, *window, "-e", "ansible_port=2222")
    assert policy(host) == before


@pytest.mark.skipif(not FULL, reason="the full run: the lock-out that a killed run leaves is shown in the gate")
@pytest.mark.usefixtures("under_the_socket")
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("mistake", [instead("AllowUsers somebody"), instead(port=2222)], ids=["users", "port"])
def test_a_policy_that_lets_nobody_in(host: str, mistake: str) -> None:
    before = policy(host)
    done = play("--limit", host, "-e", mistake)
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, text
    assert f"no new connection confirmed it within {WINDOW} s" in text, text
    assert answers(host)
    assert policy(host) == before


@pytest.mark.skipif(not FULL, reason="the full run: as in the next test, which waits for a restart instead")
@pytest.mark.usefixtures("under_the_socket")
@pytest.mark.parametrize("host", HOSTS)
def test_a_list_of_users_without_the_operator_and_ansible_killed(host: str) -> None:
    before = policy(host)
    variables = instead("AllowUsers somebody")
    kill_while_waiting(
        "ssh_server", [host], "--limit", host, "-e", variables, "-e", f"ssh_server_guard_window={WINDOW}"
    )
    assert not answers(host)
    wait_until(lambda: answers(host), f"{host} lets us in again", WINDOW + LEEWAY)
    assert policy(host) == before
    next_run_says(host, f"no new connection confirmed it within {WINDOW} s")


@pytest.mark.usefixtures("under_the_socket")
@pytest.mark.parametrize("host", HOSTS)
def test_a_wrong_port_ansible_killed_and_a_restart_before_anybody_notices(host: str) -> None:
    """The unit that says the wrong port is read by systemd before anything runs; it must not count any more."""
    before = policy(host)
    start_and_kill(host, instead("AllowUsers somebody", port=2222), 600)
    assert "0.0.0.0:2222" in inside(host, PORTS)
    assert not answers(host)
    restart(host, "ssh.socket")
    wait_until(lambda: answers(host), f"{host} lets us in again")
    assert policy(host) == before
    assert started(host, "devnode-guard-boot") < started(host, "ssh.socket")
    next_run_says(host, "the host restarted before the change was confirmed")
    text = root(host, f"cat {SOCKET}; {PORTS}")
    assert "ListenStream=0.0.0.0:22\n" in text
    assert ":2222" not in text
