# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What account_set decides to do, from what is wanted, remembered and there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.accounts_plan import (
    Account,
    AccountPlan,
    Live,
    check_wanted,
    make_account_plan,
)
from hypothesis import given, settings
from hypothesis import strategies as st

HASH = "$y$hash"


def account(name: str, uid: int, **more: Any) -> Account:
    values: dict[str, Any] = {"group": "users", "groups": (), "login": "/bin/bash", "home": f"/home/{name}"}
    values = {**values, "comment": "", **more}
    return Account(name=name, uid=uid, shell=values.pop("login"), **values)


def host(*accounts: Account, **gids: int) -> Live:
    root = account("root", 0, group="root", home="/root")
    return Live({a.name: a for a in (root, *accounts)}, {"root": 0, "users": 100, **gids})


def plan_for(wanted: list[Account], live: Live, manifest: dict[str, Any] | None = None, **more: Any) -> AccountPlan:
    return make_account_plan(wanted, more.pop("groups", []), manifest or {}, live, more.pop("owners", {}), **more)


def apply(plan: AccountPlan, wanted: list[Account], live: Live) -> Live:
    accounts, gids = dict(live.accounts), dict(live.gids)
    by_name = {a.name: a for a in wanted}
    for step in plan.steps:
        if step.kind in ("create", "update"):
            assert not any(a.uid == by_name[step.name].uid and a.name != step.name for a in accounts.values())
            accounts[step.name] = by_name[step.name]
        elif step.kind == "remove":
            accounts.pop(step.name)
        elif step.kind == "group":
            gid = int(step.argv[step.argv.index("-g") + 1]) if "-g" in step.argv else max(gids.values()) + 70000
            assert gid not in gids.values()
            gids[step.name] = gid
        else:
            gids.pop(step.name)
    return Live(accounts, gids)


def manifest_of(plan: AccountPlan) -> dict[str, Any]:
    return {"entries": plan.entries, "groups": plan.groups}


def test_new_people_get_an_unlocked_password_that_nothing_fits() -> None:
    wanted = [account("ada", 2001, groups=("adm",))]
    plan = plan_for(wanted, host(adm=4))
    (step,) = plan.steps
    assert step.argv[0] == "useradd"
    assert step.argv[step.argv.index("-p") + 1] == "*"
    assert step.argv[step.argv.index("-G") + 1] == "adm"
    assert plan.entries == {"ada": {"uid": 2001, "created": True}}
    assert not plan_for(wanted, apply(plan, wanted, host(adm=4)), manifest_of(plan)).steps


def test_an_account_of_its_own_group_brings_it_and_takes_it_away() -> None:
    wanted = [account("ada", 2001, group="ada")]
    plan = plan_for(wanted, host())
    assert plan.steps[0].argv == ["groupadd", "-g", "2001", "ada"]
    live = apply(plan, wanted, host())
    again = plan_for(wanted, live, manifest_of(plan))
    assert not again.steps
    assert again.groups == plan.groups
    gone = plan_for([], live, manifest_of(again))
    assert [step.kind for step in gone.steps] == ["remove", "ungroup"]


def test_leavers_go_before_newcomers_take_their_number() -> None:
    live = host(account("ada", 2001))
    manifest = {"entries": {"ada": {"uid": 2001, "created": True}}}
    plan = plan_for([account("grace", 2001)], live, manifest)
    assert [(step.kind, step.name) for step in plan.steps] == [("remove", "ada"), ("create", "grace")]


def test_homes_are_kept_unless_asked() -> None:
    live = host(account("ada", 2001))
    manifest = {"entries": {"ada": {"uid": 2001, "created": True, "home": "/home/ada"}}}
    assert plan_for([], live, manifest).steps[0].argv == ["userdel", "ada"]
    assert plan_for([], live, manifest, remove_home=True).steps[0].argv == ["userdel", "-r", "ada"]


def test_a_home_that_this_set_did_not_make_is_never_removed() -> None:
    live = host(account("ada", 2001, home="/srv"))
    for entry in ({"uid": 2001, "created": True}, {"uid": 2001, "created": True, "home": "/home/ada"}):
        plan = plan_for([], live, {"entries": {"ada": entry}}, remove_home=True)
        assert plan.steps[0].argv == ["userdel", "ada"]


def test_who_was_here_before_keeps_password_and_groups_and_stays() -> None:
    before = account("ops", 1500, groups=("adm",), password=HASH)
    wanted = [account("ops", 1500, groups=("sudo",))]
    live = host(before, adm=4, sudo=27)
    plan = plan_for(wanted, live)
    assert plan.steps[0].argv == ["usermod", "-a", "-G", "sudo", "ops"]
    assert plan.entries["ops"]["created"] is False
    gone = plan_for([], live, manifest_of(plan))
    assert (gone.steps, gone.released) == ([], ["ops"])


def test_somebodys_own_account_is_not_taken_over() -> None:
    live = host(account("ada", 2001, groups=("sudo",)), account("bob", 2002), account("eve", 2003), sudo=27, relay=800)
    wanted = [
        account("ada", 2001, login="/usr/sbin/nologin"),
        account("bob", 2002, home="/nonexistent"),
        account("eve", 2003, group="relay"),
    ]
    for manifest in ({}, {"entries": {a.name: {"uid": a.uid, "created": False} for a in wanted}}):
        plan = plan_for(wanted, live, manifest)
        assert [error.split(":")[0] for error in plan.errors] == [f"accounts[{n}].name" for n in range(3)]
        assert "shell /bin/bash (here /usr/sbin/nologin)" in plan.errors[0]
        assert "home /home/bob (here /nonexistent)" in plan.errors[1]
        assert "group users (here relay)" in plan.errors[2]
        assert not plan.steps
    made = {"entries": {a.name: {"uid": a.uid, "created": True} for a in wanted}}
    assert [step.kind for step in plan_for(wanted, live, made).steps] == ["update"] * 3


def test_the_account_of_this_session_is_left_alone() -> None:
    live = host(account("ops", 1500), account("ada", 2001))
    made = {"entries": {name: {"uid": uid, "created": True} for name, uid in (("ops", 1500), ("ada", 2001))}}
    for wanted in ([], [account("ops", 1500, login="/bin/sh")]):
        (error,) = plan_for(wanted, live, made, session_user="ops").errors
        assert error.startswith("'ops' is the account that this run is logged in as")
    assert not plan_for([account("ops", 1500)], live, made, session_user="ops").errors
    assert not plan_for([], live, made, session_user="automation").errors


@pytest.mark.parametrize("password", ["", "!", "!!"])
def test_an_account_without_a_password_is_unlocked(password: str) -> None:
    plan = plan_for([account("ops", 1500)], host(account("ops", 1500, password=password)))
    assert plan.steps[0].argv == ["usermod", "-p", "*", "ops"]


def test_what_was_changed_by_hand_is_put_right() -> None:
    entries = {"entries": {"ada": {"uid": 2001, "created": True}}}
    live = host(account("ada", 2001, groups=("docker",), password=HASH, expires="1"), docker=999)
    plan = plan_for([account("ada", 2001)], live, entries)
    assert plan.steps[0].argv == ["usermod", "-G", "", "-p", "*", "-e", "", "ada"]


def test_somebody_elses_account_of_the_same_name_is_left_alone() -> None:
    plan = plan_for([], host(account("ada", 3000)), {"entries": {"ada": {"uid": 2001, "created": True}}})
    assert not plan.steps
    assert plan.released == ["ada"]
    assert "3000" in plan.warnings[0]


def test_clashes_with_the_host_are_reported_together() -> None:
    live = host(account("ada", 1000), account("bob", 2002), taken=500, there=600)
    plan = plan_for(
        [account("ada", 2001), account("grace", 2002), account("eve", 2003, group="nope"), account("sam", 2004)],
        live,
        groups=[{"name": "new", "gid": 500}, {"name": "there", "gid": 7}],
        owners={"sam": "other"},
    )
    assert [error.split(":")[0] for error in plan.errors] == [
        "groups[0].gid",
        "groups[1].gid",
        "accounts[0].name",
        "accounts[1].uid",
        "accounts[2]",
        "accounts[3].name",
    ]


def test_a_missing_group_is_only_a_warning_in_check_mode() -> None:
    plan = plan_for([account("ada", 2001, groups=("docker",))], host(), lenient=True)
    assert not plan.errors
    assert "docker" in plan.warnings[0]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (account("Ada", 2001), "name"),
        (account("-rf", 2001), "name"),
        (account("a\nb", 2001, home="/x"), "name"),
        (account("a" * 33, 2001), "name"),
        (account("ada", 999), "uid"),
        (account("ada", 65534), "uid"),
        (account("ada", 2**32), "uid"),
        (account("ada", 2001, comment="a:b"), "comment"),
        (account("ada", 2001, comment="a\nroot::0:0"), "comment"),
        (account("ada", 2001, home="home"), "home"),
        (account("ada", 2001, login="/bin/sh\n"), "shell"),
    ],
)
def test_odd_values_are_refused(wrong: Account, field: str) -> None:
    (error,) = check_wanted([wrong], [])
    assert error.startswith(f"accounts[0].{field}: ")


def test_doubles_are_refused() -> None:
    errors = check_wanted([account("ada", 2001), account("ada", 2001)], [{"name": "ok"}, {"name": "not ok"}])
    assert [error.split(":")[0] for error in errors] == ["groups[1].name", "accounts[1].name", "accounts[1].uid"]


people = st.lists(
    st.tuples(
        st.sampled_from(["ada", "bob", "eve"]),
        st.sampled_from([2001, 2002, 2003, 2004]),
        st.sampled_from(["users", "own"]),
        st.sampled_from(["/bin/bash", "/bin/sh"]),
    ),
    max_size=3,
    unique_by=(lambda p: p[0], lambda p: p[1]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(people, min_size=1, max_size=4))
def test_any_sequence_of_sets_converges_and_cleans_up(history: list[list[tuple[str, int, str, str]]]) -> None:
    live = start = host(account("theirs", 3000))
    manifest: dict[str, Any] = {}
    for listed in [*history, []]:
        wanted = [account(n, u, group=n if g == "own" else g, login=s) for n, u, g, s in listed]
        plan = plan_for(wanted, live, manifest)
        if plan.errors:
            # A number moves from one person to another who stays: refused, not muddled.
            assert all(".uid: " in error for error in plan.errors)
            continue
        live, manifest = apply(plan, wanted, live), manifest_of(plan)
        for person in wanted:
            assert replace(live.accounts[person.name], expires="") == person
        assert not plan_for(wanted, live, manifest).steps
    assert live == start
