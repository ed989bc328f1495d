# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-time codes for people on a bastion: their secrets as files, and what PAM has to ask. Pure.

No message ever shows a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

WANTED = "/etc/devnode/bastion/totp"  # what the inventory says, a file each
STATE = "/var/lib/devnode/totp"  # what PAM reads and writes: the secret, and which codes were used
PAM = "/etc/pam.d/sshd"
PROGRAM = "/usr/local/sbin/devnode-totp"
PACKAGE = "libpam-google-authenticator"
# RFC 4226 wants 128 bits at least, which are 26 letters of base32.
SECRET_RE = re.compile(r"[A-Z2-7]{26,128}")
BEGIN = "# BEGIN devnode.gpu (role bastion): codes for people who pass through\n"
END = "# END devnode.gpu (role bastion)\n"


def secrets(people: Iterable[Mapping[str, Any]], given: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The secrets of these people as files, and what is wrong with them, without showing one.

    What is there of others is left alone: who left may stay in the vault for a while.
    """
    variable = "bastion_totp_secrets"
    if not isinstance(given, Mapping):
        return [], [f"{variable}: is not a mapping. Allowed: logins, each with a secret in base32"]
    files, problems = [], []
    for name in (str(person.get("name")) for person in people if isinstance(person, Mapping)):
        allowed = "26 to 128 of A-Z and 2-7 (base32), as from: head -c 20 /dev/urandom | base32"
        if name not in given:
            problems.append(f"{variable}: has no secret for {name}, who could not come in. Allowed: {allowed}")
            continue
        secret = given[name]
        if not isinstance(secret, str) or not SECRET_RE.fullmatch(secret):
            problems.append(f"{variable}[{name}]: (not shown) is not a secret in base32. Allowed: {allowed}")
            continue
        path = f"{WANTED}/{name}"
        files.append({"path": path, "content": f"{secret}\n", "mode": "0600", "sensitive": True, "never_restore": True})
    return files, problems


def pam(text: str, group: str) -> str:
    """sshd's PAM file with a code asked of the group's members, and of nobody else.

    The first line passes over the second one for everybody else. Whatever goes wrong in the second one is a refusal.
    """
    rest = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", "", text, flags=re.DOTALL)
    lines = (
        f"auth [success=1 default=ignore] pam_succeed_if.so quiet user notingroup {group}\n"
        f"auth [success=done default=die] pam_google_authenticator.so user=root secret={STATE}/${{USER}}\n"
    )
    return f"{BEGIN}{lines}{END}{rest}"
