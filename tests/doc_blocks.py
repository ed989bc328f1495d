# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands in the documentation. A comment above each block says what becomes of it:

<!-- run: NAME -->         a test runs it as it stands
<!-- values: NAME -->      values of the reader's own; the test of that name sets its own instead
<!-- not run: REASON -->   and why
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A fence of any other language, or of none: no place for commands.
OTHER = re.compile(r"^[ ]*```(?P<language>\S*)[ ]*\n(?P<text>.*?)^[ ]*```[ ]*$", re.MULTILINE | re.DOTALL)
# Words that begin a command of somebody who runs this collection.
COMMAND = re.compile(
    r"^\s*(?:[$#] |sudo |ansible|ssh|scp |make |docker |devnode-|pip |git (?=[a-z-])|nft |journalctl |sh |bash )",
    re.MULTILINE,
)
FENCE = re.compile(
    r"^(?:[ ]*<!-- (?P<marker>run|values|not run): (?P<what>[^\n]*?) -->\n+)?"
    r"(?P<indent>[ ]*)```(?:sh|bash|console|shell|powershell)\n(?P<text>.*?)^[ ]*```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    place: str
    marker: str
    what: str
    text: str


def _place(path: Path) -> Path:
    """As a reader would look for it; another version's page lies elsewhere."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def blocks(path: Path) -> Iterator[Block]:
    """Every shell block of a page, in order."""
    page = path.read_text()
    for found in FENCE.finditer(page):
        line = page.count("\n", 0, found.start("text")) + 1
        text = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Block(f"{_place(path)}:{line}", found["marker"] or "", (found["what"] or "").strip(), text)


def unmarked(path: Path) -> Iterator[str]:
    """Fences without a language, and commands in a fence that is no shell's."""
    page = path.read_text()
    for found in OTHER.finditer(page):
        place = f"{_place(path)}:{page.count(chr(10), 0, found.start()) + 1}"
        if not found["language"]:
            yield f"{place}: a fence that names no language"
        elif found["language"] == "text" and COMMAND.search(found["text"]):
            yield f"{place}: commands in a fence of text"


def to_run(path: Path, name: str) -> list[Block]:
    return [block for block in blocks(path) if block.marker == "run" and block.what == name]


def pages() -> list[Path]:
    """All that people read; not what tests compare kits with."""
    folders = ("*.md", "docs/**/*.md", "roles/*/README.md", "tests/lab/**/*.md", "bench/*.md")
    return sorted(page for folder in folders for page in ROOT.glob(folder))
