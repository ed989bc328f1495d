# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also a program of the host, which prints and exits
"""Brings the files that PAM keeps one-time codes in to what the inventory says.

PAM writes into them which codes were used, so that none counts twice, and when somebody tried. A person whose secret is
the same keeps the former; a new secret makes a new file; who is no longer listed has none.

Role bastion installs this file on hosts as a program, with a first line that makes it one: standard library only.
"""

from __future__ import annotations

import os
import sys
from typing import Dict, List, Optional

# Twenty tries in an hour, right ones as well, then none until the first of them is an hour old. Nothing else bounds who
# has somebody's key and guesses codes (a mistyped one bans nobody): of a million codes three count at a time, so this
# is a chance of 0.15 % a day, and an alert on its first day (docs/audit.md). A code counts once; the one before and
# the one after the present one count, too, for clocks that are half a minute off.
OPTIONS = {"RATE_LIMIT": ["20", "3600"], "WINDOW_SIZE": ["3"], "DISALLOW_REUSE": [], "TOTP_AUTH": []}


def _lines(path: str) -> List[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return [line.strip() for line in stream]
    except OSError:
        return []


def _secret(path: str) -> str:
    return (_lines(path) or [""])[0]


def _options(lines: List[str]) -> Dict[str, List[str]]:
    """What is set, with what PAM has added behind it: tries, used codes."""
    words = [line.split()[1:] for line in lines[1:] if line.startswith('" ')]
    return {line[0]: line[1:] for line in words if line}


def _fits(path: str, secret: str) -> bool:
    lines = _lines(path)
    found = _options(lines)
    return lines[:1] == [secret] and all(
        name in found and found[name][: len(words)] == words for name, words in OPTIONS.items()
    )


def _put(path: str, secret: str) -> None:
    # The same person with other options: a code that was used stays used.
    used = _options(_lines(path)).get("DISALLOW_REUSE", []) if _secret(path) == secret else []
    options = {**OPTIONS, "DISALLOW_REUSE": used}
    text = "".join(" ".join(['"', name, *words]) + "\n" for name, words in options.items())
    new = f"{path}.new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(f"{secret}\n{text}")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, path)


def bring(wanted: str, state: str) -> List[str]:
    """Whose file was written or removed."""
    os.makedirs(state, mode=0o700, exist_ok=True)
    os.chmod(state, 0o700)
    names = set(os.listdir(wanted)) if os.path.isdir(wanted) else set()
    changed = []
    for name in sorted(names):
        secret = _secret(os.path.join(wanted, name))
        if secret and not _fits(os.path.join(state, name), secret):
            _put(os.path.join(state, name), secret)
            changed.append(name)
    for name in sorted(set(os.listdir(state)) - names):
        os.unlink(os.path.join(state, name))
        changed.append(name)
    return changed


def differing(wanted: str, state: str) -> List[str]:
    """Whose file `bring` would write or remove."""
    asked, kept = (set(os.listdir(place)) if os.path.isdir(place) else set() for place in (wanted, state))
    others = {
        name for name in asked & kept if not _fits(os.path.join(state, name), _secret(os.path.join(wanted, name)))
    }
    return sorted((asked ^ kept) | others)


def main(argv: Optional[List[str]] = None) -> int:
    """0: done, or with --check: nothing to do. 1: with --check, these are not as wanted."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) == 3 and words[2] == "--check":
        names = differing(words[0], words[1])
        if names:
            print(f"one-time codes: PAM does not have what the inventory says of {', '.join(names)}", file=sys.stderr)
        return 1 if names else 0
    if len(words) != 2:
        print("usage: devnode-totp WANTED STATE [--check] (two directories)", file=sys.stderr)
        return 2
    for name in bring(words[0], words[1]):
        print(f"one-time codes of {name}: changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
