# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs host keys on the controller; see `ansible-doc -t module devnode.gpu.host_certificates`."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.module_utils import host_certificates as model
from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.problems import Problems
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey, public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

PATIENCE = 30  # seconds; an agent may ask its owner
SKEW = "-10m"  # clocks that are slow


class SignError(RuntimeError):
    """A certificate could not be made, in words."""


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller only; needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _checks, args = self.validate_argument_spec(
            argument_spec={
                "authority": {"type": "str", "required": True},
                "days": {"type": "int", "default": 90},
                "names": {"type": "list", "elements": "str", "default": []},
                "wanted": {
                    "type": "list",
                    "elements": "dict",
                    "required": True,
                    "options": {
                        "path": {"type": "str", "required": True},
                        "key": {"type": "str", "required": True, "no_log": False},
                        "names": {"type": "list", "elements": "str"},
                        "certificate": {"type": "str", "default": ""},
                    },
                },
            }
        )
        folder = str((task_vars or {}).get("inventory_dir") or ".")
        authority = Authority(Path(folder) / Path(args["authority"]).expanduser())
        problems = Problems()
        problems.take("days", args["days"], lambda value: validators.integer(value, 1, 3650))
        for at, one in enumerate(args["wanted"]):
            one["names"] = args["names"] if one["names"] is None else one["names"]
            problems.take(f"wanted[{at}].path", one["path"], validators.path)
            problems.take(f"wanted[{at}].key", one["key"], public_key)
            if not problems.each(f"wanted[{at}].names", one["names"], validators.host_alias):
                problems.add(f"wanted[{at}].names", one["names"], "names nobody")
        if problems.found:
            return _failed("\n".join(problems.found))
        try:
            return self._sign(authority, args["wanted"], args["days"])
        except SignError as error:
            return _failed(str(error))

    def _sign(self, authority: Authority, wanted: list[dict[str, Any]], days: int) -> dict[str, Any]:
        files, signed = [], []
        for one in wanted:
            key, names, text = public_key(one["key"]), list(one["names"]), one["certificate"]
            why = model.need(text, key, names, authority.public, time.time(), days)
            if why:
                text = authority.sign(key, names, days)
                signed.append(f"{one['path']}: {why}")
            files.append({"path": one["path"], "content": text, "mode": "0644"})
        # What changes a host is putting the files there; this one says what will.
        return {"changed": False, "files": files, "signed": signed}


class Authority:
    """The key that signs: a file here, or one in an agent, of which only the .pub file is named."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.in_agent = path.suffix == ".pub"
        self._public: PublicKey | None = None

    @property
    def public(self) -> PublicKey:
        """What everybody may know of it."""
        if self._public is None:
            path = self.path if self.in_agent else self.path.with_name(f"{self.path.name}.pub")
            try:
                self._public = public_key(path.read_text(encoding="utf-8"))
            except OSError as error:
                raise SignError(
                    f"authority: {show(str(path))} cannot be read ({error.strerror}). Allowed: the path of a private "
                    "key on the controller whose public key lies beside it, or of a .pub file whose key is in an agent."
                ) from error
            except (InvalidError, UnicodeDecodeError) as error:
                raise SignError(f"authority: {show(str(path))} {error}") from error
        return self._public

    def sign(self, key: PublicKey, names: list[str], days: int) -> str:
        """A new certificate."""
        expected = self.public
        with tempfile.TemporaryDirectory(prefix="devnode-sign-") as folder:
            public = Path(folder) / "host.pub"
            public.write_text(f"{key.bare}\n", encoding="ascii")
            agent = ["-U"] if self.in_agent else []
            argv = ["ssh-keygen", "-q", "-s", str(self.path), *agent, "-h", "-I", names[0], "-n", ",".join(names)]
            argv += ["-z", str(int(time.time())), "-V", f"{SKEW}:+{days}d", str(public)]
            try:
                done = subprocess.run(
                    argv,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=PATIENCE,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # no terminal: nobody is asked for a passphrase in the middle of a run
                    env={**os.environ, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"},
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise SignError(f"ssh-keygen could not sign with {self.path}: {error}.") from error
            if done.returncode != 0:
                said = " ".join((done.stderr or done.stdout).split())
                raise SignError(
                    f"authority: {show(str(self.path))} cannot sign: {said}. A key with a passphrase belongs in an "
                    "agent (ssh-add), and its .pub file here."
                )
            text = " ".join(Path(folder, "host-cert.pub").read_text(encoding="ascii").split()[:2]) + "\n"
        if model.parse(text).authority != expected.bare:
            raise SignError(f"authority: {show(str(self.path))} and the .pub file beside it are two different keys.")
        return text


def _failed(message: str) -> dict[str, Any]:
    return {"failed": True, "changed": False, "msg": message}
