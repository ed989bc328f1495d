# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is wrong with an inventory is refused, with the variable, the value, the reason and what is allowed."""

from __future__ import annotations

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import TopologyError
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.fleet import key, loaded

PRIVATE = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n-----END OPENSSH PRIVATE KEY-----"
)


def _set(*path, to):
    """A change that sets one value, deep inside."""

    def change(values):
        place = values
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


def _add(where, **entry):
    return lambda values: values[where].append(entry)


def _workspace(**entry):
    return _add("workspaces", **{"name": "x", "node": "gpu-02", "owner": "ada", "port": 2300, **entry})


def _machine(**variables):
    return lambda values: values.update(machines={"desk": variables})


CASES = {
    "unknown owner": (
        _workspace(owner="eve"),
        'devnode_workspaces[2].owner: "eve" is not in devnode_users. Allowed: ada, grace, olga',
    ),
    "unknown member": (_workspace(members=["eve"]), 'devnode_workspaces[2].members[0]: "eve" is not in devnode_users'),
    "owner as member": (_workspace(members=["ada"]), 'devnode_workspaces[2].members[0]: "ada" is the owner already'),
    "member twice": (
        _workspace(members=["grace", "grace"]),
        'devnode_workspaces[2].members[1]: "grace" is listed twice',
    ),
    "port twice": (
        _workspace(port=2210),
        "devnode_workspaces[2].port: 2210 is taken by devnode_workspaces[1]: on gpu-02 a port",
    ),
    "port of sshd": (
        lambda values: (_set("nodes", "gpu-02", "devnode_ssh_port", to=2300)(values), _workspace()(values)),
        "devnode_workspaces[2].port: 2300 is the port of gpu-02's own sshd",
    ),
    "port of sshd, for a while": (
        lambda values: (_set("nodes", "gpu-02", "devnode_ssh_ports_also", to=[2300])(values), _workspace()(values)),
        "devnode_workspaces[2].port: 2300 is the port of gpu-02's own sshd",
    ),
    "low port": (
        _workspace(port=80),
        "devnode_workspaces[2].port: 80 is out of range. Allowed: a whole number from 1024 to 65535",
    ),
    "ephemeral port": (
        _workspace(port=40000),
        "devnode_workspaces[2].port: 40000 is one of those that the kernel takes",
    ),
    "no port": (_add("workspaces", name="x", node="gpu-02", owner="ada"), "devnode_workspaces[2].port: is missing"),
    "unknown node": (
        _workspace(node="gpu-09"),
        'devnode_workspaces[2].node: "gpu-09" is no host or group in devnode_nodes. Allowed: gpu-01',
    ),
    "no node": (
        _add("workspaces", name="x", owner="ada", port=2300),
        "devnode_workspaces[2].node: is missing (or nodes)",
    ),
    "node and nodes": (_workspace(nodes=["gpu-01"]), "devnode_workspaces[2].node: and nodes are both given"),
    "unknown project": (
        _workspace(project="other"),
        'devnode_workspaces[2].project: "other" is not in devnode_projects. Allowed: corpus',
    ),
    "unknown key": (
        _workspace(member=["ada"]),
        'devnode_workspaces[2]: "member" is no key of this. Allowed: name, node',
    ),
    "name twice": (
        _workspace(name="nlp"),
        'devnode_workspaces[2].name: "nlp" gives the name nlp, which devnode_workspaces[0] has',
    ),
    "name of a node": (
        _workspace(name="gpu-01"),
        'devnode_workspaces[2].name: "gpu-01" gives the name gpu-01, which host gpu-01',
    ),
    "name of an operator's host": (_workspace(name="gpu-01-host"), "as operators reach it"),
    "name of a bastion": (_workspace(name="bastion"), "gives the name bastion, which host bastion has"),
    "bad name": (_workspace(name="x y"), 'devnode_workspaces[2].name: "x y" is not a plain name. Allowed: 1-63 of a-z'),
    "a GPU twice": (
        _workspace(node="gpu-01", gpus=[0]),
        'devnode_workspaces[2].gpus: "0" is claimed on gpu-01 by devnode_workspaces[0] (nlp) already',
    ),
    "all GPUs": (_workspace(node="gpu-01", gpus="all"), 'devnode_workspaces[2].gpus: "all" is claimed on gpu-01'),
    "part of a GPU": (
        _workspace(node="gpu-01", gpus=["0:1"]),
        'devnode_workspaces[2].gpus: "0:1" is claimed on gpu-01',
    ),
    "shared by one only": (_workspace(node="gpu-01", gpus=[0], gpu_shared=True), "gpu_shared: true in both"),
    "no GPU": (
        _workspace(gpus="some"),
        'devnode_workspaces[2].gpus: "some" is not a choice of GPUs. Allowed: all, none',
    ),
    "GPU option": (_workspace(gpus=["0 --privileged"]), "is not a GPU. Allowed: an index"),
    "latest image": (_workspace(image="pytorch/pytorch:latest"), "does not say which version it is"),
    "memory": (_workspace(memory="64 GB"), 'devnode_workspaces[2].memory: "64 GB" is not a size'),
    "mount": (
        _workspace(mounts=[{"source": "/a,b", "target": "../x"}]),
        'devnode_workspaces[2].mounts[0].source: "/a,b"',
    ),
    "environment name": (
        _workspace(env={"A=B": "x"}),
        'devnode_workspaces[2].env.A=B: "x" is not a name for an environment',
    ),
    "environment value": (_workspace(env={"A": "x\ny"}), 'devnode_workspaces[2].env.A: "x\\ny" has control characters'),
    "forward twice": (
        _workspace(forwards=[{"name": "tb", "port": 8888}]),
        "devnode_workspaces[2].forwards[0].port: 8888 is taken by JupyterLab",
    ),
    "two defaults": (
        lambda values: [item.update(default=True) for item in values["workspaces"]],
        "devnode_workspaces[1].default: true is taken by devnode_workspaces[0]: ada has one default workspace",
    ),
    "shared agent": (
        _workspace(project="corpus", members=["grace"]),
        "forwards an agent, and whoever shares the workspace could use it",
    ),
    "uid twice": (
        _add("users", name="eve", uid=2001, keys=[key("e")]),
        "devnode_users[3].uid: 2001 is taken by devnode_users[1]",
    ),
    "uid of who left": (
        lambda values: (
            _set("users", 1, "state", to="absent")(values),
            _add("users", name="eve", uid=2001, keys=[key("e")])(values),
        ),
        "devnode_users[3].uid: 2001 is taken by devnode_users[1]",
    ),
    "person twice": (
        _add("users", name="ada", uid=2008, keys=[key("e")]),
        'devnode_users[3].name: "ada" is taken by devnode_users[1]',
    ),
    "no login": (
        _add("users", name="Ada L.", uid=2008, keys=[key("e")]),
        'devnode_users[3].name: "Ada L." is not a POSIX login. Allowed: a POSIX',
    ),
    "system account": (
        _add("users", name="root", uid=2008, keys=[key("e")]),
        'devnode_users[3].name: "root" is an account that systems have',
    ),
    "low uid": (
        _add("users", name="eve", uid=0, keys=[key("e")]),
        "devnode_users[3].uid: 0 is out of range. Allowed: a whole number from 1000",
    ),
    "no keys": (_add("users", name="eve", uid=2008), "devnode_users[3].keys: is missing"),
    "empty keys": (_add("users", name="eve", uid=2008, keys=[]), "devnode_users[3].keys: [] is empty"),
    "half the keys": (
        _add("users", name="eve", uid=2008, keys={"bastion": [key("e")]}),
        "devnode_users[3].keys.workspace: is missing",
    ),
    "bad key": (
        _set("users", 2, "keys", to=["ssh-ed25519 AAAAC3"]),
        'devnode_users[2].keys[0]: "ssh-ed25519 AAAAC3" is cut short',
    ),
    "private key": (
        _set("users", 2, "keys", to=[PRIVATE]),
        'devnode_users[2].keys[0]: "(private key, not shown)" is a private key: take it out',
    ),
    "newline in a host name": (
        _set("nodes", "gpu-01", "devnode_address", to="10.0.0.11\nProxyCommand id"),
        'host gpu-01.devnode_address: "10.0.0.11\\nProxyCommand id" is not a host name. Allowed: a lower-case',
    ),
    "option in a host name": (
        _set("nodes", "gpu-01", "devnode_address", to="-oProxyCommand=id"),
        "host gpu-01.devnode_address",
    ),
    "no address": (_set("nodes", "gpu-01", to={}), "host gpu-01.devnode_address: is missing"),
    "name without address": (
        _set("nodes", "gpu-01", to={"devnode_address": "gpu-01.lan"}),
        "devnode_address is a name",
    ),
    "address twice": (_set("nodes", "gpu-01", "devnode_address", to="10.0.0.12"), "is taken by host gpu-"),
    "inventory name": (
        lambda values: values["nodes"].update({"GPU 1": {"devnode_address": "10.0.0.13"}}),
        "is not usable as an ssh alias",
    ),
    "no bastion": (_set("bastions", to={}), "group devnode_bastions: has no host"),
    "unknown bastion": (
        _set("nodes", "gpu-01", "devnode_bastion", to="other"),
        'devnode_bastion: "other" is not in devnode_bastions',
    ),
    "bastion is a node": (lambda values: values["nodes"].update(values["bastions"]), "is a bastion and a node at once"),
    "bad network": (
        _set("allowed_networks", to=["198.51.100.1/24"]),
        'devnode_allowed_networks[0]: "198.51.100.1/24" has bits set',
    ),
    "users undefined": (_set("users", to=None), "devnode_users: is not defined for this host"),
    "users no list": (_set("users", to={"ada": {}}), 'devnode_users: {"ada": {}} is not a list'),
    "user no mapping": (_set("users", 0, to="ada"), 'devnode_users[0]: "ada" is not a mapping'),
    "bad rate": (_set("bastion_rate", to="12/minute; drop"), 'devnode_bastion_rate: "12/minute; drop" is not a rate'),
    "bad known_hosts": (
        _set("known_hosts", to="gpu-01 ssh-ed25519 AAAA\n"),
        "devnode_known_hosts, line 1: is cut short",
    ),
    "bad git host": (
        _set("projects", 0, "git_hosts", 0, "name", to="git\nhost"),
        'devnode_projects[0].git_hosts[0].name: "git\\nhost" is not',
    ),
    "bad client": (
        _set("users", 0, "client", to={"platform": "amiga"}),
        'devnode_users[0].client.platform: "amiga" is not one of',
    ),
    "unknown person at a machine": (
        _machine(devnode_client_people=["ada", "eve"]),
        'host desk.devnode_client_people[1]: "eve" is not in devnode_users. Allowed: ada, grace, olga',
    ),
    "person twice at a machine": (
        _machine(devnode_client_people=["ada", "ada"]),
        'host desk.devnode_client_people[1]: "ada" is listed twice',
    ),
    "a home for everybody": (
        _machine(devnode_client={"home": "/home/ada"}),
        'host desk.devnode_client: "home" is no key of this. Allowed: openssh, multiplexing',
    ),
    "bad version at a machine": (
        _machine(devnode_client={"openssh": "new"}),
        'host desk.devnode_client.openssh: "new" is no OpenSSH version',
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case):
    change, message = CASES[case]
    with pytest.raises(TopologyError) as caught:
        loaded(change)
    text = str(caught.value)
    assert message in text
    assert "PRIVATE" not in text


def _without(name):
    return lambda values: values.update(users=[user for user in values["users"] if user["name"] != name])


@pytest.mark.parametrize(
    ("name", "place"), [("ada", "devnode_workspaces[1].members[0]"), ("grace", "devnode_workspaces[1].owner")]
)
def test_whose_name_is_still_in_a_workspace_cannot_just_be_deleted(name, place):
    """As docs/people.md says: their name goes from the workspaces too, or the entry stays and says `state: absent`."""
    with pytest.raises(TopologyError) as refused:
        loaded(_without(name))
    text = str(refused.value)
    assert f'{place}: "{name}" is not in devnode_users' in text
    assert "somebody who left: keep their entry there, with state: absent" in text
    at = ["olga", "ada", "grace"].index(name)
    topology = loaded(_set("users", at, "state", to="absent"))
    assert name not in {person for workspace in topology.workspaces for person in workspace.people}

    def everywhere(values):
        _without(name)(values)
        kept = [one for one in values["workspaces"] if one["owner"] != name]
        for one in kept:
            one["members"] = [member for member in one.get("members", []) if member != name]
        values["workspaces"] = kept

    assert name not in {person.name for person in loaded(everywhere).people}


def test_everything_at_once():
    def change(values):
        for case in ("unknown project", "newline in a host name", "bad key", "uid twice", "bad network"):
            CASES[case][0](values)

    with pytest.raises(TopologyError) as caught:
        loaded(change)
    assert len(caught.value.problems) == 5


def test_shared_gpus_are_shared_when_both_say_so():
    def change(values):
        values["workspaces"][0]["gpu_shared"] = True
        _workspace(node="gpu-01", gpus=[0], gpu_shared=True)(values)
        _workspace(name="y", gpus=[0], port=2301)(values)  # another node: another GPU

    assert len(loaded(change).workspaces) == 4


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
PLACES = st.sampled_from(
    [
        *[("users", 1, field) for field in ("name", "uid", "keys", "operator", "state", "client")],
        *[("workspaces", 0, field) for field in ("name", "node", "owner", "port", "gpus", "members", "env", "mounts")],
        *[("workspaces", 0, field) for field in ("image", "cpus", "memory", "pids", "forwards", "project", "state")],
        *[("nodes", "gpu-01", field) for field in ("devnode_address", "devnode_ip", "devnode_ssh_port")],
        ("nodes", "gpu-01", "devnode_ssh_ports_also"),
        *[("machines", "desk", field) for field in ("devnode_client_people", "devnode_client")],
        *[("projects", 0, field) for field in ("name", "agent_forwarding", "git_hosts")],
        *[(field,) for field in ("users", "workspaces", "projects", "allowed_networks", "controllers")],
    ]
)


@given(PLACES, ANYTHING)
@settings(deadline=None)
def test_rubbish_is_taken_or_refused_but_never_an_accident(place, value):
    try:
        loaded(_set(*place, to=value))
    except TopologyError as error:
        messages = [str(problem) for problem in error.problems] or ["\n"]
    else:
        messages = []
    assert [message for message in messages if not message.isprintable()] == []
