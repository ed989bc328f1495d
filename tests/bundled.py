# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that a site without internet brings along: the collections that ours needs, as Galaxy would hand them out.

Galaxy is not asked: they are packed again from the `ansible` package of this environment. It leaves out their tests, so
their lists of files are made anew; all that is installed is as it came.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import ansible_collections
import yaml

ROOT = Path(__file__).resolve().parent.parent


def archives(folder: Path) -> list[Path]:
    """Pack what galaxy.yml declares, and what that declares, into `folder`."""
    open_ones = list(yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"])
    made: dict[str, Path] = {}
    while open_ones:
        name = open_ones.pop()
        if name not in made:
            made[name], needs = _pack(name, folder)
            open_ones += needs
    return sorted(made.values())


def _pack(name: str, folder: Path) -> tuple[Path, list[str]]:
    brought = next(Path(place) for place in ansible_collections.__path__ if "site-packages" in place)
    source = brought.joinpath(*name.split("."))
    manifest: dict[str, Any] = json.loads((source / "MANIFEST.json").read_text())
    listing: dict[str, Any] = json.loads((source / "FILES.json").read_text())
    listing["files"] = [one for one in listing["files"] if (source / one["name"]).exists()]
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(_json(listing)).hexdigest()
    info = manifest["collection_info"]
    archive = folder / f"{info['namespace']}-{info['name']}-{info['version']}.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        for where, data in (("MANIFEST.json", manifest), ("FILES.json", listing)):
            member = tarfile.TarInfo(where)
            member.size, member.mode = len(_json(data)), 0o644
            opened.addfile(member, io.BytesIO(_json(data)))
        for one in listing["files"]:
            if one["name"] != ".":
                opened.add(source / one["name"], arcname=one["name"], recursive=False)
    return archive, list(info["dependencies"])


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, indent=1).encode()
