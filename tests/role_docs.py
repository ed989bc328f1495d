#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference part of each role's README, made from its meta/argument_specs.yml.

`make docs` writes it again; tests/unit/test_role_docs.py fails while it differs. What stands outside the two markers is
written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- reference: from meta/argument_specs.yml, by `make docs` -->"
END = "<!-- end of the reference -->"
TYPES = {
    "bool": "true or false",
    "dict": "mapping",
    "float": "number",
    "int": "integer",
    "path": "path",
    "raw": "any value",
    "str": "string",
}
# What ansible-doc understands: C(code), V(value), O(option), P(plugin#type), B(bold), I(italics), U(url), L(text, url).
MARKUP = re.compile(r"\b(?P<kind>[CVOPBIUL])\((?P<text>(?:\\.|[^\\)])*)\)")


def markdown(text: str) -> str:
    """ansible-doc's markup as Markdown; what looks like an HTML tag or an emphasis stays text."""

    def one(found: re.Match[str]) -> str:
        kind, inner = found["kind"], re.sub(r"\\(.)", r"\1", found["text"])
        if kind == "P":
            return f"`{inner.partition('#')[0]}`"
        if kind == "L":
            label, _, url = inner.rpartition(",")
            return f"[{label.strip()}]({url.strip()})"
        return {"B": f"**{inner}**", "I": f"*{inner}*", "U": f"<{inner}>"}.get(kind, f"`{inner}`")

    done, last = [], 0
    for found in MARKUP.finditer(text):
        done += [_literal(text[last : found.start()]), one(found)]
        last = found.end()
    return "".join([*done, _literal(text[last:])])


def _literal(text: str) -> str:
    return re.sub(r"([*<>\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _sentences(description: Any) -> str:
    parts = description if isinstance(description, list) else [description or ""]
    return " ".join(markdown(" ".join(str(part).split())) for part in parts)


def _type(option: dict[str, Any]) -> str:
    kind = option.get("type", "str")
    if kind != "list":
        return TYPES[kind]
    elements = {"dict": "mappings", "int": "integers", "str": "strings"}
    return f"list of {elements.get(option.get('elements', ''), 'values')}"


def _value(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False) if not isinstance(value, str) or not value else value}`"


def _facts(option: dict[str, Any]) -> str:
    facts = [_type(option)]
    if option.get("choices"):
        facts.append("one of " + ", ".join(_value(choice) for choice in option["choices"]))
    if option.get("required"):
        facts.append("required")
    elif option.get("default") is not None:
        facts.append(f"default {_value(option['default'])}")
    return ", ".join(facts)


def options(spec: dict[str, Any], depth: int = 0) -> Iterator[str]:
    for name, option in spec.items():
        yield f"{'  ' * depth}- `{name}` ({_facts(option)}): {_sentences(option.get('description'))}"
        yield from options(option.get("options") or {}, depth + 1)


def reference(specs: dict[str, Any]) -> str:
    lines = []
    for name, spec in specs.items():
        lines += ["## Variables" if name == "main" else f"## Entry point `{name}`", ""]
        if name != "main":
            lines += [_sentences(spec.get("description") or spec.get("short_description")), ""]
        lines += [*options(spec.get("options") or {}), ""]
    return "\n".join(lines).strip()


def page(role: Path) -> str:
    """The README as it should be. Without markers the reference goes to its end."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    text = (role / "README.md").read_text()
    part = f"{BEGIN}\n{reference(specs)}\n{END}"
    if BEGIN not in text:
        return f"{text.rstrip()}\n\n{part}\n"
    head, _, rest = text.partition(BEGIN)
    return f"{head}{part}{rest.partition(END)[2]}"


def roles() -> list[Path]:
    """Every role, also one that lacks what this reads: it has to be written."""
    return sorted(path for path in ROOT.glob("roles/*") if path.is_dir())


def main() -> int:
    for role in roles():
        wanted = page(role)
        if wanted != (role / "README.md").read_text():
            (role / "README.md").write_text(wanted)
            print(f"written: {(role / 'README.md').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
