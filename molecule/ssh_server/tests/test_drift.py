# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing of ours changes, and still the policy is not in effect: somebody wrote another file."""

from __future__ import annotations

from scenario_hosts import play, root

HOSTS = ("debian12", "debian13")
HOLE = "/etc/ssh/sshd_config.d/00-aaa.conf"


def test_a_hole_is_named_though_nothing_of_ours_changes():
    for host in HOSTS:
        root(host, f"echo 'PasswordAuthentication yes' > {HOLE}")
    for mode in ((), ("--check",)):
        done = play(*mode)
        text = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 2, text
        assert text.count(f"passwordauthentication is 'yes' for nobody, root, asked: 'no'. {HOLE}:1 says yes.") >= 2, (
            text
        )
        assert text.count("nothing was to be changed") >= 2
    for host in HOSTS:
        assert root(host, f"sshd -t; cat {HOLE}; rm {HOLE}") == "PasswordAuthentication yes\n"
    done = play()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("changed=0 ") == 2, done.stdout
