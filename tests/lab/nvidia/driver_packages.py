# SPDX-License-Identifier: GPL-3.0-or-later
"""STAND-IN for the driver's packages in NVIDIA's CUDA repository.

Real: names, versions, the way they depend on each other (a meta package that asks for "at least" its own version, so
that only a pin keeps a branch together), and what the pinning packages pin. Not real: what they bring. Their "module"
is a file that names a version; host.sh "loads" it, at the host's start or with modprobe, and it stays loaded until the
next start.
"""

from __future__ import annotations

from pathlib import Path

from .debs import Package

VERSIONS = ("570.195.03-1", "580.95.05-1", "580.105.08-1", "590.44.01-1")
PINNED = ("570", "580", "590", "580.95.05", "580.105.08")
SYSTEMS = {"debian12": "3bf863cc.pub", "debian13": "8793F200.pub"}
MACHINES = {"x86_64": "x86_64", "aarch64": "sbsa"}
UNIT = """# STAND-IN for the unit of this name in NVIDIA's package.
[Unit]
Description=STAND-IN for {name}

[Service]
ExecStart=/usr/bin/sleep infinity

[Install]
WantedBy=multi-user.target
"""
LINKS = """#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
for name in libcuda libnvidia-ml; do
  ln -sf "$name.so.{plain}" "/usr/lib/{machine}-linux-gnu/$name.so.1"
done
"""
PIN = """Package: nvidia-* libnvidia-* cuda-drivers*
Pin: version {version}*
Pin-Priority: 1000
"""


def packages(machine: str, hardware: Path) -> list[Package]:
    smi = hardware.read_text().split("<<'SMI'\n")[1].split("\nSMI\n")[0] + "\n"
    out = [package for version in VERSIONS for package in _driver(version, machine, smi)]
    for version in PINNED:
        name = f"nvidia-driver-pinning-{version}"
        pin = PIN.format(version=version if version.count(".") else f"{version}.")
        newest = [one for one in VERSIONS if one.startswith(version)][-1]
        out.append(Package(name, newest, files={f"/etc/apt/preferences.d/{name}": (pin.encode(), 0o644)}))
    return out


def _driver(version: str, machine: str, smi: str) -> list[Package]:
    plain = version.split("-")[0]
    libraries = f"/usr/lib/{machine}-linux-gnu"
    at_least = f"nvidia-driver-cuda (>= {plain})"
    opened, closed = "nvidia-kernel-open-dkms", "nvidia-kernel-dkms"

    def module(flavour: str) -> dict[str, tuple[bytes, int]]:
        return {"/usr/lib/devnode-lab-gpu/module": (f"{plain} {flavour}\n".encode(), 0o644)}

    def unit(name: str) -> Package:
        service = "-".join(name.split("-")[:2])  # without a branch
        file = (UNIT.format(name=service).encode(), 0o644)
        return Package(name, version, files={f"/usr/lib/systemd/system/{service}.service": file})

    return [
        Package("nvidia-open", version, depends=f"{at_least}, {opened} (>= {plain})"),
        Package("cuda-drivers", version, depends=f"{at_least}, {closed} (>= {plain})"),
        Package(opened, version, conflicts=closed, files=module("open")),
        Package(closed, version, conflicts=opened, files=module("proprietary")),
        Package(
            "nvidia-driver-cuda",
            version,
            depends=f"libnvidia-ml1 (= {version})",
            files={"/usr/bin/nvidia-smi": (smi.replace("@DRIVER@", plain).encode(), 0o755)},
        ),
        Package(
            "libnvidia-ml1",
            version,
            files={
                f"{libraries}/{name}.so.{plain}": (f"STAND-IN for {name} of driver {plain}\n".encode(), 0o644)
                for name in ("libcuda", "libnvidia-ml")
            },
            scripts={"postinst": LINKS.format(plain=plain, machine=machine)},
        ),
        unit("nvidia-persistenced"),
        unit("nvidia-fabricmanager" if version >= "580" else f"nvidia-fabricmanager-{plain.split('.')[0]}"),
    ]
