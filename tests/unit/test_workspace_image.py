# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an image comes from: digests on record, refusals, archives."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.action import workspace_image as action
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_image as model
from ansible_collections.devnode.gpu.plugins.modules import workspace_image as module

BASE = "pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel"
ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


@pytest.mark.parametrize(
    ("image", "known", "digest"),
    [
        (BASE, [f"pytorch/pytorch@{ONE}"], ONE),
        (BASE, [f"r.example:5000/pytorch/pytorch@{ONE}"], ""),
        ("r.example:5000/a/b:1", [f"a/b@{TWO}", f"r.example:5000/a/b@{ONE}"], ONE),
        (f"r.example:5000/a/b@{ONE}", [f"r.example:5000/a/b@{ONE}"], ONE),
        (BASE, [], ""),
    ],
)
def test_digest_of(image: str, known: list[str], digest: str) -> None:
    assert model.digest_of(image, known) == digest


def test_archive_holds(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    assert not model.archive_holds(str(path), "a/b:1")
    with tarfile.open(path, "w") as archive:
        data = json.dumps([{"RepoTags": ["a/b:1"]}, {"RepoTags": None}]).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    assert model.archive_holds(str(path), "a/b:1")
    assert not model.archive_holds(str(path), "a/b:2")
    path.write_bytes(path.read_bytes()[:700])
    assert not model.archive_holds(str(path), "a/b:1")


def test_lock_file_is_added_to_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    assert action.read_lock(path) == {}
    assert action.add_to_lock(path, {BASE: ONE})
    assert not action.add_to_lock(path, {BASE: ONE})
    assert action.add_to_lock(path, {"a/b:1": TWO})
    assert action.read_lock(path) == {BASE: ONE, "a/b:1": TWO}
    path.write_text("[]")
    with pytest.raises(ValueError, match="mend it or take it away"):
        action.read_lock(path)


class FakeModule:
    """As much of a module as Images needs, with an engine whose registry has everything."""

    check_mode = False

    def __init__(self, here: dict[str, Any], **given: Any) -> None:
        context = base64.b64encode(zlib.compress(json.dumps({"Dockerfile": f"FROM {BASE}\n"}).encode())).decode()
        defaults = {name: spec.get("default", "") for name, spec in module.ARGUMENTS.items()}
        self.params = {**defaults, "name": "devnode/x", "base": BASE, "_context": context, **given}
        self.here, self.ran, self.scan = here, [], 0  # type: ignore[var-annotated]

    def run_command(self, argv: list[str], **_: Any) -> tuple[int, str, str]:
        words = argv[1:] if argv[0] == "docker" else argv
        self.ran.append(" ".join(words[:2]))
        if words[0] == "true":
            return self.scan, "CVE-2026-1 in libfoo", ""
        if words[:2] == ["image", "inspect"]:
            found = self.here.get(words[2])
            return (0, json.dumps([found]), "") if found else (1, "", "no such image")
        if words[0] == "pull" and self.params["source"] == "build" and "devnode/x" in words[-1]:
            return 1, "", "manifest unknown"
        if words[0] == "pull":
            repository = words[-1].rpartition(":")[0]
            self.here[words[-1]] = {"Id": "i", "RepoDigests": [f"{repository}@{TWO}"], "Config": {"Labels": {}}}
        if words[0] == "build":
            self.here[words[words.index("--tag") + 1]] = {"Id": "b", "Config": {"Labels": {}}}
        if words[:2] == ["image", "rm"]:
            self.here.pop(words[2], None)
        return 0, "/" if words[0] == "info" else "1", ""


def ensure(fake: FakeModule, monkeypatch: pytest.MonkeyPatch) -> module.Images:
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    images = module.Images(fake, "")  # type: ignore[arg-type]
    images.ensure()
    return images


def test_first_pull_is_recorded_and_a_moved_tag_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ensure(FakeModule({}), monkeypatch).digests == {BASE: TWO}
    assert ensure(FakeModule({}, _locked={BASE: TWO}), monkeypatch).digests == {BASE: TWO}
    fake = FakeModule({}, _locked={BASE: ONE}, lock_file="images.json")
    with pytest.raises(module.ImageError, match=f"is {TWO} here, but {ONE} in the lock file images.json"):
        ensure(fake, monkeypatch)
    assert not any(words.startswith("build") for words in fake.ran)


def test_pulled_from_the_registry_with_another_digest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    image = model.reference("r.example", "devnode/x", BASE, {"Dockerfile": f"FROM {BASE}\n"})
    given = {"registry": "r.example", "source": "pull"}
    assert ensure(FakeModule({}, **given), monkeypatch).digests == {image: TWO}
    with pytest.raises(module.ImageError, match="its tag was moved"):
        ensure(FakeModule({}, _locked={image: ONE}, **given), monkeypatch)


def test_what_the_scanner_refuses_is_neither_kept_nor_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeModule({}, scan_command=["true", "{image}"], registry="r.example")
    ensure(fake, monkeypatch)
    assert any(words.startswith("push") for words in fake.ran)
    fake = FakeModule({}, scan_command=["true", "{image}"], source="build")
    fake.scan = 1
    with pytest.raises(module.ImageError, match=r"(?s)refused by true.*CVE-2026-1 in libfoo"):
        ensure(fake, monkeypatch)
    assert list(fake.here) == [BASE]


def test_a_full_disk_is_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeModule({}, min_free="900t")
    with pytest.raises(module.ImageError, match=r"MiB free, and .* may need 943718400 MiB"):
        ensure(fake, monkeypatch)
    assert not any(words.startswith(("build", "pull")) for words in fake.ran)


def test_contents_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = ensure(FakeModule({}, sbom_command=["true"], sbom_dir=str(tmp_path)), monkeypatch)
    (path,) = tmp_path.iterdir()
    assert path.name == images.image.rpartition(":")[2]
    assert "libfoo" in path.read_text()


def test_equal_inputs_give_an_equal_name() -> None:
    context = {"Dockerfile": "FROM x:1\n", "files/a": "1"}
    one = model.reference("", "devnode/pytorch-sshd", "pytorch/pytorch:2.8.0-cuda12.8", context)
    assert one == model.reference(
        "", "devnode/pytorch-sshd", "pytorch/pytorch:2.8.0-cuda12.8", dict(reversed(context.items()))
    )
    assert one.startswith("devnode/pytorch-sshd:2.8.0-cuda12.8-")
    assert model.pack(context) == model.pack(dict(reversed(context.items())))
    for change in ({"Dockerfile": "FROM x:2\n"}, {"files/a": "2"}, {"files/b": ""}):
        assert model.digest({**context, **change}) != model.digest(context)


@pytest.mark.parametrize(
    ("base", "tag"),
    [
        ("pytorch/pytorch@sha256:" + "0" * 64, ""),
        ("r.example:5000/a/b:1.2@sha256:" + "0" * 64, "1.2-"),
        ("r.example:5000/a/b:1.2", "1.2-"),
    ],
)
def test_tag_says_the_bases_version(base: str, tag: str) -> None:
    name = model.reference("h:5000", "a/b", base, {})
    assert name.startswith(f"h:5000/a/b:{tag}")
    assert len(name) == len(f"h:5000/a/b:{tag}") + 12


def test_bad_image_names_are_refused_together() -> None:
    found = model.problems("Bad Name", "base:latest", "http://registry", ["x"])
    assert [text.split(":")[0] for text in found] == ["name", "registry", "base", "others"]
