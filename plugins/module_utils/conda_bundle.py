# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle: one tar file with all that hosts without a network need, made on a host that has one.

bundle.json     what it is for, and the lock file of each environment
SHA256SUMS      of every other file, for `sha256sum -c`
<installer>.sh
channels/<channel>/<subdir>/   the packages, with an index, so that conda can use them as channels too
wheels/         what pip installs
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils import conda_lock
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import Environment
from ansible_collections.devnode.gpu.plugins.module_utils.conda_lock import Lock

FORMAT = 1
SUMS, ABOUT = "SHA256SUMS", "bundle.json"
# Where a bundle is unpacked on a host while it is needed: packages keep this address in their records.
UNPACKED = Path("/var/cache/devnode/miniconda/bundle")
PLACE = f"file://{UNPACKED}"
RECORD_KEYS = (
    *("name", "version", "build", "build_number", "depends", "constrains", "license", "license_family", "md5"),
    *("sha256", "size", "subdir", "timestamp", "noarch", "arch", "platform", "track_features", "features"),
)


class BundleError(Exception):
    """A bundle that cannot be used: why, and what to do."""


@dataclass(frozen=True)
class About:
    """What a bundle says of itself."""

    distribution: str
    version: str
    installer: str
    platform: str
    environments: dict[str, dict[str, str]] = field(default_factory=dict)  # title → digest, lock

    def dump(self) -> str:
        return json.dumps({"made_by": "devnode.gpu.conda_bundle", "format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def load(cls, text: str) -> About:
        try:
            data = json.loads(text)
            if data["made_by"] != "devnode.gpu.conda_bundle" or data["format"] != FORMAT:
                raise ValueError
            environments = {
                str(title): {"digest": str(item["digest"]), "lock": str(item["lock"])}
                for title, item in data["environments"].items()
            }
            return cls(
                str(data["distribution"]),
                str(data["version"]),
                str(data["installer"]),
                str(data["platform"]),
                environments,
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BundleError(f"its {ABOUT} is not one of this role's") from None


def read_about(path: str) -> tuple[About, str]:
    """What a bundle says of itself, and a short name for exactly this bundle."""
    try:
        with tarfile.open(path) as archive:
            about, sums = (_member(archive, name) for name in (ABOUT, SUMS))
    except (OSError, tarfile.TarError, KeyError, EOFError) as error:
        raise BundleError(f"is not a bundle, or is damaged: {error}") from None
    return About.load(about.decode()), hashlib.sha256(sums).hexdigest()[:12]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()


def environment_from(about: About, wanted: Environment) -> Environment:
    """A declared environment, to be built from the bundle's lock file. Raises BundleError."""
    there = about.environments.get(wanted.title)
    if there is None:
        raise BundleError(f"is not in the bundle (it has {', '.join(sorted(about.environments)) or 'none'})")
    if there["digest"] != wanted.digest():
        raise BundleError("is declared otherwise than when the bundle was made. Make the bundle again")
    return replace(wanted, bundled=conda_lock.parse(there["lock"].splitlines()))


def channels_before(lines: list[str], origin: Lock) -> list[str]:
    """The lines of an exported environment.yml, with the bundle's channels called as where the bundle was made."""
    bases = {f"{PLACE}/channels/{item.channel}": item for item in origin.packages}
    found = []
    for line in lines:
        indent, dash, value = line.partition("- ")
        item = bases.get(value.strip())
        if dash and item and not indent.strip():
            if f"{indent}- {item.channel}" in lines:  # conda lists its own channels as well
                continue
            line = f"{indent}- {item.base}"
        found.append(line)
    return found


def repodata(subdir: str, records: list[dict[str, Any]]) -> str:
    """A channel's index, made from the records of installed packages."""
    data: dict[str, Any] = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}, "repodata_version": 1}
    for record in records:
        kind = "packages.conda" if record["fn"].endswith(".conda") else "packages"
        data[kind][record["fn"]] = {key: record[key] for key in RECORD_KEYS if record.get(key) is not None}
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def files_of(lock: Lock) -> dict[str, conda_lock.Package]:
    """Where in a bundle each package of a lock file lies."""
    return {f"channels/{item.channel}/{item.subdir}/{item.file}": item for item in lock.packages}


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def pack(folder: Path, about: About, dest: Path) -> None:
    """Write a bundle. The same contents give the same bytes."""
    (folder / ABOUT).write_text(about.dump(), encoding="utf-8")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [ABOUT, *(name for name in names if name not in (ABOUT, SUMS))]
    (folder / SUMS).write_text("".join(f"{sha256_of(folder / name)}  {name}\n" for name in names), encoding="utf-8")
    temporary = dest.with_name(f".{dest.name}.part")
    with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in (SUMS, *names):
            info = archive.gettarinfo(str(folder / name), name)
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            info.mode = 0o644
            with (folder / name).open("rb") as file:
                archive.addfile(info, file)
    temporary.chmod(0o644)
    temporary.replace(dest)


def forget_others(current: str) -> None:
    """Remove bundles of earlier runs: they are large."""
    for folder in UNPACKED.parent.glob("bundle-*"):
        if folder.is_dir() and not current.startswith(f"{folder}/"):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def unpacked(path: Path, *wanted: str) -> Iterator[Path]:
    """The files of a bundle whose names begin so, checked against its list, as long as they are needed."""
    shutil.rmtree(UNPACKED, ignore_errors=True)
    try:
        try:
            with tarfile.open(path) as archive:
                _extract(archive, wanted)
        except (tarfile.TarError, KeyError, EOFError, ValueError) as error:
            raise BundleError(f"{path} is damaged: {error}") from None
        yield UNPACKED
    finally:
        shutil.rmtree(UNPACKED, ignore_errors=True)


def _extract(archive: tarfile.TarFile, wanted: tuple[str, ...]) -> None:
    lines = _member(archive, SUMS).decode().splitlines()
    sums = {name: digest for digest, _dummy, name in (line.partition("  ") for line in lines)}
    UNPACKED.mkdir(parents=True, mode=0o755)
    for name, digest in sums.items():
        if not name.startswith(wanted):
            continue
        target = UNPACKED / name
        if os.path.normpath(name) != name or name.startswith(("/", "..")):
            raise ValueError(f"{name} is no name in a bundle")
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        source = archive.extractfile(name)
        if source is None:
            raise KeyError(name)
        with target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        target.chmod(0o644)
        if sha256_of(target) != digest:
            raise ValueError(f"{name} has another sha256 than {SUMS} says")
