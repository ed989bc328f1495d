# SPDX-License-Identifier: GPL-3.0-or-later
"""People at the client machine of this scenario, and the inventory as they change it."""

from __future__ import annotations

import json
import shlex

from ansible_collections.devnode.gpu.plugins.module_utils import host_certificates
from scenario_hosts import FOLDER, address, play, root

BASTIONS = ("old", "new")
CERTIFICATE = "/etc/ssh/ssh_host_ed25519_key-cert.pub"


def key(name):
    return (FOLDER / f"{name}.pub").read_text().strip()


def person(name, uid, keys, reach):
    targets = [{"host": address(host), "port": 22} for host in reach]
    return {"name": name, "uid": uid, "keys": [key(one) for one in keys], "targets": targets}


def ada(*keys, reach=("old", "client")):
    return person("ada", 2001, keys or ["ada"], reach)


def grace():
    return person("grace", 2002, ["grace"], ("old", "client"))


def ops(*keys):
    return {"name": "ops", "uid": 3000, "keys": [key(one) for one in keys or ["ops"]]}


def apply(people, *operators, **more):
    """The play on both bastions at once, with these people."""
    done = play("-e", json.dumps({"people": people, "operators": list(operators) or [ops()], **more}))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Client:
    """Somebody at the client machine with one key, in front of one bastion."""

    def __init__(self, bastion, login, identity="", known="known_hosts", alias=""):
        self.bastion, self.login, self.identity = bastion, login, identity or login
        self.known, self.alias = f"/root/kit/{known}", alias or bastion
        self.socket = f"/root/kit/{login}-{self.identity}-{bastion}"

    def ssh(self, *more, command=""):
        fixed = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10"]
        fixed += [f"UserKnownHostsFile={self.known}", f"HostKeyAlias={self.alias}"]
        words = [word for option in fixed for word in ("-o", option)]
        words += ["-i", f"/root/kit/{self.identity}", "-l", self.login, *more, address(self.bastion), *command.split()]
        return shlex.join(["ssh", *words])

    def enters(self, *more):
        """A new connection, kept as a multiplexing master that others share."""
        out = root("client", f"{self.ssh('-f', '-N', '-M', '-S', self.socket, *more)} >/dev/null 2>&1 || echo refused")
        return "refused" not in out

    def is_in(self):
        """Whether the open connection is still there."""
        return "Master running" in root("client", f"{self.ssh('-S', self.socket, '-O', 'check')} 2>&1 || true")

    def reaches(self, name, *more):
        """Whether a target answers through the open connection, or a new one."""
        word = self.ssh("-S", self.socket, *more, "-W", f"{address(name)}:22")
        return "SSH-2.0" in root("client", f"(sleep 3 | timeout 10 {word} 2>&1) | head -c 8 || true")

    def leaves(self):
        root("client", f"{self.ssh('-S', self.socket, '-O', 'exit')} 2>&1 || true")


def said(bastion):
    """What the certificate of a host says."""
    return host_certificates.parse(root(bastion, f"cat {CERTIFICATE}"))


def only_the_authority_is_known():
    """A file of known hosts that names the authority, and no host key at all."""
    line = f"@cert-authority {','.join((*BASTIONS, 'elsewhere'))} {key('host_ca')}"
    root("client", f"echo '{line}' > /root/kit/by_authority")


def by_authority(bastion, alias=""):
    """Whether somebody gets in with that file."""
    return Client(bastion, "ada", known="by_authority", alias=alias).enters("-o", "ControlMaster=no", "-S", "none")
