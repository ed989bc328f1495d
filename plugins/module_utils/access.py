# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts and key files of people on a host: operators (a shell and sudo) and relay users (nothing but a way through).

From the roles' variables to what account_set and file_set take. Pure.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.problems import Problems
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import PublicKey, public_key

HEADER = "# Managed by devnode.gpu (role {role}): changes here are lost at the next run.\n"


class AccessError(ValueError):
    """Every problem in a list of people, one a line."""


def _keys(problems: Problems, where: str, values: Any) -> list[PublicKey]:
    found = problems.each(where, values, public_key, " of public keys")
    return list({key.bare: key for key in found}.values())


def _people(problems: Problems, variable: str, people: Any, extra: set[str]) -> list[tuple[str, dict[str, Any]]]:
    """Each person with their place in the variable; names, uids and shapes checked."""
    if not isinstance(people, list):
        problems.add(variable, people, "is not a list")
        return []
    found = []
    seen: dict[tuple[str, Any], str] = {}
    for index, person in enumerate(people):
        where = f"{variable}[{index}]"
        if not problems.fields(where, person, {"name", "uid", "keys"} | extra, set()):
            continue
        taken = {
            "name": problems.take(f"{where}.name", person["name"], validators.login),
            "uid": problems.take(f"{where}.uid", person["uid"], validators.uid),
        }
        for field, value in taken.items():
            earlier = seen.setdefault((field, value), where)
            if value is not None and earlier != where:
                problems.add(f"{where}.{field}", value, f"is already that of {earlier}")
        found.append((where, {**person, **taken}))
    return found


def _account(person: dict[str, Any], group: str, login_shell: str, home: str, create_home: bool) -> dict[str, Any]:
    return {
        "name": person["name"],
        "uid": person["uid"],
        "group": group,
        "shell": login_shell,
        "home": home,
        "create_home": create_home,
    }


def _key_file(directory: str, name: str, role: str, lines: list[str]) -> dict[str, Any]:
    # Readable for all: sshd opens it as the user. Public keys are no secret.
    content = HEADER.format(role=role) + "".join(f"{line}\n" for line in lines)
    # A rollback must not bring a key back that was taken away.
    return {"path": f"{directory}/{name}", "content": content, "mode": "0644", "never_restore": True}


def operators(
    people: Any, group: str = "devnode-operators", directory: str = "/etc/devnode/ssh/keys", networks: Any = ()
) -> dict[str, Any]:
    """Accounts and key files of the people who run the host; their keys count from these networks only, if any."""
    problems = Problems()
    sources = problems.each("ssh_server_operator_networks", list(networks), validators.network, " of networks")
    options = f'from="{",".join(sources)}" ' if sources else ""
    accounts, files = [], []
    for where, person in _people(problems, "ssh_server_operators", people, set()):
        keys = _keys(problems, f"{where}.keys", person["keys"])
        accounts.append(_account(person, group, "/bin/bash", f"/home/{person['name']}", True))
        files.append(_key_file(directory, str(person["name"]), "ssh_server", [options + key.line for key in keys]))
    if problems.found:
        raise AccessError("\n".join(problems.found))
    return {"accounts": accounts, "files": files, "names": _names(accounts)}


def _names(accounts: list[dict[str, Any]]) -> list[str]:
    return [account["name"] for account in accounts]


def permit_open(host: str, port: int) -> str:
    """A target as sshd compares it with what the client asks for: as text, letter for letter."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def relay_options(targets: list[tuple[str, int]]) -> str:
    """What a relay key may do. Without a target, nothing: port-forwarding without permitopen would allow everything."""
    if not targets:
        return "restrict"
    opens = (f'permitopen="{permit_open(host, port)}"' for host, port in targets)
    return ",".join(("restrict", "port-forwarding", *opens))


def _no_manager(uid: int) -> list[dict[str, Any]]:
    """Masks for the systemd units that a login starts for a user: who only passes through has nothing to run there.

    logind goes on without them. They were most of what a login through the bastion cost.
    """
    units = (f"user@{uid}.service", f"user-runtime-dir@{uid}.service")
    return [{"path": f"/etc/systemd/system/{unit}", "state": "link", "target": "/dev/null"} for unit in units]


def _targets(problems: Problems, where: str, values: Any) -> list[tuple[str, int]]:
    if not isinstance(values, list):
        problems.add(where, values, "is not a list of targets")
        return []
    found = []
    for index, value in enumerate(values):
        place = f"{where}[{index}]"
        if problems.fields(place, value, {"host", "port"}, set()):
            host = problems.take(f"{place}.host", value["host"], validators.host)
            port = problems.take(f"{place}.port", value["port"], validators.port)
            if host is not None and port is not None:
                found.append((host, port))
    return sorted(set(found))


def relays(people: Any, group: str = "devnode-relay", directory: str = "/etc/devnode/bastion/keys") -> dict[str, Any]:
    """Accounts and key files of the people who only pass through."""
    problems = Problems()
    accounts, files = [], []
    for where, person in _people(problems, "bastion_relay_users", people, {"targets"}):
        keys = _keys(problems, f"{where}.keys", person["keys"])
        options = relay_options(_targets(problems, f"{where}.targets", person["targets"]))
        accounts.append(_account(person, group, "/usr/sbin/nologin", "/nonexistent", False))
        files.append(_key_file(directory, str(person["name"]), "bastion", [f"{options} {key.line}" for key in keys]))
        files += _no_manager(person["uid"])
    if problems.found:
        raise AccessError("\n".join(problems.found))
    return {"accounts": accounts, "files": files, "names": _names(accounts)}
