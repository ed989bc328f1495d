# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file is replaced whole or not at all, and nothing is left beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import whole_file


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize(("content", "data"), [("größe\n", "größe\n".encode()), (b"\0\xff", b"\0\xff")])
def test_a_new_file_has_the_permissions_that_were_asked_for(tmp_path: Path, content: Any, data: bytes) -> None:
    path = tmp_path / "a"
    whole_file.write(str(path), content, 0o640)
    assert (path.read_bytes(), mode(path)) == (data, 0o640)
    assert os.listdir(tmp_path) == ["a"]


def test_written_again_it_has_them_too_and_rewritten_it_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o600)
    whole_file.rewrite(str(path), "new", 0o644)
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    whole_file.write(str(path), "newer", 0o644)
    assert (path.read_text(), mode(path)) == ("newer", 0o644)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_rewritten_it_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    os.chown(path, 12345, 12346)
    whole_file.rewrite(str(path), "new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


def test_the_last_ten_copies_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, path = tmp_path / "kept", tmp_path / "a"
    for number in range(12):
        path.write_text(str(number))
        monkeypatch.setattr(whole_file, "stamp", lambda number=number: f"{number:02d}")
        where = whole_file.keep(str(path), str(folder))
        assert Path(where).read_text() == str(number)
    name = str(path).strip("/").replace("/", "-")
    assert sorted(os.listdir(folder)) == [f"{name}.{number:02d}" for number in range(2, 12)]
    assert mode(folder) == 0o700


def test_what_cannot_be_finished_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        whole_file.rewrite(str(path), "new")
    assert (os.listdir(tmp_path), path.read_text()) == (["a"], "old")


def test_of_files_that_went_together_the_last_ten_times_are_kept(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    for number in range(12):
        for path in places:
            path.write_text(f"{path.name}{number}")
        where = Path(whole_file.keep_together(map(str, places), str(tmp_path / "kept")))
    assert [(where / path.name).read_text() for path in places] == ["a11", "b11"]
    kept = sorted((tmp_path / "kept").iterdir())
    assert [(one / "a").read_text() for one in kept] == [f"a{number}" for number in range(2, 12)]
    assert {mode(one) for one in kept} == {0o700}


def test_two_copies_of_one_moment_are_two(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    places = [whole_file.keep(str(path), str(tmp_path / "kept")) for _dummy in range(3)]
    assert len(set(places)) == 3
    assert places == sorted(places)


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    assert whole_file.text(str(tmp_path / "none")) == ""
    (tmp_path / "a").write_bytes(b"a\xff")
    assert whole_file.text(str(tmp_path / "a")) == "a\ufffd"


def test_the_copy_just_made_stays_when_the_clock_was_ahead(tmp_path):
    path, folder = tmp_path / "a", tmp_path / "kept"
    path.write_text("now")
    folder.mkdir()
    name = str(path).strip("/").replace("/", "-")
    for number in range(12):
        (folder / f"{name}.20990101T0000{number:02}Z").write_text("old")
    kept = whole_file.keep(str(path), str(folder))
    assert Path(kept).read_text() == "now"
    assert len(list(folder.iterdir())) == whole_file.BACKUPS_KEPT
