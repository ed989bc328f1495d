# SPDX-License-Identifier: GPL-3.0-or-later
"""What Galaxy is told about the collection is true."""

from __future__ import annotations

import re

import cores
import yaml
from doc_blocks import ROOT

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
