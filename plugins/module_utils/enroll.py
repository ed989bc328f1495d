# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""First contact with a host: which of the keys that it offers may be recorded, and why."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey, public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

FINGERPRINT_RE = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
PREFERRED = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


@dataclass(frozen=True)
class Verdict:
    """What follows from a comparison.

    status: recorded  the record has these keys already
            expected  the keys match fingerprints that were given
            open      somebody has to compare the fingerprints
            silent    it does not answer, but its keys are on record
            wrong     do not record: reason says why
    """

    status: str
    keys: Tuple[PublicKey, ...] = ()
    reason: str = ""


def fingerprint(value: Any) -> str:
    """A fingerprint as ssh-keygen -l prints it."""
    text = value.strip() if isinstance(value, str) else ""
    if not FINGERPRINT_RE.fullmatch(text):
        raise InvalidError("is not a SHA256 fingerprint", "SHA256:… as ssh-keygen -l shows it")
    try:
        base64.b64decode(text[7:] + "=", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidError("is not a SHA256 fingerprint", "SHA256:… as ssh-keygen -l shows it") from None
    return text


def read_scan(output: str) -> Dict[str, List[PublicKey]]:
    """The keys in what ssh-keyscan printed, by address, best type first."""
    found: Dict[str, List[PublicKey]] = {}
    for line in output.split("\n"):
        words = line.split()
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            key = public_key(f"{words[1]} {words[2]}")
        except InvalidError:
            continue  # a short RSA key, or a type that nobody should use
        address = words[0].rsplit("]", 1)[0].lstrip("[")  # [10.0.0.1]:2222
        found.setdefault(address, []).append(key)
    return {address: sorted(set(keys), key=_order) for address, keys in found.items()}


def _order(key: PublicKey) -> Tuple[int, str]:
    return (PREFERRED.index(key.type) if key.type in PREFERRED else len(PREFERRED), key.base64)


def compare(
    offered: Sequence[PublicKey], expected: Sequence[str], recorded: Sequence[PublicKey], replace: bool = False
) -> Verdict:
    """Judge the offered keys. `expected`: fingerprints that somebody vouches for; `recorded`: keys on record."""
    if not offered:
        reason = "it offers no usable host key (not reachable, or no sshd there)"
        return Verdict("silent" if recorded else "wrong", reason=reason)
    shown = ", ".join(key.fingerprint for key in offered)
    matching = tuple(key for key in offered if key.fingerprint in expected)
    if expected and not matching:
        return Verdict("wrong", reason=f"it offers {shown}, but {', '.join(expected)} was expected")
    known = tuple(key for key in offered if key in recorded)
    if recorded and not known and not replace:
        was = ", ".join(key.fingerprint for key in recorded)
        return Verdict(
            "wrong",
            reason=f"it offers {shown}, but {was} is on record. If it was made anew, name it in devnode_enroll_replace",
        )
    if known and (not expected or set(matching) <= set(recorded)):
        return Verdict("recorded", tuple(recorded))
    if matching:
        return Verdict("expected", matching)
    return Verdict("open", (offered[0],))
