# SPDX-License-Identifier: GPL-3.0-or-later
"""Role ssh_server: who gets in, how, and what keeps a change from being put in place."""

from __future__ import annotations

import re
import subprocess

import pytest
from scenario_hosts import FOLDER, address, play, ssh

CHECK = "/usr/local/sbin/devnode-sshd-check /etc/ssh/sshd_config.d/00-devnode.conf --user=ops --listening"

DROP_IN = "/etc/systemd/system/ssh.service.d"
COMMAND_LINE = "[Service]\\nExecStart=\\nExecStart=/usr/sbin/sshd -D -o PasswordAuthentication=yes $SSHD_OPTS\\n"


@pytest.fixture
def name(host):
    """The host's name, for connections of our own."""
    return host.backend.get_hostname()


def apply(name, *arguments):
    """The scenario's play on one host."""
    return play("--limit", name, *arguments)


def effective(host):
    text = host.check_output("/usr/sbin/sshd -T -C user=ops,host=x,addr=192.0.2.9,laddr=192.0.2.1,lport=22")
    return {line.split(" ", 1)[0].lower(): line.split(" ", 1)[-1] for line in text.splitlines()}


def test_what_cloud_init_left_does_not_count(host):
    # The file is still there and still says yes: ours sorts first.
    assert host.file("/etc/ssh/sshd_config.d/50-cloud-init.conf").contains("PasswordAuthentication yes")
    found = effective(host)
    assert found["passwordauthentication"] == "no"
    assert found["permitrootlogin"] == "no"
    assert found["authorizedkeysfile"] == "/etc/devnode/ssh/keys/%u"


def test_a_password_attempt_is_refused(host, name):
    host.check_output("echo automation:secret | chpasswd")
    tried = ssh(name, "true", key="", options=("PreferredAuthentications=password,keyboard-interactive",))
    host.check_output("usermod -p '*' automation")
    assert tried.returncode == 255
    assert "Permission denied (publickey)" in tried.stderr


def test_the_automation_still_gets_in(host, name):
    assert ssh(name, "sudo", "-n", "id", "-u").stdout == "0\n"


def test_an_operator_gets_in_and_has_sudo(host, name):
    done = ssh(name, "sudo -n id -u; id -un; groups", user="ops", key="ops")
    assert done.stdout.split() == ["0", "ops", "devnode-operators"], done.stderr


def test_only_the_keys_that_were_given_count_for_an_operator(host, name):
    public = (FOLDER / "other.pub").read_text().strip()
    host.check_output(f"install -d -o ops -m 700 /home/ops/.ssh && echo '{public}' > /home/ops/.ssh/authorized_keys")
    host.check_output("chown ops /home/ops/.ssh/authorized_keys")
    tried = ssh(name, "true", user="ops", key="other")
    assert tried.returncode == 255
    assert "Permission denied" in tried.stderr
    keys = host.file("/etc/devnode/ssh/keys/ops")
    assert (keys.user, keys.mode) == ("root", 0o644)


def test_root_does_not_get_in(host, name):
    public = (FOLDER / "other.pub").read_text().strip()
    host.check_output(f"install -d -m 700 /root/.ssh && echo '{public}' > /root/.ssh/authorized_keys")
    assert ssh(name, "true", user="root", key="other").returncode == 255
    host.check_output("rm -r /root/.ssh")


def test_post_quantum_and_nothing_old(host, name):
    seen = ssh(name, "true", options=("LogLevel=DEBUG1",)).stderr
    assert re.search(r"kex: algorithm: (mlkem768|sntrup761)x25519-", seen), seen
    for option in ("KexAlgorithms=curve25519-sha256", "MACs=hmac-sha2-256", "HostKeyAlgorithms=ecdsa-sha2-nistp256"):
        more = ("Ciphers=aes256-ctr",) if option.startswith("MACs") else ()
        tried = ssh(name, "true", options=(option, *more))
        assert tried.returncode == 255, option
        assert "no matching" in tried.stderr, tried.stderr


def test_the_policy_is_in_effect(host):
    assert host.run(CHECK).rc == 0


def test_penalties_spare_the_exempt_networks(host):
    exempt = effective(host).get("persourcepenaltyexemptlist")
    asked = f"192.0.2.0/24,{address('debian12')}"
    assert exempt == (asked if "10.0" in host.run("/usr/sbin/sshd -V").stderr else None)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ('{"ssh_server_allow_groups": ["wheel"]}', ["ssh_server_allow_groups", "automation"]),
        ('{"ssh_server_home_keys": false}', ["ssh_server_home_keys", "automation"]),
        (
            '{"ssh_server_automation_users": ["automation"], "ssh_server_automation_networks": ["192.0.2.0/24"]}',
            ["ssh_server_automation_networks", "automation", "It comes from 10."],
        ),
        ('{"ssh_server_listen_addresses": ["192.0.2.99"]}', ["ssh_server_listen_addresses", "192.0.2.99"]),
        ('{"ssh_server_max_startups": "10 20"}', ["ssh_server_max_startups", "512:30:1024"]),
    ],
)
def test_a_policy_that_locks_out_or_cannot_work_is_refused(host, name, variables, words):
    before = host.check_output("cd /etc && find ssh devnode sudoers.d passwd -type f | sort | xargs md5sum")
    done = apply(name, "-e", variables)
    assert done.returncode == 2, done.stdout
    assert all(word in done.stdout + done.stderr for word in words), done.stdout
    assert host.check_output("cd /etc && find ssh devnode sudoers.d passwd -type f | sort | xargs md5sum") == before


def test_a_hole_in_another_file_is_named_and_nothing_is_changed(host, name):
    host.check_output(
        "printf 'Match Address 10.0.0.0/8\\n  PasswordAuthentication yes\\n' > /etc/ssh/sshd_config.d/60-hole.conf"
    )
    # As EC2 Instance Connect brings one along: it counts from the next start of sshd on.
    host.check_output(f"mkdir -p {DROP_IN}; printf '{COMMAND_LINE}' > {DROP_IN}/60-hole.conf")
    done = apply(name, "-e", '{"ssh_server_max_sessions": 65}')
    host.check_output(f"rm /etc/ssh/sshd_config.d/60-hole.conf {DROP_IN}/60-hole.conf")
    assert done.returncode == 2, done.stdout
    text = " ".join((done.stdout + done.stderr).split())
    assert "/etc/ssh/sshd_config.d/60-hole.conf:2" in text
    assert f"passwordauthentication is 'yes' for nobody, root, asked: 'no'. {DROP_IN}/60-hole.conf:3 says yes" in text
    assert effective(host)["maxsessions"] == "64"


def test_the_sshd_that_still_runs_with_a_hole_is_named(host):
    """Its unit says nothing of it any more, and a reload does not take it away."""
    host.check_output(f"mkdir -p {DROP_IN}; printf '{COMMAND_LINE}' > {DROP_IN}/60-hole.conf")
    host.check_output("systemctl daemon-reload; systemctl restart ssh")
    host.check_output(f"rm {DROP_IN}/60-hole.conf; systemctl daemon-reload; systemctl reload ssh")
    found = host.run(CHECK)
    host.check_output("systemctl restart ssh")
    assert found.rc == 1
    number = re.search(
        r"passwordauthentication is 'yes' for nobody, root, asked: 'no'. /proc/[0-9]+/cmdline:1", found.stderr
    )
    assert number, found.stderr
    assert host.run(CHECK).rc == 0


def test_lists_of_users_elsewhere_that_shut_out_are_named(host, name):
    """sshd -T says that all is as asked; still nobody of ours would get in."""
    host.check_output("printf 'AllowUsers grace\\n' > /etc/ssh/sshd_config.d/60-people.conf")
    done = apply(name, "-e", '{"ssh_server_max_sessions": 65}')
    host.check_output("rm /etc/ssh/sshd_config.d/60-people.conf")
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, text
    assert "automation could not log in from" in text
    assert "ops could not log in any more, because of allowusers: /etc/ssh/sshd_config.d/60-people.conf:1" in text
    assert effective(host)["maxsessions"] == "64"


@pytest.mark.parametrize("unit", ["ssh.service", "ssh.socket"])
def test_another_port(host, name, unit):
    """The guard comes back on the new port; the next run starts there and goes back."""
    if unit == "ssh.socket":
        # A moment without a listener; the test's own connection stays.
        host.check_output("systemctl disable -q --now ssh.service; systemctl enable -q --now ssh.socket")
    where = address(name)
    # As in a fleet, where the next roles come in on the port of now: both for a while, and never from one to the other.
    both = apply(name, "-e", '{"ssh_server_ports_also": [2222], "ssh_server_keep_port": true}')
    assert both.returncode == 0, both.stdout + both.stderr
    listening = host.check_output("ss -Hltn").split()
    assert {"0.0.0.0:22", "0.0.0.0:2222"} <= set(listening)
    assert ssh(name, "true").returncode == 0
    refused = apply(name, "-e", '{"ssh_server_port": 2222, "ssh_server_keep_port": true}')
    assert refused.returncode == 2
    text = " ".join((refused.stdout + refused.stderr).split())
    assert "ssh_server_port: 2222. This run came in on 22, where this host would listen no more" in text, text
    assert host.check_output("ss -Hltn").split() == listening
    there = apply(name, "-e", f'{{"ssh_server_port": 2222, "ssh_server_listen_addresses": ["{where}"]}}')
    assert there.returncode == 0, there.stdout + there.stderr
    listening = host.check_output("ss -Hltn").split()
    back = apply(name, "-e", "ssh_server_port=22 ansible_port=2222")
    assert back.returncode == 0, back.stdout + back.stderr
    assert [word for word in listening if word.endswith(":2222")] == [f"{where}:2222"]
    assert not any(word.endswith(":22") for word in listening)
    # Never one socket for both families ("*"): IPv4 clients would be counted as IPv6 ones, whom nobody exempts.
    ours = [word for word in host.check_output("ss -Hltn").split() if word.endswith(":22")]
    assert ours[0] == "0.0.0.0:22"
    assert "*:22" not in ours
    assert ssh(name, "true").returncode == 0


def test_an_operator_who_leaves(host, name):
    """Runs last: account, key and the open session go."""
    argv = [
        "ssh",
        "-F",
        FOLDER / "ssh_config",
        "-S",
        "none",
        "-o",
        "IdentitiesOnly=yes",
        "-i",
        FOLDER / "ops",
        "-l",
        "ops",
    ]
    session = subprocess.Popen(
        [*argv, name, "echo in; sleep 300"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert session.stdout.readline() == "in\n"
    done = apply(name, "-e", '{"ssh_server_operators": []}')
    assert done.returncode == 0, done.stdout + done.stderr
    assert session.wait(timeout=10) != 0
    assert not host.user("ops").exists
    assert not host.file("/etc/devnode/ssh/keys/ops").exists
    assert host.file("/home/ops").exists
    assert ssh(name, "true", user="ops", key="ops").returncode == 255
