# SPDX-License-Identifier: GPL-3.0-or-later
"""The validators let nothing through that could mean something else in a configuration file or a shell."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import validators as v
from hypothesis import given
from hypothesis import strategies as st

PLAIN = (
    v.name, v.login, v.host, v.host_alias, v.path, v.ip,
    v.network, v.image, v.gpu, v.cpus, v.size, v.env_name,
)  # fmt: skip
EVIL = [*"\n\r\t '\"`\\;|&*?!,#={}()<>^~\0\u00e9\u2028\u202e", "$(id)", "$x", "%h"]
SEEDS = [
    "ada", "gpu-01", "gpu-01.example.com", "/data/sets", "192.0.2.10", "192.0.2.0/24", "2001:db8::1",
    "r.example:5000/a/b:1.0", "GPU-8f7c1f52-0000-1111-2222-333344445555", "0:1", "64g", "0.5", "HF_HOME",
]  # fmt: skip
SPOILT = st.builds(
    lambda seed, evil, where: seed[:where] + evil + seed[where:],
    st.sampled_from(SEEDS),
    st.sampled_from(EVIL),
    st.integers(0, 20),
)


@pytest.mark.parametrize("check", PLAIN, ids=lambda check: check.__name__)
@given(text=st.text(max_size=40) | SPOILT)
def test_nothing_special_passes(check, text):
    try:
        passed = check(text)
    except v.InvalidError:
        return
    assert passed
    assert passed.isascii()
    assert not passed.startswith("-")
    assert not set(passed) & set("\n\r\t '\"`$%\\;|&*?!,#={}()<>[]^~\0")


BAD_EVERYWHERE = [None, True, [], {}, "", " ", "-x", "a\nb", "a\n", "\na", "-oProxyCommand=id"]


@pytest.mark.parametrize("check", PLAIN, ids=lambda check: check.__name__)
@pytest.mark.parametrize("value", BAD_EVERYWHERE)
def test_refused_everywhere(check, value):
    with pytest.raises(v.InvalidError):
        check(value)


@pytest.mark.parametrize("value", ["ada", "_svc", "a", "grace-h", "x" * 31])
def test_logins(value):
    assert v.login(value) == value


@pytest.mark.parametrize(
    "value", ["Ada", "1ada", "a" * 32, "ada.l", "ada$", "root", "nobody", "ada l", "add\n", "-ada"]
)
def test_no_logins(value):
    with pytest.raises(v.InvalidError):
        v.login(value)


@pytest.mark.parametrize("value", ["gpu-01", "gpu-01.example.com", "10.0.0.5", "2001:db8::1", "a"])
def test_hosts(value):
    assert v.host(value) == value


NO_HOSTS = [
    "GPU-01", "gpu_01", "a..b", ".a", "a.", "10.0.0", "10.0.0.256", "host.10", "2001:DB8::1", "2001:db8:0::1",
    "::1%eth0", "::", "gpu\n", "gpu-01\nHost *", "-oProxyCommand=x", "a b", "a" * 64, "[::1]", "a:22",
    "224.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("value", NO_HOSTS)
def test_no_hosts(value):
    with pytest.raises(v.InvalidError):
        v.host(value)


def test_networks():
    assert v.network("10.0.0.0/8") == "10.0.0.0/8"
    assert v.network("10.0.0.1") == "10.0.0.1/32"
    assert v.network("2001:db8::/32") == "2001:db8::/32"
    with pytest.raises(v.InvalidError, match=r"write 10\.0\.0\.0/8"):
        v.network("10.0.0.1/8")
    for value in ("10.0.0.0/33", "10.0.0.0/255.0.0.0x", "any", "fe80::%eth0/64", "10.0.0.1/0 "):
        with pytest.raises(v.InvalidError):
            v.network(value)


@given(st.ip_addresses())
def test_every_address_has_one_spelling(address):
    try:
        passed = v.ip(str(address))
    except v.InvalidError:
        return
    assert ipaddress.ip_address(passed) == address
    assert v.host(passed) == passed


def test_numbers():
    assert v.port(22) == v.port("22") == 22
    assert v.uid(2001) == 2001
    for value in (0, 65536, True, "022", "22 ", 22.0, None, "-1", "٢٢"):
        with pytest.raises(v.InvalidError):
            v.port(value)
    for value in (999, 0, 65534, 60000, 2**31, "x"):
        with pytest.raises(v.InvalidError):
            v.uid(value)


def test_sizes():
    assert v.size_bytes("1k") == 1024
    assert v.size("64G") == "64g"
    assert v.cpus(4) == "4"
    for value in ("64 g", "0g", "-1g", "1.5g", "g", "1kb", "٦g", "1m"):
        with pytest.raises(v.InvalidError):
            v.size(value)
    for value in ("0", "0.0", "-1", "1e3", "1.2345"):
        with pytest.raises(v.InvalidError):
            v.cpus(value)


def test_images():
    for value in ("pytorch/pytorch:2.8.0-cuda12.8", "r.lab.internal:5000/x:1", "a@sha256:" + "0" * 64):
        assert v.image(value) == value
    for value in ("pytorch/pytorch", "pytorch/pytorch:latest", "A/b:1", "r:5000/x", "a:1 --x", "a:1\n"):
        with pytest.raises(v.InvalidError):
            v.image(value)


def test_paths():
    assert v.path("/srv/data_1/x.y") == "/srv/data_1/x.y"
    for value in ("data", "/a/../b", "/a//b", "/a/", "/a b", "/a:b", "/a,b", "/a\n", "/./a", "~/x"):
        with pytest.raises(v.InvalidError):
            v.path(value)


def test_environment():
    assert v.env_value('a "b" c') == 'a "b" c'
    for value in ("a\nb", "-----BEGIN OPENSSH PRIVATE KEY-----", True, ["x"], "x\x1b[0m"):
        with pytest.raises(v.InvalidError):
            v.env_value(value)


def test_booleans():
    assert v.boolean("yes") is True
    assert v.boolean(False) is False
    for value in ("1", 1, None, "maybe"):
        with pytest.raises(v.InvalidError):
            v.boolean(value)


ANYTHING = st.recursive(
    st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(ANYTHING)
def test_shown_values_stay_on_one_line(value):
    shown = v.show(value)
    assert shown.isprintable()
    assert len(shown) <= 80


def test_secrets_are_not_shown():
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAA\n"
    assert "b3Blb" not in v.show({"keys": [key]})
    assert v.holds_private_key([{"a": ("x", key)}])
    assert not v.holds_private_key({"a": "public"})
