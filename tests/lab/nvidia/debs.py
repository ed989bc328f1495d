# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages made of nothing but Python: the STAND-INs' format, which is real."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

EPOCH = 1_780_000_000
MAINTAINER = "devnode.gpu lab <lab@example.invalid>"


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    depends: str = ""
    conflicts: str = ""
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # path on the host: (content, mode)
    scripts: dict[str, str] = field(default_factory=dict)

    def _stanza(self, arch: str) -> str:
        return (
            f"Package: {self.name}\nVersion: {self.version}\nArchitecture: {arch}\nMaintainer: {MAINTAINER}\n"
            "Section: utils\nPriority: optional\n"
            + (f"Depends: {self.depends}\n" if self.depends else "")
            + (f"Conflicts: {self.conflicts}\n" if self.conflicts else "")
        )

    def put(self, folder: Path, arch: str) -> str:
        """Write the package; its entry for the index."""
        deb = self._deb(arch)
        file = f"{self.name}_{self.version}_{arch}.deb"
        (folder / file).write_bytes(deb)
        return (
            f"{self._stanza(arch)}Filename: ./{file}\nSize: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n"
            f"Description: STAND-IN for {self.name}\n"
        )

    def _deb(self, arch: str) -> bytes:
        about = f"Description: STAND-IN for {self.name}, from devnode.gpu's lab\n Not NVIDIA's package.\n"
        control = self._stanza(arch) + about
        meta = {"./control": (control.encode(), 0o644)}
        meta |= {f"./{name}": (text.encode(), 0o755) for name, text in self.scripts.items()}
        members = [
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", _tar(meta)),
            ("data.tar.xz", _tar({f".{path}": file for path, file in self.files.items()})),
        ]
        return b"!<arch>\n" + b"".join(_ar_member(name, content) for name, content in members)


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
