# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock files: conda's own explicit format, with sha256, and pip's packages in comments that conda passes over.

    # platform: linux-64
    @EXPLICIT
    https://conda.anaconda.org/conda-forge/noarch/rich-14.0.0-pyh_0.conda#<sha256>
    # pip --extra-index-url https://download.pytorch.org/whl/cu128
    # pip labpip==1.0 --hash=sha256:<sha256>

`conda create --file` takes such a file as it is. Pure: no files, no processes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

PLATFORMS = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}
# conda writes #<sha256> and also reads #sha256:<sha256>.
PACKAGE_RE = re.compile(
    r"(?P<base>(?:https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?|file://)(?:/[A-Za-z0-9._~+-]+)*)/(?P<subdir>noarch|linux-64|linux-aarch64)"
    r"/(?P<file>(?P<stem>[A-Za-z0-9_.+!-]+)(?:\.tar\.bz2|\.conda))#(?:sha256:)?(?P<sha256>[0-9a-f]{64})"
)
PIP_RE = re.compile(
    r"# pip (?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?:==(?P<version>[A-Za-z0-9.+!_-]+)| @ (?P<url>(?:https|file)://[A-Za-z0-9._~:/+%-]+)) "
    r"--hash=sha256:(?P<sha256>[0-9a-f]{64})"
)
INDEX_RE = re.compile(
    r"# pip --extra-index-url (?P<url>(?:https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?|file://)(?:/[A-Za-z0-9._~+-]+)*)"
)
ALLOWED = (
    "what `conda list --explicit --sha256` prints: @EXPLICIT, then one URL with #sha256 in each line; pip's packages "
    "as `# pip NAME==VERSION --hash=sha256:...`"
)


@dataclass(frozen=True)
class Package:
    """One conda package: where it is fetched, and what it must be."""

    base: str  # the channel's URL
    subdir: str
    file: str
    sha256: str

    @property
    def url(self) -> str:
        return f"{self.base}/{self.subdir}/{self.file}"

    @property
    def stem(self) -> str:
        """name-version-build, as conda names its records."""
        return self.file[: -len(".conda")] if self.file.endswith(".conda") else self.file[: -len(".tar.bz2")]

    @property
    def channel(self) -> str:
        return self.base.rpartition("/")[2]

    def moved(self, channels: dict[str, str]) -> Package:
        """The same package from a mirror (channel name → URL above it), if that has its channel."""
        above = channels.get(self.channel)
        return Package(f"{above}/{self.channel}", self.subdir, self.file, self.sha256) if above else self


@dataclass(frozen=True)
class PipPackage:
    """One package that pip installs: a version from an index, or a file at a URL."""

    name: str
    version: str
    url: str
    sha256: str

    def requirement(self) -> str:
        what = f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"
        return f"{what} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Lock:
    """Everything that an environment consists of."""

    packages: tuple[Package, ...] = ()
    pip: tuple[PipPackage, ...] = ()
    indexes: tuple[str, ...] = ()  # package indexes beside the ordinary one

    def __bool__(self) -> bool:
        return bool(self.packages)

    def lines(self) -> list[str]:
        """The normal form, which parses to the same lock again."""
        return [
            *(f"{item.url}#{item.sha256}" for item in self.packages),
            *(f"# pip --extra-index-url {url}" for url in self.indexes),
            *(f"# pip {item.requirement()}" for item in self.pip),
        ]

    def identity(self) -> list[str]:
        """What decides whether two locks mean the same: not where the packages are fetched."""
        return sorted(
            [
                *(f"{item.subdir}/{item.file}#{item.sha256}" for item in self.packages),
                *(f"pip {item.requirement()}" for item in self.pip),
            ]
        )

    def platform(self) -> str:
        """The platform that the packages are for; empty when all are for any."""
        return next((item.subdir for item in self.packages if item.subdir != "noarch"), "")

    def unpacked(self, place: str) -> Lock:
        """The same packages from a bundle that is unpacked at a URL, and no index beside it."""
        above = f"{place}/channels"
        packages = tuple(item.moved({item.channel: above}) for item in self.packages)
        pip = tuple(
            replace(item, url=f"{place}/wheels/{item.url.rpartition('/')[2]}") if item.url else item
            for item in self.pip
        )
        return Lock(packages, pip)

    def before(self, place: str, origin: Lock) -> tuple[Lock, list[str]]:
        """The same with the URLs of a bundle's own lock for what came out of the bundle, and files it does not have."""
        known = {(item.subdir, item.file, item.sha256): item for item in origin.packages}
        found, unknown = [], []
        for item in self.packages:
            if item.base.startswith(f"{place}/"):
                original = known.get((item.subdir, item.file, item.sha256))
                found.append(original or item)
                unknown += [] if original else [item.file]
            else:
                found.append(item)
        return replace(self, packages=tuple(found)), unknown

    def moved(self, channels: dict[str, str]) -> Lock:
        return replace(self, packages=tuple(item.moved(channels) for item in self.packages))

    def contents(self) -> tuple[str, ...]:
        """What is installed afterwards, as conda_places.contents says it. A package from a URL has no version here."""
        return tuple(
            sorted(
                [
                    *(f"conda:{item.stem}" for item in self.packages),
                    *(f"pip:{item.name}=={item.version}" for item in self.pip),
                ]
            )
        )

    def explicit(self) -> str:
        """The file for conda."""
        return "".join(f"{line}\n" for line in ["@EXPLICIT", *(f"{item.url}#{item.sha256}" for item in self.packages)])

    def requirements(self) -> str:
        """The file for pip."""
        indexes = [f"--extra-index-url {url}" for url in self.indexes]
        return "".join(f"{line}\n" for line in [*indexes, *(item.requirement() for item in self.pip)])

    def text(self) -> str:
        """The file for people and repositories. It says nothing of time or host: the same packages, the same bytes."""
        platform = self.platform()
        head = [
            "# A lock file, written by the role devnode.gpu.miniconda: every package with its sha256. It goes under",
            "# `lock:` of an environment. Without Ansible: conda create --name NAME --file THIS_FILE (what pip",
            "# installs is in comments, which conda passes over).",
            *([f"# platform: {platform}"] if platform else []),
            "@EXPLICIT",
        ]
        return "".join(f"{line}\n" for line in [*head, *self.lines()])


def parse(lines: list[str]) -> Lock:
    """Read a lock file's lines. Raises InvalidError that names the line."""
    packages: dict[str, Package] = {}
    pip: dict[str, PipPackage] = {}
    indexes: list[str] = []
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if found := INDEX_RE.fullmatch(line):
            indexes.append(found.group("url"))
        elif line.startswith("# pip "):
            _add_pip(pip, line, number)
        elif line and not line.startswith("#") and line != "@EXPLICIT":
            _add_package(packages, line, number)
    if not packages:
        raise InvalidError("has no package in it", ALLOWED)
    platforms = sorted({item.subdir for item in packages.values()} - {"noarch"})
    if len(platforms) > 1:
        raise InvalidError(f"mixes packages for {' and '.join(platforms)}", "one lock file for each platform")
    return Lock(
        tuple(sorted(packages.values(), key=lambda item: item.stem)),
        tuple(sorted(pip.values(), key=lambda item: item.name)),
        tuple(dict.fromkeys(indexes)),
    )


def _add_package(packages: dict[str, Package], line: str, number: int) -> None:
    found = PACKAGE_RE.fullmatch(line)
    if not found:
        why = "has no sha256" if re.fullmatch(r"\S+(\.conda|\.tar\.bz2)(#[0-9a-f]{32})?", line) else "is no package"
        if "@" in (urlsplit(line).netloc if "://" in line else ""):
            raise InvalidError(f"line {number} has a user or password in its URL", ALLOWED)
        raise InvalidError(f"line {number} ({show(line)}) {why}", ALLOWED)
    name = found.group("stem").rpartition("-")[0].rpartition("-")[0]
    if not name:
        raise InvalidError(f"line {number} ({show(line)}) is no package", ALLOWED)
    if name in packages:
        raise InvalidError(f"line {number} names {name} a second time", "each package once")
    packages[name] = Package(*(found.group(key) for key in ("base", "subdir", "file", "sha256")))


def _add_pip(pip: dict[str, PipPackage], line: str, number: int) -> None:
    found = PIP_RE.fullmatch(line)
    if not found:
        raise InvalidError(f"line {number} ({show(line)}) is no pip package with a sha256", ALLOWED)
    name = re.sub(r"[-_.]+", "-", found.group("name")).lower()
    if name in pip:
        raise InvalidError(f"line {number} names {name} a second time", "each package once")
    pip[name] = PipPackage(name, found.group("version") or "", found.group("url") or "", found.group("sha256"))


def from_pip_report(installed: dict[str, str], report: dict[str, object]) -> tuple[list[PipPackage], list[str]]:
    """pip's installation report for what is installed (name → version): locked packages, and names without a hash."""
    found: dict[str, PipPackage] = {}
    items = report.get("install")
    for item in items if isinstance(items, list) else []:
        name = re.sub(r"[-_.]+", "-", str(item["metadata"]["name"])).lower()
        info = item["download_info"]
        digest = str((info.get("archive_info") or {}).get("hashes", {}).get("sha256", ""))
        version = str(item["metadata"]["version"])
        if re.fullmatch("[0-9a-f]{64}", digest) and installed.get(name) == version:
            found[name] = PipPackage(name, version, str(info["url"]) if item.get("is_direct") else "", digest)
    return [found[name] for name in sorted(found)], sorted(set(installed) - set(found))
