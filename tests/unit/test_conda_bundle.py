# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import conda_bundle, conda_env, conda_lock
from ansible_collections.devnode.gpu.plugins.module_utils.conda_bundle import About, BundleError
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import Environment

SHA = "ab" * 32
LOCK = conda_lock.parse(
    [
        f"https://conda.anaconda.org/conda-forge/noarch/rich-14.0.0-pyh_0.conda#{SHA}",
        "# pip --extra-index-url https://download.pytorch.org/whl/cu128",
        f"# pip labpip==1.0 --hash=sha256:{SHA}",
    ]
)
NLP = Environment("nlp", ("conda-forge",), ("rich", "pip"), ("labpip",))
ABOUT = About("miniconda", "26.5.3-1", "x.sh", "linux-64", {"nlp": {"digest": NLP.digest(), "lock": LOCK.text()}})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(conda_bundle, "UNPACKED", tmp_path / "unpacked")
    made = tmp_path / "made"
    (made / "channels/conda-forge/noarch").mkdir(parents=True)
    (made / "channels/conda-forge/noarch/rich-14.0.0-pyh_0.conda").write_bytes(b"package")
    (made / "x.sh").write_bytes(b"installer")
    return made


def packed(folder: Path, name: str = "bundle.tar") -> Path:
    dest = folder.parent / name
    conda_bundle.pack(folder, ABOUT, dest)
    return dest


def test_what_goes_in_comes_out_and_only_what_is_wanted(folder: Path) -> None:
    path = packed(folder)
    about, short = conda_bundle.read_about(str(path))
    assert about == ABOUT
    assert len(short) == 12
    with conda_bundle.unpacked(path, "x.sh") as there:
        assert [item.name for item in there.iterdir()] == ["x.sh"]
        assert (there / "x.sh").read_bytes() == b"installer"
    assert not there.exists()


def test_the_same_contents_give_the_same_bytes(folder: Path) -> None:
    first = packed(folder).read_bytes()
    (folder / "x.sh").touch()
    (folder / conda_bundle.SUMS).unlink()
    assert packed(folder, "again.tar").read_bytes() == first


def test_a_truncated_or_altered_bundle_is_noticed(folder: Path) -> None:
    path = packed(folder)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"installer\0", b"INSTALLER\0"))
    with pytest.raises(BundleError, match="another sha256"), conda_bundle.unpacked(path, "x.sh"):
        pass
    path.write_bytes(data[: data.index(b"installer\0")])
    with pytest.raises(BundleError, match="damaged"), conda_bundle.unpacked(path, ""):
        pass
    path.write_bytes(b"no tar at all")
    with pytest.raises(BundleError, match="is not a bundle"):
        conda_bundle.read_about(str(path))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "channels/../../evil"])
def test_a_name_that_leads_out_is_refused(folder: Path, name: str) -> None:
    path = folder.parent / "evil.tar"
    with tarfile.open(path, "w") as archive:
        for member, text in ((conda_bundle.SUMS, f"{SHA}  {name}\n"), (name, "evil")):
            info = tarfile.TarInfo(member)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    with pytest.raises(BundleError, match="is no name in a bundle"), conda_bundle.unpacked(path, ""):
        pass
    assert not (folder.parent / "evil").exists()


def test_an_environment_is_built_from_what_the_bundle_has() -> None:
    built = conda_bundle.environment_from(ABOUT, NLP)
    assert built.digest() == NLP.digest()
    url = built.exact.packages[0].url
    assert url == "file:///var/cache/devnode/miniconda/bundle/channels/conda-forge/noarch/rich-14.0.0-pyh_0.conda"
    assert built.exact.requirements() == f"labpip==1.0 --hash=sha256:{SHA}\n"
    (again,), errors = conda_env.parse_environments([built.declaration()], python="3.11")
    assert not errors
    assert again == built


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (replace(NLP, name="other"), "is not in the bundle"),
        (replace(NLP, packages=("rich=14",)), "declared otherwise"),
    ],
)
def test_what_the_bundle_does_not_have_is_said(wanted: Environment, why: str) -> None:
    with pytest.raises(BundleError, match=why):
        conda_bundle.environment_from(ABOUT, wanted)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"made_by": "devnode.gpu.conda_bundle", "format": 2}'])
def test_a_strange_description_is_refused(text: str) -> None:
    with pytest.raises(BundleError):
        About.load(text)


def test_the_index_says_what_conda_needs() -> None:
    record: dict[str, Any] = {"name": "rich", "version": "14", "build": "0", "depends": ["python"], "sha256": SHA}
    data = json.loads(
        conda_bundle.repodata(
            "noarch", [{**record, "fn": "rich-14-0.conda", "files": ["x"]}, {**record, "fn": "a.tar.bz2"}]
        )
    )
    assert data["packages.conda"] == {"rich-14-0.conda": record}
    assert list(data["packages"]) == ["a.tar.bz2"]
