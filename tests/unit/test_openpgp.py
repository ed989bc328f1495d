# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of repository keys. The keys in data/ were made here by gpg, which also told their fingerprints."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import openpgp
from hypothesis import given
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data"
ED25519 = "ADC27419B7B70BE3C48E45C0A34B479D81678402"
RSA = "A63F6AB859488C79FC49F58C751DABD87AF2BAC6"


def armored() -> bytes:
    return (DATA / "openpgp-ed25519.asc").read_bytes()


def binary() -> bytes:
    lines = armored().split(b"\n\n", 1)[1].split(b"\n=")[0]
    return base64.b64decode(lines)


def test_as_gpg_says() -> None:
    assert openpgp.fingerprints(armored()) == [ED25519]
    assert openpgp.fingerprints(binary()) == [ED25519]
    assert openpgp.fingerprints((DATA / "openpgp-two-keys.asc").read_bytes()) == [ED25519, RSA]


def test_every_key_counts_not_only_the_first() -> None:
    assert openpgp.fingerprints(armored() + (DATA / "openpgp-two-keys.asc").read_bytes()) == [ED25519, ED25519, RSA]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no OpenPGP public key"),
        (b"<html>404</html>", "not OpenPGP data"),
        (
            b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nxx\n-----END PGP PRIVATE KEY BLOCK-----\n",
            "not a PUBLIC KEY BLOCK",
        ),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!\n-----END PGP PUBLIC KEY BLOCK-----\n", "armor is damaged"),
        (binary()[:40], "cut short"),
        (bytes([0x80 | 5 << 2, 1, 4]), "secret key"),
        (bytes([0x80 | 6 << 2, 1, 6]), "version 06"),
        (bytes([0x80 | 6 << 2 | 3]), "open length"),
    ],
)
def test_what_is_not_a_public_key(data: bytes, why: str) -> None:
    with pytest.raises(openpgp.OpenPGPError, match=why):
        openpgp.fingerprints(data)


@given(st.binary(max_size=200))
def test_rubbish_never_raises_anything_else(data: bytes) -> None:
    with contextlib.suppress(openpgp.OpenPGPError):
        openpgp.fingerprints(data)


def test_fingerprints_as_people_write_them() -> None:
    spaced = "adc2 7419 b7b7 0be3 c48e  45c0 a34b 479d 8167 8402"
    assert openpgp.normal(spaced) == ED25519
    assert openpgp.normal("0x" + ED25519) == ED25519
    with pytest.raises(openpgp.OpenPGPError, match="not a full fingerprint"):
        openpgp.normal("81678402")
