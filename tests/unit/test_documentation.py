# SPDX-License-Identifier: GPL-3.0-or-later
"""No command stands in the documentation of which nobody says whether it is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from doc_blocks import ROOT, blocks, pages, to_run, unmarked

SOURCES = [*(ROOT / "molecule").glob("*/tests/*.py"), *(ROOT / "tests").glob("*.py")]
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_stand_in_shell_blocks(page: Path) -> None:
    assert list(unmarked(page)) == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_block_says_whether_it_is_run(page: Path) -> None:
    silent = [block.place for block in blocks(page) if not block.marker or not block.what]
    assert not silent, f"no <!-- run: … -->, <!-- values: … --> or <!-- not run: … --> above: {silent}"


@pytest.mark.parametrize("page", pages(), ids=name)
def test_what_is_said_to_be_run_is_run(page: Path) -> None:
    code = "\n".join(source.read_text() for source in SOURCES if source.name != Path(__file__).name)
    for block in blocks(page):
        if block.what.endswith(".py"):
            assert page.name in (ROOT / block.what).read_text(), f"{block.place}: {block.what} does not read this page"
        elif block.marker in ("run", "values"):
            assert f'"{block.what}"' in code, f"{block.place}: no test runs {block.what}"


@dataclass
class Use:
    """A call of to_run in a test: how many blocks its statement takes, and the names that it gives them."""

    blocks: int | None  # None: whatever there are
    names: list[str]


def uses(code: str) -> Iterator[tuple[str, Use]]:
    tree = ast.parse(code)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "to_run":
            continue
        found, node = Use(0, []), call
        while node in parents and not isinstance(node, ast.stmt):
            node = parents[node]
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "join":
                found.blocks = None
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple | ast.List):
            found.names = [one.id for one in node.targets[0].elts if isinstance(one, ast.Name)]
            found.blocks = len(found.names)
        yield ast.literal_eval(call.args[1]), found


def unused(marked: list[str], sources: list[str]) -> list[str]:
    """Of the names at marked blocks those whose blocks are not all taken and used by a test."""
    nodes = [node for code in sources for node in ast.walk(ast.parse(code))]
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    whole = {
        one
        for code in sources
        for one, use in uses(code)
        if use.blocks is None or (use.blocks == marked.count(one) and set(use.names) <= read)
    }
    return sorted(set(marked) - whole)


def test_all_blocks_of_a_name_are_used() -> None:
    """A scenario takes the blocks of a page by number: one more must not go by unnoticed."""
    marked = [(block.what, name(page)) for page in pages() for block in blocks(page) if block.marker == "run"]
    pages_of = {what: {page for other, page in marked if other == what} for what, _ in marked}
    assert not {what: on for what, on in pages_of.items() if len(on) > 1}, "one name, one page"
    assert not unused([what for what, _ in marked], [source.read_text() for source in SOURCES])


@pytest.mark.parametrize(
    ("code", "good"),
    [
        ('A, B = to_run(page, "x")\nrun(A, B)', True),
        ('[A, B] = to_run(page, "x")\nrun(A)', False),  # B goes nowhere
        ('A, _ = to_run(page, "x")\nrun(A)', False),
        ('[A] = to_run(page, "x")\nrun(A)', False),  # there are two
        ('ALL = to_run(page, "x")\nrun(ALL[0])', False),
        ('a, b = (run(one) for one in to_run(page, "x"))\nassert a == b', True),
        ('run("\\n".join(one.text for one in to_run(page, "x")))', True),
        ("'x'", False),
    ],
)
def test_a_block_that_is_not_used_is_noticed(code: str, good: bool) -> None:
    assert unused(["x", "x"], [code]) == ([] if good else ["x"])


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken


# A command to hosts: a playbook of ours or an ad-hoc module. The named ones bring hosts of their own.
TO_HOSTS = re.compile(r"\bansible(?:-playbook)? [^`\n]*(?:-m |devnode\.gpu\.)[^`\n]*")
OWN_HOSTS = ("devnode.gpu.environments",)


def test_every_command_to_hosts_says_which_inventory() -> None:
    """Also those in tables."""
    commands = [(name(page), one[0]) for page in pages() for one in TO_HOSTS.finditer(page.read_text())]
    assert len(commands) > 20
    assert not [one for one in commands if " -i " not in one[1] and not any(word in one[1] for word in OWN_HOSTS)]


def test_blocks_are_found_with_their_markers() -> None:
    page = ROOT / "docs" / "first-fleet.md"
    assert {block.marker for block in blocks(page)} == {"run", "values", "not run"}
    assert to_run(page, "first-fleet")[0].text.startswith("ansible-galaxy collection install")


def test_what_troubleshooting_quotes_is_what_a_run_says() -> None:
    """Texts of our own code, letter for letter; literals that the code breaks over lines are joined."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    rows = page.partition("## What a run says\n")[2].partition("\n## ")[0].splitlines()[4:]
    quoted = [phrase for row in rows if row.startswith("|") for phrase in re.findall("`([^`]+)`", row.split("|")[1])]
    assert len(quoted) > 8
    code = "".join(path.read_text() for top in ("plugins", "roles") for path in (ROOT / top).rglob("*.py"))
    code = re.sub(r'"\s*f?"', "", code)
    assert not [phrase for phrase in quoted if phrase not in code]
