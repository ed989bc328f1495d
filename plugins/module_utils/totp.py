# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-time codes on a bastion: whose secret is good, their secrets as files, and what PAM has to ask of whom. Pure.

No message ever shows a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

WANTED = "/etc/devnode/bastion/totp"  # what the inventory says, a file each
STATE = "/var/lib/devnode/totp"  # what PAM reads and writes: the secret, and which codes were used
PAM = "/etc/pam.d/sshd"
PROGRAM = "/usr/local/sbin/devnode-totp"
PACKAGE = "libpam-google-authenticator"
# Those who are asked although they have a shell: what sshd asks of them, and their names for PAM.
POLICY = "/etc/ssh/sshd_config.d/02-devnode-codes.conf"
OPERATORS = "/etc/devnode/bastion/totp_operators"
CHECK = "/usr/local/sbin/devnode-relay-check"
# RFC 4226 wants 128 bits at least, which are 26 letters of base32.
SECRET_RE = re.compile(r"[A-Z2-7]{26,128}")
BEGIN = "# BEGIN devnode.gpu (role bastion): codes for people who pass through\n"
END = "# END devnode.gpu (role bastion)\n"
ALLOWED = "26 to 128 of A-Z and 2-7 (base32), as from: head -c 20 /dev/urandom | base32"


def bad_secrets(names: Iterable[str], given: Any, variable: str = "bastion_totp_secrets") -> list[str]:
    """Whose secret is missing or no good, by name and without showing one.

    Others' are nobody's business: who left may stay in the vault for a while.
    """
    if not isinstance(given, Mapping):
        return [f"{variable}: is not a mapping. Allowed: logins, each with a secret in base32"]
    problems = []
    for name in names:
        if name not in given:
            problems.append(f"{variable}: has no secret for {name}, who could not come in. Allowed: {ALLOWED}")
        elif not isinstance(given[name], str) or not SECRET_RE.fullmatch(given[name]):
            problems.append(f"{variable}[{name}]: (not shown) is not a secret in base32. Allowed: {ALLOWED}")
    return problems


def operators(given: Any, relayed: Iterable[str], account: str = "") -> tuple[list[str], list[str]]:
    """Who is asked besides those who only pass through, and what is wrong with that list.

    `account` is the one that Ansible connects as. No program can answer, so the next run could not come in.
    """
    variable = "bastion_totp_operators"
    if not isinstance(given, list):
        return [], [f"{variable}: {show(given)} is not a list. Allowed: logins"]
    names, problems, passing = [], [], set(relayed)
    for index, value in enumerate(given):
        where = f"{variable}[{index}]"
        try:
            name = validators.login(value)
        except InvalidError as error:
            problems.append(f"{where}: {show(value)} {error}")
            continue
        if name == account:
            problems.append(
                f"{where}: {show(name)} is the account that Ansible connects as, and no program can answer. "
                "Allowed: people; give Ansible an account of its own"
            )
        elif name in passing:
            problems.append(f"{where}: {show(name)} is in bastion_relay_users. Allowed: people with a shell here")
        names.append(name)
    return sorted(set(names)), problems


def files(names: Iterable[str], given: Mapping[str, Any], asked: Iterable[str]) -> list[dict[str, Any]]:
    """The secrets of these people; and the policy and the list of those among them who have a shell, if any.

    A rollback gives secrets back, as it does what asks for them: without them nobody would get in, and one alone opens
    nothing.
    """
    found: list[dict[str, Any]] = [
        {
            "path": f"{WANTED}/{name}",
            "content": f"{given[name]}\n",
            "mode": "0600",
            "sensitive": True,
        }
        for name in names
    ]
    listed = list(asked)
    if listed:
        found.append({"path": POLICY, "template": "02-devnode-codes.conf.j2"})
        found.append({"path": OPERATORS, "content": "".join(f"{name}\n" for name in listed)})
    return found


def checks(passing: bool, asked: Iterable[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Before the change, whether sshd would ask those with a shell. In every run, whether it does and whether PAM has
    the secrets; and whether those people are there."""
    before: list[dict[str, Any]] = []
    after: list[dict[str, Any]] = []
    if list(asked):
        before.append({"argv": [CHECK, POLICY]})
        after += [{"argv": [CHECK, POLICY], "always": True}, {"argv": [CHECK, POLICY, "--there"]}]
    if passing or before:
        kept = [PROGRAM, WANTED, STATE]
        after.append({"argv": [*kept, "--check"], "always": True, "repair": kept})
    return before, after


def pam(text: str, group: str, passing: bool = True, listed: bool = False) -> str:
    """sshd's PAM file with a code asked of the group's members (`passing`), of those in OPERATORS (`listed`), and of
    nobody else.

    The last line asks. The ones above decide who comes to it, and whatever goes wrong in them leads there; whatever
    goes wrong in the last one is a refusal.
    """
    member = f"pam_succeed_if.so quiet user notingroup {group}\n"
    lines = []
    if passing:
        lines.append(f"auth [{'success=ignore default=1' if listed else 'success=1 default=ignore'}] {member}")
    if listed:
        options = f"quiet item=user sense=deny onerr=fail file={OPERATORS}"
        lines.append(f"auth [success=1 default=ignore] pam_listfile.so {options}\n")
    lines.append(f"auth [success=done default=die] pam_google_authenticator.so user=root secret={STATE}/${{USER}}\n")
    return f"{BEGIN}{''.join(lines)}{END}{pam_without(text)}"


def pam_without(text: str) -> str:
    """sshd's PAM file as it is without our lines."""
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", "", text, flags=re.DOTALL)
