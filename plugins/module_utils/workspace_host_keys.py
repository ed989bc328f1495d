# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workspaces' host keys, as they lie on the host: what is published of them, and what is to be signed."""

from __future__ import annotations

import glob
from typing import Any, Container, Dict, Iterable, List

from ansible_collections.devnode.gpu.plugins.module_utils import whole_file
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError
from ansible_collections.devnode.gpu.plugins.module_utils.workspace import Options, Workspace

CERTIFICATE = "-cert.pub"


def folder(name: str, options: Options) -> str:
    """Where the host keys of a workspace lie; its container sees them read-only."""
    return f"{options.state_dir}/{name}/host_keys"


def published(workspaces: Iterable[Workspace], options: Options) -> Dict[str, List[str]]:
    """The public host keys of those workspaces that have one already, by alias."""
    found = {}
    for item in workspaces:
        # With those of a rotation: the next one (.next), or the one before (.old).
        paths = sorted(glob.glob(f"{folder(item.name, options)}/ssh_host_*_key*.pub"))
        keys = [_words(path) for path in paths if not path.endswith(CERTIFICATE)]
        if keys:
            found[item.host_key_alias or item.name] = keys
    return found


def certificates(options: Options) -> List[str]:
    """Every certificate that is there, also of workspaces that are no longer declared."""
    return sorted(glob.glob(f"{folder('*', options)}/ssh_host_*{CERTIFICATE}"))


def to_sign(workspaces: Iterable[Workspace], options: Options) -> List[Dict[str, Any]]:
    """The keys that are served or will be next, each with where its certificate belongs and what is there now.

    The next one is signed before it is served: sshd serves of all certificates the one that fits its key.
    """
    found = []
    for item in workspaces:
        for path in sorted(glob.glob(f"{folder(item.name, options)}/ssh_host_*_key*")):
            key = _words(f"{path}.pub") if path.endswith(("_key", "_key.next")) else ""
            if _is_key(key):
                names = [item.host_key_alias or item.name]
                certificate = f"{path}{CERTIFICATE}"
                found.append(
                    {"path": certificate, "key": key, "names": names, "certificate": whole_file.text(certificate)}
                )
    return found


def activate(workspaces: Iterable[Workspace], options: Options, running: Container[str]) -> List[Dict[str, Any]]:
    """How a running container takes a certificate over: its sshd reads its keys again, and open sessions stay.

    One that does not run has nothing to take over: it reads them when it starts.
    """
    program = "/usr/local/sbin/devnode-workspace"
    return [
        {
            "argv": ["docker", "exec", item.container, program, "apply"],
            "when_changed": [f"{folder(item.name, options)}/*"],
        }
        for item in workspaces
        if item.container in running
    ]


def _is_key(text: str) -> bool:
    try:
        public_key(text)
    except InvalidError:
        return False
    return True


def _words(path: str) -> str:
    """Type and base64 of a public key; nothing where there is none."""
    return " ".join(whole_file.text(path).split()[:2])
