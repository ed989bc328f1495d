# SPDX-License-Identifier: GPL-3.0-or-later
"""The action that signs host keys, in a run of ansible-playbook, for a host that nothing could be run on."""

from __future__ import annotations

import json
import subprocess

import yaml
from unit.playbook import environment

# What belongs to the host and its task, and must not come near what runs on the controller.
HOST = {
    "ansible_host": "192.0.2.1",
    "ansible_connection": "ssh",
    "ansible_become": True,
    "ansible_become_method": "ansible.builtin.su",
    "ansible_python_interpreter": "/nowhere/python",
    "ansible_remote_tmp": "/nowhere/tmp",
    "ansible_pipelining": False,
    "ansible_shell_executable": "/nowhere/sh",
}
ENVIRONMENT = {"PATH": "/nowhere", "SSH_AUTH_SOCK": "/nowhere"}


def run_action(folder, arguments, *options, **extra):
    """The run, and what the action returned, if it did."""
    task = {"devnode.gpu.host_certificates": arguments, "register": "found"}
    keep = {
        "ansible.builtin.copy": {
            "content": "{{ found | to_json }}",
            "dest": str(folder / "found.json"),
            "mode": "0600",
        },
        "vars": {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"},
        "delegate_to": "localhost",
        "become": False,
        "environment": {},
        "check_mode": False,
    }
    (folder / "found.json").unlink(missing_ok=True)
    play = {"hosts": "all", "gather_facts": False, "environment": ENVIRONMENT, "tasks": [task, keep]}
    (folder / "play.json").write_text(json.dumps([play]))
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"bastion": HOST}}}))
    done = subprocess.run(
        ["ansible-playbook", "-i", str(folder / "hosts.yml"), *options, str(folder / "play.json")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment(folder, **extra),
        cwd=folder,
    )
    there = folder / "found.json"
    return done, json.loads(there.read_text()) if there.exists() else None


def sign(folder, authority, keys, names, days=90, **extra):
    """Certificates for public keys, in their order."""
    wanted = [{"path": f"/etc/ssh/{at}-cert.pub", "key": key} for at, key in enumerate(keys)]
    arguments = {"authority": str(authority), "names": names, "days": days, "wanted": wanted}
    done, found = run_action(folder, arguments, **extra)
    assert done.returncode == 0, done.stdout + done.stderr
    return [one["content"] for one in found["files"]]


def refusal(folder, authority, key, *options, **extra):
    """What is said when nothing can be signed, as one line."""
    wanted = [{"path": "/etc/ssh/x-cert.pub", "key": key, "names": ["bastion"]}]
    done, _found = run_action(folder, {"authority": str(authority), "wanted": wanted}, *options, **extra)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())
