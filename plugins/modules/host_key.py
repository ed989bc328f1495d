#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_key
short_description: Change an ssh host key in stages, so that no login breaks
version_added: 0.1.0
description:
  - V(publish) makes the next key beside the one that is served. RV(published) then names both, for known_hosts files.
  - V(serve) makes sshd use it, after a wait, and checks that it does; otherwise the old key is put back.
  - V(drop) removes the old key, V(cancel) a next key that is not served yet. V(look) changes nothing.
  - A stage that was interrupted is completed by running it again. One that is done already changes nothing.
  - Private keys never leave the host.
author: The devnode.gpu authors (@devnode)
options:
  stage:
    description: Which stage to go to.
    type: str
    choices: [look, publish, serve, drop, cancel]
    required: true
  directory:
    description: Where the key lies. Not for its owner alone, but only root may write there.
    type: path
    default: /etc/ssh
  type:
    description: Type of the key.
    type: str
    choices: [ed25519, rsa]
    default: ed25519
  comment:
    description: Comment of a new key.
    type: str
    default: ""
  wait_hours:
    description: Hours that must lie between V(publish) and V(serve), in which people get their new known_hosts.
    type: float
    default: 24
  reload:
    description: The command that makes sshd read its host keys. By default, a reload of the host's own sshd.
    type: list
    elements: str
    default: []
  address:
    description: Where to ask which key is served. By default, where this connection came in.
    type: str
    default: ""
  port:
    description: Its port.
    type: int
    default: 0
  certificate:
    description:
      - With V(serve), the certificate of the key that is served then (RV(to_sign)). It takes the place of the one that
        is there, if there is one, in the moment in which sshd reads both.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says what would be done, and changes nothing.
    support: full
  diff_mode:
    description: Shows the steps.
    support: full
"""

EXAMPLES = r"""
- name: Have the next key ready
  devnode.gpu.host_key:
    stage: publish
  register: host_key
"""

RETURN = r"""
published:
  description: Public keys that clients have to know from now on.
  returned: success
  type: list
  elements: str
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
fingerprint:
  description: Fingerprint of the served key.
  returned: success
  type: str
to_sign:
  description: >-
    Where the key has a certificate, for O(devnode.gpu.host_certificates#module:wanted): the key that is served after
    V(serve), where its certificate belongs, and what is there now.
  returned: success
  type: list
  elements: dict
"""

import os
import shutil
import time
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import session, whole_file
from ansible_collections.devnode.gpu.plugins.module_utils.host_key_rotation import STAGES, RefusedError, State, steps
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_policy import certificate_path
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

PATIENCE = 10.0
RELOAD = """
unit=ssh.service
systemctl cat $unit >/dev/null 2>&1 || unit=sshd.service
if systemctl -q is-active ssh.socket sshd.socket; then exec systemctl stop $unit; fi
exec systemctl reload-or-restart $unit
"""


class FailedError(Exception):
    """What went wrong, in words."""


class HostKey:
    """One key with its neighbours."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: Dict[str, Any] = module.params
        self.base = os.path.join(self.params["directory"], f"ssh_host_{self.params['type']}_key")
        self.certificate = certificate_path(self.base)
        self.certified = whole_file.text(self.certificate)

    def path(self, which: str) -> str:
        return self.base if which == "key" else f"{self.base}.{which}"

    def run(self, *argv: str) -> str:
        code, out, err = self.module.run_command(list(argv))
        if code != 0:
            raise FailedError(f"{' '.join(argv[:3])} ended with {code}: {(err or out).strip()}")
        return str(out)

    def public(self, which: str) -> Optional[str]:
        """From the private key itself: its .pub may be of another time."""
        if not os.path.exists(self.path(which)):
            return None
        return " ".join(self.run("ssh-keygen", "-y", "-P", "", "-f", self.path(which)).split()[:2])

    def served(self) -> Optional[str]:
        """What the sshd that runs answers with."""
        here = session.current()
        address = self.params["address"] or (here.server if here else "127.0.0.1")
        port = self.params["port"] or (here.server_port if here else 22)
        argv = ["ssh-keyscan", "-T", "5", "-t", self.params["type"], "-p", str(port), address]
        _code, out, _err = self.module.run_command(argv)
        for line in out.splitlines():
            words = line.split()
            if len(words) >= 3 and not line.startswith("#"):
                return " ".join(words[1:3])
        return None

    def state(self) -> State:
        key = self.public("key")
        if key is None:
            raise FailedError(f"{self.base} is not there. Make it with: ssh-keygen -A")
        waiting = self.path("next")
        age = time.time() - os.stat(waiting).st_mtime if os.path.exists(waiting) else 0.0
        return State(key, self.public("next"), self.public("old"), self.served(), age)

    def do(self, step: str) -> None:
        getattr(self, f"_{step}")()
        descriptor = os.open(self.params["directory"], os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def _make(self) -> None:
        new = f"{self.base}.new"
        for path in (new, f"{new}.pub"):
            if os.path.exists(path):
                os.unlink(path)
        size = ["-b", "4096"] if self.params["type"] == "rsa" else []
        comment = self.params["comment"] or os.uname().nodename
        self.run("ssh-keygen", "-q", "-t", self.params["type"], *size, "-N", "", "-C", comment, "-f", new)
        os.unlink(f"{new}.pub")
        os.rename(new, self.path("next"))

    def _keep(self) -> None:
        copy = f"{self.base}.new"
        shutil.copy2(self.path("key"), copy)
        os.rename(copy, self.path("old"))

    def _certify(self) -> None:
        if self.params["stage"] == "serve" and self.params["certificate"] and self.certified:
            self.write(self.certificate, self.params["certificate"])

    def _swap(self) -> None:
        # sshd reads both files for each connection: so one right after the other.
        self._certify()
        os.rename(self.path("next"), self.path("key"))

    def _reload(self) -> None:
        self._certify()
        self.write_public()
        self.run(*(self.params["reload"] or ["/bin/sh", "-c", RELOAD]))
        wanted, end = self.public("key"), time.monotonic() + PATIENCE
        while self.served() != wanted:
            if time.monotonic() > end:
                raise FailedError(f"sshd does not serve the key in {self.base} after its reload")
            time.sleep(0.3)

    def _forget(self) -> None:
        os.unlink(self.path("old"))

    def _discard(self) -> None:
        os.unlink(self.path("next"))

    def back(self) -> None:
        """The old key again, and the new one waits once more."""
        if os.path.exists(self.path("old")) and not os.path.exists(self.path("next")):
            os.link(self.path("key"), self.path("next"))
            os.rename(self.path("old"), self.path("key"))
            self.write_public()
            if self.certified:
                self.write(self.certificate, self.certified)
            self.run(*(self.params["reload"] or ["/bin/sh", "-c", RELOAD]))

    def write_public(self) -> None:
        """The .pub files, as other programs read them."""
        for which in ("key", "next", "old"):
            path, text = f"{self.path(which)}.pub", self.public(which)
            if text is None:
                if os.path.exists(path):
                    os.unlink(path)
                continue
            try:
                with open(path, encoding="utf-8", errors="replace") as stream:
                    present = " ".join(stream.read().split()[:2])
            except OSError:
                present = ""
            if present != text:
                self.write(path, f"{text} {self.params['comment'] or os.uname().nodename}\n")

    def to_sign(self, key: str) -> List[Dict[str, str]]:
        """What to certify before this key is served, where keys have certificates."""
        found = {"path": self.certificate, "key": key, "certificate": self.certified}
        return [found] if self.certified else []

    @staticmethod
    def write(path: str, text: str) -> None:
        """In one step; everybody may read it."""
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(f"{path}.new", 0o644)
        os.rename(f"{path}.new", path)


def change(host: HostKey, module: AnsibleModule) -> Dict[str, Any]:
    """Go to the stage."""
    state = host.state()
    todo = steps(module.params["stage"], state, module.params["wait_hours"] * 3600)
    if todo and not module.check_mode:
        try:
            for step in todo:
                host.do(step)
        except FailedError:
            if module.params["stage"] == "serve":
                host.back()
            raise
        host.write_public()
        state = host.state()
    published: List[str] = state.published
    return {
        "changed": bool(todo),
        "steps": list(todo),
        "published": published,
        "fingerprint": public_key(state.key).fingerprint,
        "to_sign": host.to_sign(state.next or state.key),
        "diff": {"before": "", "after": "".join(f"{host.base}: {step}\n" for step in todo)},
    }


def main() -> None:
    """Read, decide, do."""
    module = AnsibleModule(
        argument_spec={
            "stage": {"type": "str", "choices": list(STAGES), "required": True},
            "directory": {"type": "path", "default": "/etc/ssh"},
            "type": {"type": "str", "choices": ["ed25519", "rsa"], "default": "ed25519"},
            "comment": {"type": "str", "default": ""},
            "wait_hours": {"type": "float", "default": 24},
            "reload": {"type": "list", "elements": "str", "default": []},
            "address": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 0},
            "certificate": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="This needs root on the host, to read and write its host keys. Set become: true.")
    try:
        module.exit_json(**change(HostKey(module), module))
    except (RefusedError, FailedError, InvalidError, OSError) as error:
        module.fail_json(msg=f"Host key {HostKey(module).base}: {error}.")


if __name__ == "__main__":
    main()
