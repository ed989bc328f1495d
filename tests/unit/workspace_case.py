# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A workspace, and an engine that only says what it is told to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
from ansible_collections.devnode.gpu.plugins.module_utils import (
    workspace_container,
    workspace_engine,
    workspace_keeper,
    workspace_parse,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBkz1jAoIKYsCwz6jJNDiJRvbwqz624gk6E5pAA/we7G"
NLP = {
    "name": "nlp",
    "port": 2201,
    "bind_address": "10.0.0.11",
    "owner": {"name": "ada", "uid": 2001},
    "members": [{"name": "grace", "uid": 2002}],
    "keys": {"ada": [KEY]},
    "gpus": ["nvidia.com/gpu=0"],
    "env": {"NOTE": "a b"},
}
OPTIONS = model.Options(image="devnode/pytorch-sshd:1")


def nlp(**changes: Any) -> model.Workspace:
    workspaces, problems = workspace_parse.parse([{**NLP, **changes}])
    assert problems == []
    return workspaces[0]


class FakeDocker:
    """Answers as the docker command does; remembers what it was asked to do."""

    def __init__(self, containers: list[dict[str, Any]], top: str = "") -> None:
        self.containers, self.top, self.done = containers, top, []  # type: ignore[var-annotated]

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        words = tuple(argv[1:3])
        if words == ("info", "--format"):
            return 0, json.dumps({"ServerVersion": "26.1", "CDISpecDirs": ["/etc/cdi"]}), ""
        if words == ("ps", "--filter"):
            return 0, "\n".join(c["Name"].lstrip("/") for c in self.containers), ""
        if words[0] == "ps":
            rows = [(c["Id"], c["Name"].lstrip("/"), c["Config"]["Labels"][model.LABEL]) for c in self.containers]
            return 0, "\n".join("\t".join(row) for row in rows), ""
        if words == ("container", "inspect"):
            return 0, json.dumps(self.containers), ""
        if words == ("network", "ls"):
            return 0, "\n".join(c["Name"].lstrip("/") for c in self.containers), ""
        if words == ("volume", "ls") and "--filter" in argv:
            return 0, f"devnode-{argv[-1].rpartition('=')[2]}-home\n", ""
        if words == ("image", "inspect"):
            return 0, "sha256:1", ""
        if words[0] == "top":
            return 0, self.top, ""
        if words[0] == "exec" and argv[-2:] == ["cat", "/etc/passwd"]:
            return 0, "root:x:0:0::/root:/bin/sh\nada:x:2001:2001::/home/ada:/bin/bash\n", ""
        self.done.append(argv)
        return 0, "", ""


def container(item: model.Workspace, **changes: Any) -> dict[str, Any]:
    labels = {model.LABEL: item.name, model.LABEL_SHAPE: workspace_container.shape(item, OPTIONS)}
    found = {"Id": "c1", "Name": f"/devnode-{item.name}", "Image": "sha256:1", "State": {"Running": True}}
    return {**found, "Config": {"Labels": labels}, **changes}


def bring(
    docker: FakeDocker, wanted: list[model.Workspace], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> workspace_keeper.Result:
    monkeypatch.setattr(workspace_engine.shutil, "which", lambda _: "/usr/bin/docker")
    monkeypatch.setattr(
        workspace_engine, "_enabled", lambda: [c["Config"]["Labels"][model.LABEL] for c in docker.containers]
    )
    keeper = workspace_keeper.Keeper(docker, OPTIONS, options.get("recreate", "idle"), True, options.get("people"))
    return keeper.bring(wanted, keeper.engine.look([OPTIONS.image]))


TRAINING = "UID PID STARTED COMMAND\n2001 43 Sun Nov 22 14:02:12 2026 python3 train.py\n"
