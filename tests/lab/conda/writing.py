# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages, a channel's index and a package index for pip, in the formats that conda and pip read."""

from __future__ import annotations

import asyncio
import base64
import bz2
import csv
import hashlib
import io
import json
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab.conda.contents import ARCH, EPOCH, SUBDIR, Entry, Package, Tree


def write_tar(file: io.BufferedIOBase | Any, tree: Tree, mtime: int = EPOCH) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, entry in sorted(tree.items()):
            member = tarfile.TarInfo(name)
            member.mtime = mtime
            member.mode = entry.mode
            if entry.target:
                member.type, member.linkname = tarfile.SYMTYPE, entry.target
            member.size = len(entry.data)
            archive.addfile(member, io.BytesIO(entry.data))


def paths_json(tree: Tree) -> dict[str, Any]:
    paths: list[dict[str, Any]] = []
    for name, entry in sorted(tree.items()):
        path: dict[str, Any] = {"_path": name, "path_type": "softlink" if entry.target else "hardlink"}
        data = entry.data
        if entry.target:
            final = os.path.normpath(os.path.join(os.path.dirname(name), entry.target))
            data = tree[final].data if final in tree else b""
        paths.append(path | {"sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)})
    return {"paths": paths, "paths_version": 1}


def write_package(package: Package, channel: Path) -> None:
    info: Tree = {
        "info/index.json": Entry(json.dumps(package.index(), indent=1).encode()),
        "info/paths.json": Entry(json.dumps(paths_json(package.tree), indent=1).encode()),
        "info/files": Entry("".join(f"{name}\n" for name in sorted(package.tree)).encode()),
        "info/about.json": Entry(json.dumps({"summary": "stand-in, see tests/lab/conda/build.py"}).encode()),
    }
    if package.noarch:
        link = {"noarch": {"type": "python", "entry_points": list(package.entry_points)}, "package_metadata_version": 1}
        info["info/link.json"] = Entry(json.dumps(link).encode())
    directory = channel / package.subdir
    directory.mkdir(parents=True, exist_ok=True)
    with bz2.open(directory / f"{package.stem}.tar.bz2", "wb", compresslevel=1) as file:
        write_tar(file, package.tree | info)


def write_channel(packages: list[Package], channel: Path) -> None:
    import rattler.index

    for subdir in ("noarch", SUBDIR[ARCH]):
        (channel / subdir).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda package: write_package(package, channel), packages))
    # No shards: py-rattler takes a "304 Not Modified" for them, which simple web servers send, for an error.
    asyncio.run(rattler.index.index_fs(channel, write_shards=False))


def write_wheel(directory: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f'__version__ = "{version}"\n'.encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    writer = csv.writer(record, lineterminator="\n")
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        writer.writerow([path, f"sha256={digest}", len(data)])
    writer.writerow([f"{info}/RECORD", "", ""])
    files[f"{info}/RECORD"] = record.getvalue().encode()
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(zipfile.ZipInfo(path, (2025, 6, 15, 0, 0, 0)), data)


def write_index(simple: Path, projects: dict[str, tuple[str, ...]]) -> None:
    """A package index of small wheels."""
    for name, versions in projects.items():
        write_project(simple / name, name, versions)
    links = "".join(f'<a href="{name}/">{name}</a>' for name in projects)
    (simple / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>\n", encoding="utf-8")


def write_project(project: Path, name: str, versions: tuple[str, ...]) -> None:
    project.mkdir(parents=True)
    for version in versions:
        write_wheel(project, name, version)
    wheels = {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in sorted(project.glob("*.whl"))}
    links = "".join(f'<a href="{quote(wheel)}#sha256={hash}">{wheel}</a>\n' for wheel, hash in wheels.items())
    (project / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n", encoding="utf-8")
