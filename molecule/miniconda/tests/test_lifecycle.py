# SPDX-License-Identifier: GPL-3.0-or-later
"""How the role goes on from whatever it finds. The tests leave the host as they found it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import DIRTY, PREFIX, Box

pytestmark = pytest.mark.one_system

# --- environments ------------------------------------------------------------------------------------------------


@pytest.mark.standin
def test_environments_follow_their_declaration(any_state: Box) -> None:
    changed = [{"name": "plot-py311", "packages": ["labfit"]}, {"name": "new-py311", "packages": ["labtool"]}]
    any_state.play(miniconda_environments=changed).ok()
    assert any_state.environments() == ["new-py311", "plot-py311"]
    packages = any_state.packages("plot-py311")
    assert packages["labmath"] == "2.0"
    assert not {"labplot", "labpip"} & set(packages)
    assert any_state.play(miniconda_environments=changed).ok().changed == 0


@pytest.mark.standin
def test_what_somebody_changed_by_hand_is_undone(box: Box) -> None:
    index = "http://127.0.0.1:8077/simple"
    box.root(f"{PREFIX}/envs/plot-py311/bin/python -m pip install -q --index-url {index} labpip==1.1")
    box.root(f"{PREFIX}/bin/conda install --name fit-py311 --yes --quiet pip")
    box.root(f"{PREFIX}/envs/fit-py311/bin/python -m pip install -q --index-url {index} labpip")
    play = box.play().ok()
    assert play.changed == 1
    DIRTY.clear()  # that was the scenario's own declaration
    assert box.packages("plot-py311")["labpip"] == "1.0"
    assert not {"labpip", "pip"} & set(box.packages("fit-py311"))


@pytest.mark.standin
def test_a_solve_that_fails_keeps_the_old_environment(box: Box) -> None:
    impossible = [
        {"name": "plot-py311", "packages": ["labplot", "labfit"]},
        {"name": "fresh-py311", "packages": ["labmath", "no-such-package"]},
        {"name": "other-py311", "packages": ["labtool"]},
    ]
    play = box.play(miniconda_environments=impossible)
    play.refused("plot-py311: could not be updated", "it stays as it was", "labmath >=1,<2", "labmath >=2")
    play.refused("fresh-py311: could not be created", "no-such-package")
    assert box.person("conda run -n plot-py311 python -c 'import labplot, labpip; print(labpip.__version__)'") == "1.0"
    assert box.environments() == ["other-py311", "plot-py311"]


@pytest.mark.standin
def test_an_environment_of_somebody_else_is_not_taken_over(any_state: Box) -> None:
    any_state.root(f"{PREFIX}/bin/conda create --name theirs --yes --quiet python=3.11 labtool")
    theirs = {"name": "theirs", "packages": ["labmath"]}
    try:
        refused = any_state.play(miniconda_environments=[theirs])
        refused.refused("theirs: an environment of this name is there already", "adopt: true")
        any_state.play(miniconda_state="absent").refused("not made by this role: theirs")
        any_state.play(miniconda_environments=[{**theirs, "adopt": True}]).ok()
        assert "labtool" not in any_state.packages("theirs")
    finally:
        any_state.root(f"rm -rf {PREFIX}/envs/theirs")


@pytest.mark.standin
def test_two_runs_at_once_do_not_meet(any_state: Box) -> None:
    wanted = [{"name": "both-py311", "packages": ["labtool"]}]
    with ThreadPoolExecutor() as pool:
        plays = list(pool.map(lambda _: any_state.play(miniconda_environments=wanted), range(2)))
    assert sorted(play.ok().changed for play in plays) == [0, 1]
    assert any_state.person("conda run -n both-py311 labtool") == "labtool 1.0"


# What stays after a removal, on purpose: file_set's own folders, with the files that were replaced.
KEPT = tuple(f"/var/lib/devnode/{name}" for name in (".lock", "backup", "file_set", "original", "transaction"))

# --- the installation --------------------------------------------------------------------------------------------

STANDINS = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / ".cache/standins/conda"  # on the controller
INSTALLER = "/srv/conda/Miniconda3-py311_26.5.3-1-Linux-$(uname -m).sh"


@pytest.mark.standin
def test_a_truncated_download_is_not_run(any_state: Box) -> None:
    any_state.root(f"head -c 20000000 {INSTALLER} > /srv/conda/short.sh")
    look = f"cat {PREFIX}/conda-meta/devnode-install && ls {PREFIX} {PREFIX}/conda-meta"
    before = any_state.root(look)
    play = any_state.play(miniconda_installer_url="http://127.0.0.1:8077/short.sh", miniconda_installer_sha256="0" * 64)
    play.refused("(20000000 bytes)", "truncated", "nothing was changed")
    assert any_state.root(look) == before


@pytest.mark.standin
def test_removed_then_old_then_upgraded_in_place(any_state: Box) -> None:
    any_state.play(miniconda_state="absent").ok()
    traces = any_state.root(
        "find / -xdev \\( -path /srv/conda -o -path /usr/share -o -path /home -o -path /root/.ansible \\) -prune -o "
        "\\( -iname '*conda*' -o -path '*devnode/*' \\) -print"
    )
    assert [path for path in traces.split() if not path.startswith(KEPT)] == []
    assert any_state.root("dpkg --verify base-files bash zsh fish 2>/dev/null; true") == ""
    assert any_state.play(miniconda_state="absent").ok().changed == 0

    old = "26.3.2-2"
    file = f"Miniconda3-py311_{old}-Linux-{any_state.root('uname -m')}.sh"
    any_state.play(miniconda_version=old, miniconda_installer_src=str(STANDINS / file)).ok()
    assert any_state.person("conda --version") == "conda 26.3.2"
    made = any_state.root(f"stat -c %Y {PREFIX}/envs/plot-py311/conda-meta/history")
    assert any_state.play().ok().changed == 1
    DIRTY.clear()  # that was the scenario's own declaration
    assert any_state.person("conda --version") == "conda 26.5.3"
    assert any_state.root(f"stat -c %Y {PREFIX}/envs/plot-py311/conda-meta/history") == made
    assert any_state.root(f"ls {PREFIX}/conda-meta/conda-*.json").count("conda-26") == 1
    refused = any_state.play(miniconda_version=old)
    refused.refused("Miniconda 26.5.3-1 is installed", "miniconda_allow_downgrade")
    if os.environ.get("DEVNODE_TESTS") == "full":
        any_state.play(miniconda_version=old, miniconda_allow_downgrade=True).ok()
        assert any_state.person("conda --version") == "conda 26.3.2"


@pytest.mark.standin
def test_a_prefix_that_somebodys_installer_left_half_made_is_repaired_and_said(any_state: Box) -> None:
    any_state.root(f"rm -rf {PREFIX} && head -c 20000000 {INSTALLER} > /srv/conda/short.sh")
    assert any_state.host.run(f"sh /srv/conda/short.sh -b -p {PREFIX}").rc != 0
    assert any_state.host.file(PREFIX).is_directory
    play = any_state.play().ok()
    assert "half made" in play.output
    assert "repaired" in play.output
    assert any_state.person("conda run -n fit-py311 labtool") == "labtool 1.0"


# What runs, and the sign that it is in the middle of its work.
MIDDLES = {
    "the installer": ("[i]nstaller.sh -b", f"{PREFIX}/install_tmp"),
    "conda": ("[b]in/conda env create", f"{PREFIX}/envs/fit-py311/conda-meta"),
}


@pytest.mark.standin
@pytest.mark.parametrize("what", MIDDLES)
def test_a_run_that_is_killed_in_the_middle_is_finished_by_the_next(any_state: Box, what: str) -> None:
    any_state.root(f"rm -rf {PREFIX}")
    pattern, sign = MIDDLES[what]
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(any_state.play)
        any_state.root(
            f"timeout 60 sh -c 'until test -e {sign}; do sleep 0.01; done'; child=$(pgrep -of '{pattern}') && "
            "kill -KILL $(ps -o ppid= $child) $child"
        )
        assert killed.result().code != 0
    play = any_state.play().ok()
    assert ("half made" in play.output) == (what == "the installer")
    assert any_state.person("conda run -n fit-py311 labtool") == "labtool 1.0"
    assert not any_state.host.file("/var/lib/devnode/conda/opt-miniconda.doing").exists
    assert not any_state.host.file("/var/lib/devnode/conda/opt-miniconda.creating").exists


def test_something_else_in_the_prefix_is_refused(any_state: Box) -> None:
    any_state.root("mkdir -p /opt/data && touch /opt/data/precious")
    any_state.play(miniconda_prefix="/opt/data").refused("/opt/data", "something else")
    assert any_state.host.file("/opt/data/precious").exists


def test_a_noexec_place_is_refused(any_state: Box) -> None:
    any_state.root("mkdir -p /srv/noexec && mount -t tmpfs -o noexec tmpfs /srv/noexec")
    try:
        any_state.play(miniconda_prefix="/srv/noexec/conda").refused("noexec")
    finally:
        any_state.root("umount /srv/noexec")


@pytest.mark.standin
def test_a_full_disk_leaves_nothing_behind(any_state: Box) -> None:
    any_state.root("mkdir -p /srv/small && mount -t tmpfs -o size=60m tmpfs /srv/small")
    try:
        play = any_state.play(miniconda_prefix="/srv/small/conda")
        play.refused("Not enough free disk space", "removed again")
        assert not any_state.host.file("/srv/small/conda").exists
    finally:
        any_state.root("umount /srv/small")


# --- refusals: all at once, and before anything is changed ---------------------------------------------------------


def test_wrong_declarations_are_refused_all_at_once(any_state: Box) -> None:
    wrong = [
        {"name": "/srv/envs/nlp", "packages": ["labmath"]},
        {"name": "$(reboot)", "packages": ["labmath"]},
        {"name": "both", "packages": ["labmath"], "pip": ["LabMath==1.0"]},
        {"name": "option", "packages": ["--file=/etc/shadow"]},
        {"name": "terms", "packages": ["labmath"], "channels": ["defaults"]},
        {"name": "missing", "file": "no-such-file.yml"},
        {"name": "twice", "packages": ["labmath"]},
        {"name": "twice", "packages": ["labmath"]},
    ]
    play = any_state.play(miniconda_environments=wrong, miniconda_mirror="nowhere", miniconda_prefix="/home/ada/conda")
    places = ("[0].name", "[1].name", "[2].pip", "[3].packages[0]", "[4].channels[0]", "[5].file", "[7].name")
    play.refused(
        *(f"miniconda_environments{place}" for place in places), "licence", "miniconda_mirror", "miniconda_prefix"
    )
    assert play.changed == 0


def test_an_installer_without_a_checksum_is_refused(any_state: Box) -> None:
    play = any_state.play(miniconda_installer_url="https://packages.example/own.sh", miniconda_installer_sha256="")
    assert play.refused("miniconda_installer_url", "no known sha256").changed == 0
