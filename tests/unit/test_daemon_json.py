# SPDX-License-Identifier: GPL-3.0-or-later
"""The merge of daemon.json and what a change asks of the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import daemon_json as dj
from ansible_collections.devnode.gpu.plugins.module_utils import daemon_refusals as refusals
from ansible_collections.devnode.gpu.plugins.module_utils import dockerd
from ansible_collections.devnode.gpu.plugins.module_utils.daemon_change import (
    Running,
    for_version,
    next_step,
    version_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEYS = st.sampled_from(["features", "log-opts", "runtimes", "cdi", "nvidia", "path", "bip", "größe", "a.b"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.text(max_size=4),
    st.lists(st.integers(0, 3), max_size=3),
)
DOCUMENTS = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=3),
    lambda inner: st.dictionaries(KEYS, st.one_of(VALUES, inner), max_size=3),
    max_leaves=6,
)

# Two cores, many neighbours: slow drawing says nothing here.
patient = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def fresh(document: Any, wanted: Any, owner: str = "ours") -> dj.Merge:
    return dj.merge(document, dj.Ownership(), owner, wanted)


def merge_or_skip(*args: Any) -> dj.Merge | None:
    try:
        return dj.merge(*args)
    except dj.DaemonJsonError:
        return None  # a clash of shapes or owners: refused, and tested by itself


def value_at(document: Any, path: dj.Path) -> Any:
    for key in path:
        document = document[key]
    return document


@given(DOCUMENTS, DOCUMENTS)
@patient
def test_merging_twice_is_merging_once(document: Any, wanted: Any) -> None:
    once = merge_or_skip(document, dj.Ownership(), "ours", wanted)
    if once:
        again = dj.merge(once.document, once.ownership, "ours", wanted)
        assert again.document == once.document
        assert again.ownership.to_json() == once.ownership.to_json()
        assert again.foreign == []


@given(DOCUMENTS, DOCUMENTS)
@patient
def test_what_is_not_ours_survives_and_what_is_ours_is_there(document: Any, wanted: Any) -> None:
    outcome = merge_or_skip(document, dj.Ownership(), "ours", wanted)
    if outcome:
        ours = dj.leaves(dj.compact(wanted))
        for path, value in dj.leaves(document).items():
            if path not in ours and not any(path == mine[: len(path)] for mine in ours):
                assert value_at(outcome.document, path) == value
        for path, value in ours.items():
            assert value_at(outcome.document, path) == value


@given(DOCUMENTS, st.lists(DOCUMENTS, min_size=1, max_size=4))
@patient
def test_taking_all_away_leaves_the_file_as_it_was_found(document: Any, history: list[Any]) -> None:
    current, ownership = document, dj.Ownership()
    for wanted in [*history, {}]:
        outcome = merge_or_skip(current, ownership, "ours", wanted)
        if outcome:
            current, ownership = outcome.document, outcome.ownership
    assert current == document
    assert ownership.to_json() == dj.Ownership().to_json()


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
@patient
def test_two_owners_in_any_order_of_leaving(document: Any, first: Any, second: Any) -> None:
    one = merge_or_skip(document, dj.Ownership(), "one", first)
    both = one and merge_or_skip(one.document, one.ownership, "two", second)
    if both:
        without_one = dj.merge(both.document, both.ownership, "one", {})
        for path, value in dj.leaves(dj.compact(second)).items():
            assert value_at(without_one.document, path) == value
        none = dj.merge(without_one.document, without_one.ownership, "two", {})
        assert none.document == document


@given(DOCUMENTS)
def test_ownership_survives_being_stored(wanted: Any) -> None:
    outcome = merge_or_skip({"log-opts": {"tag": "x"}}, dj.Ownership(), "ours", wanted)
    if outcome:
        stored = json.loads(json.dumps(outcome.ownership.to_json()))
        assert dj.Ownership.from_json(stored).to_json() == outcome.ownership.to_json()


def test_other_features_stay_where_nvidia_ctk_would_drop_them() -> None:
    outcome = fresh({"features": {"buildkit": True}, "dns": ["10.0.0.1"]}, {"features": {"cdi": True}})
    assert outcome.document == {"features": {"buildkit": True, "cdi": True}, "dns": ["10.0.0.1"]}


def test_a_key_we_no_longer_want_goes_back_to_what_it_was() -> None:
    first = fresh({"log-driver": "journald"}, {"log-driver": "local", "live-restore": True})
    second = dj.merge(first.document, first.ownership, "ours", {"live-restore": True})
    assert second.document == {"log-driver": "journald", "live-restore": True}


def test_a_value_that_somebody_changed_is_reported_and_set_again() -> None:
    first = fresh({}, {"live-restore": True})
    second = dj.merge({"live-restore": False}, first.ownership, "ours", {"live-restore": True})
    assert second.foreign == ["live-restore"]
    assert second.document == {"live-restore": True}


def test_a_value_that_somebody_changed_is_theirs_when_we_leave() -> None:
    first = fresh({}, {"live-restore": True})
    assert dj.merge({"live-restore": False}, first.ownership, "ours", {}).document == {"live-restore": False}


def test_two_roles_may_want_the_same_but_not_different_values() -> None:
    first = fresh({}, {"features": {"cdi": True}}, "docker_engine")
    same = dj.merge(first.document, first.ownership, "toolkit", {"features": {"cdi": True}})
    left = dj.merge(same.document, same.ownership, "toolkit", {})
    assert left.document == {"features": {"cdi": True}}
    with pytest.raises(dj.DaemonJsonError, match=r"features\.cdi: toolkit wants false, but docker_engine has set"):
        dj.merge(first.document, first.ownership, "toolkit", {"features": {"cdi": False}})


def test_true_is_not_one() -> None:
    assert fresh({"debug": 1}, {"debug": True}).document["debug"] is True


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "{'a': 1}", '{"a": 1,}', "nonsense"])
def test_what_dockerd_would_not_read_is_refused_by_name(text: str) -> None:
    with pytest.raises(dj.DaemonJsonError, match=r"/etc/docker/daemon\.json"):
        dj.parse(text, "/etc/docker/daemon.json")


def test_an_empty_file_is_an_empty_document() -> None:
    assert dj.parse(" \n", "x") == {}


def test_a_foreign_value_of_another_shape_is_left_and_named() -> None:
    with pytest.raises(dj.DaemonJsonError, match=r"features is a list in the file, but features\.cdi has"):
        fresh({"features": []}, {"features": {"cdi": True}})
    with pytest.raises(dj.DaemonJsonError, match="log-opts is an object in the file"):
        fresh({"log-opts": {"tag": "x"}}, {"log-opts": "y"})


def test_unset_inputs_do_not_reach_the_file() -> None:
    assert dj.compact({"bip": "", "dns": [], "a": {"b": None}, "debug": False, "n": 0}) == {"debug": False, "n": 0}


def test_the_indentation_of_the_file_is_kept() -> None:
    assert dj.render({"a": 1}, '{\n\t"b": 2\n}') == '{\n\t"a": 1\n}\n'
    assert dj.render({"a": 1}) == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["-H", "fd://"], {"hosts": "-H"}),
        (["--host=fd://", "--containerd=/run/c.sock"], {"hosts": "--host", "containerd": "--containerd"}),
        (["--log-opt", "max-size=1m"], {"log-opts": "--log-opt"}),
        (["--live-restore"], {"live-restore": "--live-restore"}),
        (["-s=overlay2", "-D"], {"storage-driver": "-s", "debug": "-D"}),
    ],
)
def test_flags_are_read_as_keys(line: list[str], expected: dict[str, str]) -> None:
    assert refusals.flags_of(line) == expected


def test_only_a_key_in_both_places_is_a_clash() -> None:
    argv = ["-H", "fd://", "--log-driver=journald"]
    assert refusals.clashes({"log-driver": "local", "live-restore": True}, argv) == {"log-driver": "--log-driver"}
    assert refusals.clashes({"live-restore": True}, argv) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Docker version 26.1.5+dfsg1, build a72d7cd", (26, 1, 5)), ("20.10.24", (20, 10, 24)), ("", ()), ("25", (25,))],
)
def test_versions(text: str, expected: tuple[int, ...]) -> None:
    assert version_of(text) == expected


VERSIONED = [
    {"since": "25.0", "settings": {"features": {"cdi": True}}},
    {"before": "25.0", "settings": {"runtimes": {"nvidia": {"path": "r"}}}, "note": "no CDI"},
]


def test_settings_follow_the_engine() -> None:
    assert for_version(VERSIONED, (26, 1, 5)) == ({"features": {"cdi": True}}, [])
    assert for_version(VERSIONED, (25, 0)) == ({"features": {"cdi": True}}, [])
    assert for_version(VERSIONED, (20, 10, 24)) == ({"runtimes": {"nvidia": {"path": "r"}}}, ["no CDI"])
    assert for_version(VERSIONED, ())[0] == {"features": {"cdi": True}}


def running(loaded: Any, **more: Any) -> Running:
    return Running(loaded=loaded, live_restore=more.pop("live_restore", False), **more)


def test_nothing_changed_is_nothing_done() -> None:
    assert next_step({"debug": True}, running({"debug": True}), "", "safe").action == "none"


def test_an_engine_that_does_not_run_is_started() -> None:
    assert next_step({}, None, "26.1.5", "never").action == "start"


def test_reloadable_keys_need_no_restart_even_where_none_is_allowed() -> None:
    step = next_step({"live-restore": True}, running({}, containers=("nlp",)), "", "never")
    assert step.action == "reload"


def test_a_reloadable_key_that_was_taken_away_needs_a_restart() -> None:
    assert next_step({}, running({"debug": True}), "", "safe").action == "restart"


def test_a_busy_engine_without_live_restore_is_left_and_says_who() -> None:
    step = next_step(
        {"features": {"cdi": True}}, running({}, containers=("nlp",), gpu_processes=("4711 python",)), "", "safe"
    )
    assert step.action == "defer"
    assert "container nlp, GPU process 4711 python" in step.why
    assert "features" in step.why


def test_live_restore_that_comes_with_the_change_is_reloaded_first() -> None:
    wanted = {"live-restore": True, "log-driver": "local"}
    step = next_step(wanted, running({}, containers=("nlp",)), "", "safe")
    assert (step.action, step.reload_first) == ("restart", True)
    step = next_step(wanted, running({"live-restore": True}, live_restore=True, containers=("nlp",)), "", "safe")
    assert (step.action, step.reload_first) == ("restart", False)


@pytest.mark.parametrize("key", ["bip", "data-root", "storage-driver", "userns-remap"])
def test_what_live_restore_cannot_bridge_waits(key: str) -> None:
    wanted = {"live-restore": True, key: "x"}
    step = next_step(wanted, running({"live-restore": True}, live_restore=True, containers=("nlp",)), "", "safe")
    assert step.action == "defer"
    assert f"live-restore cannot keep containers through a change of {key}" in step.why


def test_an_unknown_configuration_is_restarted_only_when_idle_or_allowed() -> None:
    busy = running(None, live_restore=True, containers=("nlp",))
    assert next_step({}, busy, "", "safe").action == "defer"
    assert next_step({}, busy, "", "always").action == "restart"
    assert next_step({}, running(None), "", "safe").action == "restart"
    assert next_step({}, running(None, answers=False), "", "safe").action == "defer"


def test_a_newer_engine_on_disk_asks_for_a_restart() -> None:
    step = next_step({}, running({}, version="26.1.4"), "26.1.5+dfsg1", "safe")
    assert step.action == "restart"
    assert "26.1.5+dfsg1 is installed, 26.1.4 runs" in step.why
    assert next_step({}, running({}, version="26.1.5+dfsg1"), "26.1.5+dfsg1", "safe").action == "none"


def test_address_pools_are_compared_with_routes_and_with_where_we_come_from() -> None:
    pools = [{"base": "10.64.0.0/14", "size": 24}]
    networks = refusals.own_networks({"bip": "172.30.0.1/24", "default-address-pools": pools})
    routes = [("default", "eth0"), ("10.66.0.0/16", "tun0"), ("172.30.0.0/24", "docker0"), ("10.65.1.0/24", "br-1f")]
    found = refusals.overlaps(networks, routes, ["172.30.0.9", "2001:db8::1"])
    assert found == [
        "bip (172.30.0.0/24) overlaps 172.30.0.9, where this run comes from",
        "default-address-pools (10.64.0.0/14) overlaps the route to 10.66.0.0/16 (device tun0)",
    ]


def test_a_pool_that_is_no_network_is_named() -> None:
    with pytest.raises(dj.DaemonJsonError, match=r'bip: "172\.300\.0\.1/24" is not a network'):
        refusals.own_networks({"bip": "172.300.0.1/24"})


LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max locked memory         8388608              8388608              bytes
Max open files            1024                 20000                files
Max processes             unlimited            unlimited            processes
"""


@pytest.mark.parametrize(
    ("capabilities", "ceilings"),
    [
        ("000001ffffffffff", {"nofile": 1048576}),
        ("00000004e8ac77ff", {"nofile": 20000, "memlock": 8388608}),
    ],
)
def test_the_most_a_machine_gives(capabilities: str, ceilings: dict[str, int]) -> None:
    assert dockerd.limit_ceilings(LIMITS, f"Name:\tsystemd\nCapBnd:\t{capabilities}\n", "1048576\n") == ceilings


def test_limits_above_that_are_named_with_both_numbers() -> None:
    def troubles(hard: int) -> list[str]:
        limits = {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": hard}, "stack": {"Hard": -1}}
        return refusals.limit_troubles({"default-ulimits": limits}, {"nofile": 20000})

    assert troubles(20000) == []
    assert "524288" in troubles(524288)[0]
    assert "20000" in troubles(524288)[0]
    assert "unlimited" in troubles(-1)[0]
