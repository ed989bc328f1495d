# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs host keys on the controller; see `ansible-doc -t module devnode.gpu.host_certificates`."""

from __future__ import annotations

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
from ansible_collections.devnode.gpu.plugins.plugin_utils import on_controller

PATIENCE = 30.0  # seconds; an agent may ask its owner
SKEW = "-10m"  # clocks that are slow
ADVICE = "A key with a passphrase belongs in an agent (ssh-add), and its .pub file here."


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
        if not on_controller.installed(model.SIGNER):
            return _failed(
                f"authority: community.crypto, which signs, is not installed where Ansible runs: {model.INSTALL}"
            )
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
                text = self._certificate(authority, key, names, days)
                signed.append(f"{one['path']}: {why}")
            files.append({"path": one["path"], "content": text, "mode": "0644"})
        # What changes a host is putting the files there; this one says what will.
        return {"changed": False, "files": files, "signed": signed}

    def _certificate(self, authority: Authority, key: PublicKey, names: list[str], days: int) -> str:
        expected, where = authority.public, show(str(authority.path))
        with tempfile.TemporaryDirectory(prefix="devnode-sign-") as folder:
            public, work, path = (Path(folder) / name for name in ("host.pub", "work", "certificate"))
            public.write_text(f"{key.bare}\n", encoding="ascii")
            work.mkdir()
            wishes = {
                "type": "host",
                "path": str(path),
                "public_key": str(public),
                "signing_key": str(authority.path.absolute()),
                "use_agent": authority.in_agent,
                "identifier": names[0],
                "principals": names,
                "serial_number": int(time.time()),
                "valid_from": SKEW,
                "valid_to": f"+{days}d",
            }
            try:
                done = on_controller.run(self, model.SIGNER, wishes, work, PATIENCE)
            except on_controller.StuckError as error:
                said = f"{error}. Does the agent answer (ssh-add -l)?"
                raise SignError(f"authority: {where} cannot sign: {said}") from error
            if done.get("failed"):
                said = " ".join(str(done.get("msg") or done).split())
                raise SignError(f"authority: {where} cannot sign: {said}. {ADVICE}")
            text = " ".join(path.read_text(encoding="ascii").split()[:2]) + "\n"
        if model.parse(text).authority != expected.bare:
            raise SignError(f"authority: {where} and the .pub file beside it are two different keys.")
        return text


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


def _failed(message: str) -> dict[str, Any]:
    return {"failed": True, "changed": False, "msg": message}
