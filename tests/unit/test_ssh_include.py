# SPDX-License-Identifier: GPL-3.0-or-later
"""One line at the top of a person's ~/.ssh/config: by the module, and by a kit's install.sh."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

import client_samples as samples
import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import ssh_include
from ansible_collections.devnode.gpu.plugins.module_utils.client_render import kit
from hypothesis import given
from hypothesis import strategies as st

PATH = "~/.ssh/devnode/config"
LINE = b"Include ~/.ssh/devnode/config"
ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "roles/ssh_client_config/files"

# The homes that people really have: name -> their config.
HOMES = {
    "host-star": b"Host *\n    User bob\n    ForwardAgent yes\n",
    "global-option": b"User bob\n\nHost x\n    Port 3\n",
    "comments-first": b"# mine\n\nHost x\n    Port 3\n",
    "crlf": b"Host *\r\n    User bob\r\n",
    "no-newline-at-end": b"Host *\n    User bob",
    "other-include": b"Include ~/.orbstack/ssh/config\n",
    "empty": b"",
    "latin-1": b"# caf\xe9\nHost x\n",
}
OLD = {
    "below-a-host": b"Host *\n    Include ~/.ssh/devnode/config\n    User bob\n",
    "quoted": b'Host *\n    User bob\nInclude "~/.ssh/devnode/config"\n',
    "other-case": b"Host *\n    User bob\n\tINCLUDE = ~/.ssh/devnode/config\r\n",
    "twice": LINE + b"\nHost *\n" + LINE + b"\n",
    "second-line": b"User bob\n" + LINE + b"\n",
}


@pytest.mark.parametrize("before", HOMES.values(), ids=HOMES)
def test_there_and_back(before: bytes) -> None:
    after = ssh_include.with_include(before, PATH)
    assert after.split(b"\n")[0].rstrip(b"\r") == LINE
    assert after.endswith(before)
    assert ssh_include.with_include(after, PATH) == after
    assert ssh_include.without_include(after, PATH) == before


@pytest.mark.parametrize("before", OLD.values(), ids=OLD)
def test_an_old_line_moves_to_the_top(before: bytes) -> None:
    after = ssh_include.with_include(before, PATH)
    assert after.startswith(LINE)
    assert after.lower().count(b"include") == (2 if before == OLD["twice"] else 1)
    assert b"devnode" not in ssh_include.without_include(before, PATH)


def test_a_line_behind_comments_is_left_where_it_is() -> None:
    text = b"# made by somebody\n\n" + LINE + b"\nHost *\n"
    assert ssh_include.with_include(text, PATH) == text


def test_an_include_of_several_files_is_not_ours() -> None:
    text = b"Include ~/.ssh/devnode/config ~/.ssh/more\nInclude ~/.ssh/devnode/config2\n"
    assert ssh_include.without_include(text, PATH) == text


line = st.sampled_from(
    [b"Host *", b"  User x", LINE, b"\t" + LINE, b"# c", b"", b"Include other", b"a\rb", ssh_include.BELOW, b"\xff"]
)
config = st.builds(
    lambda lines, end, last: end.join(lines) + last,
    st.lists(line, max_size=6),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"", b"\n", b"\r\n"]),
)


@given(config)
def test_any_config(before: bytes) -> None:
    after = ssh_include.with_include(before, PATH)
    assert ssh_include.with_include(after, PATH) == after
    rest = ssh_include.without_include(before, PATH)
    assert LINE + b"\n" not in rest
    assert ssh_include.without_include(rest, PATH) == rest
    if after != before and not rest.startswith(ssh_include.BELOW):  # that comment is ours
        assert ssh_include.without_include(after, PATH) == rest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path


def test_edit_keeps_the_mode_and_takes_back_what_it_made(home: Path) -> None:
    path = home / ".ssh/config"
    path.write_bytes(HOMES["host-star"])
    path.chmod(0o640)
    assert ssh_include.edit(str(home), PATH, present=True, write=False).changed
    assert path.read_bytes() == HOMES["host-star"]
    assert ssh_include.edit(str(home), PATH, present=True, write=True).changed
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not ssh_include.edit(str(home), PATH, present=True, write=True).changed
    ssh_include.edit(str(home), PATH, present=False, write=True)
    assert path.read_bytes() == HOMES["host-star"]


def test_a_missing_config_goes_again_and_what_was_added_stays(home: Path) -> None:
    (home / ".ssh").rmdir()
    ssh_include.edit(str(home), PATH, present=True, write=True)
    path = home / ".ssh/config"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    ssh_include.edit(str(home), PATH, present=False, write=True)
    assert not path.parent.exists()
    ssh_include.edit(str(home), PATH, present=True, write=True)
    path.write_bytes(path.read_bytes() + b"Host mine\n")
    ssh_include.edit(str(home), PATH, present=False, write=True)
    assert path.read_bytes() == b"Host mine\n"


def test_an_empty_config_stays_an_empty_config(home: Path) -> None:
    path = home / ".ssh/config"
    path.write_bytes(b"")
    ssh_include.edit(str(home), PATH, present=True, write=True)
    ssh_include.edit(str(home), PATH, present=False, write=True)
    assert path.read_bytes() == b""


def test_managed_elsewhere_is_left_alone(home: Path) -> None:
    path = home / ".ssh/config"
    path.write_bytes(HOMES["host-star"])
    path.chmod(0o400)
    with pytest.raises(ssh_include.RefusedError, match="read-only"):
        ssh_include.edit(str(home), PATH, present=True, write=False)
    path.rename(home / "dotfiles")
    (home / "dotfiles").chmod(0o600)
    path.symlink_to(home / "dotfiles")
    with pytest.raises(ssh_include.RefusedError, match="a link to"):
        ssh_include.edit(str(home), PATH, present=True, write=False)
    # Once its owner has put the line in, there is nothing to do.
    (home / "dotfiles").write_bytes(LINE + b"\n" + HOMES["host-star"])
    assert not ssh_include.edit(str(home), PATH, present=True, write=True).changed


def test_a_home_that_leads_astray_is_refused(home: Path) -> None:
    ssh_include.check_ours(str(home), PATH, os.getuid())
    (home / ".ssh/devnode").symlink_to("/etc")
    with pytest.raises(ssh_include.UnsafeError, match="is no directory"):
        ssh_include.check_ours(str(home), PATH, os.getuid())
    with pytest.raises(ssh_include.UnsafeError, match="does not exist"):
        ssh_include.check_ours(str(home / "nobody"), PATH, os.getuid())


# ---- install.sh ----------------------------------------------------------------------------------------------------


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A kit as a person gets it."""
    directory = tmp_path / "kit"
    directory.mkdir()
    for found in kit(samples.view()):
        path = directory / found.name
        path.write_text((ASSETS / found.asset).read_text() if found.asset else found.content)
        path.chmod(int(found.mode, 8))
    return directory


def install(unpacked: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(unpacked / "install.sh"), *arguments],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
    )


def tree(home: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a home: mode and contents."""
    return {
        str(path.relative_to(home)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(home.rglob("*"))
    }


@pytest.fixture
def person(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    (directory / ".ssh").mkdir(parents=True, mode=0o700)
    return directory


@pytest.mark.parametrize("name", HOMES)
def test_install_and_remove(name: str, unpacked: Path, person: Path) -> None:
    path = person / ".ssh/config"
    path.write_bytes(HOMES[name])
    path.chmod(0o644)
    before = tree(person)
    done = install(unpacked, person)
    assert done.returncode == 0, done.stderr
    assert "nlp" in done.stdout
    assert path.read_bytes() == ssh_include.with_include(HOMES[name], PATH)
    assert stat.S_IMODE((person / ".ssh/devnode").stat().st_mode) == 0o700
    assert stat.S_IMODE((person / ".ssh/cm").stat().st_mode) == 0o700
    once = tree(person)
    assert install(unpacked, person).returncode == 0
    assert tree(person) == once
    done = install(unpacked, person, "--remove")
    assert done.returncode == 0, done.stderr
    after = tree(person)
    if name == "empty":  # the script does not know who made an empty file
        before.pop(".ssh/config")
    assert after == before


@pytest.mark.parametrize("before", OLD.values(), ids=OLD)
def test_install_over_an_old_line(before: bytes, unpacked: Path, person: Path) -> None:
    (person / ".ssh/config").write_bytes(before)
    assert install(unpacked, person).returncode == 0
    assert (person / ".ssh/config").read_bytes() == ssh_include.with_include(before, PATH)


def test_install_without_a_config_or_a_directory(unpacked: Path, person: Path) -> None:
    (person / ".ssh").rmdir()
    assert install(unpacked, person).returncode == 0
    assert (person / ".ssh/config").read_bytes() == ssh_include.with_include(None, PATH)
    assert install(unpacked, person, "--remove").returncode == 0
    assert tree(person).keys() == {".ssh"}


def test_install_leaves_a_link_alone_and_says_what_to_do(unpacked: Path, person: Path) -> None:
    (person / "dotfiles").write_bytes(HOMES["host-star"])
    (person / ".ssh/config").symlink_to(person / "dotfiles")
    done = install(unpacked, person)
    assert done.returncode == 1
    assert "Include ~/.ssh/devnode/config" in done.stderr
    assert (person / "dotfiles").read_bytes() == HOMES["host-star"]


@pytest.mark.skipif(
    os.getuid() != 0, reason="a read-only file stops only those who are not root, and only root can become one"
)
def test_install_leaves_a_read_only_file_alone(unpacked: Path, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    place = Path("/var/tmp") / f"devnode-{os.getpid()}"  # noqa: S108  where another account can go
    try:
        shutil.copytree(unpacked, place / "kit")
        (place / "home/.ssh").mkdir(parents=True)
        (place / "home/.ssh/config").write_bytes(HOMES["host-star"])
        (place / "home/.ssh/config").chmod(0o400)
        for path in [place, *place.rglob("*")]:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        done = subprocess.run(
            ["sh", str(place / "kit/install.sh")],
            env={"HOME": str(place / "home"), "PATH": os.environ["PATH"]},
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1, done
        assert "Put this line at its very top yourself: Include ~/.ssh/devnode/config" in done.stderr
        assert (place / "home/.ssh/config").read_bytes() == HOMES["host-star"]
    finally:
        shutil.rmtree(place)


# ---- devnode-ssh ---------------------------------------------------------------------------------------------------


def tool(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(directory / "devnode-ssh"), *arguments], capture_output=True, text=True)


def test_the_tool_says_what_there_is(unpacked: Path) -> None:
    done = tool(unpacked)
    assert (done.returncode, done.stdout) == (0, "no open connection\n"), done
    assert tool(unpacked, "close", "nlp").stdout == "nlp: no open connection\n"
    assert tool(unpacked, "bogus").returncode == 2
    assert 'no project "bogus"; there are: corpus' in tool(unpacked, "agent", "bogus").stderr


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="there is no ssh-agent here")
def test_the_tool_runs_a_projects_agent(tmp_path: Path) -> None:
    directory = tmp_path / "kit"
    directory.mkdir()
    secret, socket = tmp_path / "project", tmp_path / "a"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(secret)], check=True)
    agent = {**samples.raw()["agents"][0], "socket": str(socket), "key_file": str(secret)}
    for found in kit(samples.view(agents=[agent], identities_outside_home=True)):
        (directory / found.name).write_text((ASSETS / found.asset).read_text() if found.asset else found.content)
    try:
        done = tool(directory, "agent", "corpus")
        assert done.returncode == 0, done.stderr
        assert tool(directory, "agent", "corpus").returncode == 0  # again is fine
        listed = subprocess.run(["ssh-add", "-l"], env={"SSH_AUTH_SOCK": str(socket)}, capture_output=True, text=True)
        assert listed.stdout.count("ED25519") == 1
    finally:
        stopped = tool(directory, "agent", "corpus", "stop")
    assert stopped.returncode == 0
    assert not socket.exists()
