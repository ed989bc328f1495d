# SPDX-License-Identifier: GPL-3.0-or-later
"""What users and operators get from the role, on the finished host. The tests leave the host as they found it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

PREFIX = "/opt/miniconda"
FOLDER = os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]
STANDIN = os.environ.get("DEVNODE_CONDA", "standin") == "standin"
RECAP = re.compile(r"ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)")

needs_standin = pytest.mark.skipif(not STANDIN, reason="uses the stand-in's own packages")


@dataclass(frozen=True)
class Play:
    """How a run of the role on one host ended."""

    code: int
    output: str
    changed: int
    results: int

    def ok(self) -> Play:
        assert self.code == 0, self.output
        return self

    def refused(self, *parts: str) -> Play:
        assert self.code != 0, self.output
        text = " ".join(self.output.replace("\\n", "\n").split())
        for part in parts:
            assert " ".join(part.split()) in text, self.output
        return self


class Box:
    """A host under test: as root (testinfra), as a person over ssh, and as a target of the role."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.name = str(host.backend.get_hostname())

    def root(self, command: str) -> str:
        done = self.host.run(command)
        assert done.rc == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout).strip()

    def ssh(self, command: str) -> subprocess.CompletedProcess[str]:
        argv = ["ssh", "-F", f"{FOLDER}/ssh_config", "-o", "BatchMode=yes", self.name, command]
        return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def person(self, command: str) -> str:
        done = self.ssh(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def play(self, tidying: bool = False, **variables: Any) -> Play:
        done = subprocess.run(
            [
                "ansible-playbook",
                f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}",
                f"--limit={self.name}",
                f"--extra-vars={json.dumps(variables)}",
                os.path.join(os.environ["MOLECULE_SCENARIO_DIRECTORY"], "converge.yml"),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )
        match = RECAP.search(done.stdout)
        counts = [int(count) for count in match.groups()] if match else [0] * 5
        if not tidying and (counts[1] or "changed: true" in done.stdout):
            DIRTY[self.name] = self
        return Play(done.returncode, done.stdout + done.stderr, counts[1], counts[0] + counts[4])

    def environments(self) -> list[str]:
        return sorted(self.root(f"ls {PREFIX}/envs").split())

    def packages(self, environment: str) -> dict[str, str]:
        listed = json.loads(self.root(f"{PREFIX}/bin/conda list --name {environment} --json"))
        return {item["name"]: item["version"] for item in listed}


DIRTY: dict[str, Box] = {}


def tidy() -> None:
    """Bring hosts that a test changed back to what the scenario declares."""
    for name in list(DIRTY):
        DIRTY.pop(name).play(tidying=True).ok()


@pytest.fixture(scope="module", autouse=True)
def tidy_at_the_end() -> Iterator[None]:
    yield
    tidy()


@pytest.fixture
def box(host: Any) -> Box:
    """A host as the scenario declares it."""
    tidy()
    return Box(host)


@pytest.fixture
def once(box: Box) -> Box:
    """Like box, for what does not depend on the operating system: on the newer one only."""
    if box.name != "debian13":
        pytest.skip("tested on debian13; the same code on both")
    return box


@pytest.fixture
def any_state(host: Any) -> Box:
    """Like once, for tests that do not care what an earlier test left."""
    box = Box(host)
    if box.name != "debian13":
        pytest.skip("tested on debian13; the same code on both")
    return box


# --- every kind of shell -------------------------------------------------------------------------------------------

SHELLS = {
    "a command over ssh": "conda --version",
    "a login shell": "bash -lc 'conda --version'",
    "a plain login shell": "sh -lc 'conda --version'",
    "sudo": "sudo -n conda --version",
    "root's login shell": "sudo -n -i conda --version",
    "an interactive shell": "bash -ic 'type -t conda && conda --version' 2>/dev/null",
    "a service": "sudo -n systemd-run --quiet --wait --pipe conda --version",
}


@pytest.mark.parametrize("kind", SHELLS)
def test_every_shell_finds_conda(box: Box, kind: str) -> None:
    assert re.search(r"^conda \d+\.\d+\.\d+$", box.person(SHELLS[kind]), re.MULTILINE)


def test_nothing_is_activated_by_itself(box: Box) -> None:
    assert (
        box.person("bash -lic 'echo \"prefix:$CONDA_PREFIX\"; command -v python3' 2>/dev/null")
        == "prefix:\n/usr/bin/python3"
    )


@needs_standin
@pytest.mark.parametrize("shell", ["bash -lc", "bash -ic"])
def test_an_environment_can_be_activated(box: Box, shell: str) -> None:
    program = "import labplot, labpip, sys; print(sys.prefix, labpip.__version__)"
    said = box.person(f"{shell} 'conda activate plot-py311 && python -c \"{program}\"' 2>/dev/null")
    assert said == f"{PREFIX}/envs/plot-py311 1.0"


# --- what is in it -------------------------------------------------------------------------------------------------


@needs_standin
def test_the_declared_environments_work(box: Box) -> None:
    assert box.environments() == ["fit-py311", "plot-py311"]
    program = "import labmath, labplot, sys; print(labmath.__version__, *sys.version_info[:2])"
    said = box.person(f"conda run -n plot-py311 python -c '{program}'")
    assert said == "1.1 3 11"
    assert box.person("conda run -n fit-py311 python -c 'import labfit, labmath; print(labmath.__version__)'") == "2.0"
    assert box.person("conda run -n fit-py311 labtool") == "labtool 1.0"


def test_base_is_python_311_and_pinned(box: Box) -> None:
    assert box.root(f"{PREFIX}/bin/python -c 'import sys; print(*sys.version_info[:2])'") == "3 11"
    assert box.root(f"cat {PREFIX}/conda-meta/pinned") == "python 3.11.*"


def test_conda_asks_conda_forge_only(box: Box) -> None:
    shown = json.loads(box.person("conda config --show channels default_channels channel_priority --json"))
    assert shown["channels"] == ["conda-forge"]
    assert shown["channel_priority"] == "strict"
    assert all("conda-forge" in str(url) for url in shown["default_channels"])
    assert "anaconda.com" not in box.root(f"cat {PREFIX}/.condarc")


def test_everything_belongs_to_root(box: Box) -> None:
    assert box.root(f"find {PREFIX} ! -user root -o ! -type l -perm /002 | head") == ""


def test_base_is_protected_from_users_and_from_root(box: Box) -> None:
    by_user = box.ssh("conda install --name base --yes labtool")
    assert by_user.returncode == 1
    assert re.search("EnvironmentNotWritable|EnvironmentIsFrozen", by_user.stderr), by_user.stderr
    by_root = box.ssh("sudo -n conda install --name base --yes labtool")
    assert by_root.returncode == 1
    assert "frozen" in by_root.stderr.lower(), by_root.stderr
    by_pip = box.ssh(f"sudo -n {PREFIX}/bin/python -m pip install labpip")
    assert by_pip.returncode == 1
    assert "externally-managed-environment" in by_pip.stderr, by_pip.stderr


@needs_standin
def test_users_make_environments_of_their_own(box: Box) -> None:
    box.person("conda create --name mine --yes --quiet python=3.11 labtool")
    try:
        assert box.person("conda run -n mine labtool") == "labtool 1.0"
        assert box.person("test -d ~/.conda/envs/mine && echo there") == "there"
        assert box.ssh("conda install --name plot-py311 --yes labtool").returncode == 1
    finally:
        box.person("conda env remove --name mine --yes")


@needs_standin
def test_the_word_defaults_does_not_lead_to_anaconda(box: Box) -> None:
    """And without our configuration it would: that is the prompt that scripts die of."""
    made = box.ssh("conda create --name d --yes --quiet --channel defaults --override-channels labmath")
    assert made.returncode == 0, made.stderr
    box.person("conda env remove --name d --yes")
    box.root(f"mv {PREFIX}/.condarc /root/kept")
    bare = box.host.run(f"{PREFIX}/bin/conda create --name d --yes labmath")
    box.root(f"mv /root/kept {PREFIX}/.condarc")
    assert bare.rc == 1
    assert "CondaToSNonInteractiveError" in bare.stderr


# --- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_without_changes_is_short_and_does_not_start_conda(box: Box) -> None:
    conda = f"{PREFIX}/bin/conda"
    box.root(f"mv {conda} {conda}.real && printf '#!/bin/sh\\nexit 99\\n' > {conda} && chmod 755 {conda}")
    try:
        play = box.play()
    finally:
        box.root(f"mv {conda}.real {conda}")
    play.ok()
    assert play.changed == 0
    assert play.results <= 10


@needs_standin
def test_environments_follow_their_declaration(any_state: Box) -> None:
    changed = [{"name": "plot-py311", "packages": ["labfit"]}, {"name": "new-py311", "packages": ["labtool"]}]
    any_state.play(miniconda_environments=changed).ok()
    assert any_state.environments() == ["new-py311", "plot-py311"]
    packages = any_state.packages("plot-py311")
    assert packages["labmath"] == "2.0"
    assert not {"labplot", "labpip"} & set(packages)
    assert any_state.play(miniconda_environments=changed).ok().changed == 0


@needs_standin
def test_what_somebody_changed_by_hand_is_undone(once: Box) -> None:
    index = "http://127.0.0.1:8077/simple"
    once.root(f"{PREFIX}/envs/plot-py311/bin/python -m pip install -q --index-url {index} labpip==1.1")
    once.root(f"{PREFIX}/bin/conda install --name fit-py311 --yes --quiet pip")
    once.root(f"{PREFIX}/envs/fit-py311/bin/python -m pip install -q --index-url {index} labpip")
    play = once.play().ok()
    assert play.changed == 1
    DIRTY.clear()  # that was the scenario's own declaration
    assert once.packages("plot-py311")["labpip"] == "1.0"
    assert not {"labpip", "pip"} & set(once.packages("fit-py311"))


@needs_standin
def test_a_solve_that_fails_keeps_the_old_environment(once: Box) -> None:
    impossible = [
        {"name": "plot-py311", "packages": ["labplot", "labfit"]},
        {"name": "fresh-py311", "packages": ["labmath", "no-such-package"]},
        {"name": "other-py311", "packages": ["labtool"]},
    ]
    play = once.play(miniconda_environments=impossible)
    play.refused("plot-py311: could not be updated", "it stays as it was", "labmath >=1,<2", "labmath >=2")
    play.refused("fresh-py311: could not be created", "no-such-package")
    assert once.person("conda run -n plot-py311 python -c 'import labplot, labpip; print(labpip.__version__)'") == "1.0"
    assert once.environments() == ["other-py311", "plot-py311"]


@needs_standin
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


@needs_standin
def test_two_runs_at_once_do_not_meet(any_state: Box) -> None:
    wanted = [{"name": "both-py311", "packages": ["labtool"]}]
    with ThreadPoolExecutor() as pool:
        plays = list(pool.map(lambda _: any_state.play(miniconda_environments=wanted), range(2)))
    assert sorted(play.ok().changed for play in plays) == [0, 1]
    assert any_state.person("conda run -n both-py311 labtool") == "labtool 1.0"


# --- the installation --------------------------------------------------------------------------------------------

INSTALLER = "/srv/conda/Miniconda3-py311_26.5.3-1-Linux-$(uname -m).sh"


@needs_standin
def test_a_truncated_download_is_not_run(any_state: Box) -> None:
    any_state.root(f"head -c 20000000 {INSTALLER} > /srv/conda/short.sh")
    look = f"cat {PREFIX}/conda-meta/devnode-install && ls {PREFIX} {PREFIX}/conda-meta"
    before = any_state.root(look)
    play = any_state.play(miniconda_installer_url="http://127.0.0.1:8077/short.sh", miniconda_installer_sha256="0" * 64)
    play.refused("(20000000 bytes)", "truncated", "nothing was changed")
    assert any_state.root(look) == before


@needs_standin
def test_removed_then_old_then_upgraded_in_place(any_state: Box) -> None:
    any_state.play(miniconda_state="absent").ok()
    ours = (PREFIX, "/usr/local/bin/conda", "/etc/profile.d/devnode-conda.sh", "/var/cache/devnode/miniconda")
    assert any_state.host.run(f"ls -d {' '.join(ours)} 2>/dev/null").stdout == ""
    assert "devnode" not in any_state.root("cat /etc/bash.bashrc")
    assert any_state.play(miniconda_state="absent").ok().changed == 0

    old = "26.3.2-2"
    any_state.play(miniconda_version=old).ok()
    assert any_state.person("conda --version") == "conda 26.3.2"
    made = any_state.root(f"stat -c %Y {PREFIX}/envs/plot-py311/conda-meta/history")
    assert any_state.play().ok().changed == 1
    DIRTY.clear()  # that was the scenario's own declaration
    assert any_state.person("conda --version") == "conda 26.5.3"
    assert any_state.root(f"stat -c %Y {PREFIX}/envs/plot-py311/conda-meta/history") == made
    assert any_state.root(f"ls {PREFIX}/conda-meta/conda-*.json").count("conda-26") == 1
    refused = any_state.play(miniconda_version=old)
    refused.refused("Miniconda 26.5.3-1 is installed", "miniconda_allow_downgrade")


@needs_standin
@pytest.mark.parametrize("left", ["by a role that was killed", "by somebody's installer"])
def test_a_half_made_prefix_is_repaired_and_said(any_state: Box, left: str) -> None:
    any_state.root(f"rm -rf {PREFIX} && head -c 20000000 {INSTALLER} > /srv/conda/short.sh")
    assert any_state.host.run(f"sh /srv/conda/short.sh -b -p {PREFIX}").rc != 0
    assert any_state.host.file(PREFIX).is_directory
    if "role" in left:
        any_state.root('printf \'{"doing": "install"}\' > /var/lib/devnode/conda/opt-miniconda.doing')
    play = any_state.play().ok()
    assert "half made" in play.output
    assert "repaired" in play.output
    assert any_state.person("conda run -n fit-py311 labtool") == "labtool 1.0"


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


@needs_standin
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
