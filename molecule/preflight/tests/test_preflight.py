# SPDX-License-Identifier: GPL-3.0-or-later
"""Each thing that can be wrong with a new machine, brought about for real, and what the operator reads."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator

import pytest
from scenario_hosts import Done, outside, play, root

HOSTS = ("debian12", "debian13") if os.environ.get("DEVNODE_TESTS") == "full" else ("debian13",)
HOST = HOSTS[-1]
SUDOERS = "/etc/sudoers.d/90-cloud-init-users"
SOURCES = "/etc/apt/sources.list.d/debian.sources"
PROXY = "/etc/apt/apt.conf.d/90proxy"
PYTHON = "/usr/bin/python3"
# Before every other place on the PATH of a command by ssh.
FIRST = "/usr/local/bin"
LOCK = "/var/lib/dpkg/lock-frontend"
HOLD = """\
import fcntl, time
file = open("{lock}", "w")
fcntl.lockf(file, fcntl.LOCK_EX)
open("/run/held", "w").close()
time.sleep({seconds})
"""
# How it is broken, how it is put back, and what is read. By the engine: sudo is one of the things.
BROKEN = {
    "a sudo that asks": (
        f"mv {SUDOERS} /root/sudoers",
        f"mv /root/sudoers {SUDOERS}",
        "sudo: sudo asks automation for a password, and none was given",
    ),
    "a sudo that forbids": (
        f"mv {SUDOERS} /root/sudoers; echo 'Defaults:automation !authenticate' >{SUDOERS}",
        f"mv /root/sudoers {SUDOERS}",
        "sudo: sudo does not let automation become root",
    ),
    "no sudo": (
        "mv /usr/bin/sudo /root/",
        "mv /root/sudo /usr/bin/",
        "sudo: there is no sudo on this host, and automation is not root",
    ),
    "a clock that is behind": (
        f"printf '#!/bin/sh\nexpr $(/bin/date +%%s) - 7400\n' >{FIRST}/date; chmod 755 {FIRST}/date",
        f"rm {FIRST}/date",
        "clock: the host's clock is 2 hours behind the controller's",
    ),
    "a Python that is old": (
        f"mv {PYTHON} /root/; printf '#!/bin/sh\necho 3.8\n' >{PYTHON}; chmod 755 {PYTHON}",
        f"mv /root/python3 {PYTHON}",
        f"python: {PYTHON} is Python 3.8; the modules need 3.9 or newer",
    ),
    "a Python that does not run": (
        f"mv {PYTHON} /root/; printf '#!/bin/sh\necho it is broken >&2\nexit 1\n' >{PYTHON}; chmod 755 {PYTHON}",
        f"mv /root/python3 {PYTHON}",
        f"python: {PYTHON} does not run: it is broken",
    ),
    "no inodes": (
        "mount -t tmpfs -o nr_inodes=2000,mode=1777 tmpfs /tmp",
        "umount /tmp",
        "disk: /tmp has ",
    ),
    "no Python": (
        "for one in /usr/bin/python3*; do mv $one $one.away; done",
        "for one in /usr/bin/python3*.away; do mv $one ${one%.away}; done",
        "python: there is no Python on this host",
    ),
    "a full disk": (
        "fallocate -l $(( $(df -Pk /tmp | tail -1 | tr -s ' ' | cut -d' ' -f4) - 20000 ))k /tmp/full",
        "rm /tmp/full",
        "disk: /tmp has ",
    ),
    "another distribution": (
        "cp -p /usr/lib/os-release /root/; sed -i 's/^VERSION_ID=.*/VERSION_ID=11/' /usr/lib/os-release",
        "cp -p /root/os-release /usr/lib/os-release",
        'distribution: "debian 11" is not a distribution',
    ),
    "no way to a repository": (
        f"cp {SOURCES} /root/; sed -i 's#^URIs: .*#URIs: http://packages.invalid/debian#' {SOURCES}",
        f"cp /root/debian.sources {SOURCES}",
        "packages.invalid:80 (the name is not known here)",
    ),
    "a proxy that is not there": (
        f"echo 'Acquire::http::Proxy \"http://127.0.0.1:3128\";' >{PROXY}",
        f"rm {PROXY}",
        "proxy 127.0.0.1:3128 (connection refused)",
    ),
}


def in_background(unit: str, program: str, text: str) -> None:
    """From a file: systemd would put its own values in the place of the script's dollars."""
    root(HOST, f"cat >/run/{unit} <<'END'\n{text}\nEND\nsystemd-run --quiet --unit={unit} {program} /run/{unit}")


@contextlib.contextmanager
def broken(how: str, again: str, host: str = HOST) -> Iterator[None]:
    by_engine(how, host)
    try:
        yield
    finally:
        by_engine(again, host)


def by_engine(script: str, host: str = HOST) -> str:
    done = outside(host, "sh", "-euc", script)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def refused(done: Done, *words: str, host: str = HOST) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{host} cannot be used as it is, and nothing was changed" in done.stdout
    for one in words:
        assert one in done.stdout
    for ugly in ("Traceback", "MODULE FAILURE", "Exception"):
        assert ugly not in done.stdout + done.stderr


def test_everything_that_is_wrong_is_said_at_once_and_nothing_is_changed() -> None:
    seen = ("a sudo that asks", "no Python", "a full disk", "another distribution")
    hows, agains, words = zip(*(BROKEN[one] for one in seen), strict=True)
    with broken("\n".join(hows), "\n".join(agains)):
        by_engine("touch /run/before; sleep 1.1")
        refused(play("--limit", HOST), *words)
        kept = "-path /var/log -prune -o -path /root -prune -o -path /home/automation/.ansible -prune -o"
        assert by_engine(f"find / -xdev {kept} -type f -cnewer /run/before -print") == ""


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("what", BROKEN)
def test_it_is_said_in_words_and_the_run_ends(what: str, host: str) -> None:
    how, again, words = BROKEN[what]
    with broken(how, again, host):
        refused(play("--limit", host), words, host=host)


def test_a_sudo_that_asks_is_answered() -> None:
    """As --ask-become-pass does, with nobody at the keyboard."""
    password = secrets.token_hex(12)
    hows = f"mv {SUDOERS} /root/sudoers; echo 'automation ALL=(ALL) ALL' >{SUDOERS}"
    with broken(
        f"{hows}; echo automation:{password} | chpasswd", f"mv /root/sudoers {SUDOERS}; usermod -p '*' automation"
    ):
        assert play("--limit", HOST, "-e", f"ansible_become_password={password}").returncode == 0


def test_a_package_manager_at_work_is_named() -> None:
    with _locked(60):
        done = play("--limit", HOST, "-e", "preflight_wait=1")
    assert done.returncode == 2
    assert f"lock: {LOCK} is held by /usr/bin/python3 /run/held.py, process " in done.stdout
    assert "also after 1 seconds" in done.stdout


def test_a_package_manager_that_finishes_is_waited_for() -> None:
    with _locked(6):
        started = time.monotonic()
        done = play("--limit", HOST)
        assert done.returncode == 0, done.stdout
        assert time.monotonic() - started > 2


@contextlib.contextmanager
def _locked(seconds: int) -> Iterator[None]:
    root(HOST, "rm -f /run/held")
    in_background("held.py", "/usr/bin/python3", HOLD.format(lock=LOCK, seconds=seconds))
    root(HOST, "timeout 20 sh -c 'until test -e /run/held; do sleep 0.1; done'")
    try:
        yield
    finally:
        # It may have ended by itself.
        root(HOST, "systemctl stop held.py.service 2>/dev/null || true")


def test_a_host_of_the_fleet_needs_neither_apt_nor_its_sources() -> None:
    how, again, _words = BROKEN["no way to a repository"]
    root(HOST, "mkdir -p /var/lib/devnode/file_set")
    try:
        with _locked(60), broken(how, again):
            assert play("--limit", HOST).returncode == 0
    finally:
        # What is not empty stays.
        root(HOST, "rmdir -p /var/lib/devnode/file_set 2>/dev/null || true")
