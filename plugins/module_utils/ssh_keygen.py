# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # runs on the controller, without a module
"""A second opinion on public keys: ssh-keygen's."""

from __future__ import annotations

import shutil
import subprocess
from typing import Iterable, List

from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey


class NoSshKeygenError(RuntimeError):
    """There is no ssh-keygen here."""


def rejected(keys: Iterable[PublicKey]) -> List[PublicKey]:
    """The keys that `ssh-keygen -l` does not list; all keys are shown to it in one call."""
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        return []
    program = shutil.which("ssh-keygen")
    if program is None:
        raise NoSshKeygenError("ssh-keygen is not here: install the OpenSSH client (openssh-client) on the controller")
    text = "".join(key.bare + "\n" for key in wanted)
    listed = subprocess.run(
        [program, "-l", "-E", "sha256", "-f", "-"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    fingerprints = {words[1] for words in map(str.split, listed.stdout.splitlines()) if len(words) > 1}
    return [key for key in wanted if key.fingerprint not in fingerprints]
