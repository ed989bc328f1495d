# SPDX-License-Identifier: GPL-3.0-or-later
"""What the policy's lines do, and not only that they are there: keys that are too short, algorithms, times, sizes."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
from scenario_hosts import FOLDER, address, play, root, ssh

HOSTS = ("debian12", "debian13")
HOME_KEYS = "/home/automation/.ssh/authorized_keys"
BIG = "/etc/ssh/sshd_config.d/60-big.conf"
# What another file may have about a person; so many that sshd from 9.8 on would let nobody in.
PERSON = "Match User person%04d\\n    PermitOpen 10.203.0.1:22 10.203.0.2:22 10.203.0.3:22 10.203.0.4:22\\n"


@pytest.fixture
def name(host):
    return host.backend.get_hostname()


@pytest.fixture(scope="module")
def rsa():
    """RSA keys of two sizes that the automation's account has been given."""
    for bits in (2048, 3072):
        path = FOLDER / f"rsa{bits}"
        if not path.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", str(bits), "-N", "", "-f", path], check=True)
    lines = "".join((FOLDER / f"rsa{bits}.pub").read_text() for bits in (2048, 3072))
    for host in HOSTS:
        root(host, f"cp -p {HOME_KEYS} /root/home_keys; cat >>{HOME_KEYS} <<'END'\n{lines}END")
    yield
    for host in HOSTS:
        root(host, f"cat /root/home_keys >{HOME_KEYS}; rm /root/home_keys")


def with_key_alone(name, key):
    """A login of the automation's without the key that its configuration has."""
    options = [
        "BatchMode=yes",
        "ConnectTimeout=10",
        "IdentitiesOnly=yes",
        f"UserKnownHostsFile={FOLDER / 'known_hosts'}",
    ]
    words = [word for option in (*options, f"HostKeyAlias={name}") for word in ("-o", option)]
    argv = ["ssh", "-F", "none", *words, "-i", FOLDER / key, f"automation@{address(name)}", "true"]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.usefixtures("rsa")
def test_an_rsa_key_that_is_too_short_does_not_count(host, name):
    assert with_key_alone(name, "rsa3072").returncode == 0
    tried = with_key_alone(name, "rsa2048")
    assert tried.returncode == 255
    assert "Permission denied (publickey)" in tried.stderr
    # It is its length, and nothing else.
    said = host.check_output("journalctl -u ssh --no-pager -o cat --since -60s")
    assert "refusing RSA key: Invalid key length" in said


@pytest.mark.parametrize("cipher", ["aes256-gcm@openssh.com", "aes128-gcm@openssh.com"])
def test_aes_gcm_is_there_for_who_asks(name, cipher):
    done = ssh(name, "true", options=(f"Ciphers={cipher}", "LogLevel=DEBUG1"))
    assert done.returncode == 0, done.stderr
    for way in ("server->client", "client->server"):
        assert f"kex: {way} cipher: {cipher} MAC: <implicit>" in done.stderr


def test_a_client_of_today_gets_a_post_quantum_key_exchange_first():
    """OpenSSH 10.0's, as it comes: ML-KEM where the server has it, else sntrup761."""
    known = (FOLDER / "known_hosts").read_text()
    root("debian13", f"cat >/root/known <<'END'\n{known}END")
    for host, first in (("debian13", "mlkem768x25519-sha256"), ("debian12", "sntrup761x25519-sha512")):
        options = f"-F none -v -o BatchMode=yes -o UserKnownHostsFile=/root/known -o HostKeyAlias={host}"
        # Nobody there has a key; what was agreed on comes before that.
        said = root("debian13", f"ssh {options} automation@{address(host)} true 2>&1 || :")
        assert f"kex: algorithm: {first}" in said, said
        assert "Permission denied (publickey)" in said
    root("debian13", "rm /root/known")


def test_times_are_in_effect(host, name):
    effective = dict(line.split(" ", 1) for line in host.check_output("sshd -T").lower().splitlines() if " " in line)
    assert effective["unusedconnectiontimeout"] == "7200"
    assert effective["requiredrsasize"] == "3072"
    assert effective["channeltimeout"].startswith("direct-tcpip=")
    # A forwarded connection that nothing passes through is ended (converge.yml says when); a session stays.
    argv = ["ssh", "-F", FOLDER / "ssh_config", "-S", "none", name]
    session = subprocess.Popen([*argv, "sleep 60"], stdin=subprocess.PIPE)
    began = time.monotonic()
    with subprocess.Popen([*argv, "-W", "127.0.0.1:22"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as forwarded:
        assert forwarded.stdout.read(4) == b"SSH-"
        assert forwarded.wait(timeout=30) is not None
    seconds = time.monotonic() - began
    assert session.poll() is None
    session.kill()
    session.wait()
    # sshd counts in whole seconds: four of them are over after three and a bit.
    assert seconds >= 3, seconds


def test_an_rsa_host_key_where_asked_and_none_that_is_short(name):
    asked = ("--limit", name, "-e", '{"ssh_server_host_key_types": ["ed25519", "rsa"]}')
    keyscan = ["ssh-keyscan", "-T", "10", "-t", "rsa", address(name)]
    path = "/etc/ssh/ssh_host_rsa_key"
    done = play(*asked)
    assert done.returncode == 0, done.stdout + done.stderr
    scanned = subprocess.run(keyscan, capture_output=True, text=True, check=False).stdout.split()
    assert scanned[2] == root(name, f"cut -d' ' -f2 {path}.pub").strip()
    try:
        root(name, f"mkdir /root/rsa; mv {path} {path}.pub /root/rsa; ssh-keygen -q -t rsa -b 2048 -N '' -f {path}")
        short = play(*asked)
        root(name, f"echo broken >{path}")
        broken = play(*asked)
    finally:
        root(name, f"mv -f /root/rsa/* /etc/ssh; rmdir /root/rsa; chmod 600 {path}")
    for tried, why in ((short, "has 2048 bits; 3072 are the least"), (broken, "cannot be read")):
        text = " ".join((tried.stdout + tried.stderr).split())
        assert tried.returncode == 2, text
        assert f'the "rsa" host key of this host {why}' in text, text
    done = play("--limit", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ssh-rsa" not in subprocess.run(keyscan, capture_output=True, text=True, check=False).stdout


@pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: it waits for more than a minute")
def test_a_connection_that_carries_nothing_ends_and_one_with_a_session_stays():
    """On Debian 13, whose sshd knows UnusedConnectionTimeout."""
    name = "debian13"
    less = '{"ssh_server_unused_connection_timeout": 60, "ssh_server_client_persist": 30}'
    assert play("--limit", name, "-e", less).returncode == 0
    argv = ["ssh", "-F", FOLDER / "ssh_config", "-S", "none", name]
    with (
        subprocess.Popen([*argv, "-N"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as unused,
        subprocess.Popen([*argv, "sleep 300"], stdin=subprocess.DEVNULL) as used,
    ):
        try:
            time.sleep(45)
            assert unused.poll() is None
            assert unused.wait(timeout=60) != 0
            assert used.poll() is None
        finally:
            unused.kill()
            used.kill()
    assert play("--limit", name).returncode == 0


def test_more_than_sshd_takes_is_refused_before_anything_is_changed():
    look = "cd /etc && find ssh devnode sudoers.d passwd -type f | sort | xargs md5sum"
    for host in HOSTS:
        root(host, f"for number in $(seq 2200); do printf '{PERSON}' $number; done >{BIG}; sshd -t")
    before = {host: root(host, look) for host in HOSTS}
    done = play("-e", "ssh_server_max_sessions=65")
    after = {host: root(host, f"{look}; rm {BIG}") for host in HOSTS}
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, text
    assert text.count(f"KiB, most of it in {BIG}") >= 2, text
    assert "200 are allowed here" in text
    assert after == before
