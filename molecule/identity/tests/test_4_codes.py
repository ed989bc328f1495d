# SPDX-License-Identifier: GPL-3.0-or-later
"""One-time codes on the bastions: people need one besides their key, operators where they are named, Ansible never."""

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
from identity import BASTIONS, Client, ada, apply, grace, key, ops
from scenario_hosts import address, kill_while_waiting, outside, play, restart, root, wait_until
from scenario_hosts import ssh as controller_ssh

pytestmark = pytest.mark.skipif(
    os.environ.get("DEVNODE_TESTS") != "full",
    reason="a dozen more runs of the play and a package: only in the full run",
)
SECRETS = {"ada": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", "grace": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"}
SECRETS["ops"] = "KRSXG5DFMRSXG5DFMRSXG5DFMRSXG5DF"
ASKED = {"codes": True, "codes_operators": ["ops"], "secrets": SECRETS}
POLICY_CHECK = "/usr/local/sbin/devnode-relay-check /etc/ssh/sshd_config.d/02-devnode-codes.conf"
STEP = 30
NO_NEW_CONNECTION = """nft add table inet hold
nft 'add chain inet hold input { type filter hook input priority 10; }'
nft add rule inet hold input tcp dport 22 ct state new drop"""
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
    """Codes count once."""
    now = int(time.time()) // STEP
    wait_until(lambda: int(time.time()) // STEP > now, "the next half minute", STEP + 5)


@pytest.fixture(scope="module", autouse=True)
def codes():
    apply([ada(), grace()], **ASKED)
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


def counted(bastion):
    """How many failures fail2ban has seen, once it has read of this one."""
    [line] = [one for one in root(bastion, "fail2ban-client status sshd").splitlines() if "Total failed" in one]
    return int(line.split()[-1])


def test_mistyped_codes_count_towards_no_ban_and_names_that_do_not_exist_do():
    next_step()
    home = address("client")
    for bastion in BASTIONS:
        root(bastion, f"fail2ban-client set sshd delignoreip {home}; fail2ban-client set sshd maxretry 50")
        try:
            start = counted(bastion)
            assert not Client(bastion, "nobody-here", "grace").enters()
            wait_until(lambda: counted(bastion) > start, "a stranger is counted")  # noqa: B023
            stranger = counted(bastion) - start
            for _ in range(2):
                assert not Asked(bastion, "grace").enters_with(code("ada"))
            said = root(bastion, "journalctl -t sshd -t sshd-session --since -1min --no-pager -o cat")
            assert "Failed keyboard-interactive/pam for grace from" in said
            # What comes behind the codes in the log is counted: so they were read.
            assert not Client(bastion, "nobody-here", "grace").enters()
            wait_until(lambda: counted(bastion) >= start + 2 * stranger, "another is counted")  # noqa: B023
            assert counted(bastion) == start + 2 * stranger, bastion
        finally:
            root(bastion, f"fail2ban-client set sshd addignoreip {home}; fail2ban-client set sshd maxretry 5")


def test_an_operator_gets_to_root_with_key_and_code_only():
    next_step()
    for bastion in BASTIONS:
        one = Asked(bastion, "ops")
        assert not one.enters(), bastion
        assert not one.enters_with(code("ada")), bastion
        right = code("ops")
        assert one.enters_with(right), bastion
        # A shell and sudo through what is open, and onward to a node's door; none of it is asked for again.
        shell = root("client", one.ssh("-S", one.socket, command="id -un && sudo id -un"))
        assert shell.split()[-2:] == ["ops", "root"], bastion
        assert one.reaches("client"), bastion
        one.leaves()
        assert not one.enters_with(right), f"{bastion}: the same code again"
        log = root(bastion, "journalctl -t sshd -t sshd-session --since -2min --no-pager -o cat")
        assert "Partial publickey for ops from" in log
        assert "Accepted keyboard-interactive/pam for ops from" in log


def test_an_operators_code_without_their_key_is_not_even_asked_for():
    next_step()
    for bastion in BASTIONS:
        assert not Asked(bastion, "ops", "grace").enters_with(code("ops")), bastion


def test_ansible_is_not_asked_and_the_host_says_so_for_each_kind_of_user():
    asked = {"ada": "publickey,keyboard-interactive:pam", "ops": "publickey,keyboard-interactive:pam"}
    for bastion in BASTIONS:
        assert root(bastion, "id -u") == "0\n"  # as automation, with sudo
        for user in ("ada", "ops", "automation", "root", "nobody"):
            effective = root(bastion, f"sshd -T -C user={user},host=x,addr=192.0.2.1").lower()
            assert f"\nauthenticationmethods {asked.get(user, 'publickey')}\n" in effective, (bastion, user)
            word = "yes" if user in asked else "no"
            assert f"\nkbdinteractiveauthentication {word}\n" in effective, (bastion, user)
            assert "\npasswordauthentication no\n" in effective, (bastion, user)
        root(bastion, POLICY_CHECK)


def test_a_file_that_takes_the_code_from_an_operator_is_named_and_fails_the_next_run():
    hole = "/etc/ssh/sshd_config.d/00-aaa.conf"
    root("old", f"printf 'Match User ops\\n  AuthenticationMethods publickey\\n' > {hole}")
    try:
        read_back = root("old", f"{POLICY_CHECK} 2>&1 && echo as asked || true")
        done = play("--check", "--limit", "all,!new", "-e", json.dumps({"people": [ada(), grace()], **ASKED}))
    finally:
        root("old", f"rm {hole}")
    words = "authenticationmethods is 'publickey' for ops, asked: 'publickey,keyboard-interactive:pam'"
    words += f". {hole}:2 (inside Match User ops) says publickey"
    assert words in read_back
    assert done.returncode != 0
    assert words in " ".join((done.stdout + done.stderr).split())


def test_who_runs_ansible_and_who_is_not_there_are_refused_by_name():
    """Before anything is changed: the file that would ask them is as it was."""
    before = {bastion: root(bastion, "sha256sum /etc/ssh/sshd_config.d/*.conf /etc/pam.d/sshd") for bastion in BASTIONS}
    for names, words in (
        (["ops", "automation"], 'bastion_totp_operators[1]: "automation" is the account that Ansible connects as'),
        (["ops", "olga"], "bastion_totp_secrets: has no secret for olga"),
    ):
        done = play(
            "-e",
            json.dumps({"people": [ada(), grace()], **ASKED, "codes_operators": names, "ansible_user": "automation"}),
        )
        assert done.returncode != 0
        assert words in " ".join((done.stdout + done.stderr).split())
    for bastion, sums in before.items():
        assert root(bastion, "sha256sum /etc/ssh/sshd_config.d/*.conf /etc/pam.d/sshd") == sums


def test_a_code_asked_of_ansible_is_given_back_by_the_guard():
    """Where the inventory does not say who Ansible is, the new connection shows it: it does not get in."""
    secrets = {**SECRETS, "automation": SECRETS["ops"]}
    given = {**ASKED, "codes_operators": ["automation", "ops"], "secrets": secrets, "bastion_guard_window": 20}
    done = play("--limit", "all,!new", "-e", json.dumps({"people": [ada(), grace()], **given}))
    assert done.returncode != 0
    # It is let in again as before, without a code, and by the same names.
    wait_until(lambda: controller_ssh("old", "sudo -n id -u").stdout == "0\n", "Ansible gets in again")
    assert root("old", "grep '^Match' /etc/ssh/sshd_config.d/02-devnode-codes.conf") == "Match User ops\n"
    apply([ada(), grace()], **ASKED)


def test_what_pam_lost_comes_back_with_the_next_run():
    for bastion in BASTIONS:
        root(bastion, "rm /var/lib/devnode/totp/ada")
    apply([ada(), grace()], **ASKED)
    next_step()
    for bastion in BASTIONS:
        one = Asked(bastion, "ada")
        assert one.enters_with(code("ada")), bastion
        one.leaves()


def test_an_operator_who_has_no_code_yet_does_not_come_in_by_the_key_alone():
    """As after a run that ended between the two roles: the account is there, the list does not name it."""
    apply([ada(), grace()], **ASKED, codes_group="devnode-operators")
    olga = {"name": "olga", "uid": 3001, "keys": [key("ops2")]}
    apply([ada(), grace()], ops(), olga, **ASKED, codes_group="devnode-operators")
    for bastion in BASTIONS:
        assert "devnode-operators" in root(bastion, "id -Gn olga")
        assert not Client(bastion, "olga", "ops2").enters(), bastion
        said = root(bastion, "journalctl -t sshd -t sshd-session --since -1min --no-pager -o cat")
        assert "Partial publickey for olga from" in said
        assert root(bastion, "id -u") == "0\n"
    apply([ada(), grace()], **ASKED)


def test_a_run_that_fails_while_switching_codes_off_leaves_everybody_theirs():
    """What PAM has is emptied and filled again with what asks for it, whatever the run has failed for."""
    folder = "/run/systemd/system/devnode-audit.service.d"
    breaks = f"mkdir {folder}; printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > {folder}/broken.conf"
    for bastion in BASTIONS:
        root(bastion, f"{breaks}; systemctl daemon-reload; systemctl stop devnode-audit")
    try:
        done = play("-e", json.dumps({"people": [ada(), grace()], "operators": [ops()]}))
    finally:
        for bastion in BASTIONS:
            root(bastion, f"rm -r {folder}; systemctl daemon-reload; systemctl restart devnode-audit")
    assert done.returncode == 2, done.stdout
    assert "devnode-audit" in done.stdout + done.stderr
    for bastion in BASTIONS:
        assert root(bastion, "ls /var/lib/devnode/totp").split() == ["ada", "grace", "ops"]
    next_step()
    for bastion in BASTIONS:
        for name in ("ada", "ops"):
            assert not Asked(bastion, name).enters(), (bastion, name)
            one = Asked(bastion, name)
            assert one.enters_with(code(name)), (bastion, name)
            one.leaves()
    apply([ada(), grace()], **ASKED)


def test_a_restart_before_codes_off_was_confirmed_leaves_everybody_theirs():
    """Nobody is there to confirm it, and the power goes: the host takes it back while it starts."""
    off = json.dumps({"people": [ada(), grace()], "operators": [ops()], "bastion_guard_window": 300})
    # Ansible goes on by the connections that it keeps open, and no new one confirms.
    apply([ada(), grace()], **ASKED)
    for bastion in BASTIONS:
        done = outside(bastion, "sh", "-euc", NO_NEW_CONNECTION)
        assert done.returncode == 0, done.stderr
    kill_while_waiting("bastion", BASTIONS, "-e", off)
    for bastion in BASTIONS:
        assert outside(bastion, "ls", "/var/lib/devnode/totp").stdout == ""
        restart(bastion, "ssh.service")
    next_step()
    for bastion in BASTIONS:
        assert outside(bastion, "ls", "/var/lib/devnode/totp").stdout.split() == ["ada", "grace", "ops"]
        one = Asked(bastion, "ada")
        assert not one.enters(), bastion
        assert one.enters_with(code("ada")), bastion
        one.leaves()
    apply([ada(), grace()], **ASKED)


def test_a_key_that_goes_ends_what_key_and_code_opened():
    next_step()
    opened = {(bastion, name): Asked(bastion, name) for bastion in BASTIONS for name in ("ada", "ops")}
    others = {bastion: Asked(bastion, "grace") for bastion in BASTIONS}
    for (bastion, name), one in opened.items():
        assert one.enters_with(code(name)), (bastion, name)
    for bastion, one in others.items():
        assert one.enters_with(code("grace")), bastion
    apply([ada("ada2"), grace()], ops("ops2"), **ASKED)
    for place, one in opened.items():
        assert not one.is_in(), place
    for bastion in BASTIONS:
        assert others[bastion].is_in(), bastion
        others[bastion].leaves()
        assert "was removed" in root(bastion, "journalctl -t devnode-sessions --no-pager -o cat -n 6")


def test_off_again_takes_our_lines_only_from_pams_file():
    """What others have written to it since codes were switched on stays, also when the next run looks."""
    for bastion in BASTIONS:
        root(bastion, "echo '# theirs' >> /etc/pam.d/sshd")
    apply([ada(), grace()], ops("ops2"), **ASKED)
    for _ in range(2):
        apply([ada(), grace()])
        for bastion in BASTIONS:
            text = root(bastion, "cat /etc/pam.d/sshd")
            assert "# theirs\n" in text
            assert "devnode" not in text
            assert root(bastion, "ls -A /var/lib/devnode/totp") == ""
    for bastion in BASTIONS:
        one = Client(bastion, "ada")
        assert one.enters(), bastion
        one.leaves()
        root(bastion, "sed -i '/# theirs/d' /etc/pam.d/sshd")
