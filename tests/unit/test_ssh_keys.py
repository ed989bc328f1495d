# SPDX-License-Identifier: GPL-3.0-or-later
"""Public keys: what ssh-keygen takes is read the same way; what is no key is refused with its reason."""

from __future__ import annotations

import base64
import subprocess

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError
from hypothesis import given
from hypothesis import strategies as st


def _make(folder, *options):
    path = folder / "-".join(options).strip("-")
    command = ["ssh-keygen", "-q", "-N", "", "-C", "ada@laptop", "-f", path, *options]
    subprocess.run(command, check=True, timeout=60)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    kinds = {"ed25519": ["-t", "ed25519"]}
    kinds |= {"rsa": ["-t", "rsa", "-b", "3072"], "short": ["-t", "rsa", "-b", "2048"]}
    kinds |= {f"ecdsa{bits}": ["-t", "ecdsa", "-b", bits] for bits in ("256", "384", "521")}
    return {kind: _make(folder, *options) for kind, options in kinds.items()}


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa256", "ecdsa384", "ecdsa521"])
def test_reads_as_ssh_keygen_does(keys, kind):
    pub = keys[kind].with_suffix(".pub")
    key = public_key(pub.read_text())
    command = ["ssh-keygen", "-l", "-f", pub]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
    assert key.fingerprint == shown.split()[1]
    assert key.line == pub.read_text().strip()
    assert public_key(key.line) == key
    assert key.comment == "ada@laptop"


def _line(kind, *parts):
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind.encode(), *parts))
    return f"{kind} {base64.b64encode(blob).decode()}"


def test_security_key():
    assert public_key(_line("sk-ssh-ed25519@openssh.com", b"x" * 32, b"ssh:")).type.startswith("sk-")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "not the text"),
        (None, "not the text"),
        (["x"], "not the text"),
        ("ssh-ed25519", "no key behind"),
        ("ssh-ed25519 AAAA", "cut short"),
        ("ssh-ed25519 AAA!", "no key behind"),
        ("ssh-ed25519 AAAAC", "damaged"),
        (_line("ssh-ed25519", b"x" * 31), "not a sound"),
        (_line("ssh-ed25519", b"x" * 32, b"more"), "behind its end"),
        (_line("ssh-ed25519", b"x" * 32).replace("ssh-ed25519", "ssh-rsa"), "another type"),
        ("ssh-dss AAAA", "DSA"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"),
        ('command="id" ' + _line("ssh-ed25519", b"x" * 32), "options"),
        ('from="a b" ' + _line("ssh-ed25519", b"x" * 32), "options"),
        (_line("ssh-ed25519", b"x" * 32) + " me\nssh-rsa AAAA", "more than one line"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "private key"),
        (_line("sk-ssh-ed25519@openssh.com", b"x" * 32), "cut short"),
    ],
)
def test_refused_with_a_reason(value, why):
    with pytest.raises(InvalidError, match=why):
        public_key(value)


def test_short_and_private(keys):
    with pytest.raises(InvalidError, match="2048 bits"):
        public_key(keys["short"].with_suffix(".pub").read_text())
    with pytest.raises(InvalidError, match="private key"):
        public_key(keys["ed25519"].read_text())


GOOD = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00 " + bytes(range(32))


@given(st.just(GOOD) | st.binary(max_size=80), st.text(max_size=20))
def test_never_another_error(blob, comment):
    try:
        key = public_key(f"ssh-ed25519 {base64.b64encode(blob).decode()} {comment}")
    except InvalidError:
        return
    assert "\n" not in key.line
