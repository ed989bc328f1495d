# SPDX-License-Identifier: GPL-3.0-or-later
"""A small fleet for tests, as plain values; every test changes only what it is about."""

from __future__ import annotations

import base64
import copy
import hashlib

from ansible_collections.devnode.gpu.plugins.module_utils.topology import Source, load


def key(name):
    """A sound public key, always the same for a name."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + hashlib.sha256(name.encode()).digest()
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} {name}"


def bare(name):
    return key(name).rsplit(" ", 1)[0]


PLAIN = {
    "bastions": {
        "bastion": {
            "devnode_address": "bastion.example.com",
            "devnode_ip": "203.0.113.10",
            "devnode_private_ip": "10.0.0.2",
        }
    },
    "nodes": {"gpu-01": {"devnode_address": "10.0.0.11"}, "gpu-02": {"devnode_address": "10.0.0.12"}},
    "machines": {"desk": {}},
    "groups": {"big": ("gpu-01", "gpu-02", "elsewhere")},
    "users": [
        {"name": "olga", "uid": 2000, "operator": True, "keys": [key("olga")]},
        {"name": "ada", "uid": 2001, "keys": {"bastion": [key("ada-b")], "workspace": [key("ada-w")]}},
        {"name": "grace", "uid": 2002, "keys": [key("grace")]},
    ],
    "workspaces": [
        {"name": "nlp", "node": "gpu-01", "owner": "ada", "port": 2201, "gpus": [0], "project": "corpus"},
        {"name": "team", "nodes": "big", "owner": "grace", "members": ["ada"], "port": 2210},
    ],
    "projects": [
        {"name": "corpus", "agent_forwarding": True, "git_hosts": [{"name": "git.example.com", "keys": [bare("git")]}]}
    ],
    "allowed_networks": ["198.51.100.0/24"],
    "controllers": ["198.51.100.5"],
    "operator_networks": ["198.51.100.0/28"],
    "known_hosts": "".join(
        f"{name} {bare(name)}\n" for name in ("bastion", "gpu-01", "gpu-02", "nlp.gpu-01", "team.gpu-01", "team.gpu-02")
    ),
}


def fleet(change=None):
    """The fleet's values after `change` was called with them."""
    values = copy.deepcopy(PLAIN)
    if change is not None:
        change(values)
    return Source(**values)


def loaded(change=None):
    return load(fleet(change))
