# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a policy of an ssh server is not put in place: wrong variables, what this sshd cannot do, who is locked out.

Pure, like ssh_policy.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Callable

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_policy import (
    CIPHERS,
    INCLUDE_SINCE,
    MACS,
    RSA_MIN_BITS,
    USER_KEY_ALGORITHMS,
    Facts,
    Wishes,
    bound_automation,
    choose,
    key_exchange,
)
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show


def _group(value: Any) -> str:
    # Groups may be the system's own (sudo, wheel), so this is not a person's login.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,31}", str(value)):
        raise InvalidError("is not the name of a group", "1-32 of A-Z a-z 0-9 _ -, beginning with a letter or _")
    return str(value)


def _user(value: Any) -> str:
    # Whatever account a machine or a directory has; but no pattern, and nothing that could end a word.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}", str(value)):
        raise InvalidError(
            "is not the name of an account that sshd could bind",
            "1-128 of A-Z a-z 0-9 _ . @ -, beginning with a letter, a digit or _ "
            "(no networks, which are devnode_automation_networks in a fleet: nothing is bound, and any name will do)",
        )
    return str(value)


def _startups(value: Any) -> str:
    allowed = "start:rate:full, such as 512:30:1024 (sshd_config(5), MaxStartups), with start not above full"
    found = re.fullmatch(r"([1-9][0-9]{0,5}):([1-9][0-9]?|100):([1-9][0-9]{0,5})", str(value))
    if not found or int(found.group(1)) > int(found.group(3)):
        raise InvalidError("is not a limit that sshd knows", allowed)
    return str(value)


def _sshd_keyword(value: Any) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]{1,63}", str(value)):
        raise InvalidError("is not a keyword of sshd_config", "one word of letters and digits")
    return str(value)


def _channel_timeout(value: Any) -> str:
    if not re.fullmatch(r"[a-z*?-]{1,40}(:[a-z*?-]{1,40})?=(0|[1-9][0-9]{0,6}[smhdw]?)", str(value)):
        raise InvalidError("is not a timeout of a channel", "TYPE=TIME, such as direct-tcpip=12h (sshd_config(5))")
    return str(value)


def _between(low: int, high: int) -> Callable[[Any], int]:
    return lambda value: validators.integer(value, low, high)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "port": validators.port,
    "ports_also": validators.port,
    "listen_addresses": lambda value: value if value in ("0.0.0.0", "::") else validators.ip(value),  # noqa: S104
    "allow_groups": _group,
    "operators": validators.login,
    "operators_group": _group,
    "operator_networks": validators.network,
    "automation_users": _user,
    "automation_networks": validators.network,
    "keys_directory": validators.path,
    "exempt_networks": validators.network,
    "max_startups": _startups,
    "max_sessions": _between(1, 4096),
    "max_auth_tries": _between(1, 100),
    "login_grace_time": _between(5, 3600),
    "client_alive_interval": _between(0, 86400),
    "unused_connection_timeout": _between(60, 604800),
    "client_persist": _between(0, 604800 - 600),
    "channel_timeouts": _channel_timeout,
    "allowed_overrides": _sshd_keyword,
}


def invalid(wishes: Wishes) -> list[str]:
    """What is wrong with the variables themselves, all together."""
    found = []
    for name, check in _CHECKS.items():
        if name == "automation_users" and not wishes.automation_networks:
            continue
        value = getattr(wishes, name)
        for index, item in enumerate(value if isinstance(value, tuple) else (value,)):
            try:
                check(item)
            except InvalidError as error:
                place = f"[{index}]" if isinstance(value, tuple) else ""
                found.append(f"ssh_server_{name}{place}: {show(item)} {error}")
    return found or _too_short(wishes)


def _too_short(wishes: Wishes) -> list[str]:
    """sshd would end shared connections that clients mean to keep."""
    if wishes.unused_connection_timeout > wishes.client_persist:
        return []
    return [
        f"ssh_server_unused_connection_timeout: {wishes.unused_connection_timeout} seconds are not more than the "
        f"{wishes.client_persist} for which clients keep a connection that nobody uses (ssh_server_client_persist; "
        "devnode_users[].client.multiplexing), so this host would end them first. Allowed: at least "
        f"{wishes.client_persist + 600}, or a shorter time at the clients"
    ]


def refusals(wishes: Wishes, facts: Facts) -> list[str]:
    """Why this policy must not be put in place here: what would not work, and who would be locked out."""
    return [*_impossible(wishes, facts), *_lockouts(wishes, facts)]


def warnings(wishes: Wishes, facts: Facts) -> list[str]:
    """Where the policy does less than its variables sound like: Ansible's account is not the one that they bind."""
    account = facts.account
    if (
        account is None
        or not wishes.automation_networks
        or account.name in (*wishes.automation_users, *wishes.operators)
    ):
        return []
    return [
        f'ssh_server_automation_networks: this run is connected as "{account.name}", which is not in '
        "ssh_server_automation_users, so its key is let in from every address that a packet filter lets in. In a fleet "
        "say ansible_user in the inventory: a User line of ~/.ssh/config is not seen."
    ]


def _impossible(wishes: Wishes, facts: Facts) -> list[str]:
    found = []
    if facts.version < INCLUDE_SINCE:
        found.append(
            f"this host has OpenSSH {'.'.join(map(str, facts.version))}, which knows no Include, so the policy cannot "
            "be a file of its own. Bring OpenSSH to 8.2 or newer."
        )
    if "rsa" in wishes.host_key_types and facts.rsa_bits is not None and facts.rsa_bits < RSA_MIN_BITS:
        path = facts.host_keys.get("rsa", "/etc/ssh/ssh_host_rsa_key")
        has = f"has {facts.rsa_bits} bits; {RSA_MIN_BITS} are the least" if facts.rsa_bits else "cannot be read"
        found.append(
            f'ssh_server_host_key_types: the "rsa" host key of this host {has}. '
            f"Make another one: ssh-keygen -t rsa -b 4096 -N '' -f {path} (clients must learn it), or leave "
            "rsa out."
        )
    for kind in wishes.host_key_types:
        if kind not in facts.host_keys:
            have = ", ".join(sorted(facts.host_keys)) or "none"
            found.append(
                f'ssh_server_host_key_types: this host has no "{kind}" host key (it has: {have}). '
                "Make it with: ssh-keygen -A"
            )
    for what, chosen, offered in (
        ("key exchange", key_exchange(wishes, facts), facts.kex),
        ("cipher", choose(CIPHERS, facts.ciphers), facts.ciphers),
        ("MAC", choose(MACS, facts.macs), facts.macs),
        ("public key", choose(USER_KEY_ALGORITHMS, facts.key_algorithms), facts.key_algorithms),
    ):
        if not chosen:
            found.append(
                f"this sshd offers no {what} algorithm that the policy allows (it offers: {', '.join(offered)}). "
                "Bring OpenSSH up to date."
            )
    if wishes.keep_port and facts.came_in_on and facts.came_in_on not in wishes.ports:
        found.append(
            f"ssh_server_port: {wishes.port}. This run came in on {facts.came_in_on}, where this host would listen no "
            f"more: the next roles could not come in, nor people whose kits say {facts.came_in_on}. List "
            f"{facts.came_in_on} in ssh_server_ports_also (devnode_ssh_ports_also, where the plan fills this in) until "
            "all have moved."
        )
    mine = {ipaddress.ip_address(address) for address in facts.addresses}
    for address in wishes.listen_addresses:
        parsed = ipaddress.ip_address(address)
        if mine and parsed not in mine and not parsed.is_unspecified:
            found.append(
                f'ssh_server_listen_addresses: "{address}" is not an address of this host, so sshd could not listen '
                f"there (it has: {', '.join(sorted(facts.addresses))})."
            )
    return found


def _comes_from(address: str, networks: tuple[str, ...]) -> bool:
    source = ipaddress.ip_address(address)
    return not networks or any(source in ipaddress.ip_network(network) for network in networks)


def _lockouts(wishes: Wishes, facts: Facts) -> list[str]:
    account = facts.account
    if account is None:
        return []
    why = f'It would lock out "{account.name}", the account that this run is connected as.'
    operator = account.name in wishes.operators
    found = []
    if account.name == "root" and wishes.permit_root_login == "no":
        found.append(
            f'ssh_server_permit_root_login: "no". {why} '
            'Connect as another account with sudo, or set "prohibit-password".'
        )
    if wishes.operators_group in account.groups and not operator:
        found.append(
            f"ssh_server_operators: {account.name} is no longer in it, so the account would be removed. {why} "
            "Connect as another account for this change."
        )
    if operator and account.address and not _comes_from(account.address, wishes.operator_networks):
        found.append(
            f"ssh_server_operator_networks: {', '.join(wishes.operator_networks)}. {why} It comes from "
            f"{account.address}. Add that address or its network."
        )
    bound = account.name in bound_automation(wishes)
    if bound and account.address and not _comes_from(account.address, wishes.automation_networks):
        found.append(
            f"ssh_server_automation_networks: {', '.join(wishes.automation_networks)}. {why} It comes from "
            f"{account.address}. Add that address or its network (devnode_controllers, where the plan fills this in)."
        )
    allowed = {*wishes.allow_groups, wishes.operators_group}
    if wishes.allow_groups and not operator and not allowed & set(account.groups):
        found.append(
            f"ssh_server_allow_groups: {', '.join(wishes.allow_groups)}. {why} "
            f"Its groups are: {', '.join(account.groups)}. Add one of them."
        )
    if not operator and not account.other_key_sources:
        if not wishes.home_keys:
            found.append(
                f"ssh_server_home_keys: false. {why} Its key is in its home. List it in ssh_server_operators, "
                "or leave this true."
            )
        elif not account.has_usable_key:
            found.append(
                f"Only keys are let in from now on. {why} It has no key in ~/.ssh/authorized_keys that this policy "
                f"takes (Ed25519, ECDSA, or RSA from {RSA_MIN_BITS} bits). Put one there first."
            )
    return found
