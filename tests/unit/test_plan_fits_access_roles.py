# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan hands to ssh_server, host_firewall and bastion is what they take, and both walls say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.devnode.gpu.plugins.module_utils import access, firewall, ssh_policy, ssh_policy_refusals
from ansible_collections.devnode.gpu.plugins.module_utils.topology_plan import bastion_plan, node_plan
from fleet import loaded

ROLES = Path(__file__).parents[2] / "roles"


def options(role):
    """The role's variables, as its argument_specs describe them."""
    return yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]


def accepted(role, variables):
    """What a role's argument_specs have against these values."""
    return ArgumentSpecValidator(options(role)).validate(variables).error_messages


@pytest.fixture(scope="module")
def topology():
    return loaded()


def test_the_bastion(topology):
    plan = bastion_plan(topology, "bastion")
    assert accepted("ssh_server", {f"ssh_server_{key}": value for key, value in plan["ssh_server"].items()}) == []
    assert accepted("bastion", {"bastion_relay_users": plan["bastion"]["relay_users"]}) == []
    assert accepted("host_firewall", {f"host_firewall_{key}": value for key, value in plan["firewall"].items()}) == []

    operators = access.operators(plan["ssh_server"]["operators"])
    wishes = ssh_policy.Wishes(
        port=plan["ssh_server"]["port"],
        operators=tuple(operators["names"]),
        exempt_networks=tuple(plan["ssh_server"]["exempt_networks"]),
    )
    assert ssh_policy_refusals.invalid(wishes) == []


def test_the_key_and_the_filter_name_the_same_targets(topology):
    plan = bastion_plan(topology, "bastion")
    relays = access.relays(plan["bastion"]["relay_users"])
    rules = firewall.make_plan(plan["firewall"]["services"], plan["firewall"]["egress"], {}, [], [])
    key_files = [file for file in relays["files"] if "content" in file]
    by_key = {
        f"{account['uid']} . {target.replace(':', ' . ')}"
        for account, file in zip(relays["accounts"], key_files, strict=True)
        for target in file["content"].split('permitopen="')[1:]
        for target in [target.split('"')[0]]
    }
    assert by_key == set(rules.egress["ip"])
    assert [account["uid"] for account in relays["accounts"]] == rules.egress_uids


def test_a_node(topology):
    plan = node_plan(topology, "gpu-01")
    assert accepted("ssh_server", {f"ssh_server_{key}": value for key, value in plan["ssh_server"].items()}) == []
    assert accepted("host_firewall", {f"host_firewall_{key}": value for key, value in plan["firewall"].items()}) == []
    rules = firewall.make_plan(plan["firewall"]["services"], [], plan["firewall"]["containers"], ["docker0"], [])
    assert [row["port"] for row in rules.published] == [2201, 2210]
    assert firewall.admits(rules, "10.0.0.2", (22,))
    assert not firewall.admits(rules, "198.51.100.5", (22,))


@pytest.mark.parametrize("role", ["ssh_server", "host_firewall", "bastion"])
def test_defaults_and_specification_agree(role):
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    assert {name: option["default"] for name, option in options(role).items()} == defaults
