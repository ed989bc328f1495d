# SPDX-License-Identifier: GPL-3.0-or-later
"""No command stands in the documentation of which nobody says whether it is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_blocks import ROOT, blocks, pages, to_run

SOURCES = [*(ROOT / "molecule").glob("*/tests/*.py"), *(ROOT / "tests").glob("*.py")]
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_block_says_whether_it_is_run(page: Path) -> None:
    silent = [block.place for block in blocks(page) if not block.marker or not block.what]
    assert not silent, f"no <!-- run: … -->, <!-- values: … --> or <!-- not run: … --> above: {silent}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_is_said_to_be_run_is_run(page: Path) -> None:
    code = "\n".join(source.read_text() for source in SOURCES if source.name != Path(__file__).name)
    for block in blocks(page):
        if block.what.endswith(".py"):
            assert page.name in (ROOT / block.what).read_text(), f"{block.place}: {block.what} does not read this page"
        elif block.marker in ("run", "values"):
            assert f'"{block.what}"' in code, f"{block.place}: no test runs {block.what}"


@pytest.mark.parametrize("page", [*pages(), *(ROOT / "roles").glob("*/README.md")], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken


def test_blocks_are_found_with_their_markers() -> None:
    page = ROOT / "docs" / "first-fleet.md"
    assert {block.marker for block in blocks(page)} == {"run", "values", "not run"}
    assert to_run(page, "first-fleet")[0].text.startswith("ansible-galaxy collection install")
