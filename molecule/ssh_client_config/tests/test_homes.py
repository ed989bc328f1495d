# SPDX-License-Identifier: GPL-3.0-or-later
"""What people get in their homes: the options that ssh reads, and logins that work."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "tests" / "unit")]

import client_samples as samples  # noqa: E402
from ansible_collections.devnode.gpu.plugins.module_utils.client_render import config  # noqa: E402
from scc import SSH, TOOL, accepted, good, run_as  # noqa: E402


def options(host: Any, person: str, alias: str) -> samples.Effective:
    done = run_as(host, person, f"ssh -G {alias} 2>/dev/null")
    assert done.rc == 0, done.stderr
    return samples.parsed(done.stdout)


def test_our_line_is_first_and_the_rest_as_it_was(host: Any) -> None:
    ada = host.file("/home/ada/.ssh/config")
    assert ada.content_string.startswith("Include ~/.ssh/devnode/config\nHost *\n    User nobody\n    Port 9\n")
    assert (ada.user, ada.mode) == ("ada", 0o644)
    grace = host.file("/home/grace/.ssh/config").content
    assert grace == b"Include ~/.ssh/devnode/config\r\nHost old\r\n    User somebody\r\n"
    linus = host.file("/home/linus/.ssh/config")
    assert linus.content_string.startswith("Include ~/.ssh/devnode/config\n")
    assert (linus.user, linus.mode) == ("linus", 0o600)


@pytest.mark.parametrize("person", ["ada", "grace", "linus"])
def test_files_are_the_persons_and_nobody_elses(host: Any, person: str) -> None:
    for name, mode in (
        ("", 0o700),
        ("config", 0o600),
        ("known_hosts", 0o600),
        ("README.md", 0o600),
        ("devnode-ssh", 0o700),
    ):
        found = host.file(f"/home/{person}/.ssh/devnode/{name}".rstrip("/"))
        assert (found.user, found.group, found.mode) == (person, person, mode), found
    assert host.file(f"/home/{person}/.ssh").user == person
    assert host.file(f"/home/{person}/.ssh/cm").mode == 0o700


def test_the_persons_own_host_star_does_not_win(host: Any) -> None:
    found = options(host, "ada", "gpu-01")
    assert found["user"] == ["ada"]
    assert found["port"] == ["22"]
    assert found["proxyjump"] == ["bastion"]
    assert found["stricthostkeychecking"] in (["true"], ["yes"])
    assert found["userknownhostsfile"] == ["/home/ada/.ssh/devnode/known_hosts"]
    assert found["controlpath"][0].startswith("/home/ada/.ssh/cm/")
    assert not {"proxyjump", "proxycommand"} & set(options(host, "ada", "bastion"))
    assert "proxycommand" not in found
    # Other hosts are still the person's own business.
    assert options(host, "ada", "github.com")["user"] == ["nobody"]
    assert options(host, "grace", "old")["user"] == ["somebody"]


def test_mlkem_first_where_the_version_was_declared(host: Any) -> None:
    first = options(host, "ada", "nlp")["kexalgorithms"][0].split(",")[0]
    newest = host.run("ssh -V").stderr.startswith("OpenSSH_10")
    assert (first == "mlkem768x25519-sha256") == newest
    assert options(host, "ada", "nlp")["ciphers"][0].startswith("aes128-gcm@openssh.com,")


@pytest.mark.parametrize("name", samples.VARIANTS)
def test_every_golden_file_means_here_what_it_says(host: Any, name: str) -> None:
    """All of them with this host's ssh: 9.2 on one, 10.0 on the other."""
    view = samples.view(**samples.VARIANTS[name])
    if "mlkem" in config(view) and not host.run("ssh -V").stderr.startswith("OpenSSH_10"):
        pytest.skip("this ssh knows no ML-KEM, and the view was declared for one that does")
    golden = (ROOT / "tests/unit/golden/client" / name / "config").read_text()
    names = samples.typed(view)
    files = {"/root/golden": golden, "/root/hostile": golden + samples.HOSTILE}
    put = "; ".join(f"printf %s {shlex.quote(content)} >{path}" for path, content in files.items())
    ask = [(path, name) for path in (*files, "/dev/null") for name in names]
    script = "; ".join(["umask 077", put, *(f"echo == && ssh -G -F {path} {name} || exit" for path, name in ask)])
    answers = host.check_output("sh -c %s", script).split("==\n")[1:]
    found = dict(zip(ask, map(samples.parsed, answers), strict=True))
    for name in names:
        ours, below, bare = (found[path, name] for path in (*files, "/dev/null"))
        samples.compare(view, name, ours, "/root", bare)
        samples.compare(view, name, below, "/root")


def test_a_login_through_the_bastion_and_a_shared_connection(host: Any) -> None:
    run_as(host, "ada", "~/.ssh/devnode/devnode-ssh close --all")
    cold = time.monotonic()
    done = run_as(host, "ada", "ssh -o BatchMode=yes nlp hostname")
    cold = time.monotonic() - cold
    assert done.rc == 0, done.stderr
    assert done.stdout.strip() == host.check_output("hostname")
    assert "Master running" in run_as(host, "ada", "ssh -O check gpu-01").stderr
    listed = run_as(host, "ada", "~/.ssh/devnode/devnode-ssh").stdout
    assert [line.split()[:2] for line in listed.splitlines()] == [["bastion", "open"], ["nlp", "open"]]

    before = accepted(host)
    loop = run_as(host, "ada", "for i in 1 2 3 4 5; do ssh -n -o BatchMode=yes gpu-01 true || exit; done")
    assert loop.rc == 0, loop.stderr
    copied = run_as(
        host, "ada", "echo one >f; scp -q f nlp:by-scp && echo 'put f by-sftp' | sftp -q -b - nlp && cat by-scp by-sftp"
    )
    assert copied.rc == 0, copied.stderr
    assert accepted(host) == before, "a command opened a connection of its own"

    closed = run_as(host, "ada", "~/.ssh/devnode/devnode-ssh close nlp bastion").stdout
    assert "nlp: closed" in closed
    assert run_as(host, "ada", "~/.ssh/devnode/devnode-ssh").stdout == "no open connection\n"


def test_two_people_on_one_machine(host: Any) -> None:
    """Each with an account, a key and connections of their own; neither gets at the other's."""
    people = ("ada", "grace")
    before = [accepted(host, person) for person in people]
    for _ in range(2):
        assert [good(host, f"{SSH} nlp id -un", person).strip() for person in people] == list(people)
    assert [accepted(host, person) for person in people] == [count + 1 for count in before]
    sockets = [good(host, "ls ~/.ssh/cm", person).split() for person in people]
    assert [len(found) for found in sockets] == [2, 2]
    theirs = f"/home/grace/.ssh/cm/{sockets[1][0]}"
    assert "Permission denied" in run_as(host, "ada", f"ssh -S {theirs} -O check nlp").stderr
    for person in people:
        good(host, f"{TOOL} close --all", person)


def test_a_killed_master_and_its_socket_heal_by_themselves(host: Any) -> None:
    assert run_as(host, "ada", "ssh -o BatchMode=yes nlp true").rc == 0
    pid = run_as(host, "ada", "ssh -O check nlp 2>&1").stdout
    host.check_output("kill -9 %s", pid.split("pid=")[1].rstrip(")\n \r"))
    assert "dead" in run_as(host, "ada", "~/.ssh/devnode/devnode-ssh").stdout
    assert run_as(host, "ada", "ssh -o BatchMode=yes nlp true").rc == 0
    run_as(host, "ada", "~/.ssh/devnode/devnode-ssh close --all")


def test_a_host_that_asks_for_it_shares_nothing(host: Any) -> None:
    found = options(host, "ada", "vault")
    assert found["controlmaster"] in (["false"], ["no"])
    assert "controlpath" not in found
    before = accepted(host)
    for _ in range(2):
        assert run_as(host, "ada", "ssh -o BatchMode=yes vault true").rc == 0
    assert accepted(host) == before + 2


def test_another_host_key_is_refused_without_a_question(host: Any) -> None:
    # testinfra takes ssh's own 255 for a failure of its connection.
    done = run_as(host, "ada", "ssh changed true </dev/null || exit 1")
    assert done.rc == 1
    assert "Host key verification failed" in done.stderr


def test_a_host_is_known_by_its_certificate_and_by_the_name_in_it_only(host: Any) -> None:
    """The same sshd under two names: the CA of the fleet vouches for the first."""
    good(host, f"{SSH} one true")
    refused = run_as(host, "ada", f"{SSH} two true || exit 1")
    assert refused.rc == 1
    assert "Host key verification failed" in refused.stderr
    good(host, f"{TOOL} close --all")
