# SPDX-License-Identifier: GPL-3.0-or-later
"""Role bastion: people get through to their targets; bans; holes that others make; who leaves.

What each kind of user gets and does not get is tried in test_attack_table.py.
"""

from __future__ import annotations

import shlex
import subprocess
import time

import pytest
from scenario_hosts import FOLDER, address, connect, play, root, wait_until
from scenario_hosts import ssh as controller_ssh

STRANGER = "10.203.255.78"
# Guesses so that something is read, and is at no door for anything else: a ban comes a moment after it is counted.
ANOTHER = "10.203.255.77"


@pytest.fixture(scope="module")
def target():
    root("target", "systemctl is-active -q listen || systemd-run -q --unit=listen python3 -m http.server 9999")
    return address("target")


def attempt(command, seconds=15):
    """A command on the client: its exit code, and all that it printed."""
    out = root("client", f"set +e; cd /root/kit; timeout {seconds} {command} </dev/null 2>&1; echo rc=$?")
    text, _mark, code = out.rpartition("rc=")
    return int(code), text


def ssh(*words):
    return attempt(shlex.join(["ssh", "-F", "/root/kit/config", *words]))


@pytest.mark.parametrize(("name", "way"), [("bastion", "target-ada"), ("bastion13", "target-ada-by-13")])
def test_people_get_through_to_their_targets(name, way, target):
    code, text = ssh(way, "hostname")
    assert (code, text.splitlines()[-1]) == (0, "target")  # below the banner
    assert "SSH-2.0" in ssh("-W", f"{target}:22", f"{name}-ada")[1]


@pytest.mark.parametrize("name", ["bastion", "bastion13"])
def test_without_targets_there_is_nothing(name, target):
    code, text = ssh("-W", f"{target}:22", f"{name}-grace")
    assert code != 0
    assert "administratively prohibited" in text, text


@pytest.mark.parametrize("name", ["bastion", "bastion13"])
def test_a_login_starts_nothing_but_sshd(name):
    """No systemd of their own for people who only pass through: it is most of what a login would cost."""
    root("client", f"ssh -F /root/kit/config -f -N -M -S /root/kit/through {name}-ada")
    running = root(name, "ps -o comm= -u 2001").split()
    # systemctl ends with 3 for what does not run: the word counts.
    state = root(name, "systemctl is-active user@2001.service || true").strip()
    root("client", f"ssh -F /root/kit/config -S /root/kit/through -O exit {name}-ada 2>/dev/null")
    assert (set(running), state) in (({"sshd"}, "inactive"), ({"sshd-session"}, "inactive"))


@pytest.mark.parametrize("name", ["bastion", "bastion13"])
def test_what_is_left_is_switched_off_as_well(name):
    text = root(name, "/usr/sbin/sshd -T -C user=ada,host=x,addr=192.0.2.1,laddr=192.0.2.2,lport=22").lower()
    for line in (
        "permittunnel no",
        "allowagentforwarding no",
        "allowstreamlocalforwarding no",
        "x11forwarding no",
        "permituserrc no",
        "maxsessions 0",
        "gatewayports no",
        "permitlisten none",
    ):
        assert f"\n{line}\n" in text, line


@pytest.mark.parametrize("name", ["bastion", "bastion13"])
def test_there_is_no_password_and_keys_lie_where_only_root_writes(name):
    assert root(name, "getent shadow ada").split(":")[1] == "*"
    assert root(name, "stat -c '%U %a' /etc/devnode/bastion/keys /etc/devnode/bastion/keys/ada").split() == [
        *("root", "755"),
        *("root", "644"),
    ]
    assert "/nonexistent" in root(name, "getent passwd ada")


def test_the_log_says_who_with_which_key():
    fingerprint = subprocess.run(
        ["ssh-keygen", "-l", "-f", FOLDER / "ada.pub"], check=True, capture_output=True, text=True
    ).stdout.split()[1]
    ssh("target-ada", "true")
    log = root("bastion", "journalctl -u ssh --no-pager | grep 'Accepted publickey for ada'")
    assert fingerprint in log
    assert address("client") in log


def guess_names(name):
    """A stranger tries names. OpenSSH 10 stops answering after some; the journal has the others."""
    for number in range(7):
        ssh("-b", STRANGER, "-l", f"guess{number}", "-i", "/root/kit/wrong1", f"{name}-ada", "true")


def guess_passwords(name):
    """A stranger tries passwords of an account that exists, on a host where somebody lets them."""
    hole = "/etc/ssh/sshd_config.d/00-aaa.conf"
    lines = f"Match Address {STRANGER}\\n  PasswordAuthentication yes\\n  AuthenticationMethods any\\n"
    # Not a reload, which returns while sshd is still closing its port to open it again.
    root(name, f"printf '{lines}' > {hole}; systemctl restart ssh")
    options = (
        "-o PubkeyAuthentication=no -o BatchMode=no -o NumberOfPasswordPrompts=3 -o PreferredAuthentications=password"
    )
    asks = "export SSH_ASKPASS=/root/kit/answer SSH_ASKPASS_REQUIRE=force"
    root("client", "printf '#!/bin/sh\\necho wrong\\n' > /root/kit/answer; chmod 755 /root/kit/answer")
    command = f"ssh -F /root/kit/config {options} -b {STRANGER} -l automation {name}-ada true"
    # At the same time: sshd takes its time with each answer, and OpenSSH 10 does not answer who has failed a while ago.
    root("client", f"set +e; {asks}; for n in 1 2 3; do timeout 60 {command} </dev/null >/dev/null 2>&1 & done; wait")
    root(name, f"rm {hole}; systemctl restart ssh")


@pytest.mark.parametrize("name", ["bastion", "bastion13"])
def test_a_ban_for_names_ends_by_itself(name, target):
    """With a time that a test can wait for. What a colleague behind the same address has open goes on meanwhile."""
    a_way_for(STRANGER, name)
    nobody_is_banned(name)
    before = len(bans(name))
    colleague = "ssh -F /root/kit/config -S /root/kit/colleague"
    root("client", f"{colleague} -f -N -M -b {STRANGER} {name}-ada 2>/dev/null")
    root(name, "fail2ban-client set sshd bantime 20 >/dev/null")
    try:
        guess_names(name)
        wait_until(lambda: " Ban " in bans(name)[before:], "the ban")
        assert connect("client", address(name), 22) == "open"
        assert connect("client", address(name), 22, source=STRANGER) != "open"
        assert "SSH-2.0" in ssh("-S", "/root/kit/colleague", "-W", f"{target}:22", f"{name}-ada")[1]
        assert " Unban " not in bans(name)[before:].partition(" Ban ")[2]
        wait_until(lambda: " Unban " in bans(name)[before:].partition(" Ban ")[2], "its end")
    finally:
        root(name, "fail2ban-client set sshd bantime 900 >/dev/null; fail2ban-client unban --all >/dev/null")
        root("client", f"{colleague} -O exit {name}-ada 2>/dev/null || :")
    assert connect("client", address(name), 22, source=STRANGER) == "open"


@pytest.mark.parametrize("name", ["bastion", "bastion13"])
def test_a_ban_for_passwords_and_its_end(name):
    a_way_for(STRANGER, name)
    nobody_is_banned(name)
    guess_passwords(name)
    wait_until(lambda: STRANGER in root(name, "fail2ban-client status sshd"), "the ban")
    assert connect("client", address(name), 22, source=STRANGER) != "open"
    assert connect("client", address(name), 22) == "open"
    root(name, f"fail2ban-client set sshd unbanip {STRANGER}")
    assert connect("client", address(name), 22, source=STRANGER) == "open"


def a_way_for(stranger, name):
    root("client", f"ip address replace {stranger}/32 dev eth0")
    root(name, f"ip route replace {stranger}/32 via {address('client')}")


def nobody_is_banned(name):
    root(name, "fail2ban-client unban --all >/dev/null")


def bans(name):
    return root(name, f"grep -E ' (Ban|Unban) {STRANGER}$' /var/log/fail2ban.log || true")


@pytest.mark.parametrize("name", ["bastion", "bastion13"])
def test_a_controller_is_never_banned(name):
    """Ansible, enroll and whoever looks at the host keys from there. Nor does OpenSSH 10 stop answering them."""
    for number in range(8):
        controller_ssh(name, "true", user=f"guess{number}")
        subprocess.run(["ssh-keyscan", "-T", "5", address(name)], capture_output=True, check=False)
    found = "journalctl -t sshd -t sshd-session --since -5min | grep -c 'Invalid user guess7 from'"
    # grep ends with 1 when it counts none.
    wait_until(lambda: int(root(name, f"{found} || true")) > 0, "the journal has the failures")
    # fail2ban has read as far when it has seen somebody else's failure behind them.
    read_so_far(name)
    assert address_of_controller() not in root(name, "fail2ban-client status sshd")
    assert controller_ssh(name, "true").returncode == 0


def address_of_controller():
    return root("bastion", "ip route show default").split()[2]


def failures(name):
    text = root(name, "fail2ban-client status sshd")
    return int(next(line for line in text.splitlines() if "Total failed" in line).split()[-1])


def read_so_far(name):
    """fail2ban counts one more failure, of another stranger's. OpenSSH 10 may not answer them at once."""
    a_way_for(ANOTHER, name)
    before = failures(name)
    guessed = 0.0

    def counted():
        nonlocal guessed
        # Not with each look: on a busy machine the last of many would be counted only when others are to be.
        if time.monotonic() - guessed > 10:
            guessed = time.monotonic()
            ssh("-b", ANOTHER, "-l", "guess", "-i", "/root/kit/wrong1", f"{name}-ada", "true")
        return failures(name) > before

    wait_until(counted, "fail2ban has read the journal", 90)


@pytest.mark.parametrize("name", ["bastion", "bastion13"])
def test_many_keys_in_an_agent_are_no_attack(name):
    """Four wrong ones before the right one, again and again: in each time. Eight: never in, and not banned for it."""
    client, there, target = address("client"), address(name), address("target")
    wrong = [word for number in (1, 2, 3, 4) for word in ("-i", f"/root/kit/wrong{number}")]
    for _ in range(3):
        assert "SSH-2.0" in ssh(*wrong, "-W", f"{target}:22", f"{name}-ada")[1]  # below the banner
    fixed = f"-F /dev/null -o BatchMode=yes -o UserKnownHostsFile=/root/kit/known_hosts -o HostKeyAlias={name}"
    script = f"""
        cd $(mktemp -d)
        for number in 1 2 3 4 5 6 7 8; do ssh-keygen -q -t ed25519 -N '' -f $number; done
        eval $(ssh-agent) >/dev/null
        ssh-add -q 1 2 3 4 5 6 7 8 /root/kit/ada
        for number in 1 2 3 4 5 6; do
          ssh {fixed} -o ConnectTimeout=10 ada@{there} true </dev/null 2>&1 || true
        done
        kill $SSH_AGENT_PID
    """
    found = f"grep -c 'Found {client} ' /var/log/fail2ban.log || true"
    before = root(name, found)
    text = root("client", script)
    assert text.count("Too many authentication failures") == 6, text
    # fail2ban has read all of it when it has seen what comes behind it.
    read_so_far(name)
    assert client not in root(name, "fail2ban-client status sshd")
    assert root(name, found) == before
    assert connect("client", there, 22) == "open"
    assert "SSH-2.0" in ssh("-W", f"{target}:22", f"{name}-ada")[1]


SERVICES = "fail2ban devnode-flows devnode-audit"  # rsyslog comes back by itself: its socket starts it


def test_a_hole_in_another_file_is_named_though_nothing_of_ours_changes():
    """No variable is another one than at the last run: it is the host that is."""
    hole = "/etc/ssh/sshd_config.d/00-aaa.conf"
    # Not for the first of them only, not from everywhere, and a block that is for nobody of them.
    blocks = (
        "Match User grace\\n  PermitTTY yes\\n"
        "Match Group devnode-relay Address 172.16.0.0/12\\n  AuthorizedKeysCommand /bin/true\\n"
        "  AuthorizedKeysCommandUser nobody\\n"
        "Match User backup\\n  PermitListen any\\n"
    )
    root("bastion", f"printf '{blocks}' > {hole}")
    for mode in ((), ("--check",)):
        done = play(*mode, "--limit", "all,!bastion13")
        assert done.returncode == 2, done.stdout
        text = " ".join((done.stdout + done.stderr).split())
        assert f"permittty is 'yes' for grace, asked: 'no'. {hole}:2 (inside Match User grace) says yes" in text
        assert "authorizedkeyscommand is '/bin/true' for ada from 172.16.0.0, grace from 172.16.0.0, asked" in text
        assert "permitlisten" not in text
        root("bastion", f"systemctl stop {SERVICES}")  # between the two: check mode says that, too, and only says it
    assert "`systemctl restart devnode-audit.service` would put that right" in text
    states = root("bastion", f"rm {hole}; systemctl is-active {SERVICES} || true").split()
    assert states == ["inactive"] * 3


def test_what_somebody_stopped_runs_again():
    done = play("--limit", "all,!bastion13")
    assert done.returncode == 0, done.stdout + done.stderr
    text = " ".join((done.stdout + done.stderr).split())
    assert "`systemctl restart fail2ban.service` put that right" in text
    assert "changed=1 " in text, done.stdout  # one task, and nothing but that
    assert root("bastion", f"systemctl is-active {SERVICES}").split() == ["active"] * 3


def test_who_leaves_is_out_at_once(target):
    """Runs last in this file: account, key and the session that is open."""
    root("client", "ssh -F /root/kit/config -f -N -M -S /root/kit/ada-master bastion-ada")
    assert root("client", "ssh -F /root/kit/config -S /root/kit/ada-master -O check bastion-ada 2>&1").startswith(
        "Master"
    )
    done = play("-e", '{"people": [], "walls": []}', "--limit", "all,!bastion13")
    assert done.returncode == 0, done.stdout + done.stderr
    code, text = ssh("-S", "/root/kit/ada-master", "-O", "check", "bastion-ada")
    assert code != 0, text
    assert ssh("-W", f"{target}:22", "bastion-ada")[0] != 0
    left = root(
        "bastion",
        "getent passwd ada grace || true; ls /etc/devnode/bastion/keys 2>/dev/null || true; pgrep -u 2001 || true",
    )
    assert left == "", left
