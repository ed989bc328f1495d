# SPDX-License-Identifier: GPL-3.0-or-later
"""What other source files say about a repository is found and taken out; the rest of them stays."""

from __future__ import annotations

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import apt_sources

NVIDIA = ["https://nvidia.github.io/libnvidia-container/"]
LEGACY = """\
# NVIDIA, as its guide of 2021 said
deb https://nvidia.github.io/libnvidia-container/stable/ubuntu18.04/$(ARCH) /
#deb https://nvidia.github.io/libnvidia-container/experimental/ubuntu18.04/$(ARCH) /
"""
SIGNED = (
    "deb [signed-by=/usr/share/keyrings/nvidia.gpg] http://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n"
)
DEBIAN = "deb http://deb.debian.org/debian trixie main\n"
STANZA = """\
# a comment
Types: deb
URIs: https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)
Suites: /
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQ
 -----END PGP PUBLIC KEY BLOCK-----
"""
OTHER = "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: trixie\nComponents: main\n"


@pytest.mark.parametrize("text", [LEGACY, SIGNED])
def test_a_file_with_nothing_else_goes(text: str) -> None:
    assert apt_sources.without(text, NVIDIA, deb822=False) == ""


def test_other_lines_of_the_file_stay_as_they_are() -> None:
    assert apt_sources.without(DEBIAN + SIGNED + "# end\n", NVIDIA, deb822=False) == DEBIAN + "# end\n"


@pytest.mark.parametrize(
    "text", [DEBIAN, "# " + SIGNED, "deb https://nvidia.github.io/libnvidia-container2/x /\n", "", "nonsense\n"]
)
def test_a_file_without_it_is_left(text: str) -> None:
    assert apt_sources.without(text, NVIDIA, deb822=False) is None


def test_stanzas() -> None:
    assert apt_sources.without(STANZA, NVIDIA, deb822=True) == ""
    assert apt_sources.without(OTHER + "\n" + STANZA, NVIDIA, deb822=True) == OTHER
    assert apt_sources.without(OTHER, NVIDIA, deb822=True) is None
    assert apt_sources.without("Enabled: no\n" + STANZA, NVIDIA, deb822=True) is None


def test_a_repository_is_the_same_by_any_scheme_and_slash() -> None:
    assert apt_sources.names_repository("http://NVIDIA.github.io//libnvidia-container", NVIDIA)
    assert apt_sources.names_repository("file:///srv/repo/stable/deb/$(ARCH)", ["file:/srv/repo/stable/deb/$(ARCH)"])
    assert not apt_sources.names_repository("https://example.org/nvidia.github.io/libnvidia-container", NVIDIA)


def test_our_source_and_pin() -> None:
    text = apt_sources.render_source(["https://x/deb/$(ARCH)"], ["/"], [], "/etc/apt/keyrings/x.asc", [], "Ours")
    assert text == ("# Ours\nTypes: deb\nURIs: https://x/deb/$(ARCH)\nSuites: /\nSigned-By: /etc/apt/keyrings/x.asc\n")
    assert apt_sources.without(text, ["https://x/deb/"], deb822=True) == ""
    pin = apt_sources.render_pin(["a", "b"], "x", 900, "Ours")
    assert 'Package: a b\nPin: origin "x"\nPin-Priority: 900' in pin
