# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done so that a host has a set of accounts: what is wanted, what the manifest says and what is
live give an ordered list of commands. Pure: nothing is read or run here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
LOWEST_UID = 1000
# systemd's dynamic users, nobody, and the old 16-bit "no such user".
RESERVED_UIDS = range(61184, 65536)
HIGHEST_UID = 2**31 - 1
PASSWORD = "*"  # noqa: S105 - no password fits it, and sshd does not take the account for locked (as with "!")


@dataclass(frozen=True)
class Account:
    """A line of /etc/passwd, with what belongs to it."""

    name: str
    uid: int
    group: str
    groups: Sequence[str]
    shell: str
    home: str
    comment: str
    create_home: bool = False
    password: str = PASSWORD
    expires: str = ""

    def line(self) -> str:
        groups = ",".join([self.group, *(name for name in sorted(self.groups) if name != self.group)])
        return f"{self.name}: uid {self.uid}, groups {groups}, home {self.home}, shell {self.shell}, {self.comment!r}"


@dataclass
class Live:
    """What the host has."""

    accounts: Dict[str, Account]
    gids: Dict[str, int]


@dataclass
class Step:
    """One thing to do. `argv` is the command; `end` and `home` say what the module does itself around it."""

    kind: str
    name: str
    argv: List[str]
    uid: int = -1
    home: str = ""


@dataclass
class AccountPlan:
    steps: List[Step] = field(default_factory=list)
    errors: List[str] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)
    entries: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    groups: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    released: List[str] = field(default_factory=list)
    before: List[str] = field(default_factory=list)
    after: List[str] = field(default_factory=list)

    def names(self, kind: str) -> List[str]:
        return sorted({step.name for step in self.steps if step.kind == kind})


def _text_problem(value: str) -> Optional[str]:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        return "contains a control character"
    if ":" in value:
        return "contains a colon, which separates the fields of /etc/passwd"
    return None


def check_wanted(accounts: Sequence[Account], groups: Sequence[Mapping[str, Any]]) -> List[str]:
    """Everything that is wrong with the lists themselves."""
    errors: List[str] = []
    names: Dict[str, int] = {}
    uids: Dict[int, int] = {}
    for index, group in enumerate(groups):
        if not NAME.fullmatch(group["name"]):
            errors.append(f"groups[{index}].name: {group['name']!r} is not a group name ({NAME.pattern}).")
    for index, account in enumerate(accounts):
        where = f"accounts[{index}]"
        if not NAME.fullmatch(account.name):
            errors.append(f"{where}.name: {account.name!r} is not a login name ({NAME.pattern}).")
        if account.name in names:
            errors.append(f"{where}.name: {account.name!r} is listed already, as accounts[{names[account.name]}].")
        if account.uid in uids:
            errors.append(f"{where}.uid: {account.uid} has been given to accounts[{uids[account.uid]}] already.")
        names.setdefault(account.name, index)
        uids.setdefault(account.uid, index)
        if not LOWEST_UID <= account.uid <= HIGHEST_UID or account.uid in RESERVED_UIDS:
            errors.append(
                f"{where}.uid: {account.uid} ({account.name}) belongs to the system. "
                f"People's start at {LOWEST_UID}; 61184 to 65535 are reserved as well."
            )
        for key, value in (("shell", account.shell), ("home", account.home)):
            problem = _text_problem(value) or (None if value.startswith("/") else "is not an absolute path")
            if problem:
                errors.append(f"{where}.{key}: {value!r} ({account.name}) {problem}.")
        problem = _text_problem(account.comment)
        if problem:
            errors.append(f"{where}.comment: {account.comment!r} ({account.name}) {problem}.")
    return errors


def make_account_plan(
    accounts: Sequence[Account],
    groups: Sequence[Mapping[str, Any]],
    manifest: Mapping[str, Any],
    live: Live,
    owners: Mapping[str, str],
    remove_home: bool = False,
    lenient: bool = False,
    session_user: str = "",
) -> AccountPlan:
    """`owners`: accounts of other sets on the host. `lenient`: groups that are missing may still be made by something
    that has not run in check mode. `session_user`: who is logged in to do this."""
    plan = AccountPlan()
    entries: Mapping[str, Dict[str, Any]] = manifest.get("entries", {})
    owned_groups: Mapping[str, Dict[str, Any]] = manifest.get("groups", {})
    wanted = {account.name: account for account in accounts}
    leaving = _plan_removals(plan, wanted, entries, live, remove_home)
    _plan_groups(plan, groups, owned_groups, live)
    takers = {a.uid: a.name for a in live.accounts.values() if a.name not in leaving}
    private = [account.group for account in accounts if account.group == account.name]
    known = {*live.gids, *(group["name"] for group in groups), *private}
    for index, account in enumerate(accounts):
        where = f"accounts[{index}]"
        if account.name in owners:
            plan.errors.append(
                f"{where}.name: {account.name!r} belongs to the account set {owners[account.name]!r} on this host; "
                f"two sets would overwrite each other. Remove it from one of them."
            )
            continue
        taker = takers.get(account.uid)
        if taker and taker != account.name:
            plan.errors.append(
                f"{where}.uid: {account.uid} ({account.name}) belongs to {taker!r} on this host. Files and processes "
                f"would be mixed up: choose another uid."
            )
            continue
        there = live.accounts.get(account.name)
        ours = bool(entries.get(account.name, {}).get("created"))
        if there and there.uid != account.uid and not ours:
            plan.errors.append(
                f"{where}.name: {account.name!r} exists on this host with uid {there.uid}, not {account.uid}, and was "
                f"not made by this set. Use its uid, or another name."
            )
            continue
        taken = [] if there is None or ours else _taken_over(account, there)
        if taken:
            plan.errors.append(
                f"{where}.name: {account.name!r} exists on this host and was not made by this set. It would lose what "
                f"it has, with no way back: {', '.join(taken)}. Use another name, or make that account match."
            )
            continue
        missing = [name for name in [account.group, *account.groups] if name not in known]
        if missing:
            text = f"{where}: {account.name!r} is to be in {', '.join(missing)}, which is not on this host."
            if not lenient:
                plan.errors.append(text + " Make the group first, or list it in groups.")
                continue
            plan.warnings.append(text + " In a real run an earlier task has to have made it.")
        _plan_account(plan, account, there, ours, live, owned_groups)
    _plan_group_removals(plan, owned_groups, wanted, live, leaving)
    plan.errors += [
        f"{step.name!r} is the account that this run is logged in as, and `{' '.join(step.argv)}` would be run on it: "
        "that can end the run half-way and lock you out: log in with another account for this change."
        for step in plan.steps
        if session_user and step.name == session_user and step.kind in ("remove", "update")
    ]
    plan.after.sort()
    plan.before.sort()
    return plan


def _taken_over(account: Account, there: Account) -> List[str]:
    """What makes an account somebody's own, and would change."""
    return [
        f"{what} {getattr(there, what)} (here {getattr(account, what)})"
        for what in ("shell", "home", "group")
        if getattr(there, what) != getattr(account, what)
    ]


def _plan_removals(
    plan: AccountPlan,
    wanted: Mapping[str, Account],
    entries: Mapping[str, Dict[str, Any]],
    live: Live,
    remove_home: bool,
) -> List[str]:
    leaving = []
    for name, entry in sorted(entries.items()):
        there = live.accounts.get(name)
        if name in wanted or there is None:
            continue
        if not entry.get("created"):
            plan.released.append(name)
            continue
        if there.uid != entry["uid"]:
            plan.warnings.append(
                f"{name!r} was made by this set with uid {entry['uid']} and has {there.uid} now: somebody else made it "
                f"anew, so it is left alone."
            )
            plan.released.append(name)
            continue
        leaving.append(name)
        plan.before.append(there.line())
        home = there.home if entry.get("home") == there.home else ""
        argv = ["userdel", *(["-r"] if remove_home and home else []), name]
        plan.steps.append(Step("remove", name, argv, there.uid, home))
    return leaving


def _plan_groups(
    plan: AccountPlan, groups: Iterable[Mapping[str, Any]], owned: Mapping[str, Dict[str, Any]], live: Live
) -> None:
    for index, group in enumerate(groups):
        name, gid = group["name"], group.get("gid")
        there = live.gids.get(name)
        if there is None:
            taken = [other for other, number in live.gids.items() if number == gid]
            if gid is not None and taken:
                plan.errors.append(f"groups[{index}].gid: {gid} ({name}) belongs to the group {taken[0]!r} already.")
                continue
            _add_group(plan, name, gid, bool(group.get("system")))
        elif gid is not None and there != gid:
            plan.errors.append(
                f"groups[{index}].gid: the group {name!r} exists on this host with gid {there}, not {gid}. Its files "
                f"would be lost to it: use {there}, or another name."
            )
        else:
            plan.groups[name] = owned.get(name, {"created": False})


def _add_group(plan: AccountPlan, name: str, gid: Optional[int], system: bool) -> None:
    options = [*(["-g", str(gid)] if gid is not None else []), *(["-r"] if system else [])]
    plan.steps.append(Step("group", name, ["groupadd", *options, name]))
    plan.groups[name] = {"created": True}
    plan.after.append(f"group {name}" + ("" if gid is None else f": gid {gid}"))


def _plan_account(
    plan: AccountPlan,
    account: Account,
    there: Optional[Account],
    ours: bool,
    live: Live,
    owned_groups: Mapping[str, Dict[str, Any]],
) -> None:
    name = account.name
    if account.group == name:
        if name not in live.gids and name not in plan.groups:
            _add_group(plan, name, None if account.uid in live.gids.values() else account.uid, False)
        elif name not in plan.groups and name in owned_groups:
            plan.groups[name] = owned_groups[name]
    entry: Dict[str, Any] = {"uid": account.uid, "created": ours or there is None}
    if account.create_home:
        entry["home"] = account.home
    plan.entries[name] = entry
    if there is None:
        argv = [
            "useradd",
            "-u",
            str(account.uid),
            "-N",
            "-g",
            account.group,
            "-d",
            account.home,
            "-s",
            account.shell,
            "-c",
            account.comment,
            "-p",
            account.password,
            "-M",
        ]
        if account.groups:
            argv += ["-G", ",".join(sorted(account.groups))]
        plan.after.append(account.line())
        plan.steps.append(Step("create", name, [*argv, name], account.uid, account.home if account.create_home else ""))
        return
    argv = _usermod(account, there, ours)
    if argv:
        after = account if ours else _merged(account, there)
        plan.before.append(there.line())
        plan.after.append(after.line())
        end = there.uid if there.uid != account.uid else -1
        plan.steps.append(Step("update", name, ["usermod", *argv, name], end))


def _merged(account: Account, there: Account) -> Account:
    groups = sorted({*account.groups, *there.groups})
    return Account(account.name, account.uid, account.group, groups, account.shell, account.home, account.comment)


def _usermod(account: Account, there: Account, ours: bool) -> List[str]:
    """The difference as options. An account that was here before us keeps its groups and its password."""
    argv: List[str] = []
    if there.uid != account.uid:
        argv += ["-u", str(account.uid)]
    if there.group != account.group:
        argv += ["-g", account.group]
    have, want = set(there.groups) - {account.group}, set(account.groups) - {account.group}
    if ours and have != want:
        argv += ["-G", ",".join(sorted(want))]
    elif not ours and not want <= have:
        argv += ["-a", "-G", ",".join(sorted(want - have))]
    if there.shell != account.shell:
        argv += ["-s", account.shell]
    if there.home != account.home:
        argv += ["-d", account.home]
    if there.comment != account.comment and (ours or account.comment):
        argv += ["-c", account.comment]
    if there.password != account.password and (ours or there.password in ("", "!", "!*", "!!")):
        argv += ["-p", account.password]
    if ours and there.expires:
        argv += ["-e", ""]
    return argv


def _plan_group_removals(
    plan: AccountPlan,
    owned: Mapping[str, Dict[str, Any]],
    wanted: Mapping[str, Account],
    live: Live,
    leaving: Sequence[str],
) -> None:
    staying = [a for a in live.accounts.values() if a.name not in leaving]
    for name, entry in sorted(owned.items()):
        if name in plan.groups or name not in live.gids or not entry.get("created"):
            continue
        users = sorted(a.name for a in staying if a.group == name and a.name not in wanted)
        if users:
            plan.groups[name] = entry
            plan.warnings.append(f"the group {name!r} stays: it is the main group of {', '.join(users)}.")
            continue
        plan.before.append(f"group {name}")
        plan.steps.append(Step("ungroup", name, ["groupdel", name]))
