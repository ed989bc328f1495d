# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the STAND-IN for NVIDIA's package repositories: small signed apt repositories, made on the spot.

    python tests/lab/nvidia/build.py OUT

makes in OUT:
    stable/deb/<arch>/    the four packages of the NVIDIA Container Toolkit, at the versions below, with a signed index
    cuda/repos/<system>/<arch>/   the driver's packages (driver_packages.py), with a signed index and the key
    gpgkey                the public key, armored; made for this build and thrown away with it
    facts.json            repositories, key, fingerprint and versions, as inputs of the roles

What is real: the packages' format, names, versions and dependencies on each other; the repository's layout and its
signature. What is not: what is in the packages (payload/, each file says so itself). Needs gpg. The result is kept as
long as its inputs are the same.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))  # run as a program, from wherever

from lab.devlab import locks  # noqa: E402
from lab.nvidia import driver_packages  # noqa: E402
from lab.nvidia.debs import Package  # noqa: E402

VERSIONS = ("1.18.2-1", "1.19.1-1", "1.20.0-1")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
USER_ID = "devnode.gpu lab, stand-in for NVIDIA's repository"

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


def _payload(name: str) -> bytes:
    return (HERE / "payload" / name).read_bytes()


def _toolkit(version: str) -> list[Package]:
    plain = version.split("-")[0].encode()

    def file(name: str, mode: int = 0o755) -> tuple[bytes, int]:
        return _payload(name).replace(b"@VERSION@", plain), mode

    units = "/usr/lib/systemd/system/nvidia-cdi-refresh"
    base, tools, library = "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1"
    return [
        Package(
            base,
            version,
            files={
                "/usr/bin/nvidia-ctk": file("nvidia-ctk"),
                "/usr/bin/nvidia-cdi-hook": file("nvidia-cdi-hook"),
                "/usr/bin/nvidia-container-runtime": file("nvidia-container-runtime"),
                f"{units}.service": file("nvidia-cdi-refresh.service", 0o644),
                f"{units}.path": file("nvidia-cdi-refresh.path", 0o644),
            },
            scripts={"postinst": BASE_POSTINST, "prerm": BASE_PRERM},
        ),
        Package(
            "nvidia-container-toolkit",
            version,
            depends=f"{base} (= {version}), {tools} (= {version})",
            files={"/usr/bin/nvidia-container-runtime-hook": file("nvidia-cdi-hook")},
        ),
        Package(
            tools,
            version,
            depends=f"{library} (= {version})",
            files={"/usr/bin/nvidia-container-cli": file("nvidia-container-cli")},
        ),
        Package(library, version),
    ]


PACKAGES = [package for version in VERSIONS for package in _toolkit(version)]


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


def _repository(folder: Path, arch: str, packages: Sequence[Package], signer: Signer) -> None:
    folder.mkdir(parents=True)
    listing = "\n".join(package.put(folder, arch) for package in packages).encode()
    index = {"Packages": listing, "Packages.gz": gzip.compress(listing, mtime=0)}
    for name, data in index.items():
        (folder / name).write_bytes(data)
    release = _release(index, arch)
    (folder / "Release").write_text(release)
    (folder / "InRelease").write_bytes(signer.clear_sign(release))
    (folder / "Release.gpg").write_bytes(signer.detach_sign(release))


def inputs_hash() -> str:
    digest = hashlib.sha256()
    payload = [path for path in (HERE / "payload").iterdir() if path.is_file()]
    for path in sorted([*HERE.glob("*.py"), HERE / "host.sh", *payload]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(out: Path) -> None:
    with locks.only_one(locks.beside(out)):
        _build(out)


def _build(out: Path) -> None:
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
            _repository(out / "stable" / "deb" / arch, arch, PACKAGES, signer)
        for system, key in driver_packages.SYSTEMS.items():
            for machine, arch in ARCHITECTURES.items():
                folder = out / "cuda" / "repos" / system / driver_packages.MACHINES[machine]
                _repository(folder, arch, driver_packages.packages(machine, HERE / "host.sh"), signer)
                (folder / key).write_bytes(signer.public_key())
        (out / "gpgkey").write_bytes(signer.public_key())
        facts = {
            "inputs": wanted,
            "repository": "stable/deb/$(ARCH)",
            "cuda_repository": "cuda/repos",
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
