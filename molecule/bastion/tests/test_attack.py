# SPDX-License-Identifier: GPL-3.0-or-later
"""The same attempts as each kind of user: a stranger, a person, an operator, an operator from elsewhere.

What is refused says so, what is meant works, and the log has the attempt. What a person's way through the bastion is
worth to an attacker is in test_bastion.py; who left is there, too.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from scenario_hosts import FOLDER, address, root, wait_until
from scenario_hosts import ssh as controller_ssh

STRANGER, ELSEWHERE = "10.203.255.79", "10.203.255.80"
OTHERS = ("10.203.255.81", "10.203.255.82", "10.203.255.83", "10.203.255.84")
# No account's key, and no agent: nothing but what is asked for.
NOBODY = ("-i", "/root/kit/wrong1")
REFUSED = "Permission denied (publickey)"
# One line each that no client of today needs. A server that takes it can be talked down to it.
OLD = {
    "kex": ["KexAlgorithms=diffie-hellman-group14-sha1"],
    "kex with group exchange": ["KexAlgorithms=diffie-hellman-group-exchange-sha1"],
    "nist curve": ["KexAlgorithms=ecdh-sha2-nistp256"],
    "cbc cipher": ["Ciphers=aes128-cbc"],
    "triple des": ["Ciphers=3des-cbc"],
    # AES-GCM and ChaCha20 need no MAC, so it is asked for with a cipher that does and that the server takes.
    "sha1 mac": ["Ciphers=aes256-ctr", "MACs=hmac-sha1"],
    "encrypt and mac": ["Ciphers=aes256-ctr", "MACs=hmac-sha2-256"],
    "sha1 host key": ["HostKeyAlgorithms=ssh-rsa"],
    "ecdsa host key": ["HostKeyAlgorithms=ecdsa-sha2-nistp256"],
}


@pytest.fixture(scope="module", autouse=True)
def more_addresses():
    """The client has them, and both bastions know the way back."""
    client = address("client")
    more = (STRANGER, ELSEWHERE, *OTHERS)
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


# --- a stranger ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", ["ada", "ops", "automation", "root", "nosuchuser"])
def test_a_stranger_is_refused_in_one_way_whoever_they_say_they_are(login):
    code, text = ssh("-b", STRANGER, *NOBODY, "-o", "IdentityAgent=none", "-l", login, "bastion-nobody", "id")
    assert code == 255
    assert REFUSED in text, text
    wait_until(lambda: logged("bastion", login, STRANGER), f"the log has the attempt as {login}")


@pytest.mark.parametrize("method", ["password", "keyboard-interactive", "hostbased", "gssapi-with-mic", "none"])
@pytest.mark.parametrize("login", ["ada", "ops"])
def test_nothing_but_keys_is_offered(login, method):
    options = ["-o", "PubkeyAuthentication=no", "-o", f"PreferredAuthentications={method}", "-o", "BatchMode=no"]
    code, text = ssh("-b", STRANGER, *options, "-l", login, "bastion-nobody", "id")
    assert code == 255
    assert REFUSED in text, text


@pytest.mark.parametrize("bastion", ["bastion", "bastion13"])
@pytest.mark.parametrize("old", OLD)
def test_old_algorithms_are_refused_before_anybody_says_who_they_are(bastion, old):
    # From the operators' own place, so that nothing but the algorithm is wrong.
    options = [word for option in OLD[old] for word in ("-o", option)]
    code, text = ssh(*options, f"{bastion}-ops", "id")
    assert code == 255
    assert "no matching" in text, text
    wait_until(lambda: logged(bastion, "Unable to negotiate", address("client")), "the log has it")


# --- a person ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["Tunnel=point-to-point", "Tunnel=ethernet"])
def test_a_person_gets_no_tunnel(option):
    code, text = ssh("-N", "-w", "any:any", "-o", option, "-o", "ExitOnForwardFailure=yes", "bastion-ada")
    assert code == 255
    assert "Tunnel" in text or "tunnel" in text, text


@pytest.mark.parametrize("login", ["ops", "automation", "root", "grace"])
def test_a_persons_key_is_nobody_elses(login):
    code, text = ssh("-o", "IdentityAgent=none", "-l", login, "bastion-ada", "id")
    assert code == 255
    assert REFUSED in text, text


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


@pytest.mark.parametrize("bastion", ["bastion", "bastion13"])
def test_an_operators_key_is_worth_nothing_elsewhere(bastion):
    """The packet filter lets that address knock: it is the key that says from where it counts."""
    code, text = ssh("-b", ELSEWHERE, f"{bastion}-ops", "id")
    assert code == 255
    assert REFUSED in text, text
    wait_until(
        lambda: (
            logged(bastion, "ops", ELSEWHERE, "not from a permitted host")
            or logged(bastion, "not allowed from", ELSEWHERE)
        ),
        "the log has the stolen key",
    )


def test_an_operators_environment_does_not_come_along():
    names = {
        "LD_PRELOAD": "/root/kit/evil.so",
        "PYTHONPATH": "/nonexistent",
        "BASH_ENV": "/nonexistent",
        "DEVNODE_X": "1",
    }
    words = [word for name, value in names.items() for word in ("-o", f"SetEnv={name}={value}")]
    # The first SetEnv counts, so they are tried one by one.
    for at in range(0, len(words), 2):
        code, text = ssh(*words[at : at + 2], "bastion-ops", "env")
        assert code == 0
        assert not [line for line in text.splitlines() if line.split("=")[0] in names], text


@pytest.mark.parametrize("back", ["9002:127.0.0.1:22", "0.0.0.0:9002:127.0.0.1:22", "/run/back:127.0.0.1:22"])
def test_an_operator_opens_no_way_back_either(back):
    code, text = ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", back, "bastion-ops")
    assert code == 255
    assert "forwarding failed" in text, text


def test_an_operators_agent_and_screen_stay_at_home():
    script = 'echo "agent=${SSH_AUTH_SOCK:-none} screen=${DISPLAY:-none}"'
    start = "eval $(ssh-agent) >/dev/null; ssh-add -q /root/kit/ops; export DISPLAY=:7"
    stop = "ssh-agent -k >/dev/null"
    line = shlex.join(["ssh", "-F", "/root/kit/config", "-A", "-X", "bastion-ops", script])
    text = root("client", f"{start}; {line} 2>/dev/null; {stop}")
    assert text.strip() == "agent=none screen=none"


# --- the automation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bastion", ["bastion", "bastion13"])
def test_the_automations_key_is_worth_nothing_elsewhere(bastion):
    """It is root. The client has the key itself, as a thief would; the controller has it as well, and gets in."""
    options = ["-i", "/root/kit/automation", "-o", "IdentityAgent=none", "-l", "automation"]
    through = ["-W", f"{address('target')}:22", f"{bastion}-nobody"]
    for source, words in ((ELSEWHERE, [f"{bastion}-nobody", "id"]), (address("client"), through)):
        code, text = ssh("-b", source, *options, *words)
        assert (code, REFUSED in text) == (255, True), text
        said = f"User automation from {source} not allowed because listed in DenyUsers"
        wait_until(lambda said=said: logged(bastion, said), "the log has the stolen key")
    assert controller_ssh(bastion, "sudo -n id -u").stdout == "0\n"


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
