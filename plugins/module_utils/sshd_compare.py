# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What sshd does for somebody, beside what a file asks for: differences, and who is behind them. Pure.

Part of the program that `sshd_check` is on hosts: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterable
from typing import Optional

from ansible_collections.devnode.gpu.plugins.module_utils.sshd_files import Setting, canonical, plain

USER_LISTS = ("denyusers", "allowusers", "denygroups", "allowgroups")
# Whoever comes from nowhere that any file mentions.
SOMEWHERE = ("192.0.2.1", "2001:db8::1")
# Every line of these counts, not only the first.
CUMULATIVE = ("port", "listenaddress", "hostkey", "hostcertificate")
# Says several things, of which a file may say some; sshd prints all.
PARTIAL = frozenset({"persourcepenalties"})


def parse_effective(text: str) -> dict[str, list[str]]:
    """What sshd -T prints: keyword → values, in its order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _space, value = line.strip().partition(" ")
        if keyword:
            found.setdefault(canonical(keyword), []).append(plain(value))
    return found


def differences(
    asked: list[Setting], effective: dict[str, list[str]], blamable: list[Setting]
) -> list[tuple[str, str]]:
    """What is not as asked, as "X is Y" and "asked: Z. Who says so"."""
    found = []
    for keyword in dict.fromkeys(setting.keyword for setting in asked):
        want = [plain(setting.value) for setting in asked if setting.keyword == keyword]
        if keyword not in CUMULATIVE:
            want = want[:1]
        have = effective.get(keyword)
        if keyword == "listenaddress" and have:
            want = [both for value in want for both in _with_ports(value, asked)]
        if have is None or sorted(have) == sorted(want):
            continue
        if keyword in PARTIAL and {word for one in want for word in one.split()} <= set(" ".join(have).split()):
            continue
        because = "; ".join(f"{one.where} says {one.value}" for one in blamable if one.keyword == keyword)
        found.append(
            (f"{keyword} is {' '.join(have)!r}", f"asked: {' '.join(want)!r}. {because or 'Nothing says why'}.")
        )
    return found


def blamable(settings: list[Setting], policy: str) -> list[Setting]:
    """Settings of other files that can win over the policy's: read earlier, in a Match block, or adding to it."""
    places = [index for index, setting in enumerate(settings) if setting.path == policy]
    first = places[0] if places else len(settings)
    return [
        setting
        for index, setting in enumerate(settings)
        if setting.path != policy and (index < first or setting.match or setting.keyword in CUMULATIVE)
    ]


def _with_ports(address: str, asked: list[Setting]) -> list[str]:
    ports = [setting.value for setting in asked if setting.keyword == "port"] or ["22"]
    return [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for port in ports]


def loosened(asked: list[Setting], others: list[Setting], allowed: frozenset[str]) -> list[str]:
    """Match blocks of other files that change for somebody what the policy sets for everybody."""
    mine: dict[str, set[str]] = {}
    for setting in asked:
        mine.setdefault(setting.keyword, set()).add(plain(setting.value))
    return [
        f"{setting.where} sets {setting.keyword} {setting.value}, which the policy sets for everybody"
        for setting in others
        if setting.match
        and setting.keyword in mine
        and setting.keyword not in allowed
        # One that says the same changes nothing.
        and mine[setting.keyword] != {plain(setting.value)}
    ]


def shut_out(user: str, address: str, groups: list[str], effective: dict[str, list[str]]) -> str:
    """The keyword that keeps somebody out who has a good key, if any. In sshd's order."""
    user, groups = user.lower(), [group.lower() for group in groups]  # what sshd -T says is compared in lower case
    words = {keyword: " ".join(effective.get(keyword, [])).split() for keyword in USER_LISTS}
    allowed = words["allowusers"]
    in_groups = {
        # No address stands behind a group's @: a directory's groups may have one in their names.
        keyword: any(
            fnmatch.fnmatchcase(group, word.replace("[", "[[]")) for group in groups for word in words[keyword]
        )
        for keyword in ("denygroups", "allowgroups")
    }
    if any(_matches(word, user, address) for word in words["denyusers"]):
        return "denyusers"
    if allowed and all(_matches(word, user, address) is False for word in allowed):
        return "allowusers"
    if in_groups["denygroups"]:
        return "denygroups"
    if words["allowgroups"] and not in_groups["allowgroups"]:
        return "allowgroups"
    return ""


def _matches(pattern: str, user: str, address: str) -> Optional[bool]:
    """Whether one word of AllowUsers or DenyUsers means somebody. None: it depends on where they come from."""
    name, at, host = pattern.partition("@")
    if not fnmatch.fnmatchcase(user, name.replace("[", "[[]")):
        return False
    if not at:
        return True
    if not address:
        return None
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(host, strict=False)
    except ValueError:
        if re.search("[g-z]", host):
            return None  # a host's name
        return fnmatch.fnmatchcase(address, host.replace("[", "[[]"))


def lookalikes(
    asked: list[Setting], earlier: list[Setting], members: dict[str, list[str]]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Match blocks that sshd reads before the policy's own block win over it: whom to ask for because of them.

    (member, address) pairs, and in words what cannot be tried out from here. `members` are names with their groups.
    """
    mine = {setting.keyword: plain(setting.value) for setting in reversed(asked)}
    pairs: dict[tuple[str, str], None] = {}
    unclear = []
    for setting in earlier:
        if not setting.match or mine.get(setting.keyword, plain(setting.value)) == plain(setting.value):
            continue
        if setting.match.lower() == "invalid-user":
            continue
        block = criteria(setting.match)
        if block is None:
            unclear.append(
                f"{setting.where} sets {setting.keyword} {setting.value}, which may be for members of the policy's "
                f"group ({asked[0].where} and below). Say for whom it is: Match with User, Group or Address"
            )
            continue
        users = [name for name in members if _fits(block.get("user", ["*"]), [name])]
        users = [name for name in users if _fits(block.get("group", ["*"]), members[name])]
        for address in addresses_of(block.get("address", ["*"])):
            pairs.update(dict.fromkeys((user, address) for user in users))
    return list(pairs), unclear


def criteria(match: str) -> Optional[dict[str, list[str]]]:
    """The users, groups and addresses that a Match line names. None: it asks for something else as well."""
    words = re.sub(r"\s*=\s*", " ", match).replace('"', "").split()
    found = {words[at].lower(): words[at + 1].split(",") for at in range(0, len(words) - 1, 2)}
    return found if len(words) == 2 * len(found) and set(found) <= {"user", "group", "address"} else None


def _fits(patterns: list[str], values: list[str]) -> bool:
    refused = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]

    def fits(pattern: str) -> bool:
        return any(fnmatch.fnmatchcase(value.lower(), pattern.lower().replace("[", "[[]")) for value in values)

    return any(fits(pattern) for pattern in wanted) and not any(fits(pattern) for pattern in refused)


def addresses_of(patterns: Iterable[str]) -> list[str]:
    """Addresses that stand for what a Match line's Address means: both ends of a network, one for a pattern."""
    found = []
    for pattern in (one for one in patterns if not one.startswith("!")):
        try:
            network = ipaddress.ip_network(pattern, strict=False)
            found += [str(network[0]), str(network[-1])]
        except ValueError:
            if ":" in pattern:
                found.append(pattern.replace("?", "1").replace("*", "1" if pattern.endswith("::*") else ":1"))
            elif pattern == "*":
                found += SOMEWHERE
            else:
                parts = pattern.replace("*", "1").replace("?", "1").split(".")
                found.append(".".join([*parts, "1", "1", "1"][:4]))
    return list(dict.fromkeys(found))
