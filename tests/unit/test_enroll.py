# SPDX-License-Identifier: GPL-3.0-or-later
"""First contact: a key is recorded only after somebody compared it. (A stand-in for ssh-keyscan is the network.)"""

from __future__ import annotations

import os
import pty
import select
import signal
import time

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import enroll
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from unit.fleet import bare
from unit.playbook import ROOT, environment, inventory, play


def _key(name):
    return public_key(bare(name))


def _fingerprint(name):
    return _key(name).fingerprint


# ---- the judgement -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "expected", "recorded", "replace", "status", "keys"),
    [
        ("a", "", "", False, "open", "a"),
        ("ab", "b", "", False, "expected", "b"),
        ("a", "b", "", False, "wrong", ""),
        ("", "", "", False, "wrong", ""),
        ("ab", "", "a", False, "recorded", "a"),
        ("b", "", "a", False, "wrong", ""),
        ("b", "b", "a", False, "wrong", ""),
        ("", "", "a", False, "silent", ""),
        ("b", "", "a", True, "open", "b"),
        ("b", "b", "a", True, "expected", "b"),
        ("b", "c", "a", True, "wrong", ""),
        ("ab", "b", "a", False, "expected", "b"),
    ],
)
def test_compare(offered, expected, recorded, replace, status, keys):
    verdict = enroll.compare(
        [_key(x) for x in offered], [_fingerprint(x) for x in expected], [_key(x) for x in recorded], replace
    )
    assert verdict.status == status
    assert verdict.keys == tuple(_key(x) for x in keys)
    assert (verdict.reason != "") == (status in ("wrong", "silent"))


def test_read_scan():
    text = f"# 10.0.0.1:22 SSH-2.0\n[10.0.0.1]:2222 {bare('a')}\n10.0.0.1 ssh-rsa AAAA\nrubbish\n\n"
    text += f"2001:db8::1 {bare('b')}\n10.0.0.1 {bare('c')}\n"
    assert enroll.read_scan(text) == {
        "10.0.0.1": sorted([_key("a"), _key("c")], key=lambda key: key.base64),
        "2001:db8::1": [_key("b")],
    }


# ---- the playbook --------------------------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path):
    """A folder with an inventory, and an ssh-keyscan that answers for its addresses with the keys of the fleet."""
    inventory(tmp_path, known=[])
    (tmp_path / "known_hosts").unlink()
    (tmp_path / "bin").mkdir()
    for address, name in (("203.0.113.10", "bastion"), ("10.0.0.11", "gpu-01")):
        (tmp_path / address).write_text(f"{address} {bare(name)}\n")
    scan = tmp_path / "bin" / "ssh-keyscan"
    answer = f"for last; do [ -e {tmp_path}/$last ] && cat {tmp_path}/$last; done; true"
    scan.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scans\n{answer}\n')
    scan.chmod(0o755)
    return tmp_path


def _path(folder):
    return {"PATH": f"{folder}/bin:{os.environ['PATH']}"}


def _given(*names, value=None):
    pairs = ", ".join(f'"{name}": ["{value or _fingerprint(name)}"]' for name in names)
    return ["-e", '{"devnode_host_fingerprints": {' + pairs + "}}"]


def _enroll(folder, *options):
    return play(folder, "playbooks/enroll.yml", *options, **_path(folder))


def test_with_expected_fingerprints(network):
    done = _enroll(network, *_given("bastion", "gpu-01"))
    assert done.returncode == 0, done.stdout
    record = f"bastion {bare('bastion')} devnode:enrolled\ngpu-01 {bare('gpu-01')} devnode:enrolled\n"
    assert (network / "known_hosts").read_text() == record
    again = _enroll(network)
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout
    assert "changed=1" not in again.stdout


def test_nobody_there_to_compare(network):
    done = _enroll(network)
    assert done.returncode != 0
    text = " ".join(done.stdout.split())
    assert f"they were not recorded: bastion ssh-ed25519 {_fingerprint('bastion')} Run this in a terminal" in text
    assert not (network / "known_hosts").exists()
    assert "10.0.0.11" not in (network / "scans").read_text()


def test_another_key_than_expected(network):
    done = _enroll(network, *_given("bastion", value=_fingerprint("gpu-01")))
    assert done.returncode != 0
    text = " ".join(done.stdout.split())
    assert f"it offers {_fingerprint('bastion')}, but {_fingerprint('gpu-01')} was expected" in text
    assert not (network / "known_hosts").exists()


def test_the_good_are_recorded_and_the_bad_named(network):
    def change(_variables, children):
        children["devnode_nodes"]["hosts"]["gpu-02"] = {"devnode_address": "10.0.0.12"}

    inventory(network, change, known=["bastion"])
    done = _enroll(network, *_given("gpu-01"))
    assert done.returncode != 0
    assert "gpu-02 (10.0.0.12, port 22): it offers no usable host key" in " ".join(done.stdout.split())
    assert bare("gpu-01") in (network / "known_hosts").read_text()


def test_no_fingerprint(network):
    done = _enroll(network, *_given("bastion", value="yes"))
    assert done.returncode != 0
    assert "is not a SHA256 fingerprint" in " ".join(done.stdout.split())


def test_a_machine_made_anew(network):
    assert _enroll(network, *_given("bastion", "gpu-01")).returncode == 0
    before = (network / "known_hosts").read_text()
    (network / "10.0.0.11").write_text(f"10.0.0.11 {bare('new')}\n")
    new = _given("gpu-01", value=_fingerprint("new"))
    refused = _enroll(network, *new)
    assert refused.returncode != 0
    assert "is on record. If it was made anew, name it in" in " ".join(refused.stdout.split())
    assert (network / "known_hosts").read_text() == before
    done = _enroll(network, *new, "-e", '{"devnode_enroll_replace": ["gpu-01"]}')
    assert done.returncode == 0, done.stdout
    assert (network / "known_hosts").read_text() == before.replace(bare("gpu-01"), bare("new"))


def _in_a_terminal(folder, answer):
    """Run enroll.yml in a terminal, answer every question, return what was shown."""
    command = ["ansible-playbook", "-i", str(folder / "hosts.yml"), str(ROOT / "playbooks/enroll.yml")]
    child, master = pty.fork()
    if child == 0:
        os.execvpe(command[0], command, environment(folder, **_path(folder)))  # noqa: S606 - there is no shell
    shown = b""
    answered = 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([master], [], [], 0.5)[0]:
            try:
                shown += os.read(master, 65536)
            except OSError:
                break  # the terminal's other end is closed: the run is over
        elif shown.count(b"to record them") > answered:
            # Only once it is quiet: what was typed before the question is thrown away.
            answered += 1
            os.write(master, answer.encode() + b"\r")
    else:
        os.kill(child, signal.SIGKILL)
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def test_in_a_terminal(network):
    code, shown = _in_a_terminal(network, "yes")
    assert code == 0, shown
    assert _fingerprint("bastion") in shown
    assert _fingerprint("gpu-01") in shown
    assert (network / "known_hosts").read_text().count("devnode:enrolled") == 2


def test_in_a_terminal_with_another_answer(network):
    code, shown = _in_a_terminal(network, "no")
    assert code != 0
    assert "were not recorded" in " ".join(shown.split())
    assert not (network / "known_hosts").exists()
