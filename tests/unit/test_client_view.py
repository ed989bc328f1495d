# SPDX-License-Identifier: GPL-3.0-or-later
"""What a view may say, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import client_samples as samples
import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.client_check import parse_views
from ansible_collections.devnode.gpu.plugins.module_utils.client_values import seconds
from ansible_collections.devnode.gpu.plugins.module_utils.client_view import ClientView, Host, persist, policy_id
from hypothesis import given, settings
from hypothesis import strategies as st

BASTION = {"aliases": ["bastion"], "hostname": "b.example.com", "user": "ada", "host_key_alias": "bastion"}
NLP = {"aliases": ["nlp"], "hostname": "10.0.0.1", "user": "ada", "host_key_alias": "nlp.gpu-01", "jump": "bastion"}


def small(**changes: Any) -> dict[str, Any]:
    """A view of one bastion and one workspace."""
    return {
        "person": "ada",
        "jumps": [BASTION],
        "hosts": [NLP],
        "known_hosts": samples.raw()["known_hosts"],
        **changes,
    }


def host(**changes: Any) -> dict[str, Any]:
    return small(hosts=[{**NLP, **changes}])


def test_a_good_view_is_taken_and_read_back() -> None:
    for changes in samples.VARIANTS.values():
        view = samples.view(**changes)
        errors: list[str] = []
        assert ClientView.from_dict(view.to_dict(), "again", errors) == view
        assert errors == []
    assert samples.errors_of(small()) == []


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # what is wrong, where, and a word of why
    (small(hosts=[NLP, {**NLP, "aliases": ["bastion"]}]), "hosts[1].aliases", '"bastion" is already a name of'),
    (small(hosts=[{**NLP, "aliases": ["nlp", "nlp"]}]), "hosts[0].aliases", '"nlp" is already a name of'),
    (small(jumps=[{**BASTION, "jump": "nlp"}]), "jumps[0].jump", "circle (bastion > nlp > bastion)"),
    (small(jumps=[{**BASTION, "jump": "bastion"}]), "jumps[0].jump", "circle (bastion > bastion)"),
    (host(jump="bostion"), "hosts[0].jump", "no entry of this view. There are: bastion, nlp"),
    (small(patterns=[{**NLP, "aliases": ["*"]}]), "patterns[0].aliases[0]", "hosts that are not ours"),
    (small(patterns=[{**NLP, "aliases": ["g*"]}]), "patterns[0].aliases[0]", "hosts that are not ours"),
    (small(patterns=[{**NLP, "aliases": ["*-gpu"]}]), "patterns[0].aliases[0]", "hosts that are not ours"),
    (small(patterns=[{**NLP, "aliases": ["!gpu"]}]), "patterns[0].aliases[0]", "is no pattern"),
    (
        small(patterns=[{**NLP, "aliases": ["*"], "multiplexing": "interactive"}]),
        "patterns[0].aliases[0]",
        "hosts that are not ours, with their keys, agents and connections",
    ),
    (small(patterns=[{**NLP, "aliases": ["gpu-*", "gpu-*"]}]), "patterns[0].aliases", '"gpu-*" is already a name of'),
    (host(aliases=["*"]), "hosts[0].aliases[0]", "not usable as an ssh alias"),
    (host(aliases=["nlp\nHost *"]), "hosts[0].aliases[0]", '"nlp\\nHost *"'),
    (host(hostname="10.0.0.1\n    ProxyCommand id"), "hosts[0].hostname", "not a host name"),
    (host(hostname='"x"'), "hosts[0].hostname", "not a host name"),
    (host(hostname="-oProxyCommand=id"), "hosts[0].hostname", "not a host name"),
    (host(user="ada\tx"), "hosts[0].user", "not a POSIX login"),
    (host(reason='a "quoted" one'), "hosts[0].reason", "not a plain line"),
    (host(port=0), "hosts[0].port", "1 to 65535"),
    (host(multiplexing="forever"), "hosts[0].multiplexing", "is no time"),
    (host(multiplexing="yes"), "hosts[0].multiplexing", "is no time"),
    (host(multiplexing=True), "hosts[0].multiplexing", "is no time"),
    (host(multiplexing="0"), "hosts[0].multiplexing", "open without an end"),
    (host(multiplexing="25h"), "hosts[0].multiplexing", "too long"),
    (host(identity_files=["keys/id"]), "hosts[0].identity_files[0]", "beginning with"),
    (host(identity_files=["~/../x"]), "hosts[0].identity_files[0]", ".."),
    (host(identity_files=["/k/%d"]), "hosts[0].identity_files[0]", "plain absolute path"),
    (host(agent="corpus"), "hosts[0].agent", "no agent of this view"),
    (
        {**host(agent="corpus", shared=True), "agents": samples.raw()["agents"]},
        "hosts[0].agent",
        "several people log in",
    ),
    (
        small(
            hosts=[{**NLP, "agent": "corpus"}, {**NLP, "aliases": ["far"], "jump": "nlp"}],
            agents=samples.raw()["agents"],
        ),
        "hosts[0].agent",
        'the jump of "far"',
    ),
    (host(own_agent=True, shared=True), "hosts[0].own_agent", "several people log in"),
    (
        {**host(own_agent=True, agent="corpus"), "agents": samples.raw()["agents"]},
        "hosts[0].own_agent",
        "leave out one",
    ),
    (host(identity_files=["/srv/keys/id"]), "hosts[0].identity_files[0]", "outside of the home"),
    (small(identity_files=["/root/id"], home="/home/ada"), "identity_files[0]", "outside of the home"),
    (host(mosh_ports="60001:60010"), "hosts[0].mosh_ports", 'the way through "bastion" carries none'),
    (host(mosh_ports="60010:60001", mosh_address="192.0.2.1"), "hosts[0].mosh_ports", "no range of ports"),
    (host(mosh_ports="1:60001", mosh_address="192.0.2.1"), "hosts[0].mosh_ports", "no range of ports"),
    (host(mosh_address="192.0.2.1"), "hosts[0].mosh_address", "stands alone"),
    (
        {**host(mosh_ports="60001:60010", mosh_address="192.0.2.1"), "platform": "windows"},
        "hosts[0].mosh_ports",
        "no mosh on Windows",
    ),
    (small(patterns=[{**NLP, "aliases": ["gpu-*"], "tmux": True}]), "patterns[0].tmux", "no name of its own"),
    (
        small(hosts=[{**NLP, "tmux": True}, {**NLP, "aliases": ["nlp-tmux"]}]),
        "hosts[1].aliases",
        '"nlp-tmux" is already',
    ),
    (host(request_tty="maybe"), "hosts[0].request_tty", "no, yes, force, auto"),
    (host(host_key_alias="unknown-one"), "hosts[0].host_key_alias", "no key for"),
    (host(hots="x"), "hosts[0]", '"hots" is no field'),
    (host(forwards=[{"name": "a", "port": 1}, {"name": "a", "port": 2}]), "forwards[1].name", "is there twice"),
    (
        host(forwards=[{"name": "a", "port": 1, "local_port": 7000}, {"name": "b", "port": 2, "local_port": 7000}]),
        "forwards[1].local_port",
        "already taken",
    ),
    (
        host(forwards=[{"name": f"f{number}", "port": 80} for number in range(10001)]),
        "hosts: 10001 forwards",
        "at most 10000",
    ),
    (host(forwards=[{"name": "a", "port": 1, "path": "/x y"}]), "forwards[0].path", "no path of an address"),
    (small(known_hosts=[{"names": ["nlp"], "keys": ["ssh-ed25519 AAAA"]}]), "known_hosts[0].keys[0]", "cut short"),
    (small(known_hosts=[{"names": ["nlp"]}]), "known_hosts[0].keys", "is missing"),
    (small(openssh="7.4"), "openssh", "too old"),
    (small(openssh=9.2), "openssh", "in quotes"),
    (small(platform="amiga"), "platform", "linux, macos, windows"),
    (small(person="root"), "person", "systems have by themselves"),
    (small(control_dir="/run/" + "x" * 60), "control_dir", "and 90 fit on linux"),
    (small(control_dir="/run/" + "x" * 60, platform="macos"), "control_dir", "and 86 fit on macos"),
    (small(home="/home/" + "x" * 40), "control_dir", "is too long"),
    (small(hosts="nlp"), "hosts", "is no list"),
    (small(jumps=["bastion"]), "jumps[0]", "is no mapping"),
]


@pytest.mark.parametrize(("view", "where", "why"), REFUSED, ids=[f"{where}-{why}" for _, where, why in REFUSED])
def test_refused_with_place_and_reason(view: dict[str, Any], where: str, why: str) -> None:
    errors = samples.errors_of(view)
    assert any(where in error and why in error for error in errors), errors
    assert all(error.startswith("ssh_client_config_views[0]") for error in errors)


def test_ways_of_working_that_are_fine() -> None:
    for good in (
        host(mosh_ports="60001:60010", mosh_address="192.0.2.1"),
        small(hosts=[{**NLP, "jump": "", "mosh_ports": "60001:60001"}]),
        host(tmux=True, request_tty=True),
        host(own_agent=True),
        host(own_agent=True, shared=True, agent_on_shared=True),
        {**host(identity_files=["/srv/keys/id"]), "identities_outside_home": True},
        {**host(identity_files=["/home/ada/keys/id"]), "home": "/home/ada"},
        {**host(identity_files=["/srv/keys/id"]), "base_dir": "/srv/kit"},
    ):
        assert samples.errors_of(good) == []


def test_all_errors_are_reported_together() -> None:
    wrong = small(platform="amiga", hosts=[{**NLP, "port": 0, "user": "no no"}], patterns=[{**NLP, "aliases": ["*"]}])
    _, errors = parse_views([wrong, small(openssh="1.0")])
    assert len(errors) == 5


def test_private_keys_are_refused_and_not_repeated() -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"
    for view in (host(reason=text), small(known_hosts=[{"names": ["nlp"], "keys": [text]}])):
        errors = samples.errors_of(view)
        assert len(errors) == 1
        assert "private key" in errors[0]
        assert "b3Blb" not in errors[0]


def test_one_view_for_each_person() -> None:
    assert "has a view already" in parse_views([small(), small()])[1][0]


def test_no_list_at_all() -> None:
    assert "is no list" in parse_views({"person": "ada"})[1][0]


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
    )
)
def test_nothing_makes_it_raise(value: Any) -> None:
    for name in ClientView.__dataclass_fields__:
        parse_views([small(**{name: value})])
    for name in Host.__dataclass_fields__:
        parse_views([host(**{name: value})])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("10m", 600), ("1h30m", 5400), ("", None), ("m", None), ("1d", None), ("-1", None)],
)
def test_times(text: str, expected: int | None) -> None:
    assert seconds(text) == expected


@settings(deadline=None)
@given(st.sampled_from(["interactive", "ci", "high_security", "no"]), st.booleans())
def test_profiles(profile: str, windows: bool) -> None:
    view = samples.view(multiplexing=profile, platform="windows" if windows else "linux")
    expected = {"interactive": 1800, "ci": 60}.get(profile)
    assert persist(view.hosts[0], view) == (None if windows else expected)
    assert persist(view.hosts[2], view) is None  # its own high_security


def test_two_inventories_in_one_home_share_no_connections() -> None:
    one, other = samples.view(), samples.view(source="inventory/other")
    assert policy_id(one.hosts[0], one) != policy_id(other.hosts[0], other)


def test_what_many_people_have_is_read_once_and_is_the_same_as_read_alone() -> None:
    people = [small(person=name, hosts=[{**NLP, "user": name}]) for name in ("ada", "grace", "ada2")]
    views, errors = parse_views(people)
    assert errors == []
    for each, raw in zip(views, people, strict=True):
        assert each.hosts == tuple(Host.from_dict(item, "", []) for item in raw["hosts"])
        assert hash(each.hosts[0]) == hash(Host.from_dict(raw["hosts"][0], "", []))


def test_what_is_wrong_is_named_in_its_own_place_however_often_it_was_read() -> None:
    wrong = [small(person=name, hosts=[{**NLP, "user": login}]) for name, login in (("ada", "ada"), ("grace", "a b"))]
    wrong.append(small(person="olga", hosts=[{**NLP, "user": "olga", "port": 99999}]))
    wrong.append(small(person="otto", hosts=[{**NLP, "user": "otto", "port": 99999}]))
    wrong.append(small(person="emma", hosts=[{**NLP, "port": object()}]))
    errors = parse_views(wrong)[1]
    assert [error.partition(": ")[0] for error in errors] == [
        "ssh_client_config_views[1].hosts[0].user",
        "ssh_client_config_views[2].hosts[0].port",
        "ssh_client_config_views[3].hosts[0].port",
        "ssh_client_config_views[4].hosts[0].port",
    ]
