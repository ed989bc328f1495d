# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of relay users: the targets of their keys, and files that take trust away for good."""

from __future__ import annotations

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import access
from ansible_collections.devnode.gpu.plugins.module_utils.relay_certificates import relays
from hypothesis import given
from hypothesis import strategies as st
from unit.fleet import bare, key

BASE = "/etc/devnode/bastion"


def person(**changes):
    return {"name": "ada", "uid": 2001, "keys": [key("ada")], "targets": [{"host": "10.0.0.11", "port": 22}], **changes}


def files(found):
    return {file["path"]: file["content"].splitlines()[1:] for file in found["files"] if "content" in file}


def test_certificates_get_the_same_targets_as_keys():
    found = relays([person()], authorities=[key("ca")], revoked=[key("gone")])
    content = files(found)
    assert content[f"{BASE}/user_ca"] == [key("ca")]
    assert content[f"{BASE}/revoked_keys"] == [bare("gone")]
    assert content[f"{BASE}/principals/ada"] == ['restrict,port-forwarding,permitopen="10.0.0.11:22" ada']
    assert all(file["never_restore"] for file in found["files"] if "content" in file)


def test_without_an_authority_there_is_only_an_empty_list_of_revoked_keys():
    assert files(relays([person()])) == {
        f"{BASE}/keys/ada": [f'restrict,port-forwarding,permitopen="10.0.0.11:22" {key("ada")}'],
        f"{BASE}/revoked_keys": [],
    }
    assert relays([]) == access.relays([])


def test_without_targets_a_certificate_reaches_nothing():
    assert files(relays([person(targets=[])], authorities=[key("ca")]))[f"{BASE}/principals/ada"] == ["restrict ada"]


@pytest.mark.parametrize("variable", ["authorities", "revoked"])
def test_a_wrong_key_is_named_with_its_variable(variable):
    with pytest.raises(access.AccessError, match=r"bastion_(user_ca|revoked)_keys\[1\].* DSA"):
        relays([person()], **{variable: [key("ca"), "ssh-dss AAAA"]})


hosts = st.sampled_from(["10.0.0.11", "gpu-01", "2001:db8::1"])
targets = st.lists(st.fixed_dictionaries({"host": hosts, "port": st.integers(1, 65535)}))


@given(targets)
def test_key_and_certificate_always_say_the_same(given_targets):
    content = files(relays([person(targets=given_targets)], authorities=[key("ca")]))
    options = content[f"{BASE}/keys/ada"][0][: -len(key("ada")) - 1]
    assert content[f"{BASE}/principals/ada"] == [f"{options} ada"]
