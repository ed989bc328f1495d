# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of files in people's homes run with the rights of these people."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import pytest
from ansible_collections.devnode.gpu.plugins.filter.ssh_client import home_checks
from ansible_collections.devnode.gpu.plugins.module_utils import fileset_stage
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_stage import Stage, StageError
from client_samples import view


def test_a_persons_files_are_read_as_that_person() -> None:
    homes = {view().login: {"home": "/home/x", "uid": 2001, "gid": 2001}}
    (check,) = home_checks([view().to_dict()], homes)
    assert check["user"] == view().login
    homes[view().login]["uid"] = -1
    assert home_checks([view().to_dict()], homes) == []


def test_a_check_as_nobody_known_is_refused() -> None:
    with Stage([]) as stage, pytest.raises(StageError, match="no user 'devnode-nobody'"):
        stage.run({"argv": ["true"], "user": "devnode-nobody"})


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become somebody else")
@pytest.mark.parametrize("way", ["_overlay", "_copies"])
def test_the_person_sees_the_new_file_and_has_no_other_rights(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_stage: Stage) -> str:
        raise StageError("not this way")

    monkeypatch.setattr(Stage, "_copies" if way == "_overlay" else "_overlay", refuse)
    nobody = pwd.getpwnam("nobody")
    home = Path("/run/devnode-test-home")  # pytest's own directories are for root alone
    home.mkdir()
    try:
        home.chmod(0o700)
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        own = {"uid": nobody.pw_uid, "gid": nobody.pw_gid}
        changes = [
            ({"path": f"{home}/.ssh", "type": "directory", "mode": 0o700, **own}, None),
            ({"path": f"{home}/.ssh/config", "type": "file", "mode": 0o600, **own}, b"new"),
        ]
        with Stage(changes) as stage:
            try:
                stage.prepare()
            except StageError as error:
                pytest.skip(str(error))
            look = f"cat {home}/.ssh/config; id -u; id -G; cat /etc/shadow || true"
            outcome = stage.run({"argv": ["sh", "-c", look], "user": "nobody"})
        assert outcome["output"].startswith(f"new{nobody.pw_uid}\n{nobody.pw_gid}\ncat: /etc/shadow: ")
        assert "root:" not in outcome["output"]
        assert not (home / ".ssh").exists()
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("way", ["_mirror_directory", "_copy_tree"])
def test_a_persons_link_does_not_lead_root_elsewhere(way: str, tmp_path: Path) -> None:
    """Who owns a directory on the way could put a link there; what is on its other side is not read."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("private")
    (tmp_path / "home").symlink_to("secret")
    more = (1000,) if way == "_copy_tree" else ()
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        getattr(fileset_stage, way)(str(tmp_path / "home"), str(tmp_path / "copy"), *more)
    assert not (tmp_path / "copy").exists()


def test_a_copy_has_everything_but_sockets_and_pipes(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"1234")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    assert fileset_stage._copy_tree(str(source), str(copy), 1000) == 4
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*")) == ["link", "sub", "sub/file"]
    assert (os.readlink(copy / "link"), (copy / "sub" / "file").read_bytes()) == ("/etc/passwd", b"1234")
    with pytest.raises(StageError, match="too much to copy"):
        fileset_stage._copy_tree(str(source), str(tmp_path / "again"), 3)
