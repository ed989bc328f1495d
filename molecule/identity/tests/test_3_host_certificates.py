# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of hosts: a kit that knows the authority alone goes on working when a host gets another key.

In this order: with the keys that test_2_host_keys.py left behind, then with a key that nobody announced.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from identity import (
    BASTIONS,
    CERTIFICATE,
    Client,
    ada,
    apply,
    by_authority,
    grace,
    key,
    only_the_authority_is_known,
    said,
)
from scenario_hosts import FOLDER, root, ssh, wait_until

KEY = "/etc/ssh/ssh_host_ed25519_key"
DAY = 86400


@pytest.fixture(scope="module", autouse=True)
def kit():
    only_the_authority_is_known()
    yield
    root("client", "rm -f /root/kit/by_authority /root/kit/by_agent /root/kit/by_stranger")
    # The kit that knows host keys only has to be fetched anew.
    root("client", f"cat > /root/kit/known_hosts <<'END'\n{(FOLDER / 'known_hosts').read_text()}END\n")


def test_the_hosts_key_was_signed_for_its_name(kit):
    for bastion in BASTIONS:
        found = said(bastion)
        assert found.key == root(bastion, f"cut -d' ' -f1,2 {KEY}.pub").strip()
        assert found.principals == (bastion,)
        assert 89 * DAY < found.valid_before - time.time() < 91 * DAY
    there = root("old", "ls -A /etc/ssh; if [ -e /root/.ssh ]; then ls -A /root/.ssh; fi")
    assert Path(KEY).name in there
    assert "host_ca" not in there


def test_who_knows_the_authority_gets_in_and_only_under_the_hosts_name(kit):
    for bastion in BASTIONS:
        assert by_authority(bastion), bastion
        assert not by_authority(bastion, alias="elsewhere"), bastion
    assert not by_authority("old", alias="new")
    line = f"@cert-authority {','.join(BASTIONS)} {key('user_ca')}"
    root("client", f"echo '{line}' > /root/kit/by_stranger")
    assert not Client("old", "ada", known="by_stranger").enters()


@contextlib.contextmanager
def in_an_agent(monkeypatch):
    """An authority whose private key is in an agent and nowhere else: where its .pub is, and what it says."""
    with tempfile.TemporaryDirectory(prefix="dn-agent-") as folder:
        socket, private, public = (Path(folder) / name for name in ("socket", "ca", "ca.pub"))
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
        try:
            wait_until(socket.exists, "the agent answers")
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private], check=True)
            subprocess.run(["ssh-add", "-q", private], check=True)
            private.unlink()
            yield public, " ".join(public.read_text().split()[:2])
        finally:
            agent.terminate()
            agent.wait(timeout=10)


def test_an_authority_that_only_an_agent_holds(kit, monkeypatch):
    """Its .pub is all that a run is told of; kits that know this authority know the hosts."""
    with in_an_agent(monkeypatch) as (public, authority):
        line = f"@cert-authority {','.join(BASTIONS)} {authority}"
        root("client", f"echo '{line}' > /root/kit/by_agent")
        apply([ada(), grace()], host_authority=str(public))
    for bastion in BASTIONS:
        assert said(bastion).authority == authority
        assert said(bastion).principals == (bastion,)
        assert Client(bastion, "ada", known="by_agent").enters("-o", "ControlMaster=no", "-S", "none"), bastion
        # Who knows the other authority alone does not know these certificates.
        assert not by_authority(bastion), bastion
    assert not Client("old", "ada", known="by_agent", alias="new").enters("-o", "ControlMaster=no", "-S", "none")


def test_a_rebuilt_host_gets_in_with_the_same_kit_once_it_is_signed(kit):
    """Its key is a new one, and so is its certificate after the next run. The kit stays as it is."""
    fresh = "new-host"
    (FOLDER / fresh).unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(FOLDER / fresh)], check=True)
    private, public = (FOLDER / fresh).read_text(), (FOLDER / f"{fresh}.pub").read_text()
    root("new", f"cat > {KEY} <<'END'\n{private}END\ncat > {KEY}.pub <<'END'\n{public}END\nsystemctl restart ssh")
    # The record is what the operator enrolled again; kits are not touched.
    record = FOLDER / "known_hosts"
    lines = [line for line in record.read_text().splitlines() if line.split()[0] != "new"]
    record.write_text("\n".join([*lines, f"new {' '.join(public.split()[:2])}"]) + "\n")
    wait_until(lambda: ssh("new", "true").returncode == 0, "new answers with its new key")
    assert not by_authority("new")
    # The other one's certificate is near its end, so that the same run has to renew it.
    words = ["-s", str(FOLDER / "host_ca"), "-h", "-I", "old", "-n", "old", "-V", "-1d:+20d"]
    (FOLDER / "old_host.pub").write_text(root("old", f"cat {KEY}.pub"))
    subprocess.run(["ssh-keygen", "-q", *words, str(FOLDER / "old_host.pub")], check=True, capture_output=True)
    text = (FOLDER / "old_host-cert.pub").read_text().strip()
    root("old", f"echo '{text}' > {CERTIFICATE}; systemctl restart ssh")
    wait_until(lambda: ssh("old", "true").returncode == 0, "old answers")
    assert said("old").valid_before - time.time() < 21 * DAY
    assert by_authority("old")
    apply([ada(), grace()])
    for bastion in BASTIONS:
        assert by_authority(bastion), bastion
        assert said(bastion).valid_before - time.time() > 89 * DAY
