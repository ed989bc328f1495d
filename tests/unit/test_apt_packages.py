# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages have to be installed, from what dpkg and apt say."""

from __future__ import annotations

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import apt_packages as ap

STATUS = """\
docker.io\tii \t26.1.5+dfsg1-9
docker-cli\thi \t26.1.5+dfsg1-9
containerd\tiU \t1.7.24
old\trc \t1.0
never\tun \t
half\tiHR\t2.0
"""


def test_status() -> None:
    found = ap.parse_status(STATUS)
    assert set(found) == {"docker.io", "docker-cli", "containerd", "half"}
    assert found["docker.io"] == ap.Installed("26.1.5+dfsg1-9", whole=True, held=False)
    assert found["docker-cli"].held
    assert not found["containerd"].whole
    assert not found["half"].whole


@pytest.mark.parametrize(
    ("names", "todo"),
    [
        (["docker.io"], []),
        (["docker.io=26.1.5+dfsg1-9", "docker-cli=26.1.*"], []),
        (["docker.io=26.1.4*"], ["docker.io"]),
        (["containerd", "old", "missing", "half"], ["containerd", "old", "missing", "half"]),
    ],
)
def test_what_is_missing_half_or_of_another_version_is_installed(names: list[str], todo: list[str]) -> None:
    wanted = ap.parse_wanted(names)
    assert [one.name for one in ap.to_install(wanted, ap.parse_status(STATUS))] == todo


@pytest.mark.parametrize("name", ["", "-y", "a b", "a;b", "A", "a=", "a=1 2", "--option=x", "x=$(id)"])
def test_what_is_no_package_is_refused(name: str) -> None:
    with pytest.raises(ap.PackageError, match="is not a package"):
        ap.parse_wanted([name])


MADISON = """\
 docker-ce | 5:28.5.2-1~debian.13~trixie | https://download.docker.com/linux/debian trixie/stable amd64 Packages
 docker-ce | 5:28.5.1-1~debian.13~trixie | https://download.docker.com/linux/debian trixie/stable amd64 Packages
 docker-ce | 5:28.5.1-1~debian.13~trixie | https://mirror.example.com trixie/stable amd64 Packages
"""


def test_the_newest_version_that_fits() -> None:
    known = ap.parse_madison(MADISON)
    assert ap.choose(ap.Wanted("docker-ce"), known["docker-ce"]) == "5:28.5.2-1~debian.13~trixie"
    assert ap.choose(ap.Wanted("docker-ce", "5:28.5.1-*"), known["docker-ce"]) == "5:28.5.1-1~debian.13~trixie"


def test_what_no_list_has_is_named_with_what_it_has() -> None:
    known = ap.parse_madison(MADISON)
    found = ap.missing([ap.Wanted("docker-ce", "5:29.0.0-*"), ap.Wanted("nothing"), ap.Wanted("docker-ce")], known)
    assert found == [
        "docker-ce 5:29.0.0-* is not in the package lists: they have 5:28.5.2-1~debian.13~trixie, "
        "5:28.5.1-1~debian.13~trixie",
        "nothing is not in the package lists: they have no version of it",
    ]


SIMULATED = """NOTE: This is only a simulation!
Remv docker.io [26.1.5+dfsg1-9+deb13u1]
Remv docker-cli [26.1.5+dfsg1-9+deb13u1] [docker.io:amd64 ]
Inst containerd.io (1.7.24-1~debian.13~trixie localhost [amd64])
Conf docker-ce (5:28.5.2-1~debian.13~trixie localhost [amd64])
"""


def test_what_would_have_to_go_is_named_with_the_way() -> None:
    assert ap.removals(SIMULATED) == ["docker-cli", "docker.io"]
    text = ap.why_not_installed("docker-ce=5:28.5.2", ap.removals(SIMULATED), "E: remove is disabled.")
    assert "would remove docker-cli, docker.io" in text
    assert "(apt-get remove docker-cli docker.io)" in text
    assert ap.removals("Inst a (1)\n") == []
    assert ap.why_not_installed("a=1", [], "E: broken") == "Installing a=1 failed on this host:\nE: broken"
