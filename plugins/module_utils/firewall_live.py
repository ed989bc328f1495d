# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the table that filters is the one that its file says, and how it stays when others load their rules. Pure.

Anybody who is root may flush all tables, and /etc/nftables.conf begins with that. A run that looks at files alone would
then find everything in order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

# A line of the rules' file. It makes the file another one, so that putting it in place loads the table again.
AGAIN = re.compile(r"^# Loaded again ([0-9]{1,9}) times", re.MULTILINE)
LOADS = re.compile(r"^Exec(Start|Reload)=[-@:+!]*\S*/nft -f (/[A-Za-z0-9._/-]+)$", re.MULTILINE)
REMEMBERS = frozenset(("dynamic", "timeout"))
COMMANDS = re.compile(r"^Exec(Start|Reload)\s*=", re.MULTILINE)
ANY_COMMAND = re.compile(r"^\s*Exec\w*\s*=", re.MULTILINE)


def times_again(text: str) -> int:
    """How often the file has been loaded again because the table was another."""
    found = AGAIN.search(text)
    return int(found[1]) if found else 0


def comparable(listing: str) -> Any:
    """What counts of `nft --json list table`: without counts, numbers of the kernel's, and what rules remember."""
    try:
        objects = json.loads(listing)["nftables"]
    except (ValueError, TypeError, KeyError):
        return None
    return [_plain(one) for one in objects if "metainfo" not in one]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    # What packets put in goes by itself. nft 1.0.6 (Debian 12) says "timeout" of such a set, later ones also "dynamic".
    remembers = not REMEMBERS.isdisjoint(value.get("flags") or ())
    left_out = {"handle", "packets", "bytes", *(("elem",) if remembers else ())}
    found = {key: _plain(one) for key, one in value.items() if key not in left_out}
    for key in ("elem", "set"):  # a set's members come in no order
        if isinstance(found.get(key), list):
            found[key] = sorted(found[key], key=lambda one: json.dumps(one, sort_keys=True))
    return found


def same(live: str, meant: str) -> bool:
    """Whether two listings are of the same table. What cannot be read is not the same."""
    one, other = comparable(live), comparable(meant)
    return one is not None and one == other


def loaded_by(unit: str, drop_ins: Sequence[str] = ()) -> str:
    """The file that nftables.service loads, when that is all it does at start and at reload; otherwise nothing.

    `drop_ins`: other people's files for this unit. One that has a command of its own means something by it.
    """
    if any(ANY_COMMAND.search(text) for text in drop_ins):
        return ""
    found = LOADS.findall(unit)
    files = {file for _which, file in found}
    whole = sorted(which for which, _file in found) == ["Reload", "Start"] and len(COMMANDS.findall(unit)) == len(found)
    return files.pop() if whole and len(files) == 1 else ""
