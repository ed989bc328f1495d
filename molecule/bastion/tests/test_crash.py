# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy that ends sshd, on its way back: what the role runs has to start it though systemd has given up on it."""

from __future__ import annotations

import os

import pytest
import yaml
from scenario_hosts import SCENARIO, outside, ssh, wait_until

ROLE = SCENARIO.parents[1] / "roles" / "bastion"
PLACE = "/run/systemd/system/ssh.service.d"
# Not with 255, after which systemd would not try again. It counts for ten seconds; longer here, however slow all is.
START = "/bin/sh -c 'if test -e /run/crash; then exit 1; fi; exec /usr/sbin/sshd -D'"
CRASHES = f"""
mkdir -p {PLACE}; cat >{PLACE}/crash.conf <<'END'
[Unit]
StartLimitIntervalSec=1h
[Service]
ExecStart=
ExecStart={START}
END
systemctl daemon-reload; touch /run/crash; systemctl restart ssh.service || :
until test "$(systemctl show -P SubState ssh.service)" = failed; do sleep 0.1; done
rm /run/crash
"""


def inside(bastion, script):
    return outside(bastion, "sh", "-euc", script)


@pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: molecule/ssh_server has a crash")
@pytest.mark.parametrize("bastion", ["bastion", "bastion13"])
def test_sshd_is_started_again_though_systemd_has_given_up(bastion):
    command = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__bastion_reload_sshd"]
    try:
        crashed = inside(bastion, f"{CRASHES}systemctl start ssh.service 2>&1 || echo not yet")
        assert "not yet" in crashed.stdout, crashed.stdout + crashed.stderr
        again = inside(bastion, command)
        assert again.returncode == 0, again.stdout + again.stderr
    finally:
        inside(bastion, f"rm -rf {PLACE} /run/crash; systemctl daemon-reload; systemctl reset-failed ssh.service || :")
        inside(bastion, "systemctl restart ssh.service")
    wait_until(lambda: ssh(bastion, "true").returncode == 0, f"{bastion} answers")
