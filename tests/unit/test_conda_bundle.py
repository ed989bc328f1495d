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
from ansible_collections.devnode.gpu.plugins.module_utils.conda_host import HostError, Ran
from ansible_collections.devnode.gpu.plugins.module_utils.conda_lock import Lock
from ansible_collections.devnode.gpu.plugins.module_utils.conda_places import Place
from ansible_collections.devnode.gpu.plugins.module_utils.conda_work import Options, Worker
from hypothesis import given
from hypothesis import strategies as st
from test_conda_lock import LOCKS

SHA = "ab" * 32
FORGE = "https://conda.anaconda.org/conda-forge"
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
    assert built.exact == LOCK
    here = built.exact.unpacked(conda_bundle.PLACE)
    url = "file:///var/cache/devnode/miniconda/bundle/channels/conda-forge/noarch/rich-14.0.0-pyh_0.conda"
    assert here.packages[0].url == url
    assert here.requirements() == f"labpip==1.0 --hash=sha256:{SHA}\n"
    (again,), errors = conda_env.parse_environments([built.declaration()], python="3.11")
    assert not errors
    assert again == built


def test_a_wheel_that_came_from_a_url_is_found_in_the_bundle() -> None:
    wheel = "labpip-1.0%2Blab-py3-none-any.whl"
    lock = conda_lock.parse([*LOCK.lines()[:1], f"# pip labpip @ https://lab.example/w/{wheel} --hash=sha256:{SHA}"])
    there = f"{conda_bundle.PLACE}/wheels/{wheel}"
    assert lock.unpacked(conda_bundle.PLACE).requirements() == f"labpip @ {there} --hash=sha256:{SHA}\n"


# --- what is written back of an environment that was built from a bundle ----------------------------------------------


@given(LOCKS, st.sampled_from([FORGE, "https://mirror.example/conda/conda-forge", "http://127.0.0.1:8077/c/lab"]))
def test_the_bundles_own_lock_file_is_what_is_written_back(lock: Lock, base: str) -> None:
    """Also of conda's list, which knows only where the bundle was unpacked; and other packages stay as they are."""
    lock = replace(lock, packages=tuple(replace(item, base=base) for item in lock.packages))
    listed = conda_lock.parse(lock.unpacked(conda_bundle.PLACE).text().splitlines())
    back, unknown = listed.before(conda_bundle.PLACE, lock)
    assert not unknown
    assert replace(back, pip=lock.pip, indexes=lock.indexes).text() == lock.text()
    assert conda_lock.parse(lock.text().splitlines()).text() == lock.text()
    assert lock.before(conda_bundle.PLACE, Lock()) == (lock, [])
    assert listed.before(conda_bundle.PLACE, Lock())[1] == [item.file for item in lock.packages]


class Conda(Worker):
    """A host whose conda has written down where the bundle was unpacked, as conda does."""

    def __init__(self, folder: Path, more: tuple[str, ...] = ()) -> None:
        super().__init__(Options(folder, 1), Place(folder / "envs", folder / "unfinished"))
        self.more = more
        meta = self.directory("nlp") / "conda-meta"
        meta.mkdir(parents=True)
        (meta / "rich-14.0.0-pyh_0.json").touch()
        for line in more:
            (meta / (line.rpartition("/")[2].partition(".conda")[0] + ".json")).touch()
        info = self.directory("nlp") / "lib/python3.11/site-packages/labpip-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "INSTALLER").write_text("pip\n")

    def conda(self, *arguments: str, cuda: str = "") -> Ran:
        self.runs += 1
        if arguments[0] == "list":
            return Ran(0, LOCK.unpacked(conda_bundle.PLACE).explicit() + "".join(f"{line}\n" for line in self.more), "")
        channels = f"channels:\n  - {conda_bundle.PLACE}/channels/conda-forge\n  - conda-forge\n"
        return Ran(0, f"name: x\n{channels}dependencies:\n  - rich=14.0.0\nprefix: /x\n", "")


def test_a_host_that_was_built_from_a_bundle_writes_back_the_bundles_own_lock_file(tmp_path: Path) -> None:
    """Also in a later run, which has a network and knows of no bundle."""
    worker = Conda(tmp_path)
    worker.finish(conda_bundle.environment_from(ABOUT, NLP))
    exported = worker.exported(NLP)
    assert exported["lock"] == ABOUT.environments["nlp"]["lock"]
    assert exported["environment"] == "name: nlp\nchannels:\n  - conda-forge\ndependencies:\n  - rich=14.0.0\n"
    assert worker.exported(NLP) == exported
    assert worker.runs == 1


def test_what_was_added_to_it_since_is_written_back_beside_that(tmp_path: Path) -> None:
    added = f"{FORGE}/noarch/zlab-1.0-0.conda#{SHA}"
    worker = Conda(tmp_path, (added,))
    worker.finish(conda_bundle.environment_from(ABOUT, NLP))
    wanted = replace(NLP, lock=LOCK, pip=())  # what pip has is as in the lock, so it need not ask an index
    assert worker.exported(wanted)["lock"].splitlines()[-4:] == [*LOCK.lines()[:1], added, *LOCK.lines()[1:]]


def test_an_address_that_only_this_host_has_is_never_written_back(tmp_path: Path) -> None:
    worker = Conda(tmp_path)
    with pytest.raises(HostError, match=r"nlp: cannot be written as a lock file: rich-14\.0\.0-pyh_0\.conda came from"):
        worker.exported(NLP)


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
