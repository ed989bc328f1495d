# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which conda a host should have, what it has, and what follows from the two. Pure: no files, no processes."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, path, show

ARCHITECTURES = ("x86_64", "aarch64")
ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
NAME_RE = re.compile(
    r"(?P<distribution>Miniconda3|Miniforge3)-(?:py(?P<python>[23][0-9]{1,2})_)?"
    r"(?P<version>[0-9]+(?:\.[0-9]+)+-[0-9]+)-Linux-(?P<arch>[a-z0-9_]+)\.sh"
)
VERSION_RE = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){1,3}-[0-9]{1,3}")
SHA256_RE = re.compile(r"[0-9a-f]{64}")
HOMES = ("/home", "/root", "/Users", "/run/user")
SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr/bin")  # noqa: S108
TITLES = {"miniconda": "Miniconda", "miniforge": "Miniforge"}


def prefix_path(value: Any) -> str:
    """Where conda may live: a directory of its own, which every user can reach and which survives a reboot."""
    allowed = "a directory of its own such as /opt/miniconda"
    text = path(value)
    if any(text == home or text.startswith(home + "/") for home in HOMES):
        raise InvalidError("is in a home: other users cannot reach it, and it goes with its owner", allowed)
    if text.count("/") < 2 or any(text == place or text.startswith(place + "/") for place in SYSTEM):
        raise InvalidError("is not a place for conda", allowed)
    if text in ("/usr/local", "/usr/share", "/usr/lib", "/var/lib", "/var/opt", "/var/cache", "/var/log", "/var/tmp"):  # noqa: S108
        raise InvalidError("belongs to the system", allowed)
    return text


def version(value: Any) -> str:
    if not isinstance(value, str) or not VERSION_RE.fullmatch(value):
        raise InvalidError("is not an installer's version", "version and build as in the file's name, such as 26.5.3-1")
    return value


def sha256(value: Any) -> str:
    if not isinstance(value, str) or not SHA256_RE.fullmatch(value.lower()):
        raise InvalidError("is not a sha256", "64 hexadecimal digits")
    return value.lower()


def installer_name(distribution: str, python: str, wanted: str, arch: str) -> str:
    """The installer's file name, as its maker writes it."""
    if distribution == "miniforge":
        return f"Miniforge3-{wanted}-Linux-{arch}.sh"
    return f"Miniconda3-py{python.replace('.', '')}_{wanted}-Linux-{arch}.sh"


def parse_installer_name(name: str) -> dict[str, str]:
    """What an installer's file name says; empty for a name that says nothing."""
    found = NAME_RE.fullmatch(name)
    if not found:
        return {}
    tag = found.group("python") or ""
    return {
        "distribution": "miniforge" if found.group("distribution") == "Miniforge3" else "miniconda",
        "python": f"{tag[0]}.{tag[1:]}" if tag else "",
        "version": found.group("version"),
        "arch": found.group("arch"),
    }


def version_key(text: str) -> tuple[int, ...]:
    """Comparable form of 26.5.3-1 and of 26.5.3."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", text))


def conda_of(wanted: str) -> str:
    """The conda in an installer: its version without the build."""
    return wanted.partition("-")[0]


@dataclass(frozen=True)
class Wanted:
    """What should be installed."""

    distribution: str
    version: str
    python: str  # base's Python, "" when the installer does not say it
    file: str
    sha256: str

    def title(self) -> str:
        return f"{TITLES.get(self.distribution, self.distribution)} {self.version}"


class InstallerError(Exception):
    """Something wrong with what was asked for; the text is for people."""


def checked(name: str, value: Any, rule: Any) -> Any:
    try:
        return rule(value)
    except InvalidError as error:
        raise InstallerError(f"{name}: {show(value)} {error}.") from None


def installer_of(params: dict[str, Any], machine: str) -> tuple[Wanted, str]:
    """The wanted installation and its URL, for this host's architecture."""
    text = str(checked("version", params["version"], version))
    arch = ALIASES.get(machine, machine)
    name = installer_name(params["distribution"], params["python"], text, arch)
    url = (params["url"] or "").replace("{file}", name)
    if not re.fullmatch(r"(?:https?|file)://[^\s]+", url):
        raise InstallerError(f'url: "{url}" is not a URL. Allowed: http, https, or file:// and a path on the host.')
    base = url.rpartition("/")[2]
    said = parse_installer_name(base)
    if said.get("arch", arch) != arch:
        raise InstallerError(
            f'url: "{url}" is for {said["arch"]}, and this host is {arch}. Give the installer for {arch}.'
        )
    digest = params["sha256"] or params["checksums"].get(base) or ""
    if not digest:
        raise InstallerError(
            f"{base}: no sha256 is known for it, and an installer that runs as root is never run unverified. Set "
            "miniconda_installer_sha256 to the value that its maker publishes, or choose a version of the table "
            f"(known: {', '.join(sorted(params['checksums'])) or 'none'})."
        )
    python = params["python"] if params["distribution"] == "miniconda" else ""
    return Wanted(params["distribution"], text, python, base, str(checked("sha256", digest, sha256))), url


@dataclass(frozen=True)
class Marker:
    """What we wrote into the prefix when the installation was complete."""

    distribution: str
    version: str
    python: str
    file: str
    sha256: str

    def dump(self) -> str:
        return json.dumps({"made_by": "devnode.gpu.conda_prefix", "format": 1, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def load(cls, text: str) -> Marker | None:
        """The marker, or None for a file that is not ours or is damaged."""
        try:
            data = json.loads(text)
            if data["made_by"] != "devnode.gpu.conda_prefix" or data["format"] != 1:
                return None
            return cls(*(str(data[key]) for key in ("distribution", "version", "python", "file", "sha256")))
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Found:
    """The prefix as it is on the host."""

    exists: bool = False  # a directory with something in it
    conda_like: bool = False  # has traces of conda or of its installer
    missing: tuple[str, ...] = ()  # parts of a complete installation that are not there
    conda: str = ""  # version of the conda package in base
    python: str = ""  # minor version of base's Python
    marker: Marker | None = None
    interrupted: str = ""  # what an earlier run of ours was doing when it ended: install or update
    environments: int = 0

    def title(self) -> str:
        if self.marker is not None:
            return f"{TITLES.get(self.marker.distribution, self.marker.distribution)} {self.marker.version}"
        return f"conda {self.conda}" if self.conda else "something unfinished"


@dataclass(frozen=True)
class Decision:
    """What to do. `method`: how the installer is to be run (fresh, over, empty first) or "" when it is not."""

    action: str  # none | install | upgrade | downgrade | repair | adopt | refuse
    reason: str = ""
    method: str = ""  # "" | fresh | over | clean
    note: str = ""


def _incomplete(wanted: Wanted, found: Found) -> str:
    """Why the installation in the prefix is not what its marker or its looks promise."""
    if found.missing:
        return f"has no {', no '.join(found.missing)}"
    if wanted.python and found.python != wanted.python:
        return f"base has Python {found.python or '?'}, and it must stay {wanted.python}"
    return ""


def _older_wanted(wanted: Wanted, installed: str, allow_downgrade: bool) -> Decision:
    if allow_downgrade:
        return Decision("downgrade", f"{installed} is newer and a downgrade was asked for", "over")
    why = (
        f"{installed} is installed, which is newer than {wanted.version}: a downgrade can break environments that need "
        "the newer conda. Raise miniconda_version, or set miniconda_allow_downgrade: true"
    )
    return Decision("refuse", why)


def _unmarked(wanted: Wanted, found: Found, allow_downgrade: bool) -> Decision:
    if not found.conda_like:
        why = "there is something else in it already. Move that away, or choose another miniconda_prefix"
        return Decision("refuse", why)
    broken = _incomplete(wanted, found)
    if broken:
        return Decision("repair", f"is half made ({broken}): an installation ended before it was complete", "over")
    wanted_conda = version_key(conda_of(wanted.version))
    if version_key(found.conda) < wanted_conda:
        return Decision("upgrade", f"conda {found.conda}, installed by somebody else, is older", "over")
    if version_key(found.conda) > wanted_conda:
        return _older_wanted(wanted, f"conda {found.conda}", allow_downgrade)
    return Decision("adopt", f"conda {found.conda}, installed by somebody else, is what is wanted")


def decide(wanted: Wanted, found: Found, allow_downgrade: bool = False) -> Decision:
    """What has to be done so that the prefix holds what is wanted."""
    if not found.exists:
        return Decision("install", "is not there", "fresh")
    if found.interrupted:
        method = "clean" if found.interrupted == "install" and not found.environments else "over"
        return Decision("repair", f"an earlier {found.interrupted} was interrupted and left it half made", method)
    if found.marker is None:
        return _unmarked(wanted, found, allow_downgrade)
    marker = found.marker
    if marker.distribution != wanted.distribution:
        why = (
            f"holds {found.title()}, and {wanted.title()} is asked for: one cannot become the other. Remove it first "
            "(miniconda_state: absent), or choose another miniconda_prefix"
        )
        return Decision("refuse", why)
    if version_key(marker.version) > version_key(wanted.version):
        return _older_wanted(wanted, found.title(), allow_downgrade)
    if version_key(marker.version) < version_key(wanted.version):
        return Decision("upgrade", f"{found.title()} is older", "over")
    broken = _incomplete(wanted, found)
    if not broken and version_key(found.conda) < version_key(conda_of(marker.version)):
        broken = f"base has conda {found.conda}, older than installed"
    if broken:
        return Decision("repair", f"{found.title()} is damaged: {broken}", "over")
    if marker.sha256 != wanted.sha256:
        return Decision("upgrade", "another installer of the same version is asked for", "over")
    newer = version_key(found.conda) > version_key(conda_of(marker.version))
    note = (
        f"conda in base was updated by hand to {found.conda}, newer than {wanted.version}; it is kept" if newer else ""
    )
    return Decision("none", note=note)
