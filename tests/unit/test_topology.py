# SPDX-License-Identifier: GPL-3.0-or-later
"""The topology as a whole: what it means for each host and person, and that both ends say the same."""

from __future__ import annotations

import json

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import client_check
from ansible_collections.devnode.gpu.plugins.module_utils.topology import Source, load
from ansible_collections.devnode.gpu.plugins.module_utils.topology_plan import bastion_plan, node_plan
from ansible_collections.devnode.gpu.plugins.module_utils.topology_view import missing_hosts, views
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.fleet import bare, fleet, key, loaded


def test_bastion():
    plan = bastion_plan(loaded(), "bastion")
    assert plan["ssh_server"] == {
        "operators": [{"name": "olga", "uid": 2000, "keys": [key("olga")]}],
        "port": 22,
        "ports_also": [],
        "operator_networks": ["198.51.100.0/28"],
        "automation_networks": ["198.51.100.5/32"],
        "exempt_networks": ["198.51.100.5/32"],
        "host_ca": "",
        "client_persist": 1800,
    }
    ada, grace = plan["bastion"]["relay_users"]
    assert ada == {
        "name": "ada",
        "uid": 2001,
        "keys": [key("ada-b")],
        "targets": [
            {"host": "10.0.0.11", "port": 2201},
            {"host": "10.0.0.11", "port": 2210},
            {"host": "10.0.0.12", "port": 2210},
        ],
    }
    assert grace["targets"] == [{"host": "10.0.0.11", "port": 2210}, {"host": "10.0.0.12", "port": 2210}]
    assert [(one["uid"], one["name"]) for one in plan["firewall"]["egress"]] == [(2001, "ada"), (2002, "grace")]
    assert plan["firewall"]["services"] == [
        {"name": "controllers", "port": 22, "protocol": "tcp", "sources": ["198.51.100.5/32"], "rate": ""},
        {
            "name": "people",
            "port": 22,
            "protocol": "tcp",
            "sources": ["198.51.100.0/24"],
            "rate": "120/minute burst 300",
        },
    ]


def test_a_target_that_is_a_name_needs_the_bastions_name_servers():
    assert bastion_plan(loaded(), "bastion")["firewall"]["egress_resolvers"] == []

    def named(values):
        values["nodes"]["gpu-01"] = {"devnode_address": "gpu-01.lab.internal", "devnode_ip": "10.0.0.11"}

    plan = bastion_plan(loaded(named), "bastion")
    assert plan["firewall"]["egress_resolvers"] == ["host"]
    assert {"address": "10.0.0.11", "port": 2201} in plan["firewall"]["egress"][0]["targets"]


def test_node():
    plan = node_plan(loaded(), "gpu-01")
    assert plan["ssh_server"]["operators"][0]["keys"] == [key("olga")]
    assert plan["ssh_server"]["exempt_networks"] == ["10.0.0.2/32"]
    assert plan["firewall"]["services"] == [
        {"name": "ssh", "port": 22, "protocol": "tcp", "sources": ["10.0.0.2/32"], "rate": ""}
    ]
    assert [item["name"] for item in plan["firewall"]["containers"]["published"]] == ["nlp", "team"]
    nlp, team = plan["workspaces"]
    assert nlp["gpus"] == ["nvidia.com/gpu=0"]
    assert nlp["agent_forwarding"] is True
    assert nlp["known_hosts"] == [f"git.example.com {bare('git')}"]
    assert nlp["keys"] == {"ada": [key("ada-w")]}
    assert team["owner"] == {"name": "grace", "uid": 2002}
    assert team["members"] == [{"name": "ada", "uid": 2001}]
    assert team["host_key_alias"] == "team.gpu-01"


def test_a_workspace_of_several_nodes_has_the_same_port_and_numbers_on_each():
    one, other = (
        {key: value for key, value in item.items() if key not in ("bind_address", "host_key_alias")}
        for node in ("gpu-01", "gpu-02")
        for item in node_plan(loaded(), node)["workspaces"]
        if item["name"] == "team"
    )
    assert one == other
    assert (one["port"], one["owner"]["uid"], [item["uid"] for item in one["members"]]) == (2210, 2002, [2001])


def test_a_nodes_role_knows_who_is_still_here():
    assert node_plan(loaded(), "gpu-01")["people"] == ["ada", "grace", "olga"]
    assert node_plan(loaded(_leaves("grace")), "gpu-02")["people"] == ["ada", "olga"]


def test_a_node_alone_needs_no_other_nodes_variables():
    def change(values):
        values["nodes"]["gpu-02"] = None

    assert node_plan(loaded(change), "gpu-01") == node_plan(loaded(), "gpu-01")


def test_views():
    found, left_out = views(loaded())
    ada, grace, olga = found
    assert left_out == []
    assert client_check.parse_views(found)[1] == []
    assert [host["aliases"] for host in ada["hosts"]] == [
        ["nlp", "nlp.gpu-01", "gpu-01"],
        ["team", "team.gpu-01"],
        ["team.gpu-02", "gpu-02"],
    ]
    assert ada["agents"][0]["destinations"] == ["nlp.gpu-01>git.example.com"]
    assert [host["aliases"] for host in grace["hosts"]] == [
        ["team", "team.gpu-01", "gpu-01"],
        ["team.gpu-02", "gpu-02"],
    ]
    assert [host["aliases"] for host in olga["hosts"]] == [["gpu-01-host"], ["gpu-02-host"]]
    assert {name for known in grace["known_hosts"] for name in known["names"]} == {
        "bastion",
        "team.gpu-01",
        "team.gpu-02",
    }


LAPTOP = {
    "platform": "macos",
    "openssh": "9.0",
    "base_dir": "/Users/ada/fleet",
    "control_dir": "/Users/ada/cm",
    "home": "/Users/ada",
    "account": "lovelace",
    "multiplexing": "high_security",
    "bastion_identity_files": ["/Users/ada/door"],
    "workspace_identity_files": ["/Users/ada/work"],
    "project_keys": {"corpus": "/Users/ada/corpus"},
}


def _at_desk(machine, **client):
    """The views on a managed machine `desk`, where ada also has a laptop of her own."""

    def change(values):
        values["users"][1]["client"] = {**LAPTOP, **client}
        values["machines"] = {"desk": machine}

    topology = loaded(change)
    found, _left_out = views(topology, topology.machine["desk"])
    assert client_check.parse_views(found)[1] == []
    return found, views(topology)[0]


def test_a_managed_machine_has_its_own_paths_and_keeps_what_is_the_persons():
    (ada,), laptops = _at_desk({"devnode_client_people": ["ada"]})
    assert "/Users" not in json.dumps(ada)
    assert "/Users" in json.dumps(laptops[0])
    assert not {"platform", "openssh", "base_dir", "control_dir", "home", "identity_files"} & set(ada)
    assert ada["jumps"][0]["identity_files"] == ["~/.ssh/id_ed25519_bastion"]
    assert ada["agents"][0] == {
        "name": "corpus",
        "socket": "~/.ssh/cm/agent-corpus",
        "key_file": "~/.ssh/id_ed25519_corpus",
        "destinations": ["nlp.gpu-01>git.example.com"],
    }
    assert (ada["account"], ada["multiplexing"]) == ("lovelace", "high_security")
    for part in ("hosts", "known_hosts"):
        assert ada[part] == laptops[0][part]


def test_a_managed_machine_says_what_holds_for_everybody_there():
    given = {
        "openssh": "9.2",
        "multiplexing": "ci",
        "bastion_identity_files": ["~/.ssh/door"],
        "workspace_identity_files": ["~/.ssh/work"],
        "project_keys": {"corpus": "/srv/keys/corpus"},
        "identities_outside_home": True,
        "tmux": True,
    }
    (ada, grace, olga), _laptops = _at_desk({"devnode_client": given})
    for view in (ada, grace, olga):
        assert (view["openssh"], view["identity_files"]) == ("9.2", ["~/.ssh/work"])
        assert view["jumps"][0]["identity_files"] == ["~/.ssh/door"]
    assert (ada["multiplexing"], grace["multiplexing"]) == ("high_security", "ci")  # a machine loosens nobody's choice
    assert ada["agents"][0]["key_file"] == "/srv/keys/corpus"
    assert ada["identities_outside_home"]
    assert [host["tmux"] for host in ada["hosts"]] == [True] * len(ada["hosts"])


@pytest.mark.parametrize(
    ("people", "expected"),
    [(None, ["ada", "grace", "olga"]), ([], []), (["olga", "ada"], ["ada", "olga"]), ("grace", ["grace"])],
)
def test_who_works_at_a_managed_machine(people, expected):
    found, _laptops = _at_desk({"devnode_client_people": people})
    assert [view["person"] for view in found] == expected


def test_who_left_may_stay_in_a_machines_list():
    def change(values):
        values["users"][1]["state"] = "absent"
        values["machines"] = {"desk": {"devnode_client_people": ["ada", "grace"]}}

    topology = loaded(change)
    assert [view["person"] for view in views(topology, topology.machine["desk"])[0]] == ["grace"]


def test_the_key_for_bastions_lies_beside_the_other_one_when_there_are_two():
    ada, grace, _olga = views(loaded())[0]
    assert ada["jumps"][0]["identity_files"] == ["~/.ssh/id_ed25519_bastion"]
    assert "identity_files" not in grace["jumps"][0]
    same = {"bastion": [bare("ada")], "workspace": [key("ada")]}
    ada = views(loaded(lambda values: values["users"][1].update(keys=same)))[0][0]
    assert "identity_files" not in ada["jumps"][0]


def test_a_workspace_without_a_known_key_is_left_out():
    def change(values):
        values["known_hosts"] = "\n".join(line for line in values["known_hosts"].split("\n") if "nlp" not in line)

    found, left_out = views(loaded(change))
    assert left_out == ["nlp.gpu-01"]
    assert client_check.parse_views(found)[1] == []
    # gpu-01 must not lead somewhere else meanwhile
    assert [host["aliases"] for host in found[0]["hosts"]] == [["team", "team.gpu-01"], ["team.gpu-02", "gpu-02"]]


def test_hosts_without_a_known_key():
    assert missing_hosts(loaded(lambda values: values.update(known_hosts=""))) == ["bastion", "gpu-01", "gpu-02"]


def _leaves(name):
    def change(values):
        next(user for user in values["users"] if user["name"] == name)["state"] = "absent"

    return change


@pytest.mark.parametrize("name", ["ada", "grace", "olga"])
def test_who_left_is_nowhere(name):
    topology = loaded(_leaves(name))
    plans = [
        bastion_plan(topology, "bastion"),
        *(node_plan(topology, node) for node in ("gpu-01", "gpu-02")),
        views(topology),
    ]
    words = json.dumps(plans)
    assert f'"{name}"' not in words
    assert f" {name}" not in words


def test_an_owner_who_left():
    topology = loaded(_leaves("grace"))
    assert [(item.name, item.owner, item.members) for item in topology.workspaces] == [
        ("nlp", "ada", ()),
        ("team", "ada", ()),
    ]
    assert topology.warnings == (
        'devnode_workspaces[1].owner: "grace" is absent. ada stands in as the owner of team until you name one.',
    )
    # Nobody is left in ada's own workspace: it goes, and nothing more has to be edited.
    assert [item.name for item in loaded(_leaves("ada")).workspaces] == ["team"]


def test_who_left_needs_no_keys_and_an_absent_workspace_nothing():
    def change(values):
        values["users"].append({"name": "tim", "uid": 2009, "state": "absent"})
        values["workspaces"].append(
            {"name": "old", "owner": "nobody-here", "state": "absent", "node": "gone", "port": 2201}
        )

    assert loaded(change) == loaded()


def test_default_workspace():
    def change(values):
        values["workspaces"][1]["default"] = True

    found, _left_out = views(loaded(change))
    assert [host["aliases"] for host in found[0]["hosts"]] == [
        ["nlp", "nlp.gpu-01"],
        ["team", "team.gpu-01", "gpu-01"],
        ["team.gpu-02", "gpu-02"],
    ]


def test_each_bastion_leads_to_its_own_nodes():
    def change(values):
        values["bastions"]["bastion2"] = {"devnode_address": "203.0.113.11", "devnode_private_ip": "10.0.0.3"}
        values["nodes"]["gpu-02"]["devnode_bastion"] = "bastion2"
        values["known_hosts"] += f"bastion2 {bare('bastion2')}\n"

    topology = loaded(change)
    first, second = (bastion_plan(topology, name)["bastion"]["relay_users"] for name in ("bastion", "bastion2"))
    assert {target["host"] for user in first for target in user["targets"]} == {"10.0.0.11"}
    assert {target["host"] for user in second for target in user["targets"]} == {"10.0.0.12"}
    assert node_plan(topology, "gpu-02")["firewall"]["services"][0]["sources"] == ["10.0.0.3/32"]
    found, _left_out = views(topology)
    assert [(host["aliases"][0], host["jump"]) for host in found[1]["hosts"]] == [
        ("team", "bastion"),
        ("team.gpu-02", "bastion2"),
    ]


def test_order_does_not_matter():
    def change(values):
        for name in ("users", "workspaces", "projects", "allowed_networks"):
            values[name].reverse()
        values["nodes"] = dict(reversed(values["nodes"].items()))

    assert loaded(change) == loaded()


# ---- properties ----------------------------------------------------------------------------------------------------

NODES = [f"gpu-{number:02}" for number in range(4)]
BASTIONS = ["door-a", "door-b"]
PEOPLE = [f"user{number}" for number in range(5)]


@st.composite
def fleets(draw):
    """Fleets of all kinds that are right, with people who left, several bastions and shared workspaces."""
    users = [
        {
            "name": name,
            "uid": 3000 + at,
            "keys": [key(name)],
            "operator": draw(st.booleans()) and at == 0,
            "state": draw(st.sampled_from(["present", "present", "present", "absent"])),
        }
        for at, name in enumerate(PEOPLE)
    ]
    workspaces = []
    for at in range(draw(st.integers(0, 6))):
        people = draw(st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=3, unique=True))
        workspaces.append(
            {
                "name": f"w{at}",
                "nodes": draw(st.lists(st.sampled_from(NODES), min_size=1, max_size=3, unique=True)),
                "owner": people[0],
                "members": people[1:],
                "port": 2200 + at,
                "state": draw(st.sampled_from(["present", "present", "absent"])),
                "jupyter": draw(st.booleans()),
            }
        )
    names = [*BASTIONS, *NODES, *(f"{item['name']}.{node}" for item in workspaces for node in item["nodes"])]
    return Source(
        bastions={
            name: {"devnode_address": f"{name}.example.com", "devnode_ip": f"203.0.113.{at + 1}"}
            for at, name in enumerate(BASTIONS)
        },
        nodes={
            name: {"devnode_address": f"10.1.0.{at + 1}", "devnode_bastion": draw(st.sampled_from(BASTIONS))}
            for at, name in enumerate(NODES)
        },
        users=users,
        workspaces=workspaces,
        allowed_networks=["198.51.100.0/24"],
        known_hosts="".join(f"{name} {bare(name)}\n" for name in names),
    )


@given(fleets())
@settings(deadline=None)
def test_both_ends_agree(source):
    """What the bastions let through, what their firewalls let out and where the kits lead are the same places."""
    topology = load(source)
    relayed, let_out = set(), set()
    for name in BASTIONS:
        plan = bastion_plan(topology, name)
        relayed |= {
            (name, user["name"], at["host"], at["port"])
            for user in plan["bastion"]["relay_users"]
            for at in user["targets"]
        }
        let_out |= {
            (name, user["name"], at["address"], at["port"])
            for user in plan["firewall"]["egress"]
            for at in user["targets"]
        }
    found, left_out = views(topology)
    operators = {person.name for person in topology.operators}
    led_to = {
        (host["jump"], view["person"], host["hostname"], host.get("port", 22))
        for view in found
        for host in view.get("hosts", [])
    }
    assert relayed == let_out  # here addresses are IPs
    assert relayed == {place for place in led_to if place[1] not in operators}
    assert left_out == []
    served = {
        (user, node_plan(topology, node)["workspaces"][at]["bind_address"], item["port"])
        for node in NODES
        for at, item in enumerate(node_plan(topology, node)["workspaces"])
        for user in item["keys"]
    }
    assert {place[1:] for place in relayed} == {place for place in served if place[0] not in operators}


@given(fleets())
@settings(deadline=None)
def test_plans_are_deterministic_and_views_are_sound(source):
    topology, again = load(source), load(source)
    found = views(topology)[0]
    assert found == views(again)[0]
    assert client_check.parse_views(found)[1] == []
    for node in NODES:
        assert json.dumps(node_plan(topology, node)) == json.dumps(node_plan(again, node))


@given(fleets(), st.sampled_from(PEOPLE))
@settings(deadline=None)
def test_absent_means_nowhere(source, name):
    topology = load(source)
    if name in {person.name for person in topology.people}:
        return
    plans = [bastion_plan(topology, one) for one in BASTIONS] + [node_plan(topology, one) for one in NODES]
    assert f'"{name}"' not in json.dumps([plans, views(topology)[0]])


def test_many_hosts_and_people_take_little_time():
    """No square of anything: 1,000 nodes with 3 workspaces each (a bound so wide that only a square breaks it)."""
    source = Source(
        bastions=fleet().bastions,
        nodes={f"n{at}": {"devnode_address": f"10.{at // 250}.{at % 250}.1"} for at in range(1000)},
        users=[{"name": f"u{at}", "uid": 3000 + at, "keys": [key(f"u{at}")]} for at in range(200)],
        workspaces=[
            {"name": f"w{at}", "node": f"n{at // 3}", "owner": f"u{at % 200}", "port": 2200 + at % 3}
            for at in range(3000)
        ],
        allowed_networks=[],
    )
    topology = load(source)
    assert len(bastion_plan(topology, "bastion")["bastion"]["relay_users"]) == 200
    assert len(node_plan(topology, "n5")["workspaces"]) == 3


def test_authorities_and_revoked_keys_reach_the_bastion():
    plan = bastion_plan(loaded(lambda f: f.update(user_ca_keys=[key("ca")], revoked_keys=[key("gone")])), "bastion")
    plan = plan["bastion"]
    assert (plan["user_ca_keys"], plan["revoked_keys"]) == ([key("ca")], [key("gone")])
    node = node_plan(loaded(lambda f: f.update(user_ca_keys=[key("ca")], revoked_keys=[key("gone")])), "gpu-01")
    for workspace in node["workspaces"]:
        assert (workspace["user_ca_keys"], workspace["revoked_keys"]) == ([key("ca")], [key("gone")])


def test_a_revoked_key_counts_nowhere_though_it_is_listed():
    topology = loaded(lambda f: f.update(revoked_keys=[key("ada-w"), key("olga")]))
    assert key("ada-w") not in str(node_plan(topology, "gpu-01")["workspaces"][0]["keys"])
    assert bastion_plan(topology, "bastion")["ssh_server"]["operators"][0]["keys"] == []
    assert sum("is revoked" in text for text in topology.warnings) == 2


def test_from_one_port_to_another_both_are_open_on_both_ends():
    """The firewall, sshd and the one that kits name are of one source."""

    def change(fleet):
        for name, group in (("bastion", "bastions"), ("gpu-01", "nodes")):
            fleet[group][name].update(devnode_ssh_port=2022, devnode_ssh_ports_also=[22])

    topology = loaded(change)
    bastion, node = bastion_plan(topology, "bastion"), node_plan(topology, "gpu-01")
    for plan in (bastion, node):
        assert (plan["ssh_server"]["port"], plan["ssh_server"]["ports_also"]) == (2022, [22])
    found = [(one["name"], one["port"], one["sources"], one["rate"]) for one in bastion["firewall"]["services"]]
    people, rate = list(topology.allowed_networks), topology.bastion_rate
    assert found == [
        ("controllers", 2022, ["198.51.100.5/32"], ""),
        ("controllers-22", 22, ["198.51.100.5/32"], ""),
        ("people", 2022, people, rate),
        ("people-22", 22, people, rate),
    ]
    assert [(one["name"], one["port"]) for one in node["firewall"]["services"]] == [("ssh", 2022), ("ssh-22", 22)]


def test_the_keys_of_who_left_are_revoked_for_the_sake_of_their_certificates():
    topology = loaded(_leaves("grace"))
    assert {one.bare for one in topology.revoked_keys} == {bare("grace")}
    assert bastion_plan(topology, "bastion")["bastion"]["revoked_keys"]
    assert all(one["revoked_keys"] for one in node_plan(topology, "gpu-01")["workspaces"])
    assert not any("is revoked" in text for text in topology.warnings)


def test_a_key_that_went_on_to_another_login_counts():
    """Somebody gets another login: the old entry stays, absent, and lists the same key."""

    def change(fleet):
        _leaves("grace")(fleet)
        old = next(one for one in fleet["users"] if one["name"] == "grace")
        fleet["users"].append({**old, "name": "grace2", "uid": 2999, "state": "present"})

    topology = loaded(change)
    assert topology.revoked_keys == ()


def test_the_bastion_knows_how_long_clients_keep_connections():
    def change(fleet):
        fleet["users"][1]["client"] = {"multiplexing": "24h"}
        fleet["users"][2]["client"] = {"multiplexing": "no"}

    assert bastion_plan(loaded(change), "bastion")["ssh_server"]["client_persist"] == 86400


def test_the_automation_comes_from_the_controllers_unless_said_otherwise():
    def networks(change):
        topology = loaded(change)
        return [
            plan["ssh_server"]["automation_networks"]
            for plan in (bastion_plan(topology, "bastion"), node_plan(topology, "gpu-01"))
        ]

    doors = "10.0.0.2/32"
    assert networks(None) == [["198.51.100.5/32"], [doors, "198.51.100.5/32"]]
    other = {"automation_networks": ["203.0.113.0/24"]}
    assert networks(lambda values: values.update(other)) == [["203.0.113.0/24"], [doors, "203.0.113.0/24"]]
    assert networks(lambda values: values.update(automation_networks=[])) == [[], []]
    assert networks(lambda values: values.update(controllers=[])) == [[], []]


def test_without_controllers_the_automation_is_not_bound_and_that_is_said():
    (said,) = loaded(lambda values: values.update(controllers=[])).warnings
    assert said.startswith("devnode_controllers names no network")
    assert loaded(lambda values: values.update(controllers=[], automation_networks=[])).warnings == ()
    assert loaded().warnings == ()
