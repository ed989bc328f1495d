# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done about containers, and what waits because somebody works in one."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_engine, workspace_keeper
from workspace_case import OPTIONS, TRAINING, FakeDocker, bring, container, nlp


def test_missing_is_created_and_undeclared_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    old = nlp(name="old")
    docker = FakeDocker([container(old)])
    result = bring(docker, [nlp()], monkeypatch)
    assert result.actions == ["remove old", "create nlp"]
    assert result.kept == ["devnode-old-home"]
    assert docker.done == []


@pytest.mark.parametrize("recreate", ["idle", "never"])
def test_undeclared_is_pending_while_somebody_works(monkeypatch: pytest.MonkeyPatch, recreate: str) -> None:
    docker = FakeDocker([container(nlp(name="old"))], TRAINING)
    result = bring(docker, [], monkeypatch, recreate=recreate)
    assert (result.actions, result.kept, docker.done) == (["do not start old at boot any more"], [], [])
    (entry,) = result.pending
    assert entry["workspace"] == "old"
    assert entry["reasons"] == ["no longer declared, but ada: python3 train.py (since 14:02:12) runs"]
    assert 'workspace "old" is no longer declared, but is left running' in workspace_keeper.pending_text(entry)
    assert bring(docker, [], monkeypatch, recreate="always").actions == ["remove old"]
    docker.top = ""
    assert bring(docker, [], monkeypatch, recreate=recreate).actions == ["remove old"]


def test_what_a_leaver_left_running_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp(name="old"))], TRAINING)
    assert bring(docker, [], monkeypatch, people=["ada"]).pending
    result = bring(docker, [], monkeypatch, people=["grace"])
    assert (result.actions, result.pending) == (["remove old"], [])


def test_changed_is_pending_while_somebody_works(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp())], TRAINING)
    wanted = [nlp(shm_size="16g")]
    result = bring(docker, wanted, monkeypatch)
    assert "recreate nlp" not in result.actions
    assert result.pending[0]["running"] == ["ada: python3 train.py (since 14:02:12)"]
    assert result.pending[0]["reasons"] == ["- --shm-size 8g", "+ --shm-size 16g"]
    assert bring(docker, wanted, monkeypatch, recreate="always").actions == ["recreate nlp"]
    docker.top = ""
    assert bring(docker, wanted, monkeypatch).actions == ["recreate nlp"]
    assert bring(docker, wanted, monkeypatch, recreate="never").pending


def test_purged_by_name_only_and_not_while_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = FakeDocker([container(nlp(name="old"))])
    options = model.Options(image=OPTIONS.image, state_dir=str(tmp_path))
    monkeypatch.setattr(workspace_engine.shutil, "which", lambda _: "/usr/bin/docker")
    monkeypatch.setattr(workspace_engine, "_enabled", list)

    def purge(*names: str) -> workspace_keeper.Result:
        keeper = workspace_keeper.Keeper(docker, options, "idle", check=True)
        return keeper.bring([], keeper.engine.look([]), names)

    assert purge().kept == ["devnode-old-home"]
    result = purge("old")
    assert result.actions == ["remove old", "purge old: volume devnode-old-home"]
    assert result.kept == []
    docker.top = TRAINING
    assert not any(text.startswith("purge") for text in purge("old").actions)


def test_a_new_image_under_the_same_tag_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp(), Image="sha256:0")])
    assert bring(docker, [nlp()], monkeypatch).actions == ["recreate nlp"]


def test_stopped_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp(), State={"Running": False})])
    assert bring(docker, [nlp()], monkeypatch).actions == ["start nlp"]


def test_check_mode_on_a_host_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_engine.shutil, "which", lambda _: None)
    keeper = workspace_keeper.Keeper(FakeDocker([]), OPTIONS, "idle", check=True)
    found = keeper.engine.look([OPTIONS.image])
    assert not found.engine
    assert keeper.bring([nlp()], found).actions == ["create nlp"]
