# SPDX-License-Identifier: GPL-3.0-or-later
"""One-time codes on the bastions: people need one besides their key, operators and Ansible's account do not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import struct
import subprocess
import time

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import totp
from doc_blocks import ROOT, to_run
from identity import BASTIONS, Client, ada, apply, grace, ops
from scenario_hosts import play, root, wait_until

pytestmark = pytest.mark.skipif(
    os.environ.get("DEVNODE_TESTS") != "full", reason="three more runs of the play and a package: only in the full run"
)
SECRETS = {"ada": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", "grace": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"}
STEP = 30
[MAKE] = to_run(ROOT / "docs" / "identity.md", "totp")


def code(name, steps=0):
    """RFC 6238, of this half minute or another one."""
    number = struct.pack(">Q", int(time.time()) // STEP + steps)
    digest = hmac.new(base64.b32decode(SECRETS[name]), number, hashlib.sha1).digest()
    place = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[place : place + 4])[0] & 0x7FFFFFFF) % 10**6:06d}"


class Asked(Client):
    """Somebody who answers the question, by a program, with one code and nothing else."""

    def enters_with(self, answer):
        script = f"printf '#!/bin/sh\\necho %s\\n' '{answer}' > /root/kit/ask; chmod 700 /root/kit/ask\n"
        word = self.ssh("-f", "-N", "-M", "-S", self.socket, "-o", "NumberOfPasswordPrompts=1")
        word = word.replace("BatchMode=yes", "BatchMode=no")
        script += f"export SSH_ASKPASS=/root/kit/ask SSH_ASKPASS_REQUIRE=force\n{word} >/dev/null 2>&1 || echo refused"
        return "refused" not in root("client", script)


def next_step():
    """Codes count once, and PAM lets nobody try more than three times in half a minute."""
    now = int(time.time()) // STEP
    wait_until(lambda: int(time.time()) // STEP > now, "the next half minute", STEP + 5)


@pytest.fixture(scope="module", autouse=True)
def codes():
    apply([ada(), grace()], codes=True, secrets=SECRETS)
    yield
    apply([ada(), grace()])


def test_the_documentations_command_makes_a_good_secret():
    made = subprocess.run(["bash", "-euc", MAKE.text], capture_output=True, text=True, check=True).stdout
    assert totp.SECRET_RE.fullmatch(made.strip())


def test_a_bad_secret_is_refused_before_anything_is_changed():
    for secrets in ({"ada": SECRETS["ada"]}, {**SECRETS, "grace": "not base32 at all"}):
        done = play("-e", json.dumps({"people": [ada(), grace()], "codes": True, "secrets": secrets}))
        assert done.returncode != 0
        assert "bastion_totp_secrets" in done.stdout
        assert "grace" in done.stdout
        assert "not base32 at all" not in done.stdout + done.stderr


def test_a_key_alone_is_not_enough_and_the_code_opens_once():
    for bastion in BASTIONS:
        one = Asked(bastion, "ada")
        assert not one.enters(), bastion
        right = code("ada")
        assert one.enters_with(right), bastion
        assert one.reaches("client")
        # What shares the connection is not asked again.
        assert one.is_in()
        one.leaves()
        assert not one.enters_with(right), f"{bastion}: the same code again"
        mode = root(bastion, "stat -c '%U %a' /var/lib/devnode/totp/ada")
        assert mode in ("root 400\n", "root 600\n")  # the first is PAM's own


def test_a_wrong_or_an_old_code_is_refused():
    next_step()
    for bastion in BASTIONS:
        one = Asked(bastion, "grace")
        assert not one.enters_with(code("grace", steps=-10)), bastion
        assert not one.enters_with(code("ada")), bastion
        assert one.enters_with(code("grace")), bastion
        one.leaves()


def test_a_code_without_the_key_is_not_even_asked_for():
    next_step()
    for bastion in BASTIONS:
        assert not Asked(bastion, "ada", "grace").enters_with(code("ada")), bastion


def test_operators_and_ansible_are_not_asked():
    for bastion in BASTIONS:
        assert "uid=" in root("client", Client(bastion, "ops").ssh(command="id"))
        assert root(bastion, "id -u") == "0\n"  # as automation, with sudo
        assert "yes" not in root(bastion, "sshd -T -C user=ops,host=x,addr=192.0.2.1 | grep -i kbdinteractive")


def test_a_key_that_goes_ends_what_key_and_code_opened():
    next_step()
    opened = {bastion: Asked(bastion, "ada") for bastion in BASTIONS}
    others = {bastion: Asked(bastion, "grace") for bastion in BASTIONS}
    for bastion in BASTIONS:
        assert opened[bastion].enters_with(code("ada")), bastion
        assert others[bastion].enters_with(code("grace")), bastion
    apply([ada("ada2"), grace()], ops(), codes=True, secrets=SECRETS)
    for bastion in BASTIONS:
        assert not opened[bastion].is_in(), bastion
        assert others[bastion].is_in(), bastion
        others[bastion].leaves()
        assert "was removed" in root(bastion, "journalctl -t devnode-sessions --no-pager -o cat -n 3")
