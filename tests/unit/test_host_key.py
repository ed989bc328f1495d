# SPDX-License-Identifier: GPL-3.0-or-later
"""Module host_key on files: the certificate goes with the key that is served, there and back."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.modules import host_key

NAME = "ssh_host_ed25519_key"


class Here(host_key.HostKey):
    """In a folder; sshd is a word for what it answers with."""

    serves = ""

    def served(self) -> str:
        return self.serves

    def run(self, *argv: str) -> str:
        if argv[0] == "reload":
            type(self).serves = self.public("key") or "" if argv[1] == "well" else "something else"
            return ""
        return super().run(*argv)


def run_command(argv: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def stage(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    params = {"stage": name, "directory": str(folder), "type": "ed25519", "comment": "c", "wait_hours": 0.0,
              "reload": ["reload", "well"], "address": "", "port": 0, "certificate": "", **more}  # fmt: skip
    module: Any = SimpleNamespace(params=params, check_mode=False, run_command=run_command)
    return host_key.change(Here(module), module)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / NAME], check=True)
    monkeypatch.setattr(host_key, "PATIENCE", 0.0)
    Here.serves = " ".join((tmp_path / f"{NAME}.pub").read_text().split()[:2])
    return tmp_path


def test_what_is_signed_is_the_key_that_comes_and_it_comes_with_its_certificate(folder: Path) -> None:
    certificate = folder / f"{NAME}-cert.pub"
    certificate.write_text("the old one\n")
    now = Here.serves
    [before] = stage(folder, "look")["to_sign"]
    assert before == {"path": str(certificate), "key": now, "certificate": "the old one\n"}
    [coming] = stage(folder, "publish")["to_sign"]
    assert coming["key"] != now
    assert certificate.read_text() == "the old one\n"
    stage(folder, "serve", certificate="the new one\n")
    assert (Here.serves, certificate.read_text()) == (coming["key"], "the new one\n")
    stage(folder, "drop")
    assert certificate.read_text() == "the new one\n"


def test_a_key_that_sshd_does_not_take_goes_back_with_its_certificate(folder: Path) -> None:
    certificate = folder / f"{NAME}-cert.pub"
    certificate.write_text("the old one\n")
    now = Here.serves
    stage(folder, "publish")
    with pytest.raises(host_key.FailedError, match="does not serve"):
        stage(folder, "serve", certificate="the new one\n", reload=["reload", "badly"])
    assert " ".join((folder / f"{NAME}.pub").read_text().split()[:2]) == now
    assert certificate.read_text() == "the old one\n"


def test_a_host_without_certificates_gets_none(folder: Path) -> None:
    assert stage(folder, "publish")["to_sign"] == []
    stage(folder, "serve", certificate="the new one\n")
    assert not (folder / f"{NAME}-cert.pub").exists()
