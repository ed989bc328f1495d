# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is not ready gets one clear message before anything is changed; docs/troubleshooting.md has a table."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.devnode.gpu.plugins.module_utils import preflight
from ansible_collections.devnode.gpu.plugins.module_utils.preflight import Seen, Source
from ansible_collections.devnode.gpu.plugins.modules import preflight as module
from hypothesis import given
from hypothesis import strategies as st
from unit.playbook import inventory, play

NOW = 1_800_000_000.0
GOOD = {
    "os": ["debian", "13"],
    "systemd": [],
    "python": ["python3", "3.13"],
    "user": ["debian", "1000"],
    "sudo": ["ok"],
    "time": [str(int(NOW))],
}
PLACES = tuple(preflight.DISK_KIB)
ROOMY = tuple((place, 9_000_000, None if place == "/var" else 500_000) for place in PLACES)


def found(disks=ROOMY, become="sudo", skip=(), without=(), families=tuple(preflight.FAMILIES), **changed):
    facts = {name: value for name, value in {**GOOD, **changed}.items() if name not in without}
    return preflight.problems(Seen(facts, disks), NOW, become, skip, families)


def test_a_cloud_image_is_fine():
    assert found() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"without": ["python"]}, "python: there is no Python on this host"),
        ({"python": ["python3", "3.6"]}, "python: python3 is Python 3.6; the modules need 3.9 or newer"),
        ({"python": ["/opt/py", "not found"]}, "python: /opt/py does not run: not found"),
        (
            {"sudo": ["refused", "sudo: a password is required"]},
            "sudo: sudo asks debian for a password, and none was given. Run ansible-playbook with --ask-become-pass",
        ),
        (
            {"sudo": ["refused", "debian is not in the sudoers file."]},
            "sudo: sudo does not let debian become root: deb",
        ),
        ({"without": ["sudo"]}, "sudo: there is no sudo on this host, and debian is not root"),
        ({"time": [str(int(NOW) - 7200)]}, "clock: the host's clock is 2 hours behind the controller's"),
        ({"time": [str(int(NOW) + 400)]}, "clock: the host's clock is 7 minutes ahead of the controller's"),
        ({"disks": (("/var", 20_480, 9999),)}, "disk: /var has 20 MB free, and 1024 MB are needed"),
        ({"disks": (("/", 9_000_000, 12),)}, "disk: / has 12 inodes free, and 5000 are needed"),
        ({"os": ["debian", "11"]}, 'distribution: "debian 11" is not a distribution'),
        ({"os": ["arch", ""]}, 'distribution: "arch" is not a distribution that this'),
        ({"without": ["os"]}, 'distribution: "unknown (there is no /etc/os-release)" is not'),
        ({"without": ["systemd"]}, "systemd: this host was not booted by systemd"),
    ],
)
def test_each_is_said_once_with_what_to_do(change, words):
    (problem,) = found(**change)
    assert problem.startswith(words)
    assert problem.endswith((".", ")", "ALL", "ALL=(ALL) NOPASSWD:ALL", "200M."))
    assert found(**change, skip=(problem.partition(":")[0],)) == []


def test_all_at_once():
    assert [one.partition(":")[0] for one in found(without=GOOD, disks=(("/", 1, 1),))] == [
        "distribution",
        "systemd",
        "python",
        "sudo",
        "disk",
    ]


def test_sudo_is_no_matter_for_root_or_with_a_password():
    assert found(user=["root", "0"], without=["sudo"]) == []
    assert found(become="", without=["sudo"]) == []


@pytest.mark.parametrize("version", ["9.6", "9"])
def test_minor_releases_of_el(version):
    assert found(os=["rocky", version]) == []


def test_where_codes_are_asked_for_already_a_wrong_clock_keeps_no_run_away():
    """It would keep away what puts the time right, and what takes a leaver's access."""

    def said(seconds, **more):
        seen = Seen({**GOOD, "time": [str(int(NOW) + seconds)], "codes": []}, ROOMY)
        return preflight.problems(seen, NOW, "sudo", clock=25, **more), preflight.warnings(seen, NOW, clock=25, **more)

    assert said(20) == ([], [])
    refused, (warned,) = said(-40)
    assert refused == []
    assert "40 seconds behind the controller's. More than 25 seconds are too many for one-time codes" in warned
    (refused,), warned = said(400)
    assert "7 minutes ahead" in refused
    assert warned == []
    assert said(-40, skip=("clock",)) == ([], [])


def test_codes_bear_less_of_a_wrong_clock_than_certificates():
    """What the look itself took says nothing about the clock."""

    def off(seconds, spread, clock):
        facts = {**GOOD, "time": [str(int(NOW) + seconds)]}
        return preflight.problems(Seen(facts, ROOMY), NOW, "sudo", spread=spread, clock=clock)

    assert off(120, 0, 300) == []
    (problem,) = off(-40, 0, 25)
    assert problem.startswith(
        "clock: the host's clock is 40 seconds behind the controller's. More than 25 seconds are too"
    )
    assert "one-time codes" in problem
    assert off(-40, 20, 25) == []
    assert off(25, 0, 25) == []


def test_a_node_is_of_the_family_whose_packages_it_gets():
    node = ("debian",)
    (problem,) = found(os=["rocky", "9.6"], families=node)
    assert problem.startswith(
        'distribution: "rocky 9.6" is not a distribution that this collection knows for such a host'
    )
    assert "Known: debian 12, 13; ubuntu 22.04, 24.04. Install" in problem
    assert found(os=["ubuntu", "24.04"], families=node) == []
    assert sorted(one for those in preflight.FAMILIES.values() for one in those) == sorted(preflight.DISTRIBUTIONS)


# --- the probe itself, run by sh ----------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path):
    """A PATH that has only what each Debian has at least: no Python, no sudo."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("id", "date", "df", "tail"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def run_probe(folder, *pythons):
    script = preflight.probe(list(pythons) or ["python3"])
    done = subprocess.run(
        ["/bin/sh", "-c", script], env={"PATH": str(folder)}, capture_output=True, text=True, check=True
    )
    seen = preflight.read(f"Welcome to this machine\r\n{done.stdout}")
    assert seen is not None
    return seen


def program(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_no_python_no_sudo(programs):
    seen = run_probe(programs)
    assert "python" not in seen.facts
    assert "sudo" not in seen.facts
    assert seen.get("user", 1) == str(os.getuid())
    assert {place for place, _kib, _inodes in seen.disks} == set(PLACES)
    assert all(kib is not None and kib >= 0 for _place, kib, _inodes in seen.disks)


def test_this_python(programs):
    seen = run_probe(programs, sys.executable)
    assert seen.facts["python"] == [sys.executable, f"{sys.version_info[0]}.{sys.version_info[1]}"]


def test_a_python_that_does_not_run(programs):
    program(programs, "python3", "echo 'libpython3.so: no such file' >&2; exit 127")
    assert run_probe(programs).facts["python"] == ["python3", "libpython3.so: no such file"]


def test_a_sudo_that_asks(programs):
    program(programs, "sudo", "echo 'sudo: a password is required' >&2; exit 1")
    seen = run_probe(programs)
    assert seen.facts["sudo"] == ["refused", "sudo: a password is required"]
    (problem,) = preflight.problems(Seen({**GOOD, "sudo": seen.facts["sudo"]}, ()), NOW, "sudo")
    assert "--ask-become-pass" in problem


def test_a_sudo_that_works(programs):
    program(programs, "sudo", "exit 0")
    assert run_probe(programs).facts["sudo"] == ["ok"]


@pytest.mark.parametrize("text", ["", "This account is currently not available.\n", "fish: Unknown command\n"])
def test_a_shell_that_runs_nothing(text):
    assert preflight.read(text) is None


@given(st.text())
def test_whatever_a_host_prints_ends_in_no_trace(text):
    preflight.read(text)
    seen = preflight.read(f"devnode-preflight\t1\t\n{text}")
    assert seen is not None
    preflight.problems(seen, NOW, "sudo")


# --- what needs Python --------------------------------------------------------------------------------------


def test_who_holds_a_lock(tmp_path):
    path = tmp_path / "lock-frontend"
    path.touch()
    assert module.holder(str(path)) is None
    text = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, 2); print('held', flush=1); input()"
    with subprocess.Popen(
        [sys.executable, "-c", text, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        assert module.holder(str(path)) == other.pid
        problem = module.wait_for_locks((str(path),), 0)
        assert problem.startswith(f"lock: {path} is held by {sys.executable} -c ")
        assert f"process {other.pid}, also after 0 seconds" in problem
        other.communicate("\n")
    assert module.wait_for_locks((str(path), str(tmp_path / "none")), 0) == ""


def test_looking_takes_no_lock(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert module.holder(str(path)) is None  # our own
        assert subprocess.run([sys.executable, "-c", f"open({str(path)!r}, 'w')"], check=False).returncode == 0


DUMP = """\
APT "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::http::Proxy::mirror.lan "DIRECT";
Acquire::https::Timeout "20";
"""
URIS = {
    "http://deb.debian.org/debian/",
    "https://nvidia.github.io/libnvidia-container/",
    "http://mirror.lan:8080/debian/",
    "file:/srv/packages/",
    "mirror+file:/etc/apt/mirrors.list",
}


def test_what_apt_would_fetch():
    printed = "'http://deb.debian.org/debian/dists/trixie/InRelease' deb.debian.org_InRelease 0 \nE: something\n"
    assert module.parse_uris(printed) == {"http://deb.debian.org/debian/dists/trixie/InRelease"}


def test_the_way_apt_goes():
    assert module.ways(URIS, {}) == [
        ("deb.debian.org", 80, False),
        ("mirror.lan", 8080, False),
        ("nvidia.github.io", 443, False),
    ]
    proxies = module.parse_proxies(DUMP)
    assert module.ways(URIS, proxies) == [("mirror.lan", 8080, False), ("proxy.example", 3128, True)]


def test_a_source_that_answers_and_one_that_does_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert module.connect(("127.0.0.1", port, False)) == Source("127.0.0.1", port, False, "")
    assert module.connect(("127.0.0.1", port, True)) == Source("127.0.0.1", port, True, "connection refused")
    assert module.connect(("no-such-host.invalid", 80, False)).error == "the name is not known here"


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH)), "no route"),
        (OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)), "network is unreachable"),
        (TimeoutError(), "no answer"),
    ],
)
def test_a_source_that_nothing_leads_to(monkeypatch, problem, words):
    def connection(*_given, **_more):
        raise problem

    monkeypatch.setattr(module.socket, "create_connection", connection)
    assert module.connect(("deb.debian.org", 80, False)).error == words


def test_no_source_answers():
    bad = Source("deb.debian.org", 80, False, "no route")
    problem, warning = preflight.sources_problem([bad, Source("proxy.lan", 3128, True, "no answer")])
    assert "deb.debian.org:80 (no route), proxy proxy.lan:3128 (no answer)" in problem
    assert "Acquire::http::Proxy" in problem
    assert not warning
    problem, warning = preflight.sources_problem([bad, Source("mirror.lan", 80, False, "")])
    assert not problem
    assert "deb.debian.org:80 (no route)" in warning
    assert preflight.sources_problem([]) == ("", "")


# --- the task, in a run -------------------------------------------------------------------------------------

BOOK = """
- hosts: gpu-01
  gather_facts: false
  tasks:
    - devnode.gpu.preflight:
        gather_subset: ["!all", "!min", distribution]
        skip: [distribution, systemd, clock, disk, lock, sources]
    - ansible.builtin.assert:
        that: ansible_facts['distribution'] is defined
"""


def run_task(tmp_path, change=None) -> subprocess.CompletedProcess[str]:
    inventory(tmp_path, change)
    (tmp_path / "book.yml").write_text(BOOK)
    return play(tmp_path, tmp_path / "book.yml")


def test_facts_come_with_it(tmp_path):
    done = run_task(tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_host_without_python_is_told_so(tmp_path):
    done = run_task(tmp_path, lambda variables, _children: variables.update(ansible_python_interpreter="/no/python3"))
    assert done.returncode == 2
    assert "gpu-01 cannot be used as it is, and nothing was changed" in done.stdout
    assert "there is no Python on this host" in done.stdout
    assert "Traceback" not in done.stdout


def test_every_check_can_be_left_out_and_is_documented():
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert tuple(options["skip"]["choices"]) == preflight.CHECKS
    page = (Path(__file__).resolve().parents[2] / "docs/troubleshooting.md").read_text()
    assert all(f"| `{check}` |" in page for check in preflight.CHECKS)
