# SPDX-License-Identifier: GPL-3.0-or-later
"""A security fix of openssh-server, as unattended-upgrades installs it, while somebody is at work through the bastion.

It comes before the other files, which take people away.
"""

from __future__ import annotations

import shlex

import pytest
from scenario_hosts import address, root, ssh, wait_until

THROUGH = {"bastion": "target-ada", "bastion13": "target-ada-by-13"}
PEOPLE = ("ada", "ops", "automation", "nobody")
# No questions, and the files of before stay: what unattended-upgrades tells dpkg where nobody decided otherwise.
REINSTALL = (
    "DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "
    "install --reinstall --yes openssh-server"
)


def policy(bastion):
    """What sshd does for each kind of user, and the files that say so."""
    asked = "; ".join(
        f"/usr/sbin/sshd -T -C user={one},host=x,addr=192.0.2.1,laddr=192.0.2.2,lport=22" for one in PEOPLE
    )
    return root(
        bastion, f"{asked}; cd /etc; sha256sum ssh/sshd_config ssh/sshd_config.d/* pam.d/sshd ssh/ssh_host_*_key"
    )


def listener(bastion):
    return root(bastion, "systemctl show -p MainPID --value ssh.service").strip()


@pytest.mark.parametrize("bastion", THROUGH)
def test_a_fix_of_sshd_cuts_nobody_off_and_changes_no_policy(bastion):
    before, old = policy(bastion), listener(bastion)
    work = f"/root/kit/work-{bastion}"
    # Somebody's job at the target writes a line every half second; the bastion only passes it on.
    job = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.5; done"
    through = f"ssh -F /root/kit/config {THROUGH[bastion]} {shlex.quote(job)} >{work}"
    # systemd reads $ in an argument itself.
    root("client", f"systemd-run -q --collect --unit=work sh -c {shlex.quote(through.replace('$', '$$'))}")

    def lines():
        return [int(line) for line in root("client", f"cat {work}").split()]

    try:
        wait_until(lambda: len(lines()) > 2, "the job writes")
        root(bastion, f"{REINSTALL} >/tmp/reinstall 2>&1 || {{ cat /tmp/reinstall; exit 1; }}")
        assert listener(bastion) not in (old, "0"), "the fix is in effect: another sshd listens"
        at = lines()[-1]
        wait_until(lambda: lines()[-1] > at + 2, "the job goes on writing")
        seen = lines()
        assert seen == list(range(1, seen[-1] + 1)), "no line is lost"
        assert root("client", "systemctl is-active work").strip() == "active"
    finally:
        root("client", "systemctl stop work || true")
    assert policy(bastion) == before
    for check in ("devnode-sshd-check /etc/ssh/sshd_config.d/00-devnode.conf --user=ops", "devnode-relay-check {}"):
        root(bastion, check.format("/etc/ssh/sshd_config.d/01-devnode-bastion.conf"))
    # Who comes now, comes in: a person to their target and nowhere else, and Ansible.
    target = address("target")
    word = f"ssh -F /root/kit/config -W {target}:{{}} {bastion}-ada </dev/null 2>&1 || true"
    assert "SSH-2.0" in root("client", word.format(22))
    assert "administratively prohibited" in root("client", word.format(9999))
    assert ssh(bastion, "sudo -n id -u").stdout == "0\n"
