# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Relay users who may also come with a certificate: whose certificates count, what they reach, which keys are revoked.

From the role bastion's variables to what file_set takes. Pure.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils import access, validators
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey, public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show


def relays(
    people: Any, directory: str = "/etc/devnode/bastion/keys", authorities: Any = (), revoked: Any = ()
) -> dict[str, Any]:
    """Accounts and files of people who only pass through, as access.relays gives them, and what certificates need.

    A person's targets stand beside the principal with the same options as on keys: sshd takes none from a certificate.
    """
    given = {"bastion_user_ca_keys": authorities, "bastion_revoked_keys": revoked}
    problems: list[str] = []
    trusted, gone = (_keys(name, values, problems) for name, values in given.items())
    if problems:
        raise access.AccessError("\n".join(problems))
    found = access.relays(people, directory=directory)
    if not people:
        return found
    base = os.path.dirname(directory)
    # Always there: without the file that the policy names, sshd would let nobody in.
    files = [_file(f"{base}/revoked_keys", (key.bare for key in gone))]
    if trusted:
        files.append(_file(f"{base}/user_ca", (key.line for key in trusted)))
        files += [_file(f"{base}/principals/{one['name']}", [_principal(one)]) for one in people]
    return {**found, "files": [*found["files"], *files]}


def _principal(person: dict[str, Any]) -> str:
    targets = {(validators.host(target["host"]), validators.port(target["port"])) for target in person["targets"]}
    return f"{access.relay_options(sorted(targets))} {person['name']}"


def _keys(name: str, values: Any, problems: list[str]) -> list[PublicKey]:
    found: dict[str, PublicKey] = {}
    for index, value in enumerate(values):
        try:
            key = public_key(value)
        except InvalidError as error:
            problems.append(f"{name}[{index}]: {show(value)} {error}")
            continue
        found.setdefault(key.bare, key)
    return list(found.values())


def _file(path: str, lines: Iterable[str]) -> dict[str, Any]:
    content = access.HEADER.format(role="bastion") + "".join(f"{line}\n" for line in lines)
    # A rollback must not bring trust back that was taken away.
    return {"path": path, "content": content, "mode": "0644", "never_restore": True}
