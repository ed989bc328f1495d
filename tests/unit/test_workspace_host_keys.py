# SPDX-License-Identifier: GPL-3.0-or-later
"""The workspaces' host keys: what is published, what is signed, and what their sshd is told of certificates."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pytest
from ansible_collections.devnode.gpu.plugins.action.host_certificates import Authority
from ansible_collections.devnode.gpu.plugins.module_utils import host_certificates, known_hosts, workspace_keeper
from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_host_keys as host_keys
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from unit.fleet import key
from unit.in_image import in_image
from unit.signing import sign
from workspace_case import nlp

SERVED, NEXT, OLD = (f"ssh_host_ed25519_key{suffix}" for suffix in ("", ".next", ".old"))


@pytest.fixture(scope="module")
def inside() -> ModuleType:
    """What writes the configuration of the container's sshd."""
    return in_image("devnode_sshd")


@pytest.fixture
def options(tmp_path: Path) -> model.Options:
    """One workspace with a key, in the middle of a rotation; one without."""
    folder = tmp_path / "nlp" / "host_keys"
    folder.mkdir(parents=True)
    for name in (SERVED, NEXT, OLD):
        (folder / name).write_text("private")
        (folder / f"{name}.pub").write_text(f"{key(name)}\n")
    return model.Options(state_dir=str(tmp_path))


def both() -> list[model.Workspace]:
    return [nlp(host_key_alias="nlp.gpu-01"), nlp(name="vision", port=2202, gpus=["nvidia.com/gpu=1"])]


def test_certificates_are_no_keys_to_publish(options: model.Options, tmp_path: Path) -> None:
    before = host_keys.published(both(), options)
    assert list(before) == ["nlp.gpu-01"]
    assert len(before["nlp.gpu-01"]) == 3
    for name in (SERVED, NEXT):
        (tmp_path / "nlp" / "host_keys" / f"{name}-cert.pub").write_text("ssh-ed25519-cert-v01@openssh.com AAAA\n")
    assert host_keys.published(both(), options) == before
    assert [Path(path).name for path in host_keys.certificates(options)] == [f"{SERVED}-cert.pub", f"{NEXT}-cert.pub"]


def test_the_key_that_is_served_and_the_next_one_are_signed_for_the_alias(options: model.Options) -> None:
    found = host_keys.to_sign(both(), options)
    assert [Path(one["path"]).name for one in found] == [f"{SERVED}-cert.pub", f"{NEXT}-cert.pub"]
    assert [one["key"] for one in found] == [" ".join(key(name).split()[:2]) for name in (SERVED, NEXT)]
    assert [one["names"] for one in found] == [["nlp.gpu-01"]] * 2
    assert [one["certificate"] for one in found] == ["", ""]


def test_what_is_there_is_handed_over_and_a_damaged_key_left_out(options: model.Options, tmp_path: Path) -> None:
    folder = tmp_path / "nlp" / "host_keys"
    (folder / f"{SERVED}-cert.pub").write_text("ssh-ed25519-cert-v01@openssh.com AAAA comment\n")
    (folder / f"{NEXT}.pub").write_text("ssh-ed25519 nonsense\n")
    (one,) = host_keys.to_sign(both(), options)
    # To the letter: what is kept is written again, and must not be a change.
    assert one["certificate"] == "ssh-ed25519-cert-v01@openssh.com AAAA comment\n"


def test_after_a_rotation_the_certificate_of_the_next_key_does_not_pass_for_the_old_ones(
    options: model.Options, tmp_path: Path
) -> None:
    """As the rotation leaves them for a moment: the next key is served, its certificate still lies beside the next."""
    for name in ("ca", "served", "next"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    authority, folder = Authority(tmp_path / "ca"), tmp_path / "nlp" / "host_keys"
    keys = {name: (tmp_path / f"{name}.pub").read_text() for name in ("served", "next")}
    for name, text in zip(keys, sign(tmp_path, tmp_path / "ca", keys.values(), ["nlp.gpu-01"]), strict=True):
        target = {"served": SERVED, "next": NEXT}[name]
        (folder / f"{target}-cert.pub").write_text(text)
    (folder / f"{SERVED}.pub").write_text((tmp_path / "next.pub").read_text())
    for name in (NEXT, f"{NEXT}.pub"):
        (folder / name).unlink()
    (one,) = host_keys.to_sign(both(), options)
    wanted = (public_key(one["key"]), one["names"], authority.public, time.time(), 90)
    assert host_certificates.need(one["certificate"], *wanted) == "it is for another host key"


def test_only_the_containers_whose_files_changed_are_told(options: model.Options) -> None:
    running = [item.container for item in both()]
    first, second = host_keys.activate(both(), options, running)
    assert first["argv"][:3] == ["docker", "exec", "devnode-nlp"]
    changed = host_keys.to_sign(both(), options)[0]["path"]
    assert [any(fnmatch.fnmatchcase(changed, one) for one in item["when_changed"]) for item in (first, second)] == [
        True,
        False,
    ]


def test_a_container_that_does_not_run_is_told_nothing(options: model.Options) -> None:
    (only,) = host_keys.activate(both(), options, [both()[1].container])
    assert only["argv"][2] == both()[1].container
    assert host_keys.activate(both(), options, []) == []


def test_a_key_that_was_made_anew_is_handed_to_the_running_container(tmp_path: Path) -> None:
    options = model.Options(state_dir=str(tmp_path))

    def keygen(argv: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    keeper = workspace_keeper.Keeper(keygen, options, "idle", False)
    note = tmp_path / "nlp" / "applied.json"
    keeper._ensure_host_key(nlp())
    assert keeper.result.actions == ["make host key of nlp"]
    note.write_text("{}")
    keeper._ensure_host_key(nlp())
    assert note.exists()
    for path in (tmp_path / "nlp" / "host_keys").iterdir():
        path.unlink()
    keeper._ensure_host_key(nlp())
    assert not note.exists()


def test_what_a_container_was_told_is_on_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nlp").mkdir()
    keeper = workspace_keeper.Keeper(lambda _argv: (0, "", ""), model.Options(state_dir=str(tmp_path)), "idle", False)
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda number: synced.append(os.fstat(number).st_size))
    keeper._remember(nlp(), "c0ffee")
    note = tmp_path / "nlp" / "applied.json"
    assert synced == [note.stat().st_size]
    assert json.loads(note.read_text())["container"] == "c0ffee"
    assert [path.name for path in note.parent.iterdir()] == [note.name]


def test_sshd_reads_its_keys_again_when_one_of_them_is_another(inside: ModuleType, tmp_path: Path) -> None:
    """A program that knows certificates does without them; what changes them changes the configuration."""
    path = tmp_path / "ssh_host_ed25519_key"
    path.write_text("private")
    (tmp_path / f"{path.name}.pub").write_text("a")
    plain = inside.host_keys(tmp_path)
    assert [line for line in plain if not line.startswith("#")] == [f"HostKey {path}"]
    (tmp_path / f"{path.name}-cert.pub").write_text("signed")
    signed = inside.host_keys(tmp_path)
    assert [line for line in signed if not line.startswith("#")] == [
        f"HostKey {path}",
        f"HostCertificate {path}-cert.pub",
    ]
    (tmp_path / f"{path.name}-cert.pub").write_text("renewed")
    assert inside.host_keys(tmp_path) not in (plain, signed)
    (tmp_path / f"{path.name}.pub").write_text("b")
    (tmp_path / f"{path.name}-cert.pub").unlink()
    assert inside.host_keys(tmp_path) != plain


def test_a_host_that_was_made_anew_takes_its_workspaces_off_the_record() -> None:
    """Enrolled on purpose, its workspaces' new keys come over a verified connection. Nobody else's line goes."""
    text = ""
    for scope, entries in (
        ("enrolled", {"gpu-01": "old", "gpu-02": "two"}),
        ("workspaces@gpu-01", {"nlp.gpu-01": "nlp"}),
        ("workspaces@gpu-02", {"nlp.gpu-02": "nlp2"}),
    ):
        keys = {alias: [public_key(key(name))] for alias, name in entries.items()}
        text = known_hosts.merge(known_hosts.parse(text), scope, keys).text()
    fresh = {"gpu-01": [public_key(key("new"))], "gpu-02": [public_key(key("two"))]}
    record = known_hosts.parse(text)
    after = known_hosts.merge(record, "enrolled", fresh, replace=["gpu-01", "gpu-02"], prune=False)
    assert sorted(after.keys) == ["gpu-01", "gpu-02", "nlp.gpu-02"]
    with pytest.raises(known_hosts.ChangedKeyError):
        known_hosts.merge(record, "enrolled", fresh, prune=False)
    same = {"gpu-01": [public_key(key("old"))]}
    assert known_hosts.merge(record, "enrolled", same, replace=["gpu-01"], prune=False).text() == text
