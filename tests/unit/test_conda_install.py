# SPDX-License-Identifier: GPL-3.0-or-later
"""Which conda a host should have, what it has, and what follows."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import conda_install
from ansible_collections.devnode.gpu.plugins.module_utils.conda_install import Found, Marker, Wanted, decide
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError
from hypothesis import given
from hypothesis import strategies as st

SHA = "a" * 64
WANTED = Wanted("miniconda", "26.5.3-1", "3.11", "Miniconda3-py311_26.5.3-1-Linux-x86_64.sh", SHA)


def marker(version: str = "26.5.3-1", distribution: str = "miniconda", sha256: str = SHA) -> Marker:
    return Marker(distribution, version, "3.11", f"Miniconda3-py311_{version}-Linux-x86_64.sh", sha256)


def found(**changes: Any) -> Found:
    values: dict[str, Any] = {
        "exists": True,
        "conda_like": True,
        "conda": "26.5.3",
        "python": "3.11",
        "marker": marker(),
    }
    return Found(**{**values, **changes})


@pytest.mark.parametrize(
    ("there", "action", "method"),
    [
        (Found(), "install", "fresh"),
        (found(), "none", ""),
        (found(conda="26.3.2", marker=marker("26.3.2-2")), "upgrade", "over"),
        (found(marker=marker("26.5.3-0")), "upgrade", "over"),
        (found(conda="26.7.1", marker=marker("26.7.1-1")), "refuse", ""),
        (found(marker=marker(sha256="b" * 64)), "upgrade", "over"),
        (found(marker=marker("26.3.2-3", "miniforge")), "refuse", ""),
        # damaged
        (found(missing=("bin/conda",)), "repair", "over"),
        (found(python="3.13"), "repair", "over"),
        (found(conda="26.1.1"), "repair", "over"),
        # interrupted
        (found(interrupted="install", marker=None), "repair", "clean"),
        (found(interrupted="install", marker=None, environments=1), "repair", "over"),
        (found(interrupted="update", marker=None), "repair", "over"),
        # somebody else's
        (found(marker=None, missing=("package conda",), conda=""), "repair", "over"),
        (found(marker=None, conda_like=False, conda="", python=""), "refuse", ""),
        (found(marker=None), "adopt", ""),
        (found(marker=None, conda="26.1.1"), "upgrade", "over"),
        (found(marker=None, conda="26.7.1"), "refuse", ""),
    ],
)
def test_what_follows(there: Found, action: str, method: str) -> None:
    decision = decide(WANTED, there)
    assert (decision.action, decision.method) == (action, method)
    assert decision.reason or action == "none"


def test_a_downgrade_has_to_be_asked_for() -> None:
    newer = found(conda="26.7.1", marker=marker("26.7.1-1"))
    assert "miniconda_allow_downgrade" in decide(WANTED, newer).reason
    assert decide(WANTED, newer, allow_downgrade=True).method == "over"


def test_a_conda_updated_by_hand_is_kept_and_said() -> None:
    decision = decide(WANTED, found(conda="26.7.1"))
    assert decision.action == "none"
    assert "26.7.1" in decision.note


@given(st.lists(st.integers(0, 99), min_size=4, max_size=4), st.lists(st.integers(0, 99), min_size=4, max_size=4))
def test_versions_are_compared_as_numbers(one: list[int], two: list[int]) -> None:
    def text(parts: list[int]) -> str:
        return f"{parts[0]}.{parts[1]}.{parts[2]}-{parts[3]}"

    assert (conda_install.version_key(text(one)) < conda_install.version_key(text(two))) == (one < two)


@given(
    st.sampled_from(["miniconda", "miniforge"]),
    st.sampled_from(["3.9", "3.11", "3.13"]),
    st.sampled_from(["x86_64", "aarch64"]),
)
def test_an_installers_name_says_what_it_was_made_of(distribution: str, python: str, arch: str) -> None:
    said = conda_install.parse_installer_name(conda_install.installer_name(distribution, python, "26.5.3-1", arch))
    assert said["distribution"] == distribution
    assert said["python"] == (python if distribution == "miniconda" else "")
    assert (said["version"], said["arch"]) == ("26.5.3-1", arch)


def test_a_name_that_says_nothing() -> None:
    assert conda_install.parse_installer_name("installer.sh") == {}


@pytest.mark.parametrize("prefix", ["/opt/miniconda", "/srv/conda", "/data/soft/conda", "/usr/local/miniconda"])
def test_places_for_conda(prefix: str) -> None:
    assert conda_install.prefix_path(prefix) == prefix


NOT_FOR_CONDA = [
    "/",
    "/opt",
    "/home/ada/conda",
    "/root/conda",
    "/usr/bin",
    "/etc/conda",
    "/run/conda",
    "/var/lib",
    "opt/x",
]


@pytest.mark.parametrize(
    "prefix", [*NOT_FOR_CONDA, "/opt/../x", "/opt/a b", "/opt/x/", "/opt/$(id)", "/opt/ü", "/opt/x\n", "", None]
)
def test_places_that_are_not(prefix: Any) -> None:
    with pytest.raises(InvalidError):
        conda_install.prefix_path(prefix)


def test_the_marker_survives_its_file_and_a_damaged_one_counts_as_none() -> None:
    assert Marker.load(marker().dump()) == marker()
    for text in ("", "{}", "[]", "null", '{"made_by": "devnode.gpu.conda_prefix", "format": 1}'):
        assert Marker.load(text) is None
