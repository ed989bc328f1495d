# SPDX-License-Identifier: GPL-3.0-or-later
"""site.yml looks at every host before it changes one."""

from __future__ import annotations

import os
import subprocess

from lab_site import ROOT, inside

AWAY = "for one in /usr/bin/python3*; do mv $one $one.away; done"
BACK = "for one in /usr/bin/python3*.away; do mv $one ${one%.away}; done"


def test_a_host_that_will_not_do_is_left_alone_and_said_before_anything_is_changed(lab: None) -> None:
    argv = ["ansible-playbook", "-i", "inventory/lab", "site.yml", "--limit", "gpu-02"]
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    assert inside("gpu-02", f"{AWAY}; touch /run/before; sleep 1.1").rc == 0
    try:
        done = subprocess.run(
            argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        )
        looked = inside("gpu-02", "find /etc /usr /opt /home /root -xdev -type f -cnewer /run/before")
    finally:
        assert inside("gpu-02", BACK).rc == 0
    assert done.returncode == 2, done.stdout + done.stderr
    assert "gpu-02 cannot be used as it is, and nothing was changed" in done.stdout
    assert "python: there is no Python on this host" in done.stdout
    assert "TASK [devnode.gpu." not in done.stdout
    assert looked.rc == 0
    assert looked.stdout == ""
