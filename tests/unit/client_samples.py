# SPDX-License-Identifier: GPL-3.0-or-later
"""Views that the client tests share, and what ssh makes of a configuration."""

from __future__ import annotations

import base64
import copy
import fnmatch
import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils.client_check import parse_views
from ansible_collections.devnode.gpu.plugins.module_utils.client_options import TMUX, all_options, local_ports
from ansible_collections.devnode.gpu.plugins.module_utils.client_view import ClientView, Host

Effective = dict[str, list[str]]


def key(number: int) -> str:
    """A public key with the right structure."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes([number]) * 32
    return "ssh-ed25519 " + base64.b64encode(blob).decode()


VIEW: dict[str, Any] = {
    "person": "ada",
    "source": "inventory/example",
    "contact": "the platform team",
    "jumps": [
        {
            "aliases": ["office"],
            "hostname": "office.example.com",
            "user": "ada",
            "host_key_alias": "office",
            "identity_files": ["~/.ssh/id_ed25519_bastion"],
        },
        {
            "aliases": ["bastion"],
            "hostname": "bastion.example.com",
            "port": 2222,
            "user": "ada",
            "host_key_alias": "bastion",
            "jump": "office",
            "identity_files": ["~/.ssh/id_ed25519_bastion"],
        },
    ],
    "hosts": [
        {
            "aliases": ["nlp", "gpu-01"],
            "hostname": "10.20.0.11",
            "port": 2201,
            "user": "ada",
            "jump": "bastion",
            "host_key_alias": "nlp.gpu-01",
            "agent": "corpus",
            "reason": "workspace of ada on gpu-01",
            "forwards": [{"name": "jupyter", "port": 8888, "path": "/lab"}, {"name": "tensorboard", "port": 6006}],
        },
        {
            "aliases": ["vision"],
            "hostname": "10.20.0.11",
            "port": 2202,
            "user": "ada",
            "jump": "bastion",
            "host_key_alias": "vision.gpu-01",
            "forwards": [{"name": "jupyter", "port": 8888, "local_port": 18888}],
        },
        {
            "aliases": ["vault"],
            "hostname": "10.20.0.12",
            "port": 2201,
            "user": "ada",
            "jump": "bastion",
            "host_key_alias": "vault.gpu-02",
            "multiplexing": "high_security",
        },
        {
            "aliases": ["gpu-01-host"],
            "hostname": "10.20.0.11",
            "user": "ada",
            "jump": "bastion",
            "host_key_alias": "gpu-01",
            "kind": "host",
        },
    ],
    "patterns": [{"aliases": ["gpu-*"], "hostname": "%h.internal", "user": "ada", "jump": "bastion"}],
    "known_hosts": [
        {"names": [name], "keys": [key(number)]}
        for number, name in enumerate(
            ("office", "bastion", "nlp.gpu-01", "vision.gpu-01", "vault.gpu-02", "gpu-01", "git.example.com")
        )
    ]
    + [{"names": ["*.internal"], "keys": [key(99)], "marker": "@cert-authority"}],
    "agents": [
        {
            "name": "corpus",
            "socket": "~/.ssh/agent-corpus",
            "key_file": "~/.ssh/id_ed25519_corpus",
            "destinations": ["nlp.gpu-01>git.example.com"],
        }
    ],
}

# Name of a golden file -> what differs from VIEW.
VARIANTS: dict[str, dict[str, Any]] = {
    "linux": {},
    "linux-8.0": {"openssh": "8.0"},
    "linux-8.9": {"openssh": "8.9", "fast_algorithms": False},
    "linux-9.2": {"openssh": "9.2"},
    "linux-10.0": {"openssh": "10.0"},
    "macos": {"platform": "macos"},
    "macos-9.9": {"platform": "macos", "openssh": "9.9"},
    "windows-9.5": {"platform": "windows", "openssh": "9.5"},
    "ways": {
        "openssh": "9.2",
        "patterns": [],
        "jumps": [{**VIEW["jumps"][0], "identity_files": []}],
        "hosts": [
            {
                **VIEW["hosts"][0],
                "jump": "office",
                "tmux": True,
                "mosh_ports": "60001:60010",
                "mosh_address": "192.0.2.7",
            },
            {**VIEW["hosts"][1], "jump": "office", "own_agent": True, "request_tty": "yes", "compression": True},
            {
                **VIEW["hosts"][3],
                "jump": "office",
                "identity_files": ["~/.ssh/id_ed25519_corpus"],
                "multiplexing": "ci",
            },
        ],
    },
    "in-place": {
        "base_dir": "/srv/kit/ada",
        "control_dir": "/run/devnode-1000",
        "identity_files": ["/srv/kit/keys/workspace"],
    },
}

# What a person may have below our Include, against everything that we set.
HOSTILE = """
Host *
    HostName elsewhere.example.org
    HostKeyAlias elsewhere
    Port 9
    User nobody
    ProxyCommand false
    ForwardAgent yes
    ControlPath /tmp/everybody-%r
    ControlMaster autoask
    ControlPersist yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    GlobalKnownHostsFile /etc/passwd
    IdentitiesOnly no
    PreferredAuthentications password
    UpdateHostKeys yes
    ServerAliveInterval 0
    Compression yes
    AddKeysToAgent yes
    ConnectTimeout 1
"""


def raw(**changes: Any) -> dict[str, Any]:
    """VIEW with changes."""
    return {**copy.deepcopy(VIEW), **changes}


def view(**changes: Any) -> ClientView:
    """VIEW with changes, read."""
    views, errors = parse_views([raw(**changes)])
    assert not errors, errors
    return views[0]


def errors_of(value: Any) -> list[str]:
    """What is wrong with one view."""
    return parse_views([value])[1]


def ssh_version() -> tuple[int, int]:
    """Version of the ssh on this machine."""
    text = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr
    found = re.search(r"OpenSSH_(?:for_Windows_)?([0-9]+)\.([0-9]+)", text)
    assert found, text
    return int(found.group(1)), int(found.group(2))


def effective(config: Path, alias: str) -> Effective:
    """The options that ssh itself reads for a name."""
    done = subprocess.run(["ssh", "-G", "-F", str(config), alias], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def parsed(printed: str) -> Effective:
    """What ssh -G printed."""
    options: Effective = {}
    for line in printed.splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name.lower(), []).append(value)
    return options


def home() -> str:
    """The home as ssh takes it: from the account, whatever HOME says."""
    return pwd.getpwuid(os.getuid()).pw_dir


def typed(view: ClientView) -> list[str]:
    """Every name as it is typed; for a pattern, one that fits it."""
    fitting = [alias.replace("*", "zzz").replace("?", "z") for host in view.patterns for alias in host.aliases]
    return [name for host in view.jumps + view.hosts for name in host.names] + fitting


def compare(view: ClientView, alias: str, found: Effective, home: str, rest: Effective | None = None) -> None:
    """What ssh -G printed against what we mean for this name, and `rest`: what it prints without any configuration."""
    host = entry(view, alias)
    options = all_options(view, local_ports(view))[id(host)]
    if host.tmux and alias == host.tmux_alias:
        options.update(TMUX)
    for name, values in options.items():
        if name in ("KexAlgorithms", "Ciphers"):
            assert found[name.lower()][0].startswith(values[0].lstrip("^")), (alias, name)
            continue
        expected = [normal(name, value, home).replace("%h", alias) for value in values]
        expected = [] if name in ("ProxyJump", "ControlPath") and expected == ["none"] else expected
        got = [re.sub(r"[0-9a-f]{40}$", "%C", value) for value in found.get(name.lower(), [])]
        assert got == expected, (alias, name)
    assert "proxycommand" not in found, alias
    if rest is not None:
        ours = {name.lower() for name in options}
        assert {name: found[name] for name in found.keys() - ours} == {name: rest[name] for name in rest.keys() - ours}


def entry(view: ClientView, alias: str) -> Host:
    """The entry that a name means: the one that has it, else the first pattern that it fits."""
    named = (host for host in view.entries if alias in host.names)
    fitting = (host for host in view.patterns if any(fnmatch.fnmatchcase(alias, name) for name in host.aliases))
    return [*named, *fitting][0]


def normal(name: str, value: str, home: str) -> str:
    """A value as ssh -G prints it."""
    if name in ("ControlPath", "ForwardAgent", "UserKnownHostsFile"):
        value = re.sub("^~", home, value)
    if name == "RequestTTY":
        value = {"yes": "true", "no": "false"}.get(value, value)
    if name in ("StrictHostKeyChecking", "UpdateHostKeys", "ControlMaster", "AddKeysToAgent"):
        value = {"yes": "true", "no": "false", "4h": "14400"}.get(value, value)
    if name == "LocalForward":
        value = re.sub(r"([^ \[\]]+)(:[0-9]+)( |$)", r"[\1]\2\3", value)
    return value
