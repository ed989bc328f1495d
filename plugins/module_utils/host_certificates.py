# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of host keys: what one says, and whether a host needs another one. Pure.

The format is OpenSSH's (PROTOCOL.certkeys). Nothing here checks a signature: who trusts the certificate does that.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Iterable, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

# What signs, on the controller. Declared in galaxy.yml.
SIGNER = "community.crypto.openssh_cert"
INSTALL = "ansible-galaxy collection install 'community.crypto:>=3.0.0,<4.0.0'"

SUFFIX = "-cert-v01@openssh.com"
HOST = 2
DAY = 86400
# How many strings a key of a type has, behind the nonce.
_FIELDS = {"ssh-ed25519": 1, "ssh-rsa": 2, "ecdsa-sha2-nistp256": 2, "ecdsa-sha2-nistp384": 2, "ecdsa-sha2-nistp521": 2}


@dataclass(frozen=True)
class Certificate:
    """What a certificate says."""

    key: str  # the public key that it is for, "type base64"
    kind: int  # 1: a person's, 2: a host's
    identity: str
    principals: Tuple[str, ...]
    valid_after: int  # seconds since 1970
    valid_before: int
    authority: str  # the public key that signed it, "type base64"


class _Blob:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, size: int) -> int:
        found, self.data = self._cut(size)
        return int.from_bytes(found, "big")

    def string(self) -> bytes:
        found, self.data = self._cut(self.number(4))
        return found

    def _cut(self, size: int) -> Tuple[bytes, bytes]:
        if len(self.data) < size:
            raise InvalidError("is cut short", "a certificate as ssh-keygen -s writes it")
        return self.data[:size], self.data[size:]


def parse(text: str) -> Certificate:
    """Read a certificate file."""
    allowed = "a certificate as ssh-keygen -s writes it"
    words = text.split()
    if len(words) < 2 or not words[0].endswith(SUFFIX) or words[0][: -len(SUFFIX)] not in _FIELDS:
        raise InvalidError("is not a certificate of a host key", allowed)
    try:
        blob = _Blob(base64.b64decode(words[1], validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidError("is not base64", allowed) from error
    kind_of_key = words[0][: -len(SUFFIX)]
    if blob.string().decode("utf-8", "replace") != words[0]:
        raise InvalidError("says two types", allowed)
    blob.string()  # the nonce
    parts = [blob.string() for _dummy in range(_FIELDS[kind_of_key])]
    blob.number(8)  # the serial number
    kind, identity, names = blob.number(4), blob.string(), _Blob(blob.string())
    principals = []
    while names.data:
        principals.append(names.string().decode("utf-8", "replace"))
    valid_after, valid_before = blob.number(8), blob.number(8)
    for _dummy in ("critical options", "extensions", "reserved"):
        blob.string()
    authority, _signature = blob.string(), blob.string()
    if blob.data:
        raise InvalidError("has something behind its end", allowed)
    return Certificate(
        key=_line(kind_of_key, parts),
        kind=kind,
        identity=identity.decode("utf-8", "replace"),
        principals=tuple(principals),
        valid_after=valid_after,
        valid_before=valid_before,
        authority=_bare(authority),
    )


def _line(kind: str, parts: Iterable[bytes]) -> str:
    return _bare(b"".join(len(part).to_bytes(4, "big") + part for part in (kind.encode(), *parts)))


def _bare(blob: bytes) -> str:
    return f"{_Blob(blob).string().decode('utf-8', 'replace')} {base64.b64encode(blob).decode()}"


def need(text: str, key: PublicKey, names: Iterable[str], authority: PublicKey, now: float, days: int) -> str:
    """Why a host needs another certificate than the one that it has; nothing when it is good for a while yet.

    It is renewed when less than a third of its time is left, so that a run now and then is enough.
    """
    if not text.strip():
        return "there is none"
    try:
        found = parse(text)
    except InvalidError as error:
        return f"the one that is there {error.why}"
    wanted = tuple(names)
    reasons = (
        (found.kind != HOST, "the one that is there is not for hosts"),
        (found.key != key.bare, "it is for another host key"),
        (found.authority != authority.bare, "another authority signed it"),
        (found.principals != wanted, f"it is for {', '.join(found.principals) or 'nobody'}"),
        (found.valid_after > now, "it does not count yet"),
        (found.valid_before <= now, "it has ended"),
        (found.valid_before - now < days * DAY / 3, f"it ends in {max(0, int(found.valid_before - now)) // DAY} days"),
        (found.valid_before - now > days * DAY + DAY, "it lasts longer than is wanted now"),
    )
    return next((why for true, why in reasons if true), "")
