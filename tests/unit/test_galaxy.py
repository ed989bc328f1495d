# SPDX-License-Identifier: GPL-3.0-or-later
"""What Galaxy is told about the collection is true."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import cores
import pytest
import yaml
from doc_blocks import ROOT, pages

# Not ansible.utils: that is also a package of ansible-core.
NAMED = re.compile(r"(?<![\w.])((?:ansible\.(?:posix|netcommon|windows)|community\.[a-z_0-9]+)(?=\.[a-z_]+))")
OURS = ("roles", "playbooks", "plugins", "inventory/example")


def test_declared_dependencies_are_the_collections_that_are_used() -> None:
    files = [path for top in OURS for path in (ROOT / top).rglob("*") if path.suffix in (".yml", ".py", ".j2")]
    used = {name for path in files for name in NAMED.findall(path.read_text())}
    declared = yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"]
    assert set(declared) == used


def test_one_version_everywhere() -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    assert version in yaml.safe_load((ROOT / "changelogs/changelog.yaml").read_text())["releases"]
    assert f"## v{version}" in (ROOT / "CHANGELOG.md").read_text().replace("\\", "")


def test_the_cores_that_are_required_are_the_cores_that_are_tested() -> None:
    """tests/cores.py runs the ends of the range."""
    required = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["requires_ansible"]
    oldest, newest = cores.CORES
    major, minor, _patch = newest.version.split(".")
    assert required == f">={oldest.version},<{major}.{int(minor) + 1}.0"


def versioned() -> list[str]:
    """The files of the repository that are there; none where nobody can say."""
    if not shutil.which("git"):
        return []
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


def test_every_place_that_names_a_core_says_the_same() -> None:
    """Pages, the roles' metadata, workflows, requirements: what pip is told, and what people are told."""
    oldest, newest = (core.version for core in cores.CORES)
    major, minor, _patch = newest.split(".")
    for path in ROOT.glob("roles/*/meta/main.yml"):
        assert yaml.safe_load(path.read_text())["galaxy_info"]["min_ansible_version"] == oldest, path
    told, ranges = [], []
    for name in versioned() or [str(page.relative_to(ROOT)) for page in pages()]:
        if not name.endswith((".md", ".yml", ".in")) or name.startswith(("changelogs/", "CHANGELOG", ".config/")):
            continue
        text = (ROOT / name).read_text()
        ranges += [(name, found) for found in re.findall(r"ansible-core ?(>=[^'\"\s`]+)", text)]
        told += [(name, found) for found in re.findall(r"ansible-core (2\.[\d.]*\d)(?: to (2\.[\d.]*\d))?", text)]
    assert {found for _name, found in ranges} <= {f">={oldest},<{major}.{int(minor) + 1}{end}" for end in ("", ".0")}
    assert {name for name, _found in ranges} >= {"docs/first-fleet.md", "README.zh-CN.md"}
    assert told
    assert {found for _name, found in told} == {(oldest, f"{major}.{minor}")}, told
    assert f"({oldest} and {newest}" in (ROOT / "docs/upgrade.md").read_text()
    # What the gate runs on is one of them.
    [pinned] = re.findall(r"^ansible-core==([\d.]+)", (ROOT / ".config/requirements.txt").read_text(), re.MULTILINE)
    assert [int(part) for part in oldest.split(".")] <= [int(part) for part in pinned.split(".")]


def test_an_execution_environment_gets_what_the_collection_needs() -> None:
    """The files that ansible-builder is sent to are there, and both take the same cores as the collection."""
    needs = yaml.safe_load((ROOT / "meta/execution-environment.yml").read_text())["dependencies"]
    assert set(needs) == {"python", "system"}
    for place in needs.values():
        assert (ROOT / place).is_file()
    assert "openssh-client" in (ROOT / needs["system"]).read_text()
    example = yaml.safe_load((ROOT / "docs/ci/execution-environment.yml").read_text())["dependencies"]
    required = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["requires_ansible"]
    assert example["ansible_core"]["package_pip"] == f"ansible-core{required}"


# What is versioned and not shipped. The rest of build_ignore in galaxy.yml keeps out what is not versioned at all.
NOT_SHIPPED = (
    *(".ci", ".collections", ".config", ".github", ".gitignore", "Makefile", "REUSE.toml", "ansible.cfg", "bench"),
    *("changelogs/fragments", "galaxy.yml", "inventory/lab", "molecule", "pyproject.toml", "site.yml", "tests"),
)


def test_the_file_is_what_is_versioned_but_for_a_stated_list(tmp_path: Path) -> None:
    """File by file: nothing of a working copy gets in, and nothing that users need is left out."""
    names = versioned()
    if not names:
        pytest.skip("this is no git checkout, or there is no git here")
    build = [Path(sys.executable).with_name("ansible-galaxy"), "collection", "build", "--output-path", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        inside = {member.name for member in archive if not member.isdir()}
    shipped = {one for one in names if not any(one == out or one.startswith(f"{out}/") for out in NOT_SHIPPED)}
    assert inside == shipped | {"FILES.json", "MANIFEST.json"}
    assert all(any(one == out or one.startswith(f"{out}/") for one in names) for out in NOT_SHIPPED)
