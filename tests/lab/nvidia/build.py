# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the STAND-IN for NVIDIA's package repository: a small signed apt repository, made on the spot.

    python tests/lab/nvidia/build.py OUT

makes in OUT:
    stable/deb/<arch>/    the four packages of the NVIDIA Container Toolkit, at the versions below, with a signed index
    gpgkey                the public key, armored; made for this build and thrown away with it
    facts.json            repository, key, fingerprint and versions, as inputs of role nvidia_container_toolkit

What is real: the packages' format, names, versions and dependencies on each other; the repository's layout and its
signature. What is not: what is in the packages (payload/, each file says so itself). Needs gpg. The result is kept as
long as its inputs are the same.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSIONS = ("1.18.2-1", "1.19.1-1", "1.20.0-1")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
USER_ID = "devnode.gpu lab, stand-in for NVIDIA's repository"
EPOCH = 1_780_000_000
MAINTAINER = "devnode.gpu lab <lab@example.invalid>"

BASE_POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
  /usr/bin/nvidia-ctk --quiet config --config-file=/etc/nvidia-container-runtime/config.toml --in-place
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    systemctl enable --quiet nvidia-cdi-refresh.service nvidia-cdi-refresh.path || true
    systemctl restart nvidia-cdi-refresh.path || true
    systemctl restart nvidia-cdi-refresh.service || true
  fi
fi
"""
BASE_PRERM = """#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl disable --quiet --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service || true
fi
"""


@dataclass(frozen=True)
class Package:
    name: str
    depends: str
    files: dict[str, tuple[str, int]]  # path on the host: (payload, mode)
    scripts: dict[str, str]

    def deb(self, version: str, arch: str) -> bytes:
        control = (
            f"Package: {self.name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: {MAINTAINER}\n"
            f"Section: utils\nPriority: optional\n"
            + (f"Depends: {self.depends.replace('@', version)}\n" if self.depends else "")
            + f"Description: STAND-IN for {self.name}, from devnode.gpu's lab\n Not NVIDIA's package.\n"
        )
        meta = {"./control": (control.encode(), 0o644)}
        meta |= {f"./{name}": (text.encode(), 0o755) for name, text in self.scripts.items()}
        data = {
            f".{path}": ((HERE / "payload" / source).read_bytes().replace(b"@VERSION@", version[:-2].encode()), mode)
            for path, (source, mode) in self.files.items()
        }
        members = [
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", _tar(meta)),
            ("data.tar.xz", _tar(data)),
        ]
        return b"!<arch>\n" + b"".join(_ar_member(name, content) for name, content in members)


PACKAGES = (
    Package(
        "nvidia-container-toolkit-base",
        "",
        {
            "/usr/bin/nvidia-ctk": ("nvidia-ctk", 0o755),
            "/usr/bin/nvidia-cdi-hook": ("nvidia-cdi-hook", 0o755),
            "/usr/bin/nvidia-container-runtime": ("nvidia-container-runtime", 0o755),
            "/usr/lib/systemd/system/nvidia-cdi-refresh.service": ("nvidia-cdi-refresh.service", 0o644),
            "/usr/lib/systemd/system/nvidia-cdi-refresh.path": ("nvidia-cdi-refresh.path", 0o644),
        },
        {"postinst": BASE_POSTINST, "prerm": BASE_PRERM},
    ),
    Package(
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base (= @), libnvidia-container-tools (= @)",
        {"/usr/bin/nvidia-container-runtime-hook": ("nvidia-cdi-hook", 0o755)},
        {},
    ),
    Package(
        "libnvidia-container-tools",
        "libnvidia-container1 (= @)",
        {"/usr/bin/nvidia-container-cli": ("nvidia-container-cli", 0o755)},
        {},
    ),
    Package("libnvidia-container1", "", {}, {}),
)


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        folders = {str(parent) for path in files for parent in Path(path).parents if str(parent) != "."}
        for name in sorted(folders):
            info = tarfile.TarInfo(f"./{name}")
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            archive.addfile(info)
        for name, (content, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), mode, EPOCH
            archive.addfile(info, io.BytesIO(content))
    return lzma.compress(raw.getvalue(), preset=1)


def _ar_member(name: str, content: bytes) -> bytes:
    header = f"{name:<16}{EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    return header.encode() + content + b"\n" * (len(content) % 2)


def _index(folder: Path, arch: str) -> str:
    stanzas = []
    for version in VERSIONS:
        for package in PACKAGES:
            deb = package.deb(version, arch)
            file = f"{package.name}_{version}_{arch}.deb"
            (folder / file).write_bytes(deb)
            stanzas.append(
                f"Package: {package.name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: {MAINTAINER}\n"
                + (f"Depends: {package.depends.replace('@', version)}\n" if package.depends else "")
                + f"Filename: ./{file}\nSize: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n"
                f"Description: STAND-IN for {package.name}\n"
            )
    return "\n".join(stanzas)


def _release(index: dict[str, bytes], arch: str) -> str:
    sums = "".join(f" {hashlib.sha256(data).hexdigest()} {len(data):>8} {name}\n" for name, data in index.items())
    return (
        f"Origin: devnode.gpu lab\nLabel: STAND-IN for NVIDIA's repository\nArchitectures: {arch}\n"
        f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n{sums}"
    )


class Signer:
    """A key for this build only. Its home is short, because gpg's agent puts a socket there."""

    def __init__(self) -> None:
        self.home = tempfile.mkdtemp(prefix="devnode-gpg-")
        self._gpg("--quick-generate-key", USER_ID, "rsa3072", "sign", "never")
        listing = self._gpg("--list-keys", "--with-colons").decode()
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def _gpg(self, *args: str, data: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        return subprocess.run([*argv, *args], input=data, check=True, capture_output=True).stdout

    def public_key(self) -> bytes:
        return self._gpg("--armor", "--export")

    def clear_sign(self, text: str) -> bytes:
        return self._gpg("--digest-algo", "SHA512", "--clearsign", data=text.encode())

    def detach_sign(self, text: str) -> bytes:
        return self._gpg("--digest-algo", "SHA512", "--armor", "--detach-sign", data=text.encode())

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)


def inputs_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted([Path(__file__).resolve(), *(HERE / "payload").iterdir()]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(out: Path) -> None:
    marker = out / "facts.json"
    wanted = inputs_hash()
    if marker.exists() and json.loads(marker.read_text()).get("inputs") == wanted:
        return
    ensure_gpg()
    if out.exists():
        shutil.rmtree(out)
    signer = Signer()
    try:
        # Hosts of both architectures are served, whichever machine builds.
        for arch in ARCHITECTURES.values():
            folder = out / "stable" / "deb" / arch
            folder.mkdir(parents=True)
            packages = _index(folder, arch).encode()
            index = {"Packages": packages, "Packages.gz": gzip.compress(packages, mtime=0)}
            for name, data in index.items():
                (folder / name).write_bytes(data)
            release = _release(index, arch)
            (folder / "Release").write_text(release)
            (folder / "InRelease").write_bytes(signer.clear_sign(release))
            (folder / "Release.gpg").write_bytes(signer.detach_sign(release))
        (out / "gpgkey").write_bytes(signer.public_key())
        facts = {
            "inputs": wanted,
            "repository": "stable/deb/$(ARCH)",
            "key": "gpgkey",
            "fingerprint": signer.fingerprint,
            "versions": [version.split("-")[0] for version in VERSIONS],
        }
        marker.write_text(json.dumps(facts, indent=2) + "\n")
    finally:
        signer.close()


def ensure_gpg() -> None:
    if shutil.which("gpg"):
        return
    if not shutil.which("apt-get"):
        raise SystemExit("gpg is missing, and it signs the lab's package repository. Install GnuPG.")
    subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "gpg", "gpg-agent"], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    build(parser.parse_args().out.resolve())
