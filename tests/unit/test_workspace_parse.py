# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Specifications of workspaces: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.devnode.gpu.plugins.module_utils import (
    workspace_container,
    workspace_parse,
)
from ansible_collections.devnode.gpu.plugins.module_utils.topology_plan import node_plan
from hypothesis import given
from hypothesis import strategies as st
from unit.fleet import loaded
from workspace_case import KEY, NLP, OPTIONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("name", "a b", "is not a plain name"),
        ("name", "-x", "is not a plain name"),
        ("port", 0, "is out of range"),
        ("port", "22; reboot", "not a whole number"),
        ("bind_address", "0.0.0.0", "is not the address of one host"),  # noqa: S104
        ("bind_address", "gpu-01", "is not an IP address"),
        ("owner", {"name": "root", "uid": 2001}, "is an account that systems have"),
        ("owner", {"name": "ada", "uid": 0}, "is out of range"),
        ("owner", "ada", "is not a mapping with name and uid"),
        ("members", [{"name": "ada", "uid": 2003}], "is the name of two people"),
        ("members", [{"name": "eve", "uid": 2001}], "is the uid of two people"),
        ("keys", {"eve": [KEY]}, "is neither owner nor member"),
        ("keys", {"ada": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "is a private key"),
        ("user_ca_keys", ["ssh-dss AAAA"], "DSA"),
        ("revoked_keys", ["a\nb"], "more than one line"),
        ("gpus", ["0"], "is not a GPU"),
        ("gpus", ["nvidia.com/gpu=0 --privileged"], "is not a GPU"),
        ("gpus", "all", "is not a list"),
        ("shm_size", "much", "is not a size"),
        ("memory", "1", "is less than the engine accepts"),
        ("pids", 3, "is out of range"),
        ("stop_grace", 601, "is out of range"),
        ("ulimits", {"--privileged": 1}, "is not one of the choices"),
        ("ulimits", {"nofile": "5:4"}, "has a soft limit above its hard limit"),
        ("ulimits", {"nofile": "many"}, "is not a limit"),
        ("sudo", "perhaps", "is neither true nor false"),
        ("mounts", [{"source": "/data", "target": "/etc/ssh"}], "belongs to the workspace's own system"),
        ("mounts", [{"source": "/", "target": "/data"}], "control over the host"),
        ("mounts", [{"source": "/run/docker.sock", "target": "/data"}], "control over the host"),
        ("mounts", [{"source": "/a,readonly=false", "target": "/data"}], "is not a plain absolute path"),
        ("env", {"A B": "1"}, "is not a name for an environment variable"),
        ("env", {"A": "1\nB=2"}, "has control characters"),
        ("known_hosts", ["@cert-authority * ssh-ed25519 AAAA"], "does not begin with host names"),
        ("exempt_networks", ["10.0.0.1/8"], "has bits set behind its prefix"),
        ("image", "pytorch", "does not say which version it is"),
        ("image", "pytorch:latest", "does not say which version it is"),
        ("state", "gone", "is not one of the choices"),
    ],
)
def test_refused_with_its_place_and_value(place: str, value: Any, says: str) -> None:
    _, problems = workspace_parse.parse([{**NLP, place: value}])
    assert any(f"pytorch_sshd_workspaces[0].{place}" in text and says in text for text in problems), problems


def test_all_problems_at_once() -> None:
    _, problems = workspace_parse.parse([{**NLP, "name": "A", "port": 0}, {**NLP, "owner": {}}])
    assert len(problems) >= 4


def test_clashes_name_the_other() -> None:
    other = {**NLP, "name": "vision"}
    _, problems = workspace_parse.parse([NLP, other])
    assert 'pytorch_sshd_workspaces[1].port: 2201 is the address and port of workspace "nlp" too.' in problems
    assert any('claimed by workspace "nlp" too (nvidia.com/gpu=0)' in text for text in problems)
    _, problems = workspace_parse.parse([NLP, {**other, "port": 2202, "gpus": ["nvidia.com/gpu=all"]}])
    assert len(problems) == 1
    shared = [{**NLP, "gpu_shared": True}, {**other, "port": 2202, "gpu_shared": True}]
    assert workspace_parse.parse(shared)[1] == []


def test_what_the_plan_gives_is_what_the_role_takes() -> None:
    topology = loaded()
    specs = yaml.safe_load((ROOT / "roles/pytorch_sshd/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    known = set(specs["options"]["pytorch_sshd_workspaces"]["options"])
    for node in ("gpu-01", "gpu-02"):
        given_specs = node_plan(topology, node)["workspaces"]
        workspaces, problems = workspace_parse.parse(given_specs)
        assert problems == []
        assert workspaces
        assert all(set(spec) <= known for spec in given_specs)


def test_absent_is_not_there() -> None:
    assert workspace_parse.parse([{**NLP, "state": "absent"}]) == ([], [])


ODD = st.text("az09 \n-=$%,\"'/é", max_size=9)
SPEC_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*NLP, "mounts", "shm_size", "image"]), SPEC_VALUES))
def test_no_input_breaks_the_reader(changes: dict[str, Any]) -> None:
    workspaces, problems = workspace_parse.parse([{**NLP, **changes}])
    if not problems:
        for item in workspaces:
            words = workspace_container.create_arguments(item, OPTIONS)
            assert all(isinstance(word, str) and "\n" not in word for word in words)
            assert len(words) % 2 == 1
