# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes beyond test_attack_table.py: keys of other sources, an auditor's look, and a thousand guesses."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from scenario_hosts import FOLDER, address, root, wait_until

STRANGER = "10.203.255.79"
OTHERS = ("10.203.255.81", "10.203.255.82", "10.203.255.83", "10.203.255.84")
# No account's key, and no agent: nothing but what is asked for.
NOBODY = ("-i", "/root/kit/wrong1")
REFUSED = "Permission denied (publickey)"


@pytest.fixture(scope="module", autouse=True)
def more_addresses():
    """The client has them, and both bastions know the way back."""
    client = address("client")
    more = (STRANGER, *OTHERS)
    root("client", "\n".join(f"ip address replace {one}/32 dev eth0" for one in more))
    for bastion in ("bastion", "bastion13"):
        root(bastion, "\n".join(f"ip route replace {one}/32 via {client}" for one in more))


@pytest.fixture(autouse=True)
def nobody_is_banned(request):
    """Bans are test_bastion.py's subject: here each attempt has to be refused by itself."""
    yield
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    root(parameters.get("bastion", "bastion"), "fail2ban-client unban --all >/dev/null")


def ssh(*words, seconds=20):
    """An attempt from the client: its exit code, and all that it printed."""
    line = shlex.join(["ssh", "-F", "/root/kit/config", *words])
    out = root("client", f"set +e; timeout {seconds} {line} </dev/null 2>&1; echo rc=$?")
    text, _mark, code = out.rpartition("rc=")
    return int(code), text


def logged(bastion, *words):
    """Whether one line of sshd's log has all the words."""
    lines = root(bastion, "journalctl -t sshd -t sshd-session --since -3min --no-pager -o cat").splitlines()
    return any(all(word in line for word in words) for line in lines)


@pytest.fixture(params=["bastion", "bastion13"])
def other_sources(request):
    """What a site may have for accounts of its own: a program that prints keys (for all here), an authority."""
    bastion = request.param
    key, authority = ((FOLDER / f"{name}.pub").read_text().strip() for name in ("wrong1", "wrong2"))
    config = "AuthorizedKeysCommand /usr/local/bin/site-keys %u\\nAuthorizedKeysCommandUser nobody\\n"
    config += "TrustedUserCAKeys /etc/ssh/site_ca\\n"
    root(bastion, f"printf '#!/bin/sh\\necho {key}\\n' > /usr/local/bin/site-keys; chmod 755 /usr/local/bin/site-keys")
    root(bastion, f"echo '{authority}' > /etc/ssh/site_ca; printf '{config}' > /etc/ssh/sshd_config.d/60-site.conf")
    root(bastion, "useradd --create-home --password '*' site; systemctl restart ssh")
    root("client", "cd /root/kit; cp wrong3 signed; ssh-keygen -q -y -f signed > signed.pub")
    root("client", "cd /root/kit; ssh-keygen -q -s wrong2 -I x -n ada,ops,site -V +1h signed.pub 2>/dev/null")
    yield bastion
    root(bastion, "rm /etc/ssh/sshd_config.d/60-site.conf /etc/ssh/site_ca /usr/local/bin/site-keys")
    root(bastion, "systemctl restart ssh; userdel --force site; rm -r /home/site")
    root("client", "rm /root/kit/signed*")


def test_keys_from_elsewhere_open_nothing_for_people_and_operators(other_sources):
    """They would have no restrict, no permitopen and no from=. What the site needs them for goes on working."""
    bastion, others = other_sources, iter(OTHERS)
    for key in ("wrong1", "signed"):
        options = ["-i", f"/root/kit/{key}", "-o", "IdentityAgent=none"]
        for login in ("ada", "ops"):
            # Each from an address of its own: OpenSSH 10 soon stops answering one that fails.
            source = next(others)
            code, text = ssh("-b", source, *options, "-l", login, f"{bastion}-nobody", "id")
            assert (code, REFUSED in text) == (255, True), (key, login, text)
            words = ("Failed publickey", f"for {login} from {source}")
            wait_until(lambda words=words: logged(bastion, *words), "the log has it")
        assert "uid=" in ssh(*options, "-l", "site", f"{bastion}-nobody", "id")[1], key
    assert "SSH-2.0" in ssh("-W", f"{address('target')}:22", f"{bastion}-ada")[1]
    for check in ("devnode-sshd-check /etc/ssh/sshd_config.d/00-devnode.conf --user=ops", "devnode-relay-check {}"):
        root(bastion, check.format("/etc/ssh/sshd_config.d/01-devnode-bastion.conf"))


# --- an operator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bastion", ["bastion", "bastion13"])
def test_an_operator_works_there(bastion):
    assert ssh(f"{bastion}-ops", "id -un; sudo id -un")[1].split()[-2:] == ["ops", "root"]  # behind the banner
    assert "SSH-2.0" in ssh("-W", f"{address('target')}:22", f"{bastion}-ops")[1]


# --- an auditor ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bastion", ["bastion", "bastion13"])
def test_ssh_audit_has_nothing_to_say(bastion):
    """From here, a controller: it opens many connections, for which sshd would penalise others."""
    program = Path(sys.executable).with_name("ssh-audit")
    argv = [program, "--no-colors", "--level=warn", "--skip-rate-test", address(bastion)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


# --- many ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    os.environ.get("DEVNODE_TESTS") != "full", reason="takes minutes: in the full run (DEVNODE_TESTS=full)"
)
@pytest.mark.parametrize("bastion", ["bastion", "bastion13"])
def test_a_thousand_bad_logins_change_nothing_for_others(bastion):
    one = shlex.join(
        ["ssh", "-F", "/root/kit/config", "-b", STRANGER, *NOBODY, "-o", "ConnectTimeout=1", f"{bastion}-nobody"]
    )
    guesses = f"seq 1000 | xargs -P 10 -I N {one} -l guessN true >/dev/null 2>&1"
    root("client", f"systemd-run -q --collect --unit=guess sh -c {shlex.quote(guesses)}")
    wait_until(lambda: STRANGER in root(bastion, "fail2ban-client status sshd"), "the ban", 90)
    going_on = True
    while going_on:
        # systemctl ends with 3 when the unit is over: the word counts.
        going_on = root("client", "systemctl is-active guess || true").strip() == "active"
        assert "SSH-2.0" in ssh("-W", f"{address('target')}:22", f"{bastion}-ada")[1]
    assert address("client") not in root(bastion, "fail2ban-client status sshd")
