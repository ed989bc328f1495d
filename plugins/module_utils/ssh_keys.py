# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSSH public keys, read as far as one can without ssh-keygen: type, structure, length, fingerprint."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, holds_private_key

RSA_MIN_BITS = 3072  # the servers' RequiredRSASize: a shorter key would be taken here and refused at login
ALLOWED = f"one line 'type base64 comment' as in a .pub file (Ed25519 best; RSA from {RSA_MIN_BITS} bits)"
_CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}


@dataclass(frozen=True)
class PublicKey:
    """One public key."""

    type: str
    base64: str
    comment: str = ""

    @property
    def line(self) -> str:
        """As in a .pub file."""
        return " ".join(part for part in (self.type, self.base64, self.comment) if part)

    @property
    def bare(self) -> str:
        """Without its comment: what known_hosts holds, and what two keys are compared by."""
        return f"{self.type} {self.base64}"

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class _Reader:
    def __init__(self, blob: bytes) -> None:
        self.rest = blob

    def string(self) -> bytes:
        length = int.from_bytes(self.rest[:4], "big")
        if len(self.rest) < 4 + length or len(self.rest) < 4:
            raise InvalidError("is cut short", ALLOWED)
        found, self.rest = self.rest[4 : 4 + length], self.rest[4 + length :]
        return found


def _check_rsa(reader: _Reader) -> None:
    exponent, modulus = reader.string(), reader.string()
    bits = int.from_bytes(modulus, "big").bit_length()
    if bits < RSA_MIN_BITS:
        raise InvalidError(f"is an RSA key of {bits} bits", ALLOWED)
    if bits > 16384 or modulus[:1] > b"\x7f" or not 3 <= int.from_bytes(exponent, "big") < 2**64:
        raise InvalidError("is not a sound RSA key", ALLOWED)


def _check_ecdsa(reader: _Reader, curve: str) -> None:
    named, point = reader.string().decode("ascii", "replace"), reader.string()
    if named != curve or len(point) != _CURVES[curve] or point[:1] != b"\x04":
        raise InvalidError("is not a sound ECDSA key", ALLOWED)


def _check_ed25519(reader: _Reader) -> None:
    if len(reader.string()) != 32:
        raise InvalidError("is not a sound Ed25519 key", ALLOWED)


def _check_blob(label: str, blob: bytes) -> None:
    reader = _Reader(blob)
    inner = reader.string().decode("ascii", "replace")
    if inner != label:
        raise InvalidError(f"says {label} but holds another type", ALLOWED)
    plain = label.removeprefix("sk-").removesuffix("@openssh.com")
    if plain == "ssh-ed25519":
        _check_ed25519(reader)
    elif plain.startswith("ecdsa-sha2-"):
        _check_ecdsa(reader, plain.rsplit("-", 1)[-1])
    else:
        _check_rsa(reader)
    if label.startswith("sk-") and not reader.string():
        raise InvalidError("is a security key without its application", ALLOWED)
    if reader.rest:
        raise InvalidError("has something behind its end", ALLOWED)


TYPES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def public_key(value: Any) -> PublicKey:
    """Read one public key, or raise InvalidError."""
    if holds_private_key(value):
        raise InvalidError("is a private key: take it out of the inventory and replace that key", ALLOWED)
    if not isinstance(value, str) or not value.strip():
        raise InvalidError("is not the text of a public key", ALLOWED)
    text = value.strip()
    if not text.isprintable():
        raise InvalidError("has more than one line or control characters", ALLOWED)
    words = text.split(None, 2)
    if words[0] not in TYPES:
        raise InvalidError(_why_not_a_type(words), ALLOWED)
    if len(words) < 2 or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", words[1]):
        raise InvalidError("has no key behind its type", ALLOWED)
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidError("is cut short or damaged (its base64 does not decode)", ALLOWED) from None
    _check_blob(words[0], blob)
    return PublicKey(words[0], base64.b64encode(blob).decode(), words[2] if len(words) > 2 else "")


def _why_not_a_type(words: list[str]) -> str:
    if "-cert-v01" in words[0]:
        return "is a certificate, not a key"
    if words[0] in ("ssh-dss", "ssh-dsa"):
        return "is a DSA key, which OpenSSH no longer takes"
    if any(word in TYPES for word in words[1:]) or any(f" {known} " in " ".join(words) for known in TYPES):
        return "has options in front of it; the collection writes those itself"
    return "is not a public key"
