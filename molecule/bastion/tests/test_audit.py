# SPDX-License-Identifier: GPL-3.0-or-later
"""The bastion's audit trail: what it says, that it arrives elsewhere, and how long it is kept."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from datetime import datetime
from pathlib import PurePosixPath

import pytest
from scenario_hosts import FOLDER, address, root, wait_until

BASTIONS = ["bastion", "bastion13"]


def go(bastion, times=1, person="ada"):
    """Pass through to the target, so often."""
    one = f"ssh -F /root/kit/config -W {address('target')}:22 {bastion}-{person} </dev/null"
    return root("client", f"set +e; for number in $(seq {times}); do {one} 2>/dev/null | head -c 7; echo; done")


def trail(bastion, *words):
    """What devnode-audit answers."""
    # It ends with 1 when it finds nothing; callers look at what it found.
    out = root(bastion, f"devnode-audit --json {shlex.join(words)} || true")
    return [json.loads(line) for line in out.splitlines()]


def fingerprint(name):
    argv = ["ssh-keygen", "-l", "-f", FOLDER / f"{name}.pub"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[1]


def receiver(action, certificate="logs"):
    """The log server, started or stopped."""
    if action == "start":
        root(
            "target", f"systemd-run -q --collect --unit=receiver python3 /root/receiver.py /root/received {certificate}"
        )
    else:
        # Starting it twice, or stopping what is stopped, is fine; the tests look at what arrives.
        root("target", f"systemctl {action} receiver || true")


def received():
    # Before the first record there is no file.
    return root("target", "cat /root/received 2>/dev/null || true")


@pytest.mark.parametrize("bastion", BASTIONS)
def test_who_from_where_with_which_key_to_where_and_how_long(bastion):
    before = {row["connection"] for row in trail(bastion)}
    assert go(bastion).startswith("SSH-2.0")

    def fresh():
        return [row for row in trail(bastion, "--user", "ada") if row["connection"] not in before and "seconds" in row]

    wait_until(fresh, "the connection is in the trail")
    (row,) = fresh()
    assert (row["user"], row["uid"], row["source"]) == ("ada", 2001, address("client"))
    assert (row["key"], row["key_type"]) == (fingerprint("ada"), "ED25519")
    assert (row["to"], row["to_port"], row["address"]) == (address("target"), 22, address("target"))
    table = root(bastion, "devnode-audit --user ada --since 10min")
    assert all(word in table for word in ("WHO", "HOW LONG", fingerprint("ada"), f"{address('target')}:22"))


SECONDS = 5


def hold(bastion, seconds):
    """A connection to the target that stays for so long, and is then ended from here."""
    through = f"ssh -F /root/kit/config -W {address('target')}:22 {bastion}-ada"
    return root("client", f"{{ sleep {seconds}; }} | timeout {seconds} {through} 2>/dev/null | head -c 7 || true")


def at(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@pytest.mark.parametrize("bastion", BASTIONS)
def test_when_it_was_and_how_long(bastion):
    before = {row["connection"] for row in trail(bastion)}
    began = float(root(bastion, "date +%s.%N"))
    hold(bastion, SECONDS)
    ended = float(root(bastion, "date +%s.%N"))

    def fresh():
        return [row for row in trail(bastion, "--user", "ada") if row["connection"] not in before and "seconds" in row]

    wait_until(fresh, "the connection is in the trail")
    (row,) = fresh()
    # The login takes a part of the time.
    assert SECONDS - 2 <= row["seconds"] <= SECONDS + 1.5
    assert began <= at(row["since"]) <= ended - SECONDS + 2.5


@pytest.mark.parametrize("bastion", BASTIONS)
def test_what_was_refused_is_in_it(bastion):
    """Each way in which the attack test asks for more, and what the record says of it: who, with which key, what."""
    place = f"-F /root/kit/config -o ExitOnForwardFailure=yes {bastion}-"
    script = f"""set +e; mkdir -p /dev/net; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
        ssh -W 169.254.169.254:80 {place}ada
        ssh -N -R 9002:127.0.0.1:22 {place}ada
        ssh -N -R /run/back:127.0.0.1:22 {place}ada
        ssh -N -w 5:5 {place}ada
        ssh {place}grace id
        ssh -f -N -M -S /root/kit/refused -L /root/kit/refused-bus:/run/dbus/system_bus_socket {place}ada
        python3 -c 'from socket import *; one = socket(AF_UNIX); one.connect("/root/kit/refused-bus"); one.recv(1)'
        ssh -S /root/kit/refused -O exit {place}ada; rm -f /root/kit/refused-bus"""
    # These are refused, and that is what the log has to show.
    root("client", f"({script}) </dev/null >/dev/null 2>&1")
    # Past sshd, with the person's number: only the packet filter sees it.
    connect = f"import socket; socket.create_connection(({address('target')!r}, 9999), timeout=2)"
    root(bastion, f"setpriv --reuid=2001 --regid=2001 --clear-groups python3 -c {shlex.quote(connect)} 2>&1 || true")

    def events():
        seen = trail(bastion, "refused", "--since", "5min")
        return {(row["event"], row["user"], row.get("key"), row.get("to"), row.get("what")) for row in seen}

    ada, grace = ("denied", "ada", fingerprint("ada")), ("denied", "grace", fingerprint("grace"))
    wanted = {
        (*ada, "169.254.169.254", "connection"),
        (*ada, None, "remote forwarding"),
        (*ada, None, "remote forwarding to a socket"),
        (*ada, None, "tunnel"),
        (*ada, "/run/dbus/system_bus_socket", "socket"),
        (*grace, None, "shell, command or subsystem"),
    }
    wait_until(lambda: wanted <= events(), f"what sshd refused: {wanted}")
    wait_until(
        lambda: any(row["event"] == "blocked" and row["to_port"] == 9999 for row in trail(bastion, "refused")),
        "what the packet filter refused",
    )


@pytest.mark.parametrize("bastion", BASTIONS)
def test_it_goes_on_where_it_was_after_a_crash(bastion):
    before = {row["connection"] for row in trail(bastion)}
    root(bastion, "systemctl kill --signal=KILL devnode-audit")
    go(bastion, 2)
    wait_until(lambda: len({row["connection"] for row in trail(bastion)} - before) == 2, "both are in the trail")


def test_the_log_arrives_elsewhere_and_an_outage_loses_nothing():
    receiver("start")
    for bastion in BASTIONS:
        go(bastion)
    known = {bastion: {row["connection"] for row in trail(bastion) if "seconds" in row} for bastion in BASTIONS}
    wait_until(lambda: all(one in received() for ones in known.values() for one in ones), "everything so far")
    receiver("stop")
    for bastion in BASTIONS:
        go(bastion, 4)

    def during(bastion):
        return {row["connection"] for row in trail(bastion) if "seconds" in row} - known[bastion]

    wait_until(lambda: all(len(during(bastion)) >= 4 for bastion in BASTIONS), "the trail has all of them")
    # In the middle of the outage; the queue is on disk.
    root("bastion13", "systemctl restart rsyslog")
    receiver("start")
    for bastion in BASTIONS:
        wait_until(lambda b=bastion: all(one in received() for one in during(b)), f"{bastion}: none is lost", 90)
    lines = received().splitlines()
    audit = [line for line in lines if " bastion devnode-audit " in line]
    assert json.loads(audit[-1].split(" - - - ", 1)[1].strip())["host"] == "bastion"  # RFC 5424
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    assert {one["host"] for one in objects} == {"bastion13"}
    assert any(one["program"] == "devnode-audit" and one["event"]["event"] == "close" for one in objects)
    assert any(one["program"] == "sshd-session" and "Accepted publickey" in one["message"] for one in objects)


@pytest.mark.parametrize("bastion", BASTIONS)
def test_a_crash_of_the_sender_in_an_outage_loses_nothing(bastion):
    """Some hundred records that wait, and logins, when it is killed. Disk first: nothing was in memory alone."""
    receiver("stop")
    mark = f"crash-{bastion}"
    number = 400
    record = f'{{"event": "{mark}", "number": "n%s."}}\\n'
    root(bastion, f"printf '{record}' $(seq {number}) >> /var/log/devnode/audit.jsonl")
    since = float(root(bastion, "date +%s"))
    for _ in range(3):
        go(bastion)
    logins = root(bastion, f"journalctl -o cat --since @{since:.0f} | grep 'Accepted publickey for ada' | sort -u")
    ports = {line.split(" port ")[1].split()[0] for line in logins.splitlines()}
    assert len(ports) >= 3
    # All of them have been read; where from, the sender keeps for itself.
    wait_until(lambda: queued(bastion, f"{mark}", number), "they wait on disk")
    wait_until(lambda: all(queued(bastion, f" port {port} ", 1) for port in ports), "the logins as well")
    root(bastion, "systemctl kill --signal=KILL rsyslog")
    wait_until(lambda: root(bastion, "systemctl is-active rsyslog || true") == "active\n", "it is up again")
    root(bastion, "systemctl kill --signal=KILL rsyslog")
    receiver("start")

    def arrived():
        text = received()
        found = set(re.findall(f'"event": "{mark}", "number": "n([0-9]+)[.]"', text))
        return len(found) == number and all(f" port {port} " in text for port in ports)

    wait_until(arrived, "all of them", 120)


def queued(bastion, words, times):
    """Whether what waits on disk has some words so often."""
    return int(root(bastion, f"cat /var/spool/rsyslog/devnode-ship* | grep -a -c -F '{words}' || true")) >= times


@pytest.mark.parametrize("bastion", BASTIONS)
def test_many_lines_do_not_silence_anybody(bastion):
    """By default the journal drops what one unit says beyond 10,000 lines in 30 s. Here one login makes more."""
    program = "from syslog import *\nfor one in range(12000):\n    syslog(LOG_AUTH | LOG_DEBUG, 'many %d' % one)"
    root("client", f"ssh -F /root/kit/config {bastion}-ops python3 - <<'END'\n{program}\nEND\n")
    count = "journalctl -o json --output-fields=MESSAGE,_SYSTEMD_UNIT --since -5min --grep '^many [0-9]+$'"
    wait_until(lambda: int(root(bastion, f"{count} | wc -l")) == 12000, "all of them are there")
    assert root(bastion, f"{count} | grep -o 'session-[^\"]*scope' | sort | uniq -c").split()[0] == "12000"
    assert "Suppressed" not in root(bastion, "journalctl -u systemd-journald --since -5min")


def test_nothing_goes_to_a_server_with_another_name():
    """A certificate of the right CA is not enough."""
    root("target", "systemctl stop receiver")
    folder = FOLDER / "tls"
    for part in ("pem", "key"):
        text = (folder / f"other.{part}").read_text()
        root("target", f"umask 077; cat > /root/other.{part} <<'END'\n{text}END\n")
    size = len(received())
    receiver("start", "other")
    go("bastion")
    wait_until(
        lambda: (
            "name" in root("bastion", "journalctl -u rsyslog --since -60s | grep -i 'peer name\\|permitted' || true")
        ),
        "rsyslog says why",
    )
    assert len(received()) == size
    root("target", "systemctl stop receiver")
    receiver("start")
    wait_until(lambda: len(received()) > size, "the right one gets it")


@pytest.mark.parametrize("bastion", BASTIONS)
def test_it_is_kept_for_the_time_set(bastion):
    count = len(trail(bastion))
    old = "/var/log/devnode/audit.jsonl-20200101.gz"
    root(
        bastion,
        f"echo '{{}}' | gzip > {old}; touch -d '91 days ago' {old}; logrotate -f /etc/logrotate.d/devnode-audit",
    )
    assert root(bastion, f"ls {old} 2>/dev/null || true") == ""
    assert root(bastion, "stat -c '%U %G %a' /var/log/devnode/audit.jsonl").split() == ["root", "adm", "640"]
    go(bastion)
    wait_until(lambda: len(trail(bastion)) > count, "old and new are found")
    wait_until(lambda: trail(bastion)[-1].get("address"), "the packet filter's log is read on as well")


@pytest.mark.parametrize("bastion", BASTIONS)
def test_a_restart_of_sshd_keeps_relays(bastion):
    """What an unattended upgrade of openssh-server does."""
    master = f"ssh -F /root/kit/config -S /root/kit/kept-{bastion}"
    root("client", f"{master} -f -N -M -L 127.0.0.1:9100:{address('target')}:22 {bastion}-ada")
    first = "import socket; print(socket.create_connection(('127.0.0.1', 9100), timeout=10).recv(7))"
    assert "SSH-2.0" in root("client", f"python3 -c {shlex.quote(first)}")
    root(bastion, "systemctl restart ssh.service")
    assert "SSH-2.0" in root("client", f"python3 -c {shlex.quote(first)}")
    assert "Master running" in root("client", f"{master} -O check {bastion}-ada 2>&1")
    root("client", f"{master} -O exit {bastion}-ada 2>&1")
    assert root(bastion, "systemctl show -P KillMode ssh.service").strip() == "process"
    found = root(bastion, "apt-config dump")
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in found
    assert 'APT::Periodic::Unattended-Upgrade "1";' in found
    assert re.search('Unattended-Upgrade::Origins-Pattern:: ".*label=Debian-Security', found), found
    # What it would upgrade and from where: it reads its own settings, and nothing is installed.
    # It leaves an empty sources.list, and Lynis (test_yardsticks.py) looks no further than that.
    dry = root(bastion, "unattended-upgrade --dry-run --verbose 2>&1; find /etc/apt/sources.list -empty -delete")
    assert "label=Debian-Security" in dry, dry


@pytest.mark.parametrize("bastion", BASTIONS)
def test_the_kernels_audit_rules_can_be_merged(bastion):
    """That auditd runs with them is not tested here: the kernel's audit belongs to the machine."""
    root(bastion, "augenrules >/dev/null 2>&1 || true")
    assert "No change" in root(bastion, "augenrules --check")
    merged = root(bastion, "cat /etc/audit/audit.rules")
    for path in ("dir=/etc/ssh", "path=/etc/sudoers", "path=/etc/devnode/firewall.nft", "dir=/etc/devnode"):
        assert f"-F {path} -F perm=wa" in merged
    # The kernel refuses a rule for a directory that is not there, and auditctl the rest of the file with it.
    watched = set(re.findall(r"-F dir=(\S+)", merged))
    watched |= {str(PurePosixPath(path).parent) for path in re.findall(r"-F path=(\S+)", merged)}
    assert len(watched) >= 8
    assert root(bastion, f"for one in {' '.join(sorted(watched))}; do test -d $one || echo $one; done") == ""


@pytest.mark.parametrize("bastion", BASTIONS)
def test_network_settings_are_in_effect(bastion):
    """The kernel.* ones belong to the machine; what a container may not set is passed over."""
    asked = [line for line in root(bastion, "cat /etc/sysctl.d/60-devnode-bastion.conf").splitlines() if "=" in line]
    settings = dict(line.split(" = ") for line in asked if line.startswith("net."))
    assert len(settings) > 10
    for key, value in settings.items():
        path = f"/proc/sys/{key.replace('.', '/')}"
        found = root(bastion, f"cat {path} 2>/dev/null || echo none").strip()
        assert found in (value, "none"), key


@pytest.mark.parametrize("bastion", BASTIONS)
def test_the_clocks_configuration_is_valid(bastion):
    """chrony itself does not start without the right to set the clock, which a container has not."""
    assert f"server {address('target')} iburst" in root(bastion, "chronyd -p -f /etc/chrony/chrony.conf")
    assert root(bastion, "systemctl is-enabled chrony").strip() == "enabled"


def test_the_banner():
    text = root("client", f"ssh -F /root/kit/config -W {address('target')}:22 bastion13-ada </dev/null 2>&1")
    assert "What you do here is logged." in text
