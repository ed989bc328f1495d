# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared conda environments: what is refused, and what follows on a host."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import conda_env, conda_state, conda_values
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import Environment
from ansible_collections.devnode.gpu.plugins.module_utils.conda_state import Found, State, Step
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda name: name not in ("base", "root"))
PACKAGES = st.from_regex(r"[a-z][a-z0-9]{0,6}(=[0-9]\.[0-9])?", fullmatch=True)


def one(item: dict[str, Any], **options: Any) -> tuple[Environment | None, str]:
    environments, errors = conda_env.parse_environments([item], variable="miniconda_environments", **options)
    return (environments[0] if environments else None), "\n".join(errors)


def refused(item: dict[str, Any], **options: Any) -> str:
    environment, errors = one(item, **options)
    assert environment is None
    assert errors
    return errors


# --- one value -------------------------------------------------------------------------------------------------------

EVIL = [
    "",
    "\n",
    "a\nb",
    " a",
    "a b",
    "'",
    '"',
    "$(id)",
    "`id`",
    "%h",
    "-n",
    "--file=/etc/shadow",
    "..",
    ".",
    "ä",
    "a;b",
]


@pytest.mark.parametrize("name", [*EVIL, "/opt/x", "a/b", "../x", "base", "ROOT", "x" * 65, 7, None, ["a"]])
def test_a_name_is_not_a_path_and_not_a_trick(name: Any) -> None:
    errors = refused({"name": name, "packages": ["numpy"]})
    assert "miniconda_environments[0].name" in errors
    assert "Allowed" in errors


def test_a_path_as_name_is_called_a_path() -> None:
    assert "is a path" in refused({"name": "/srv/envs/nlp", "packages": ["numpy"]})


@pytest.mark.parametrize(
    "package",
    [
        "numpy",
        "numpy=2.1",
        "numpy==2.1.0",
        "numpy>=2,<3",
        "numpy 2.*",
        "python=3.11.*=*_cpython",
        "conda-forge::numpy>=2",
        "numpy[version='>=2', build=*cuda*]",
        "_libgcc_mutex",
        "r-base",
        "ruamel.yaml",
    ],
)
def test_conda_packages_as_people_write_them(package: str) -> None:
    assert conda_values.package(package, False) == package


@pytest.mark.parametrize(
    "package", [value for value in EVIL if value != "a b"] + ["numpy; id", "a=$(id)", "https://x/y.conda", 3.11]
)
def test_what_is_no_conda_package(package: Any) -> None:
    assert "packages[0]" in refused({"name": "x", "packages": [package]})


@pytest.mark.parametrize(
    "requirement",
    [
        "rich",
        "rich==14.0",
        "rich[jupyter]>=14,<15",
        "rich ~= 14.0",
        "rich; python_version < '3.12'",
        "x @ https://h/x.whl",
    ],
)
def test_pip_requirements_as_people_write_them(requirement: str) -> None:
    assert conda_values.requirement(requirement) == requirement


@pytest.mark.parametrize(
    "requirement", ["-r other.txt", "--index-url=http://x", "-e .", "a\nb", "rich==$(id)", "${HOME}", "./x"]
)
def test_what_is_no_pip_requirement(requirement: str) -> None:
    assert "pip[0]" in refused({"name": "x", "packages": ["python"], "pip": [requirement]})


@given(st.text(max_size=30))
def test_no_text_becomes_an_option_or_a_second_line(text: str) -> None:
    for rule in (
        lambda value: conda_values.package(value, True),
        conda_values.requirement,
        conda_values.environment_name,
    ):
        try:
            value = rule(text)
        except InvalidError:
            continue
        assert value.isascii()
        assert value.isprintable()
        assert not value.startswith("-")
        assert "$" not in value
        assert "`" not in value


# --- Anaconda's channels ---------------------------------------------------------------------------------------------

ANACONDA = [
    "defaults",
    "main",
    "anaconda",
    "https://repo.anaconda.com/pkgs/main",
    "https://mirrors.tuna.tsinghua.edu.cn/anaconda/pkgs/main",
    "https://conda.anaconda.org/anaconda",
]


@pytest.mark.parametrize("channel", ANACONDA)
def test_anacondas_channels_need_the_opt_in(channel: str) -> None:
    errors = refused({"name": "x", "packages": ["numpy"], "channels": ["conda-forge", channel]})
    assert "licence" in errors
    assert "miniconda_anaconda_terms_accepted" in errors
    environment, _ = one({"name": "x", "packages": ["numpy"], "channels": [channel]}, anaconda_allowed=True)
    assert environment is not None
    assert environment.channels == (channel,)


def test_a_channel_in_front_of_a_package_counts_too() -> None:
    assert "licence" in refused({"name": "x", "packages": ["main::numpy"]})


@pytest.mark.parametrize(
    "channel", ["conda-forge", "pytorch", "conda-forge/label/dev", "https://h.example:8443/c/forge", "file:///srv/c"]
)
def test_other_channels(channel: str) -> None:
    assert conda_values.channel(channel, False) == channel


@pytest.mark.parametrize("channel", [*EVIL, "http://user:secret@h/c", "https://h/t/?q=1", "ssh://h/c", "https://h"])
def test_what_is_no_channel(channel: str) -> None:
    with pytest.raises(InvalidError):
        conda_values.channel(channel, True)


# --- a declaration ---------------------------------------------------------------------------------------------------


def test_python_is_added_when_no_package_names_it() -> None:
    environment, _ = one({"name": "x", "packages": ["numpy"]}, python="3.11")
    assert environment is not None
    assert environment.packages == ("numpy", "python=3.11.*")
    environment, _ = one({"name": "x", "packages": ["python=3.12"]}, python="3.11")
    assert environment is not None
    assert environment.packages == ("python=3.12",)
    environment, _ = one({"name": "x", "packages": ["r-base"], "python": ""}, python="3.11")
    assert environment is not None
    assert environment.packages == ("r-base",)


def test_pip_comes_with_pip_packages() -> None:
    environment, _ = one({"name": "x", "packages": ["python=3.11"], "pip": ["rich"]})
    assert environment is not None
    assert environment.packages == ("python=3.11", "pip")


@pytest.mark.parametrize(
    ("packages", "pip"),
    [
        (["numpy=2.1"], ["numpy"]),
        (["ruamel.yaml"], ["ruamel_yaml"]),
        (["pytorch"], ["torch==2.8"]),
        (["Rich"], ["rich[jupyter]"]),
    ],
)
def test_one_package_by_conda_and_by_pip_is_refused(packages: list[str], pip: list[str]) -> None:
    errors = refused({"name": "x", "packages": packages, "pip": pip})
    assert "miniconda_environments[0].pip" in errors
    assert "by conda as well" in errors


def test_everything_wrong_is_said_at_once() -> None:
    _, errors = conda_env.parse_environments(
        [
            {"name": "../x", "packages": ["numpy"]},
            {"name": "ok", "packages": ["-x"], "pip": ["--y"], "colour": "red"},
            {"name": "empty"},
            {"name": "twice", "packages": ["a"]},
            {"name": "twice", "packages": ["b"]},
            {"name": "odd", "packages": "numpy"},
            "text",
        ]
    )
    text = "\n".join(errors)
    for part in ("[0].name", "[1].packages[0]", "[1].pip[0]", "[1].colour", "[2]:", "[4].name", "[5].packages", "[6]"):
        assert f"environments{part}" in text


def test_the_file_for_conda_lets_no_other_channel_in() -> None:
    environment, _ = one({"name": "x", "packages": ["numpy"], "pip": ["rich"]}, python="3.11")
    assert environment is not None
    data = json.loads(environment.environment_file())
    assert data["channels"] == ["conda-forge", "nodefaults"]
    assert data["dependencies"] == ["numpy", "python=3.11.*", "pip", {"pip": ["rich"]}]


def test_an_environment_file_is_taken_apart() -> None:
    data = {"name": "other", "channels": ["conda-forge", "nodefaults"], "dependencies": ["numpy", {"pip": ["rich"]}]}
    assert conda_env.split_file(data) == {"channels": ["conda-forge"], "packages": ["numpy"], "pip": ["rich"]}


@pytest.mark.parametrize(
    "data", [None, [], "x", {}, {"dependencies": "numpy"}, {"dependencies": [], "variables": {"A": "b"}}]
)
def test_what_is_no_environment_file(data: Any) -> None:
    with pytest.raises(InvalidError):
        conda_env.split_file(data)


DECLARATIONS = st.fixed_dictionaries(
    {"name": NAMES, "packages": st.lists(PACKAGES, min_size=1, max_size=4, unique_by=lambda spec: spec.split("=")[0])}
)


@given(DECLARATIONS)
def test_the_normal_form_parses_to_the_same(declaration: dict[str, Any]) -> None:
    environment, errors = one(declaration, python="3.11")
    assert not errors
    assert environment is not None
    again, errors = one(environment.declaration(), python="3.12", channels=("elsewhere",))
    assert not errors
    assert again == environment


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"project": "nlp", "packages": ["numpy"], "framework": "torch 2.8"}, "nlp-py311-torch28"),
        ({"project": "speech-recog", "packages": ["python=3.12"]}, "speech-recog-py312"),
        ({"project": "stats", "packages": ["r-base"], "python": ""}, "stats"),
    ],
)
def test_a_name_follows_from_the_convention(item: dict[str, Any], name: str) -> None:
    environment, errors = one(item, python="3.11")
    assert not errors
    assert environment is not None
    assert environment.name == name


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"project": "nlp", "name": "x"}, "and name are both given"),
        ({"name": "x", "framework": "torch"}, "needs a project"),
        ({"project": "a/b"}, "is not a project"),
        ({"project": "nlp", "framework": "$(id)"}, "is not a framework"),
        ({"name": "x", "owner": "root"}, "systems have by themselves"),
        ({"name": "x", "owner": "../ada"}, "is not a POSIX login"),
        ({"name": "x", "imports": ["os; print()"]}, "is not a Python module"),
        ({"name": "x", "pip_extra_index_urls": ["https://u:p@index.example/simple"]}, "is not a package index"),
    ],
)
def test_wrong_fields_are_refused(item: dict[str, Any], why: str) -> None:
    assert why in refused({"packages": ["numpy"], **item})


def test_two_people_may_use_one_name() -> None:
    both = [{"name": "x", "owner": owner, "packages": ["numpy"]} for owner in ("ada", "grace", "")]
    environments, errors = conda_env.parse_environments(both)
    assert not errors
    assert [environment.title for environment in environments] == ["x", "ada/x", "grace/x"]
    assert "is declared twice" in conda_env.parse_environments([*both, both[0]])[1][0]


# --- what is noted, what follows -------------------------------------------------------------------------------------


def built(environment: Environment, contents: tuple[str, ...] = ("conda:numpy-2.1-0",), pending: bool = False) -> Found:
    return Found(State(environment.digest(), environment.spec(), contents, pending), contents)


NLP = Environment("nlp", ("conda-forge",), ("numpy=2.1",), ("rich",))


def actions(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.name, step.action) for step in steps]


def test_nothing_there_is_created() -> None:
    assert actions(conda_state.plan([NLP], {})) == [("nlp", "create")]


def test_what_is_as_declared_is_left_alone() -> None:
    assert conda_state.plan([NLP], {"nlp": built(NLP)}) == []


def test_a_changed_declaration_updates_and_says_what_changed() -> None:
    wanted = Environment("nlp", ("conda-forge",), ("numpy=2.2",), ("rich",))
    (step,) = conda_state.plan([wanted], {"nlp": built(NLP)})
    assert step.action == "update"
    assert "-numpy=2.1, +numpy=2.2" in step.reason


def test_a_pip_package_that_is_no_longer_declared_is_taken_away() -> None:
    wanted = Environment("nlp", ("conda-forge",), ("numpy=2.1",))
    (step,) = conda_state.plan([wanted], {"nlp": built(NLP, ("conda:numpy-2.1-0", "pip:rich==14.0"))})
    assert step.uninstall == ("rich",)


def test_a_change_by_hand_is_seen_and_undone() -> None:
    found = built(NLP, ("conda:numpy-2.1-0", "pip:rich==14.0"))
    found = Found(found.state, (*found.contents, "pip:requests==2.0"))
    (step,) = conda_state.plan([NLP], {"nlp": found})
    assert step.action == "update"
    assert "by hand: +pip:requests==2.0" in step.reason
    assert step.uninstall == ("requests",)


def test_an_interrupted_update_goes_on() -> None:
    (step,) = conda_state.plan([NLP], {"nlp": built(NLP, pending=True)})
    assert step.action == "update"


def test_an_interrupted_creation_starts_over() -> None:
    assert actions(conda_state.plan([NLP], {"nlp": Found(half_made=True)})) == [("nlp", "recreate")]


def test_somebody_elses_environment_is_not_touched() -> None:
    assert actions(conda_state.plan([NLP], {"nlp": Found()})) == [("nlp", "refuse")]
    assert conda_state.plan([], {"theirs": Found()}) == []
    adopting = Environment("nlp", ("conda-forge",), ("numpy=2.1",), adopt=True)
    assert actions(conda_state.plan([adopting], {"nlp": Found()})) == [("nlp", "update")]


def test_no_longer_declared_is_removed_like_absent() -> None:
    absent = Environment("nlp", present=False)
    assert actions(conda_state.plan([], {"nlp": built(NLP)})) == [("nlp", "remove")]
    assert actions(conda_state.plan([absent], {"nlp": built(NLP)})) == [("nlp", "remove")]
    assert conda_state.plan([absent], {}) == []


def test_removals_come_first() -> None:
    other = Environment("a", ("conda-forge",), ("numpy",))
    assert actions(conda_state.plan([other], {"z": built(NLP)})) == [("z", "remove"), ("a", "create")]


@given(st.lists(DECLARATIONS, max_size=4, unique_by=lambda item: item["name"]))
def test_after_the_plan_there_is_nothing_to_do(declarations: list[dict[str, Any]]) -> None:
    environments, errors = conda_env.parse_environments(declarations, python="3.11")
    assert not errors
    found = {environment.name: built(environment) for environment in environments}
    assert conda_state.plan(environments, found) == []
    assert len(conda_state.plan([], found)) == len(found)


@given(NAMES, st.lists(PACKAGES, max_size=3), st.booleans())
def test_the_note_survives_its_file(name: str, contents: list[str], pending: bool) -> None:
    state = State("d" * 64, {"channels": [], "packages": [name], "pip": []}, tuple(contents), pending)
    assert State.load(state.dump()) == state


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "x", '{"made_by": "somebody", "format": 1}', '{"made_by": 1'])
def test_a_damaged_note_counts_as_none(text: str) -> None:
    assert State.load(text) is None
