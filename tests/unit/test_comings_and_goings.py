# SPDX-License-Identifier: GPL-3.0-or-later
"""People, workspaces and environments come and go in the inventory; nothing is left of those that went.

Every host is one in memory, with the real planners of file_set, account_set and conda_envs. After any history it has to
look like a host that has seen the last inventory only. On real hosts: the scenarios bastion, identity and site.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.filter.workspace_files import workspace_files
from ansible_collections.devnode.gpu.plugins.module_utils import (
    access,
    client_check,
    client_render,
    conda_env,
    conda_state,
    firewall,
)
from ansible_collections.devnode.gpu.plugins.module_utils.accounts_plan import Account, make_account_plan
from ansible_collections.devnode.gpu.plugins.module_utils.conda_state import Found, State
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_plan import make_plan
from ansible_collections.devnode.gpu.plugins.module_utils.topology_plan import bastion_plan, node_plan
from ansible_collections.devnode.gpu.plugins.module_utils.topology_view import views
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.fleet import bare, key, loaded
from unit.test_account_set_plan import apply, host
from unit.test_file_set_plan import Host, file

NODES = ("gpu-01", "gpu-02")
PEOPLE = ("maria", "noether", "ramanujan")
OPERATOR = "noether"
WORKSPACES = ("audio", "video")


@dataclasses.dataclass(frozen=True)
class Moment:
    """Who and what is in the inventory besides the plain fleet of fleet.py."""

    people: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    workspaces: tuple[tuple[str, str, str, str], ...] = ()  # name, node, owner, member

    def topology(self) -> Any:
        def change(values: dict[str, Any]) -> None:
            for name in self.people:
                uid = 3000 + PEOPLE.index(name)
                person = {"name": name, "uid": uid, "keys": [key(name)], "operator": name in self.operators}
                values["users"].append(person)
            for name, node, owner, member in self.workspaces:
                port = 2301 + WORKSPACES.index(name)
                members = [member] if member != owner else []
                values["workspaces"].append(
                    {"name": name, "node": node, "owner": owner, "members": members, "port": port}
                )
                values["known_hosts"] += f"{name}.{node} {bare(name)}\n"

        return loaded(change)


@st.composite
def moments(draw: st.DrawFn) -> Moment:
    people = tuple(name for name in PEOPLE if draw(st.booleans()))
    operators = tuple(name for name in people if name == OPERATOR)
    present = (*people, "ada", "grace")
    workspaces = []
    for name in WORKSPACES:
        if draw(st.booleans()):
            owner, member = draw(st.sampled_from(present)), draw(st.sampled_from(present))
            workspaces.append((name, draw(st.sampled_from(NODES)), owner, member))
    return Moment(people, operators, tuple(workspaces))


def rendered(moment: Moment) -> dict[str, dict[str, str]]:
    """Every text that the inventory leads to, by place and path."""
    topology = moment.topology()
    out: dict[str, dict[str, str]] = {}
    for name in ("bastion", *NODES):
        plan = bastion_plan(topology, name) if name == "bastion" else node_plan(topology, name)
        files = access.operators(plan["ssh_server"]["operators"])["files"]
        if name == "bastion":
            files = [*files, *access.relays(plan["bastion"]["relay_users"])["files"]]
        else:
            files = [*files, *workspace_files(plan["workspaces"])]
        out[name] = {one["path"]: one["content"] for one in files if "content" in one}
        wall = {"services": [], "egress": [], "containers": {}, "egress_resolvers": [], **plan["firewall"]}
        named = (wall["services"], wall["egress"], wall["containers"], [], wall["egress_resolvers"])
        out[name]["/etc/nftables"] = repr(firewall.make_plan(*named))
    parsed, errors = client_check.parse_views(views(topology, None)[0], "views")
    assert errors == []
    for view in parsed:
        out[f"kit of {view.person}"] = {f"/kit/{one.name}": one.content for one in client_render.kit(view)}
    return out


def accounts(moment: Moment, name: str) -> dict[str, list[Account]]:
    """By set, in the order in which the roles run."""
    topology = moment.topology()
    plan = bastion_plan(topology, name) if name == "bastion" else node_plan(topology, name)
    found = {"ssh_server": access.operators(plan["ssh_server"]["operators"])["accounts"]}
    if name == "bastion":
        found["bastion"] = access.relays(plan["bastion"]["relay_users"])["accounts"]
    return {part: [_account(one) for one in people] for part, people in found.items()}


def _account(plain: dict[str, Any]) -> Account:
    return Account(comment="", groups=(), **plain)


def host_after(history: list[Moment], name: str) -> tuple[dict[str, Any], dict[str, Account]]:
    """A host's files and accounts after every moment of a history, one run each."""
    files, entries = Host(), {}
    live = host(**{"devnode-relay": 700, "devnode-operators": 701})
    manifests: dict[str, dict[str, Any]] = {}
    for moment in history:
        texts = rendered(moment).get(name, {})
        plan = make_plan([file(path, text) for path, text in sorted(texts.items())], entries, files.inspect)
        assert plan.errors == []
        files.apply(plan)
        entries = plan.entries
        for part, wanted in accounts(moment, name).items():
            others = {one: set_ for set_, kept in manifests.items() if set_ != part for one in kept["entries"]}
            steps = make_account_plan(wanted, [], manifests.get(part, {}), live, others)
            assert steps.errors == []
            live = apply(steps, wanted, live)
            manifests[part] = {"entries": steps.entries, "groups": steps.groups}
    return files.states, live.accounts


@settings(deadline=None, max_examples=40)
@given(st.lists(moments(), min_size=1, max_size=3), moments())
def test_only_the_last_inventory_counts(history: list[Moment], last: Moment) -> None:
    for name in ("bastion", *NODES):
        assert host_after([*history, last], name) == host_after([last], name)


@settings(deadline=None, max_examples=40)
@given(moments())
def test_who_went_is_named_nowhere(before: Moment) -> None:
    """Neither by name nor by key, and no port leads to what is gone."""
    now = rendered(Moment())
    text = "\n".join(content for place in now.values() for content in place.values()) + "\n".join(
        [*now, *(path for place in now.values() for path in place)]
    )
    for name in before.people:
        assert name not in text
        assert key(name).split()[1] not in text
    for name, *_where in before.workspaces:
        assert name not in text
        assert bare(name).split()[1] not in text
        assert str(2301 + WORKSPACES.index(name)) not in text


def test_they_were_there_before() -> None:
    """What the others look for would be found."""
    all_of_it = Moment(
        PEOPLE, (OPERATOR,), (("audio", "gpu-01", "maria", "ramanujan"), ("video", "gpu-02", "ada", "ada"))
    )
    texts = rendered(all_of_it)
    text = repr(texts)
    for name in (*PEOPLE[:2], *WORKSPACES):
        assert name in text
    assert key("maria").split()[1] in "\n".join(texts["bastion"].values())
    assert "/etc/devnode/ssh/keys/noether" in texts["gpu-02"]
    _files, people = host_after([all_of_it], "bastion")
    assert {"maria", "noether"} <= set(people)
    _files, people = host_after([all_of_it, Moment()], "bastion")
    assert not {"maria", "noether"} & set(people)


ENVIRONMENTS = st.lists(st.sampled_from(["nlp", "vision", "audio"]), unique=True)


@given(st.lists(ENVIRONMENTS, max_size=3), ENVIRONMENTS)
def test_environments_that_are_no_longer_declared_go(history: list[list[str]], last: list[str]) -> None:
    """All that the role made; what a person made under a name of their own stays."""
    found: dict[str, Found] = {"ada-own": Found()}
    for names in [*history, last]:
        declared, errors = conda_env.parse_environments(
            [{"name": name, "packages": ["numpy"]} for name in names], variable="miniconda_environments"
        )
        assert errors == []
        made = {one.name: Found(State(one.digest(), one.spec())) for one in declared}
        for step in conda_state.plan(declared, found):
            if step.action == "remove":
                found.pop(step.name)
            else:
                found[step.name] = made[step.name]
    assert set(found) == {"ada-own", *last}


def test_becoming_an_operator_takes_two_runs() -> None:
    """As docs/people.md says: in one run, two account sets of the bastion would own one account."""
    somewhere = (("audio", "gpu-01", "maria", "maria"),)
    passing, running = Moment(("maria",), (), somewhere), Moment(("maria",), ("maria",), somewhere)
    assert host_after([passing, Moment(), running], "bastion") == host_after([running], "bastion")
    assert host_after([running, passing], "bastion") == host_after([passing], "bastion")
    with pytest.raises(AssertionError, match="belongs to the account set 'bastion'"):
        host_after([passing, running], "bastion")
