# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""apt's source files: write one deb822 source, and find or take out what others say about the same repository.

Pure functions over texts; standard library only.
"""

from __future__ import annotations

import re
from typing import Iterable, List, Optional, Sequence, Tuple

ONE_LINE = re.compile(r"^\s*(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)")
FIELD = re.compile(r"^(?P<name>[A-Za-z][A-Za-z0-9-]*)\s*:\s*(?P<value>.*)$")


def render_source(
    uris: Sequence[str],
    suites: Sequence[str],
    components: Sequence[str],
    signed_by: str,
    architectures: Sequence[str],
    comment: str,
) -> str:
    lines = [
        f"# {comment}",
        "Types: deb",
        f"URIs: {' '.join(uris)}",
        f"Suites: {' '.join(suites)}",
    ]
    lines += [f"Components: {' '.join(components)}"] if components else []
    lines += [f"Architectures: {' '.join(architectures)}"] if architectures else []
    lines += [f"Signed-By: {signed_by}"]
    return "\n".join(lines) + "\n"


def render_pin(packages: Sequence[str], origin: str, priority: int, comment: str) -> str:
    """Take these packages from this repository only: an equal name elsewhere gets a priority that never installs."""
    names = " ".join(packages)
    return (
        f"# {comment}\n"
        f'Package: {names}\nPin: origin "{origin}"\nPin-Priority: {priority}\n\n'
        f"Package: {names}\nPin: release *\nPin-Priority: -1\n"
    )


def normal_uri(uri: str) -> str:
    """A URI for comparison: no scheme (http and https name one repository), no options, no slash at the end."""
    text = re.sub(r"^[a-z0-9+]+:/*", "", uri.strip().lower())
    return re.sub(r"/+", "/", text).rstrip("/")


def names_repository(uri: str, prefixes: Iterable[str]) -> bool:
    text = normal_uri(uri) + "/"
    return any(text.startswith(normal_uri(prefix) + "/") for prefix in prefixes)


def without(text: str, prefixes: Sequence[str], deb822: bool) -> Optional[str]:
    """The file without its entries for these repositories; None when it has none, "" when nothing else is in it."""
    kept, dropped = (_without_stanzas if deb822 else _without_lines)(text, prefixes)
    if not dropped:
        return None
    return kept if has_entries(kept, deb822) else ""


def has_entries(text: str, deb822: bool) -> bool:
    if deb822:
        return any(_uris(stanza) for stanza in _stanzas(text))
    return any(ONE_LINE.match(line) for line in text.splitlines())


def _without_lines(text: str, prefixes: Sequence[str]) -> Tuple[str, bool]:
    kept = []
    dropped = False
    for line in text.splitlines(keepends=True):
        found = ONE_LINE.match(line)
        if found and names_repository(found.group("uri"), prefixes):
            dropped = True
        else:
            kept.append(line)
    return "".join(kept), dropped


def _without_stanzas(text: str, prefixes: Sequence[str]) -> Tuple[str, bool]:
    kept: List[str] = []
    dropped = False
    for stanza in _stanzas(text):
        if any(names_repository(uri, prefixes) for uri in _uris(stanza)) and not _disabled(stanza):
            dropped = True
        else:
            kept.append(stanza)
    return "\n".join(kept), dropped


def _stanzas(text: str) -> List[str]:
    return [part.strip("\n") + "\n" for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def _field(stanza: str, wanted: str) -> str:
    value, inside = "", False
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        found = FIELD.match(line)
        if found:
            inside = found.group("name").lower() == wanted
            value += (" " + found.group("value")) if inside else ""
        elif inside:
            value += " " + line.strip()
    return value


def _uris(stanza: str) -> List[str]:
    return _field(stanza, "uris").split()


def _disabled(stanza: str) -> bool:
    return _field(stanza, "enabled").strip().lower() in ("no", "false", "0", "off", "disable", "without")
