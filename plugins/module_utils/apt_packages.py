# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages have to be installed, from what dpkg and apt say. Pure functions; standard library only."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Set

NAME = re.compile(r"[a-z0-9][a-z0-9.+-]+(:[a-z0-9-]+)?")
VERSION = re.compile(r"[0-9A-Za-z.+:~*?-]+")


class PackageError(ValueError):
    """Cannot be used or cannot be had; the text is for people."""


@dataclass(frozen=True)
class Wanted:
    name: str
    version: str = ""  # exact or a pattern; empty: any

    def fits(self, version: str) -> bool:
        return not self.version or fnmatch.fnmatchcase(version, self.version)


@dataclass(frozen=True)
class Installed:
    version: str
    whole: bool  # unpacked and configured
    held: bool


def parse_wanted(names: Sequence[str]) -> List[Wanted]:
    out, errors = [], []
    for text in names:
        name, _dummy, version = text.partition("=")
        if not NAME.fullmatch(name) or (("=" in text) and not VERSION.fullmatch(version)):
            errors.append(f'names: "{text}" is not a package. Allowed: name, or name=version (with * as a pattern).')
        out.append(Wanted(name, version))
    if errors:
        raise PackageError("\n".join(errors))
    return out


def parse_status(listing: str) -> Dict[str, Installed]:
    """dpkg-query's `${Package}\\t${db:Status-Abbrev}\\t${Version}` lines; what is not on the disk is left out."""
    out = {}
    for line in listing.splitlines():
        parts = line.split("\t")
        if len(parts) == 3 and parts[1][1:2] not in ("n", "c", ""):
            abbrev = parts[1].strip()
            out[parts[0]] = Installed(parts[2], whole=abbrev in ("ii", "hi"), held=abbrev[0] == "h")
    return out


def to_install(wanted: Sequence[Wanted], installed: Dict[str, Installed]) -> List[Wanted]:
    out = []
    for one in wanted:
        have = installed.get(one.name)
        if not have or not have.whole or not one.fits(have.version):
            out.append(one)
    return out


def parse_madison(listing: str) -> Dict[str, List[str]]:
    """Versions that apt knows, newest first, by package (`apt-cache madison`)."""
    out: Dict[str, List[str]] = {}
    for line in listing.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) >= 2 and parts[1] not in out.setdefault(parts[0], []):
            out[parts[0]].append(parts[1])
    return out


def choose(wanted: Wanted, known: Sequence[str]) -> Optional[str]:
    """The newest known version that fits; None when there is none."""
    return next((version for version in known if wanted.fits(version)), None)


def missing(todo: Sequence[Wanted], known: Dict[str, List[str]]) -> List[str]:
    """For people: what the package lists do not have, and what they have instead."""
    out = []
    for one in todo:
        have = known.get(one.name, [])
        if choose(one, have) is None:
            instead = f"they have {', '.join(have[:5])}" if have else "they have no version of it"
            out.append(f"{one.name}{' ' + one.version if one.version else ''} is not in the package lists: {instead}")
    return out


def upstream(version: str) -> str:
    """580.95.05 of 5:580.95.05-1ubuntu1."""
    return version.split(":", 1)[-1].rsplit("-", 1)[0]


def parts_to_hold(version: str, installed: Dict[str, Installed]) -> Set[str]:
    """Those of the same upstream version that are not held yet."""
    return {name for name, one in installed.items() if upstream(one.version) == upstream(version) and not one.held}


def removals(simulated: str) -> List[str]:
    """What apt would take away, by what it prints with --simulate."""
    return sorted({line.split()[1] for line in simulated.splitlines() if line.startswith("Remv ")})


def why_not_installed(what: str, removed: List[str], said: str) -> str:
    """For people: apt's own words, or that it would have to take away what somebody may be working with."""
    if not removed:
        return f"Installing {what} failed on this host:\n{said}"
    return (
        f"Installing {what} would remove {', '.join(removed)}. What is installed is never taken away here: it would be "
        "stopped, with what runs in it. Nothing was installed. Remove it at a time that suits you "
        f"(apt-get remove {' '.join(removed)}), then run this again."
    )
