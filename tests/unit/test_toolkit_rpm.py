# SPDX-License-Identifier: GPL-3.0-or-later
"""The toolkit on RHEL and its relatives: the repository's file as the role's task writes it. dnf is not run here."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

import yaml
from unit.playbook import ROOT, inventory, play

ROLE = ROOT / "roles" / "nvidia_container_toolkit"
NAMES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


def tasks() -> dict[str, dict[str, Any]]:
    """By module."""
    listed = yaml.safe_load((ROLE / "tasks" / "rpm.yml").read_text())
    return {module: task[module] for task in listed for module in task if "." in module}


def test_the_repository_is_signed_and_gives_the_packages_at_one_version_only(tmp_path: Path) -> None:
    inventory(tmp_path)
    writes = {**tasks()["ansible.builtin.yum_repository"], "reposdir": str(tmp_path)}
    facts = {"ansible_facts": {"os_family": "RedHat"}}
    book = [
        {
            "hosts": "bastion",
            "gather_facts": False,
            "vars": facts,
            "vars_files": [str(ROLE / "defaults" / "main.yml"), str(ROLE / "vars" / "main.yml")],
            "tasks": [{"ansible.builtin.yum_repository": writes}],
        }
    ]
    (tmp_path / "rpm.yml").write_text(yaml.safe_dump(book))
    done = play(tmp_path, tmp_path / "rpm.yml")
    assert done.returncode == 0, done.stdout
    found = configparser.ConfigParser(interpolation=None)
    found.read(tmp_path / "nvidia-container-toolkit.repo")
    repository = found["nvidia-container-toolkit"]
    assert repository["baseurl"] == "https://nvidia.github.io/libnvidia-container/stable/rpm/$basearch"
    assert repository["repo_gpgcheck"] == "1"
    assert repository["gpgkey"] == "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia-container-toolkit"
    assert repository["includepkgs"].split() == [f"{name}-1.19.1-*" for name in NAMES]


def test_the_key_is_checked_before_anything_is_installed_with_it() -> None:
    order = list(tasks())
    assert order.index("ansible.builtin.rpm_key") < order.index("ansible.builtin.dnf")
    key = tasks()["ansible.builtin.rpm_key"]
    assert key["fingerprint"] == "{{ nvidia_container_toolkit_repository_fingerprints }}"
    assert key["key"] == "{{ __nvidia_container_toolkit_rpm_key }}"
    assert tasks()["ansible.builtin.dnf"]["name"] == "{{ __nvidia_container_toolkit_plan.packages }}"
