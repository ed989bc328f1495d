# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What sshd's configuration files say: every setting with its file and line, Includes followed.

Part of the program that `sshd_check` is on hosts: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from typing import Optional

SSHD_CONFIG = "/etc/ssh/sshd_config"
# One keyword under two names, and one value under two names.
SAME_KEYWORD = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "skeyauthentication": "kbdinteractiveauthentication",
}
SAME_VALUE = {"prohibit-password": "without-password"}
# sshd from 9.8 hands its configuration on in one message of at most 256 KiB. Above, every login dies, and sshd -t says
# nothing; so stay well below.
SIZE_LIMIT = 200 * 1024


@dataclass(frozen=True)
class Setting:
    """One line of a configuration file."""

    path: str
    line: int
    keyword: str
    value: str
    match: str = ""  # the criteria of the Match block that it stands in

    @property
    def where(self) -> str:
        """For messages."""
        inside = f" (inside Match {self.match})" if self.match else ""
        return f"{self.path}:{self.line}{inside}"


@dataclass(frozen=True)
class Source:
    """One file that sshd reads: its bytes, and the Match block (if any) in which it is included."""

    size: int
    match: str


def canonical(keyword: str) -> str:
    """One name for a keyword, in lower case."""
    lowered = keyword.lower()
    return SAME_KEYWORD.get(lowered, lowered)


def plain(text: str) -> str:
    """A value as it is compared: one spelling for what sshd takes for the same."""
    lowered = " ".join(text.replace('"', "").split()).lower()
    return SAME_VALUE.get(lowered, lowered)


def read_settings(
    path: str, match: str = "", root: str = "", depth: int = 0, files: Optional[dict[str, Source]] = None
) -> list[Setting]:
    """Every setting in the order in which sshd reads them, Includes followed. `files` learns what was read."""
    try:
        with open(root + path, encoding="utf-8", errors="replace") as handle:
            text = handle.read()
    except OSError:
        return []
    lines = text.splitlines()
    if files is not None:
        files.setdefault(path, Source(len(text.encode("utf-8")), match))
    found: list[Setting] = []
    for number, line in enumerate(lines, 1):
        parsed = re.match(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*?)\s*$", line)
        if not parsed:
            continue
        keyword, value = canonical(parsed.group(1)), re.sub(r"\s+#.*$", "", parsed.group(2))
        if keyword == "match":
            match = "" if value.lower() == "all" else value
        elif keyword == "include" and depth < 16:
            for pattern in value.replace('"', "").split():
                absolute = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
                for name in sorted(glob.glob(root + absolute)):
                    found += read_settings(name[len(root) :], match, root, depth + 1, files)
        else:
            found.append(Setting(path, number, keyword, value, match))
    return found


def is_ours(path: str) -> bool:
    """Another role of this collection wrote the file: its Match blocks are meant."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.readline().startswith("# Managed by devnode.gpu ")
    except OSError:
        return False


def not_read(policy: str, files: dict[str, Source], config: str) -> list[str]:
    """The policy stands in a file that sshd does not read, or reads for some people only."""
    if policy in files and not files[policy].match:
        return []
    directory = os.path.dirname(policy)
    return [
        f"{config} does not include {policy}, so it has no effect. "
        f"Put this line at the top of {config}: Include {directory}/*.conf"
    ]


def too_large(files: dict[str, Source]) -> list[str]:
    """More than sshd can hand on to the process that answers a connection."""
    whole = sum(source.size for source in files.values())
    if whole <= SIZE_LIMIT:
        return []
    largest = sorted(files, key=lambda path: -files[path].size)[:3]
    return [
        f"sshd's whole configuration has {whole // 1024} KiB, most of it in {', '.join(largest)}. From 9.8 sshd takes "
        f"256 KiB, and above that every login dies; {SIZE_LIMIT // 1024} are allowed here. What differs from person to "
        "person belongs into their key files (permitopen=)."
    ]
