# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates for people on the bastions: as far as their listed keys, no further, and for nobody else.

What becomes of them when something is taken away is in test_1_sessions.py.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from doc_blocks import ROOT, to_run
from identity import BASTIONS, Client
from scenario_hosts import FOLDER, address, root

[MAKE, SIGN] = to_run(ROOT / "docs" / "identity.md", "user-ca")
[MAKE_FOR_HOSTS] = to_run(ROOT / "docs" / "identity.md", "host-ca")


def sign(name, principal, *more):
    """A certificate of the authority that the bastions trust, put beside the key on the client."""
    words = ["-s", str(FOLDER / "user_ca"), "-I", name, "-n", principal, "-V", "+1d", *more]
    subprocess.run(["ssh-keygen", "-q", *words, str(FOLDER / f"{name}.pub")], check=True, capture_output=True)
    text = (FOLDER / f"{name}-cert.pub").read_text().strip()
    root("client", f"echo '{text}' > /root/kit/{name}-cert.pub")


@pytest.fixture
def spare():
    """A key that no host knows; what a test has signed of it goes again."""
    yield "ada2"
    (FOLDER / "ada2-cert.pub").unlink(missing_ok=True)
    root("client", "rm -f /root/kit/ada2-cert.pub")


@pytest.mark.parametrize("bastion", BASTIONS)
def test_a_certificate_passes_to_the_persons_targets_and_does_nothing_else(bastion):
    one = Client(bastion, "ada", "signed_ada")
    assert one.enters()
    assert one.reaches("client")
    alone = ("-o", "ControlPath=none")
    closed = one.ssh(*alone, "-W", f"{address('client')}:23")
    assert "prohibited" in root("client", f"timeout 10 {closed} 2>&1 || true")
    assert "uid=" not in root("client", f"timeout 10 {one.ssh(*alone, command='id')} 2>&1 || true")
    back = one.ssh("-N", *alone, "-o", "ExitOnForwardFailure=yes", "-R", "9009:127.0.0.1:22")
    assert "forwarding failed" in root("client", f"timeout 10 {back} 2>&1 || true")
    one.leaves()


@pytest.mark.parametrize("bastion", BASTIONS)
def test_a_certificate_is_for_the_login_that_it_names(bastion):
    for login in ("grace", "ops", "automation", "root"):
        assert not Client(bastion, login, "signed_ada").enters(), login


def test_one_past_its_time_or_for_a_privileged_login_or_without_a_name_is_refused(spare):
    for bastion in BASTIONS:
        assert not Client(bastion, "ada", spare).enters(), "no certificate yet"
    sign(spare, "ada", "-V", "-2d:-1d")
    for bastion in BASTIONS:
        assert not Client(bastion, "ada", spare).enters(), bastion
    sign(spare, "root,automation,ops")
    for bastion in BASTIONS:
        for login in ("root", "automation", "ops", "ada"):
            assert not Client(bastion, login, spare).enters(), (bastion, login)


def test_the_documentations_commands_make_an_authority_and_a_certificate(tmp_path, spare):
    """As they stand; the passphrase is asked of a program. A stranger's authority opens nothing here."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    ask = tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho a long passphrase\n")
    ask.chmod(0o700)
    (tmp_path / "ada.pub").write_text((FOLDER / f"{spare}.pub").read_text())
    more = {"HOME": str(tmp_path), "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    for block in (MAKE, SIGN, MAKE_FOR_HOSTS):
        done = subprocess.run(
            ["bash", "-euc", block.text], cwd=tmp_path, env={**os.environ, **more}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / ".ssh" / "devnode_host_ca.pub").exists()
    said = subprocess.run(["ssh-keygen", "-L", "-f", tmp_path / "ada-cert.pub"], capture_output=True, text=True).stdout
    words = said.split()
    assert "ada" in words[words.index("Principals:") :]
    assert said.split("Extensions:")[1].split() == ["permit-port-forwarding"]
    root("client", f"echo '{(tmp_path / 'ada-cert.pub').read_text().strip()}' > /root/kit/{spare}-cert.pub")
    for bastion in BASTIONS:
        assert not Client(bastion, "ada", spare).enters(), bastion
