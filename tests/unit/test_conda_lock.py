# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock files: what is read, what is refused, and that writing and reading agree."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import conda_env, conda_lock
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import Environment
from ansible_collections.devnode.gpu.plugins.module_utils.conda_lock import Lock, Package, PipPackage
from ansible_collections.devnode.gpu.plugins.module_utils.conda_state import Found, State, plan
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError
from hypothesis import given
from hypothesis import strategies as st

SHA = "ab" * 32
FORGE = "https://conda.anaconda.org/conda-forge"
NUMPY = f"{FORGE}/linux-64/numpy-2.1.0-py311h_0.conda#{SHA}"
RICH = f"{FORGE}/noarch/rich-14.0.0-pyh_0.tar.bz2#{SHA}"
PIP = f"# pip labpip==1.0 --hash=sha256:{SHA}"
LINES = ["# a comment", "# platform: linux-64", "@EXPLICIT", NUMPY, RICH, "", PIP]


def test_what_conda_prints_is_read() -> None:
    lock = conda_lock.parse(LINES)
    assert [item.url for item in lock.packages] == [NUMPY.partition("#")[0], RICH.partition("#")[0]]
    assert lock.platform() == "linux-64"
    assert lock.contents() == ("conda:numpy-2.1.0-py311h_0", "conda:rich-14.0.0-pyh_0", "pip:labpip==1.0")
    assert conda_lock.parse([NUMPY.replace("#", "#sha256:")]).packages == conda_lock.parse([NUMPY]).packages


def test_conda_and_pip_each_get_their_part() -> None:
    lock = conda_lock.parse([*LINES, "# pip --extra-index-url https://download.pytorch.org/whl/cu128"])
    assert lock.explicit() == f"@EXPLICIT\n{NUMPY}\n{RICH}\n"
    assert lock.requirements() == (
        f"--extra-index-url https://download.pytorch.org/whl/cu128\nlabpip==1.0 --hash=sha256:{SHA}\n"
    )


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "has no package"),
        (["@EXPLICIT"], "has no package"),
        (
            [NUMPY.partition("#")[0]],
            "line 1",
        ),
        ([NUMPY.partition("#")[0] + "#" + "a" * 32], "has no sha256"),
        ([NUMPY, NUMPY], "line 2 names numpy a second time"),
        ([NUMPY, PIP, PIP.replace("labpip", "LabPip")], "line 3 names labpip a second time"),
        ([NUMPY, NUMPY.replace("linux-64/numpy", "linux-aarch64/scipy")], "mixes packages for"),
        ([NUMPY.replace("https://", "https://user:secret@")], "user or password"),
        ([NUMPY.replace("linux-64", "osx-64")], "line 1"),
        (["numpy=2.1"], "is no package"),
        ([NUMPY, "# pip rich"], "no pip package with a sha256"),
        ([NUMPY, f"# pip rich==1 --hash=sha256:{SHA} --index-url https://evil"], "no pip package"),
        ([NUMPY, f"# pip -r==1 --hash=sha256:{SHA}"], "no pip package"),
        ([NUMPY + "\x00"], "line 1"),
        ([f"{FORGE}/linux-64/$(id)-1-0.conda#{SHA}"], "line 1"),
        ([f"{FORGE}/linux-64/nodashes.conda#{SHA}"], "line 1"),
        ([f"{FORGE}/linux-64/../x-1-0.conda#{SHA}"], "line 1"),
    ],
)
def test_what_is_no_lock_file(lines: list[str], why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        conda_lock.parse(lines)


def test_a_mirror_of_the_channel_is_used_and_changes_nothing_else() -> None:
    lock = conda_lock.parse(LINES)
    moved = lock.moved({"conda-forge": "https://mirror.example/conda"})
    assert moved.packages[0].url == "https://mirror.example/conda/conda-forge/linux-64/numpy-2.1.0-py311h_0.conda"
    assert moved.identity() == lock.identity()
    assert lock.moved({"other": "https://mirror.example"}) == lock


WORD = st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True)
PACKAGES = st.builds(
    lambda name, arch, end: Package(FORGE, "linux-64" if arch else "noarch", f"{name}-1.0-0{end}", SHA),
    WORD,
    st.booleans(),
    st.sampled_from([".conda", ".tar.bz2"]),
)
LOCKS = st.builds(
    Lock,
    st.lists(PACKAGES, min_size=1, max_size=4, unique_by=lambda item: item.stem).map(
        lambda items: tuple(sorted(items, key=lambda item: item.stem))
    ),
    st.lists(WORD, max_size=3, unique=True).map(
        lambda names: tuple(PipPackage(name, "1.0", "", SHA) for name in sorted(names))
    ),
    st.sampled_from([(), ("https://index.example/simple",)]),
)


@given(LOCKS)
def test_what_is_written_reads_as_the_same(lock: Lock) -> None:
    assert conda_lock.parse(lock.text().splitlines()) == lock
    assert conda_lock.parse(lock.lines()) == lock


# --- in a declaration ------------------------------------------------------------------------------------------------


def one(item: dict[str, Any], **options: Any) -> tuple[list[Environment], str]:
    environments, errors = conda_env.parse_environments([item], variable="miniconda_environments", **options)
    return environments, "\n".join(errors)


def test_a_lock_file_stands_alone() -> None:
    (environment,), errors = one({"name": "x", "lock": LINES}, python="3.11")
    assert not errors
    assert not environment.packages
    assert environment.spec() == {"lock": conda_lock.parse(LINES).identity()}
    (again,), errors = one(environment.declaration(), python="3.12")
    assert again == environment
    for key in ("packages", "pip", "channels"):
        assert "a lock file says it all" in one({"name": "x", "lock": LINES, key: ["rich"]})[1]


def test_a_lock_file_may_not_bring_anacondas_channels_in() -> None:
    line = f"https://repo.anaconda.com/pkgs/main/linux-64/numpy-2.1.0-0.conda#{SHA}"
    assert "licence" in one({"name": "x", "lock": [line]})[1]
    assert not one({"name": "x", "lock": [line]}, anaconda_allowed=True)[1]


def test_a_changed_lock_file_replaces_the_environment() -> None:
    (old,), _ = one({"name": "x", "lock": LINES})
    (new,), _ = one({"name": "x", "lock": [*LINES[:-1]]})
    found = {"x": Found(State(old.digest(), old.spec(), old.lock.contents()), old.lock.contents())}
    assert plan([old], found) == []
    (step,) = plan([new], found)
    assert step.action == "replace"
    assert f"-pip labpip==1.0 --hash=sha256:{SHA}" in step.reason


# --- pip's report ----------------------------------------------------------------------------------------------------


def test_pips_report_gives_the_hashes() -> None:
    report = {
        "install": [
            {
                "metadata": {"name": "LabPip", "version": "1.0"},
                "download_info": {"url": "https://i/labpip.whl", "archive_info": {"hashes": {"sha256": SHA}}},
                "is_direct": False,
            },
            {
                "metadata": {"name": "fromgit", "version": "2"},
                "download_info": {"url": "https://g/x.git", "vcs_info": {"vcs": "git"}},
                "is_direct": True,
            },
        ]
    }
    packages, unknown = conda_lock.from_pip_report({"labpip": "1.0", "fromgit": "2"}, report)
    assert packages == [PipPackage("labpip", "1.0", "", SHA)]
    assert unknown == ["fromgit"]
