# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of OpenPGP public keys, so that a repository key can be compared on hosts without gpg.

Only what that needs: the armor of RFC 9580 section 6 and the packet headers of section 4.2. Version 4 keys, as every
archive has them today. Pure functions; standard library only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Iterator, List, Tuple

PUBLIC_KEY, SECRET_KEY, SECRET_SUBKEY = 6, 5, 7
ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)


class OpenPGPError(ValueError):
    """These are not public keys that we can read; the text is for people."""


def fingerprints(data: bytes) -> List[str]:
    """The fingerprint of each primary key in the data, armored or not. A key that could not be compared is an error."""
    found = []
    for tag, body in _packets(_binary(data)):
        if tag in (SECRET_KEY, SECRET_SUBKEY):
            raise OpenPGPError("it holds a secret key; a repository's public key belongs here")
        if tag == PUBLIC_KEY:
            if body[:1] != b"\x04":
                raise OpenPGPError(f"it holds a key of version {body[:1].hex()}; only version 4 is known here")
            # SHA-1 is what defines a version 4 fingerprint; nothing here rests on it beyond that.
            digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body)  # noqa: S324
            found.append(digest.hexdigest().upper())
    if not found:
        raise OpenPGPError("there is no OpenPGP public key in it")
    return found


def normal(fingerprint: str) -> str:
    """A fingerprint as people write it, in one form; only full ones count."""
    text = re.sub(r"[\s:]", "", fingerprint).upper()
    text = text[2:] if text.startswith("0X") else text
    if not re.fullmatch(r"[0-9A-F]{40}", text):
        raise OpenPGPError(
            f'"{fingerprint}" is not a full fingerprint (40 hexadecimal digits; a short key id can be forged)'
        )
    return text


def is_armored(data: bytes) -> bool:
    return b"-----BEGIN PGP" in data


def _binary(data: bytes) -> bytes:
    if not is_armored(data):
        return data
    blocks = ARMOR.findall(data)
    if not blocks:
        raise OpenPGPError("it is not a PUBLIC KEY BLOCK")
    return b"".join(_dearmor(block) for block in blocks)


def _dearmor(block: bytes) -> bytes:
    lines = [line.strip() for line in block.splitlines()]
    while lines and b":" in lines[0]:  # headers, then an empty line
        lines.pop(0)
    body = b"".join(line for line in lines if line and not line.startswith(b"="))
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise OpenPGPError(f"its armor is damaged ({error})") from error


def _packets(data: bytes) -> Iterator[Tuple[int, bytes]]:
    at = 0
    while at < len(data):
        head = data[at]
        at += 1
        if not head & 0x80:
            raise OpenPGPError("it is not OpenPGP data")
        try:
            tag, at, length = _new_header(head, data, at) if head & 0x40 else _old_header(head, data, at)
        except IndexError as error:
            raise OpenPGPError("it is cut short") from error
        if at + length > len(data):
            raise OpenPGPError("it is cut short")
        yield tag, data[at : at + length]
        at += length


def _new_header(head: int, data: bytes, at: int) -> Tuple[int, int, int]:
    first = data[at]
    if first < 192:
        return head & 0x3F, at + 1, first
    if first < 224:
        return head & 0x3F, at + 2, ((first - 192) << 8) + data[at + 1] + 192
    if first == 255:
        return head & 0x3F, at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
    raise OpenPGPError("it has a packet of open length, which keys do not have")


def _old_header(head: int, data: bytes, at: int) -> Tuple[int, int, int]:
    kind = head & 0x03
    if kind == 3:
        raise OpenPGPError("it has a packet of open length, which keys do not have")
    size = 1 << kind
    data[at + size - 1]
    return (head >> 2) & 0x0F, at + size, int.from_bytes(data[at : at + size], "big")
