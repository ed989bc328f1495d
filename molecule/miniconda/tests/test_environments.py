# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock files and private environments."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from conftest import PREFIX, Box, Play

MIRROR = "--unit=conda-mirror --working-directory=/srv/conda python3 -m http.server --bind=127.0.0.1 8077"
USES = "python -c 'import labplot, labpip; print(labpip.__version__)'"
# Together they are too dear for the gate.
pytestmark = [pytest.mark.one_system, pytest.mark.standin, pytest.mark.full_run]


def test_a_second_host_is_built_from_the_lock_file_alone(box: Box, tmp_path: Path) -> None:
    """The first host solves and writes back; the second gets the lock file, and no channel to solve with."""
    first, second = box, box.other()
    assert first.play(miniconda_export_directory=str(tmp_path)).ok().changed == 1
    folder = tmp_path / first.name
    assert sorted(path.name for path in folder.iterdir()) == [
        *("fit-py311.lock", "fit-py311.yml", "plot-py311.lock", "plot-py311.yml")
    ]
    exported = yaml.safe_load((folder / "plot-py311.yml").read_text())
    assert "prefix" not in exported
    assert {"pip": ["labpip==1.0"]} in exported["dependencies"]
    assert all(item.count("=") == 1 for item in exported["dependencies"] if isinstance(item, str))
    lock = (folder / "plot-py311.lock").read_text()
    packages = [line for line in lock.splitlines() if "://" in line]
    assert len(packages) >= 4
    assert all(re.search(r"#[0-9a-f]{64}$", line) for line in packages)
    assert re.search(r"^# pip labpip==1.0 --hash=sha256:[0-9a-f]{64}$", lock, re.MULTILINE)

    wanted = {"name": "again-py311", "lock": str(folder / "plot-py311.lock")}
    second.root("mv /srv/conda/channels/conda-forge/noarch/labmath-2.0-pyh0000000_0.tar.bz2 /srv/conda/aside")
    try:
        second.play(miniconda_environments=[wanted], miniconda_export_directory=str(tmp_path)).ok()
    finally:
        second.root("mv /srv/conda/aside /srv/conda/channels/conda-forge/noarch/labmath-2.0-pyh0000000_0.tar.bz2")
    assert (tmp_path / second.name / "again-py311.lock").read_bytes() == lock.encode()
    assert second.packages("again-py311") == first.packages("plot-py311")
    assert second.person(f"conda run -n again-py311 {USES}") == "1.0"

    bad = tmp_path / "bad.lock"
    bad.write_text(lock.replace(packages[0][-64:], "0" * 64))
    refused = second.play(miniconda_environments=[{**wanted, "lock": str(bad)}])
    refused.refused("again-py311: could not be updated; it stays as it was")
    assert second.play(miniconda_environments=[wanted]).ok().changed == 0


def test_people_have_private_environments(box: Box) -> None:
    """Two people with one name each, made with their rights; nobody's link leads the role out of a home."""
    for name in ("ada", "grace", "mallory"):
        box.root(f"id {name} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash {name}")
    own = [{"name": "own-py311", "owner": name, "packages": [package]} for name, package in
           (("ada", "labtool"), ("grace", "labfit"))]  # fmt: skip
    box.root("ln -sfn /opt /home/mallory/.conda")
    trap = {"name": "trap", "owner": "mallory", "packages": ["labtool"]}
    box.play(miniconda_environments=[*own, trap]).refused("/home/mallory/.conda", "Permission denied", "as mallory")
    assert not box.host.file("/opt/envs").exists
    assert box.play(miniconda_environments=own).ok().changed == 0
    assert box.root("runuser -l ada -c 'conda run -n own-py311 labtool'") == "labtool 1.0"
    assert box.root("runuser -l grace -c 'conda run -n own-py311 python -c \"import labfit; print(1)\"'") == "1"
    assert box.root("find /home/ada/.conda /home/grace/.conda ! -user ada ! -user grace") == ""
    assert box.root("stat -c %U /home/grace/.conda/envs/own-py311/conda-meta/devnode-environment") == "grace"

    assert box.play(miniconda_environments=own[:1]).ok().changed == 1
    assert box.root("ls /home/ada/.conda/envs /home/grace/.conda/envs").split() == [
        *("/home/ada/.conda/envs:", "own-py311", "/home/grace/.conda/envs:")
    ]


def test_pytorch_follows_its_cuda_version_and_the_hosts_driver(any_state: Box) -> None:
    """torch here is the stand-in's, which only knows its version; the indexes are two, as in the world."""
    wanted = {"project": "nlp", "pytorch": {"version": "2.8", "cuda": "12.8", "extras": ["torchvision"]}}
    impossible = {"name": "x", "pytorch": {"version": "2.8", "cuda": "13.0"}}
    play = any_state.play(miniconda_environments=[wanted, impossible])
    play.refused("miniconda_environments[1].pytorch", "PyTorch 2.8 is not built with CUDA 13.0", "12.6, 12.8, 12.9")
    assert play.changed == 0

    smi = "/usr/local/bin/nvidia-smi"
    any_state.root(f"printf '#!/bin/sh\\necho 470.82.01, 8.0\\n' > {smi} && chmod 755 {smi}")
    try:
        play = any_state.play(miniconda_environments=[wanted])
        play.refused("nlp-py311-torch28: CUDA 12.8 does not run with driver 470.82.01", "525.60.13")
        assert play.changed == 0
        any_state.root(f"sed -i s/470.82.01/570.124.06/ {smi}")
        any_state.play(miniconda_environments=[wanted]).ok()
    finally:
        any_state.root(f"rm {smi}")
    command = "conda run -n nlp-py311-torch28 python -c 'import torch; print(torch.__version__)'"
    assert any_state.person(command) == "2.8.0+cu128"


def test_a_bundle_is_all_that_a_host_without_a_network_needs(box: Box, tmp_path: Path) -> None:
    """One host packs; the other loses its mirror and its route, and gets conda with all environments.

    What that one writes back is the bundle's own lock file: the first builds an environment from it.
    """
    bundle, cut = tmp_path / "gpu.tar", box.other()
    box.play(playbook="bundle.yml", miniconda_bundle_dest=str(bundle)).ok()
    assert box.host.run("ls /var/cache/devnode/miniconda").stdout.split() == []
    with tarfile.open(bundle) as archive:
        archive.extractall(tmp_path / "out")  # noqa: S202  our own
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=True)

    cut.root(f"rm -rf {PREFIX}")
    gateway = cut.root("ip route show default")
    cut.root(f"systemctl stop conda-mirror && ip route del {gateway} && ! curl -sf http://127.0.0.1:8077/ 2>/dev/null")
    try:
        other = {"name": "plot-py311", "packages": ["labfit"]}
        play = cut.play(miniconda_bundle=str(bundle), miniconda_environments=[other])
        assert play.refused("plot-py311", "declared otherwise than when the bundle was made").changed == 0
        cut.play(miniconda_bundle=str(bundle)).ok()
        assert cut.environments() == ["fit-py311", "plot-py311"]
        assert cut.packages("plot-py311") == box.packages("plot-py311")
        assert (
            cut.person("conda run -n plot-py311 python -c 'import labplot, labpip; print(labpip.__version__)'") == "1.0"
        )
        again = cut.play(miniconda_bundle=str(bundle)).ok()
        assert again.changed == 0
        assert again.results <= 10
        cut.play(miniconda_bundle=str(bundle), miniconda_export_directory=str(tmp_path / "offline")).ok()
    finally:
        cut.root(f"ip route add {gateway}; systemd-run {MIRROR}")

    about = json.loads((tmp_path / "out/bundle.json").read_text())
    box.play(miniconda_export_directory=str(tmp_path)).ok()
    for name in ("fit-py311", "plot-py311"):
        written = (tmp_path / "offline" / cut.name / f"{name}.lock").read_bytes()
        assert written == about["environments"][name]["lock"].encode()
        assert written == (tmp_path / box.name / f"{name}.lock").read_bytes()
        exported = (tmp_path / "offline" / cut.name / f"{name}.yml").read_bytes()
        assert exported == (tmp_path / box.name / f"{name}.yml").read_bytes()
    cut.play(miniconda_export_directory=str(tmp_path / "later")).ok()  # it has a network now, and no bundle
    lock = tmp_path / "later" / cut.name / "plot-py311.lock"
    assert lock.read_bytes() == (tmp_path / box.name / "plot-py311.lock").read_bytes()
    box.play(miniconda_environments=[{"name": "again-py311", "lock": str(lock)}]).ok()
    assert box.packages("again-py311") == cut.packages("plot-py311")


def test_ci_builds_environments_and_sees_that_they_import(any_state: Box) -> None:
    """playbooks/environments.yml, as CI runs it: nothing of the fleet, and an exit code."""
    options = ("--extra-vars=devnode_environment_hosts=all", "--extra-vars=@vars/standin.yml")
    good = {"name": "ci-py311", "packages": ["labplot"], "imports": ["labplot", "labmath"]}
    bad = {"name": "bad-py311", "packages": ["labmath"], "imports": ["labmath", "labfit"]}

    def run(*environments: dict[str, object]) -> Play:
        playbook = "../../playbooks/environments.yml"
        return any_state.play(playbook=playbook, options=options, miniconda_environments=[*environments])

    play = run(good, bad)
    assert play.code == 2
    play.refused("ci-py311: import labplot, labmath", "bad-py311: import labmath, labfit", "No module named 'labfit'")
    assert run(good).code == 0
