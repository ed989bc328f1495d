# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role's README, its argument_specs and its defaults say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from role_docs import BEGIN, END, ROOT, markdown, page, reference, roles

BY_NAME = {"argvalues": roles(), "ids": lambda role: role.name}


def specs_of(role: Path) -> dict:
    return yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]


@pytest.mark.parametrize("role", **BY_NAME)
def test_every_role_describes_itself(role: Path) -> None:
    assert (role / "README.md").is_file()
    assert specs_of(role)["main"]["options"]


def test_the_roles_are_the_folders() -> None:
    assert [role.name for role in roles()] == sorted(path.name for path in (ROOT / "roles").iterdir())


@pytest.mark.parametrize("role", **BY_NAME)
def test_the_reference_is_up_to_date(role: Path) -> None:
    assert (role / "README.md").read_text() == page(role), "run `make docs` and commit what it writes"


@pytest.mark.parametrize("role", **BY_NAME)
def test_every_variable_is_in_the_reference(role: Path) -> None:
    named = (role / "README.md").read_text().partition(BEGIN)[2].partition(END)[0]
    for entry in specs_of(role).values():
        for name in entry.get("options") or {}:
            assert f"- `{name}` (" in named


@pytest.mark.parametrize("role", **BY_NAME)
def test_defaults_are_those_that_are_described(role: Path) -> None:
    """A default of Jinja is made from others; what it is for is in its description."""
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    options = {
        name: option for entry in specs_of(role).values() for name, option in (entry.get("options") or {}).items()
    }
    assert set(defaults) <= set(options), "a default that no argument_specs describe"
    computed = {name for name, value in defaults.items() if isinstance(value, str) and "{{" in value}
    for name in set(defaults) - computed:
        assert options[name].get("default") == defaults[name], name
    without = {name for name, option in options.items() if "default" in option and option["default"] is not None}
    assert without <= set(defaults), "described as a default, but there is none"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("set O(a.b) to V(1\\)), see C(x(y\\))", "set `a.b` to `1)`, see `x(y)`"),
        ("role P(devnode.gpu.bastion#role)", "role `devnode.gpu.bastion`"),
        (
            "B(never) I(now) U(https://e.org) L(here, https://e.org)",
            "**never** *now* <https://e.org> [here](https://e.org)",
        ),
        ("<name> and a_b, *", "\\<name\\> and a_b, \\*"),
    ],
)
def test_markup(text: str, wanted: str) -> None:
    assert markdown(text) == wanted


def test_nested_options_and_entry_points() -> None:
    inner = {"name": {"type": "str", "required": True, "description": "Login."}}
    people = {"type": "list", "elements": "dict", "default": [], "description": ["Who.", "And how."], "options": inner}
    specs = {"main": {"options": {"x_people": people}}, "check": {"short_description": "Ask.", "options": {}}}
    assert reference(specs) == (
        "## Variables\n\n- `x_people` (list of mappings, default `[]`): Who. And how.\n"
        "  - `name` (string, required): Login.\n\n## Entry point `check`\n\nAsk."
    )


def test_text_by_hand_stays(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/argument_specs.yml").write_text("argument_specs: {main: {options: {x: {description: New.}}}}")
    (tmp_path / "README.md").write_text(f"# x\n\nabove\n\n{BEGIN}\nold\n{END}\n\nbelow\n")
    written = page(tmp_path)
    assert written.startswith("# x\n\nabove\n\n")
    assert written.endswith(f"{END}\n\nbelow\n")
    assert "- `x` (string): New." in written
    assert "old" not in written
