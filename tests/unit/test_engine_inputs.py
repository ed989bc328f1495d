# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs of docker_engine and nvidia_container_toolkit: what they come to, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import engine_inputs as ei
from hypothesis import given
from hypothesis import strategies as st

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\nAAA=\n-----END CERTIFICATE-----"


def engine(**changes: Any) -> dict[str, Any]:
    return {
        "source": "distro",
        "version": "28.5.2",
        "containerd_version": "",
        "fingerprints": ["9DC858229FC7DD38854AE2D88D81803C0EBFCD88"],
        "live_restore": True,
        "log_driver": "json-file",
        "log_options": {"max-size": "50m", "max-file": 3},
        "default_ulimits": {"nofile": {"soft": 1024, "hard": 2048}},
        "cdi": True,
        "address_pools": [],
        "bip": "",
        "data_root": "",
        "registry_mirrors": [],
        "registry_cas": [],
        "settings": {},
    } | changes


def toolkit(**changes: Any) -> dict[str, Any]:
    return {
        "version": "1.19.1",
        "minimum_version": "1.19.1",
        "family": "Debian",
        "repository": "",
        "fingerprints": ["C95B321B61E88C1809C4F759DDCAE044F796ECB0"],
        "files": [],
        "runtimes": ["docker"],
        "nvidia_runtime": False,
        "devices": [],
    } | changes


def test_the_engines_settings() -> None:
    plan = ei.engine_plan(
        engine(bip="172.30.0.1/24", settings={"log-driver": "local", "dns": ["10.0.0.1"]}), "Debian", "13"
    )
    assert plan["errors"] == []
    assert plan["settings"] == {
        "live-restore": True,
        "log-driver": "local",
        "log-opts": {"max-size": "50m", "max-file": "3"},
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 2048}},
        "bip": "172.30.0.1/24",
        "dns": ["10.0.0.1"],
    }
    assert plan["versioned"] == [{"since": "25.0", "settings": {"features": {"cdi": True}}}]


@pytest.mark.parametrize(
    ("source", "distribution", "major", "packages"),
    [
        ("distro", "Debian", "12", ["docker.io"]),
        ("distro", "Debian", "13", ["docker.io", "docker-cli"]),
        ("distro", "Ubuntu", "24", ["docker.io"]),
        ("existing", "Debian", "13", []),
        (
            "docker",
            "Debian",
            "12",
            ["docker-ce=5:28.5.2-*", "docker-ce-cli=5:28.5.2-*", "containerd.io", "docker-buildx-plugin"],
        ),
    ],
)
def test_the_engines_packages(source: str, distribution: str, major: str, packages: list[str]) -> None:
    assert ei.engine_plan(engine(source=source), distribution, major)["packages"] == packages


@pytest.mark.parametrize("distribution", ["Rocky", "RedHat", ""])
@pytest.mark.parametrize("source", ["distro", "docker"])
def test_an_engine_that_apt_installs_is_refused_elsewhere(source, distribution):
    (error,) = ei.engine_plan(engine(source=source, version="28.5.2"), distribution, "9")["errors"]
    assert error.startswith(f'docker_engine_source: "{source}" installs an engine by apt, and this host is ')
    assert 'say "existing"' in error
    assert ei.engine_plan(engine(source="existing"), distribution, "9")["errors"] == []


def test_registry_certificates_become_files() -> None:
    plan = ei.engine_plan(engine(registry_cas=[{"registry": "r.example.com:5000", "ca": PEM}]), "Debian", "13")
    assert plan["files"] == [{"path": "/etc/docker/certs.d/r.example.com:5000/ca.crt", "content": PEM + "\n"}]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"source": "docker", "version": "latest"}, 'docker_engine_version: "latest" is not a version'),
        ({"source": "docker", "version": "28.5"}, 'docker_engine_version: "28.5" is not a version'),
        ({"source": "docker", "fingerprints": []}, "docker_engine_repository_fingerprints: is empty"),
        ({"source": "docker", "fingerprints": ["81803C0E"]}, "not a full fingerprint"),
        ({"bip": "172.30.0.0/24"}, 'docker_engine_bip: "172.30.0.0/24" does not work'),
        ({"bip": "172.30.0.1"}, "docker_engine_bip"),
        ({"bip": "docker"}, "Write it like 172.30.0.1/24"),
        ({"address_pools": [{"base": "10.0.0.1/8", "size": 24}]}, "docker_engine_address_pools[0].base"),
        ({"address_pools": [{"base": "10.1.0.0/16", "size": 8}]}, "Allowed: 16 to 32"),
        (
            {"address_pools": [{"base": "10.1.0.0/16", "size": 24}, {"base": "10.0.0.0/8", "size": 24}]},
            "docker_engine_address_pools[1].base: 10.0.0.0/8 overlaps docker_engine_address_pools[0] (10.1.0.0/16)",
        ),
        ({"default_ulimits": {"nofile": {"soft": 5, "hard": 4}}}, "soft (5) is above hard (4)"),
        ({"default_ulimits": {"nofile": 5}}, "docker_engine_default_ulimits.nofile"),
        ({"registry_mirrors": ["mirror.example.com"]}, "docker_engine_registry_mirrors[0]"),
        ({"registry_cas": [{"registry": "r:99999", "ca": PEM}]}, '"r:99999" is not a registry'),
        ({"registry_cas": [{"registry": "../../etc", "ca": PEM}]}, "is not a registry"),
        ({"registry_cas": [{"registry": "r\n", "ca": PEM}]}, "is not a registry"),
        ({"registry_cas": [{"registry": "r", "ca": "/etc/ca.pem"}]}, "is not a certificate in PEM form"),
        (
            {"registry_cas": [{"registry": "r", "ca": PEM + "\n-----BEGIN PRIVATE KEY-----"}]},
            "docker_engine_registry_cas[0].ca: holds a private key",
        ),
    ],
)
def test_engine_inputs_that_are_refused(changes: dict[str, Any], error: str) -> None:
    errors = ei.engine_plan(engine(**changes), "Debian", "13")["errors"]
    assert any(error in one for one in errors), errors


def test_all_errors_come_together() -> None:
    plan = ei.engine_plan(engine(bip="x", registry_mirrors=["y"], default_ulimits={"nofile": 1}), "Debian", "13")
    assert len(plan["errors"]) == 3


@given(st.text(max_size=40))
def test_a_registry_never_leaves_its_folder(name: str) -> None:
    plan = ei.engine_plan(engine(registry_cas=[{"registry": name, "ca": PEM}]), "Debian", "13")
    if not plan["errors"]:
        path = plan["files"][0]["path"]
        assert path.count("/") == 5
        assert ".." not in path
        assert path.isprintable()


def test_the_toolkits_packages_and_settings() -> None:
    plan = ei.toolkit_plan(toolkit())
    assert plan["errors"] == []
    assert plan["packages"] == [f"{name}=1.19.1-*" for name in ei.TOOLKIT_PACKAGES]
    assert plan["versioned"][0] == {"since": "25.0", "settings": {"features": {"cdi": True}}}
    assert "runtimes" in plan["versioned"][1]["settings"]
    assert "knows no CDI" in plan["versioned"][1]["note"]
    assert "runtimes" in ei.toolkit_plan(toolkit(nvidia_runtime=True))["versioned"][0]["settings"]
    assert ei.toolkit_plan(toolkit(runtimes=["podman"]))["versioned"] == []


def test_where_the_toolkit_comes_from_by_the_family_of_the_system() -> None:
    debian, redhat = ei.toolkit_plan(toolkit()), ei.toolkit_plan(toolkit(family="RedHat"))
    assert (debian["packaging"], redhat["packaging"]) == ("apt", "rpm")
    assert debian["repository"].endswith("/stable/deb/$(ARCH)")
    assert redhat["repository"].endswith("/stable/rpm/$basearch")
    assert redhat["packages"] == [f"{name}-1.19.1-*" for name in ei.TOOLKIT_PACKAGES]
    mirror = "https://mirror.example.com/rpm"
    assert ei.toolkit_plan(toolkit(family="RedHat", repository=mirror))["repository"] == mirror


def test_below_the_floor_the_cves_are_named() -> None:
    (error,) = ei.toolkit_plan(toolkit(version="1.17.6"))["errors"]
    assert "1.17.6 is below nvidia_container_toolkit_minimum_version (1.19.1)" in error
    assert "CVE-2025-23266, CVE-2025-23267, CVE-2026-24260" in error
    assert "CVE-2024-0132" not in error


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"family": "Suse"}, "This host is of the family Suse, and NVIDIA has no packages"),
        (
            {"family": "RedHat", "files": [{"path": "/a", "sha256": "0" * 64}]},
            "are Debian packages, and this host takes RPMs",
        ),
        (
            {"family": "RedHat", "repository": "https://mirror.example.com/deb/$(ARCH)"},
            "deb/$(ARCH) is for apt, and this host takes RPMs. Name the mirror's stable/rpm/$basearch",
        ),
        ({"version": "latest"}, 'nvidia_container_toolkit_version: "latest" is not a version'),
        ({"version": "1.19.1-1"}, "is not a version"),
        ({"fingerprints": ["x"]}, "nvidia_container_toolkit_repository_fingerprints[0]"),
        ({"runtimes": ["docker", "rkt"]}, 'nvidia_container_toolkit_runtimes[1]: "rkt" is not a runtime'),
        ({"devices": ["0"]}, 'nvidia_container_toolkit_devices[0]: "0" is not a CDI device'),
        ({"files": [{"path": "/a.deb", "sha256": "x"}]}, "nvidia_container_toolkit_files[0].sha256"),
        (
            {"files": [{"path": "/a.deb", "sha256": "0" * 64}], "repository": "https://mirror.example.com/"},
            "both are given",
        ),
    ],
)
def test_toolkit_inputs_that_are_refused(changes: dict[str, Any], error: str) -> None:
    errors = ei.toolkit_plan(toolkit(**changes))["errors"]
    assert any(error in one for one in errors), errors
