# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container is made of, and what it reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import (
    workspace_container,
)
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from unit.fleet import key
from workspace_case import KEY, OPTIONS, nlp


def test_certificates_count_for_the_login_that_they_name_and_revoked_keys_for_nobody() -> None:
    authority, other = key("ca"), key("other")
    given = nlp(keys={"ada": [KEY, other]}, user_ca_keys=[authority], revoked_keys=[other])
    files = {entry["path"]: entry.get("content") for entry in workspace_container.config_files([given], OPTIONS)}
    folder = "/etc/devnode/workspaces/nlp"
    ca = public_key(authority).bare
    assert files[f"{folder}/keys/grace"] == f'cert-authority,principals="grace" {ca}\n'
    assert files[f"{folder}/keys/ada"].splitlines()[-1] == f'cert-authority,principals="ada" {ca}'
    assert files[f"{folder}/revoked_keys"] == f"{public_key(other).bare}\n"
    config = json.loads(files[f"{folder}/workspace.json"] or "")
    prints = [public_key(one).fingerprint for one in (KEY, authority)]
    assert config["keys"] == {"ada": prints, "grace": prints[1:]}
    assert config["revoked"] == [public_key(other).fingerprint]
    # An authority that is itself revoked lets nobody in.
    config = json.loads(
        workspace_container.config_json(nlp(user_ca_keys=[authority], revoked_keys=[authority]), OPTIONS)
    )
    assert config["keys"]["grace"] == []


def test_files_are_for_the_container_and_hold_each_persons_keys() -> None:
    entries = {entry["path"]: entry for entry in workspace_container.config_files([nlp()], OPTIONS)}
    assert entries["/etc/devnode/workspaces/nlp/keys/ada"]["content"] == f"{KEY}\n"
    assert entries["/etc/devnode/workspaces/nlp/keys/grace"]["content"] == ""
    described = json.loads(entries["/etc/devnode/workspaces/nlp/workspace.json"]["content"])
    assert described["environment"] == ["NOTE"]
    assert KEY not in json.dumps(described)


def test_a_rollback_brings_nobody_back() -> None:
    folder = "/etc/devnode/workspaces/nlp"
    kept = {entry["path"] for entry in workspace_container.config_files([nlp()], OPTIONS) if entry.get("never_restore")}
    assert kept == {f"{folder}/{name}" for name in ("workspace.json", "revoked_keys", "keys/ada", "keys/grace")}


def test_people_keys_and_jupyter_need_no_new_container() -> None:
    same = nlp(members=[], keys={}, jupyter=False, agent_forwarding=True, known_hosts=[f"git.example.org {KEY}"])
    assert workspace_container.shape(same, OPTIONS) == workspace_container.shape(nlp(), OPTIONS)
    assert workspace_container.config_digest(same, OPTIONS) != workspace_container.config_digest(nlp(), OPTIONS)


@pytest.mark.parametrize(
    "change",
    [
        {"port": 2202},
        {"gpus": []},
        {"shm_size": "1g"},
        {"memory": "2g"},
        {"env": {}},
        {"mounts": [{"source": "/data", "target": "/data"}]},
    ],
)
def test_what_does_need_one(change: dict[str, Any]) -> None:
    assert workspace_container.shape(nlp(**change), OPTIONS) != workspace_container.shape(nlp(), OPTIONS)


def test_container_is_confined() -> None:
    words = workspace_container.create_arguments(nlp(mounts=[{"source": "/data", "target": "/data"}]), OPTIONS)
    pairs = list(zip(words[::2], words[1::2], strict=False))
    assert ("--publish", "10.0.0.11:2201:2222/tcp") in pairs
    assert ("--cap-drop", "ALL") in pairs
    assert ("--restart", "no") in pairs
    assert ("--device", "nvidia.com/gpu=0") in pairs
    assert ("--mount", "type=bind,source=/data,target=/data,readonly") in pairs
    assert "--privileged" not in words
    assert words[-1] == OPTIONS.image
    assert "--publish [fd00::11]:2201:2222/tcp" in workspace_container.shape_lines(
        workspace_container.shape(nlp(bind_address="fd00::11"), OPTIONS)
    )


def test_sudo_and_limits_are_in_the_containers_making() -> None:
    words = workspace_container.create_arguments(
        nlp(sudo=True, ulimits={"memlock": -1, "nofile": "1024:4096"}), OPTIONS
    )
    assert "no-new-privileges" not in words
    assert words[words.index("--ulimit") + 1] == "memlock=-1:-1"
    assert "nofile=1024:4096" in words
    assert "no-new-privileges" in workspace_container.create_arguments(nlp(), OPTIONS)
