# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared conda environments: what they say, whether that can be, and what has to be done on a host.

Pure: no files, no processes. The controller parses and refuses (before anything is changed anywhere); the host
parses again and plans against what it found.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, boolean, choice, show

NAME_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CHANNEL_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*){0,4}")
CHANNEL_URL_RE = re.compile(r"(?:https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?|file://)(?:/[A-Za-z0-9._~+-]+)+/?")
# conda's MatchSpec as people write it: channel::name, then a version constraint, then [key=value, ...].
PACKAGE_RE = re.compile(
    r"(?:(?P<channel>[A-Za-z0-9_][A-Za-z0-9._/-]*)::)?"
    r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?P<version>\s*[=<>!~][A-Za-z0-9.*+!_=<>,|~ -]*|\s+[0-9*][A-Za-z0-9.*+!_=<>,|~ -]*)?"
    r"(?P<keys>\[[A-Za-z0-9_.*=<>,|'\" :/+-]*\])?"
)
# PEP 508 as people write it: name[extra], then a version constraint or @ URL, then a marker.
PIP_RE = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?:\[[A-Za-z0-9._, -]+\])?"
    r"(?:\s*(?:===|==|~=|!=|<=|>=|<|>)[A-Za-z0-9.*+!_=<>,~ -]*|\s*@\s*(?:https|file|git\+https|git\+ssh)://[A-Za-z0-9._~:/@+#&=?%-]+)?"
    r"(?:\s*;[A-Za-z0-9_.'\"<>=! ()-]+)?"
)
# Two names for one program: the module would be installed twice.
SAME_AS = {"torch": "pytorch"}
ANACONDA_CHANNELS = frozenset(
    {"defaults", "main", "r", "msys2", "anaconda", "pkgs/main", "pkgs/r", "pkgs/msys2", "free"}
)
ANACONDA_HOSTS = frozenset({"repo.anaconda.com", "repo.continuum.io"})
FIELDS = ("name", "channels", "packages", "pip", "python", "file", "adopt", "state")
FILE_KEYS = ("name", "prefix", "channels", "dependencies")
LICENCE = (
    "Anaconda's channels need a licence in organisations of more than 200 people: settle that first, then set "
    "miniconda_anaconda_terms_accepted: true"
)


def canonical_pip(name: str) -> str:
    """The one spelling of a Python package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def package_key(name: str) -> str:
    """One key for a package, whoever installs it."""
    key = canonical_pip(name)
    return SAME_AS.get(key, key)


def package_name(spec: str) -> str:
    """The package that a checked conda spec is about."""
    found = PACKAGE_RE.fullmatch(spec)
    return found.group("name").lower() if found else spec


def pip_name(requirement: str) -> str:
    """The package that a checked pip requirement is about."""
    found = PIP_RE.fullmatch(requirement)
    return canonical_pip(found.group("name")) if found else requirement


def is_anaconda(channel: str) -> bool:
    """Whether a channel is one of those whose terms ask for a licence."""
    if "://" in channel:
        parts = urlsplit(channel)
        return (
            parts.hostname in ANACONDA_HOSTS or "/pkgs/" in parts.path or parts.path.rstrip("/").endswith("/anaconda")
        )
    return channel.lower() in ANACONDA_CHANNELS


# --- one value each ----------------------------------------------------------------------------------------------


def environment_name(value: Any) -> str:
    allowed = "1-64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit; not base or root"
    if not isinstance(value, str) or not value:
        raise InvalidError("is not a name", allowed)
    if "/" in value:
        raise InvalidError("is a path: environments live in the prefix under their name", allowed)
    if not NAME_RE.fullmatch(value) or value.lower() in ("base", "root"):
        raise InvalidError("is not a name for an environment", allowed)
    return value


def channel(value: Any, anaconda_allowed: bool) -> str:
    allowed = "a channel's name such as conda-forge, or an http(s) or file URL without user, password or query"
    if not isinstance(value, str) or not (CHANNEL_URL_RE if "://" in value else CHANNEL_RE).fullmatch(value):
        raise InvalidError("is not a channel", allowed)
    if is_anaconda(value) and not anaconda_allowed:
        raise InvalidError(f"is one of Anaconda's channels. {LICENCE}", "other channels, such as conda-forge")
    return value.rstrip("/")


def package(value: Any, anaconda_allowed: bool) -> str:
    allowed = "a conda package such as numpy, numpy=2.1 or 'conda-forge::numpy>=2,<3'"
    if not isinstance(value, str) or len(value) > 300:
        raise InvalidError("is not a package", allowed)
    found = PACKAGE_RE.fullmatch(value)
    if not found:
        raise InvalidError("is not a package", allowed)
    if found.group("channel"):
        channel(found.group("channel"), anaconda_allowed)
    return " ".join(value.split())


def requirement(value: Any) -> str:
    allowed = "a requirement such as rich, rich==14.0 or 'rich[jupyter]>=14'; no options (-r, --index-url, -e)"
    if isinstance(value, str) and value.startswith("-"):
        raise InvalidError("is an option, not a package", allowed)
    if not isinstance(value, str) or len(value) > 500 or not PIP_RE.fullmatch(value):
        raise InvalidError("is not a pip requirement", allowed)
    return " ".join(value.split())


# --- a declaration -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Environment:
    """One declared environment, checked."""

    name: str
    channels: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    adopt: bool = False
    present: bool = True

    def spec(self) -> dict[str, list[str]]:
        """What decides whether a built environment is still the declared one."""
        return {"channels": list(self.channels), "packages": list(self.packages), "pip": list(self.pip)}

    def digest(self) -> str:
        text = json.dumps(self.spec(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def environment_file(self) -> str:
        """An environment.yml for conda (JSON is YAML). `nodefaults` keeps every channel out that is not listed."""
        dependencies: list[Any] = list(self.packages)
        if self.pip:
            dependencies.append({"pip": list(self.pip)})
        data = {"name": self.name, "channels": [*self.channels, "nodefaults"], "dependencies": dependencies}
        return json.dumps(data, indent=2) + "\n"

    def declaration(self) -> dict[str, Any]:
        """The normal form, which parses to the same environment again."""
        return {
            "name": self.name,
            **self.spec(),
            "python": "",
            "adopt": self.adopt,
            "state": "present" if self.present else "absent",
        }


class _Errors:
    """Collects everything that is wrong, so that people see it at once."""

    def __init__(self, variable: str) -> None:
        self.variable = variable
        self.found: list[str] = []

    def add(self, where: str, value: Any, error: InvalidError) -> None:
        allowed = f" Allowed: {error.allowed}." if error.allowed else ""
        self.found.append(f"{self.variable}{where}: {show(value)} {error.why}.{allowed}")

    def check(self, where: str, value: Any, rule: Any, *arguments: Any) -> Any:
        try:
            return rule(value, *arguments)
        except InvalidError as error:
            self.add(where, value, error)
            return None


def _items(errors: _Errors, where: str, value: Any, rule: Any, *arguments: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if not isinstance(value, (list, tuple)):
        errors.add(where, value, InvalidError("is not a list", "a list"))
        return ()
    checked = [errors.check(f"{where}[{index}]", item, rule, *arguments) for index, item in enumerate(value)]
    return tuple(item for item in checked if item)


def _duplicates(errors: _Errors, where: str, packages: tuple[str, ...], pip: tuple[str, ...]) -> None:
    by_conda: dict[str, str] = {}
    for item in packages:
        key = package_key(package_name(item))
        if key in by_conda:
            errors.add(f"{where}.packages", item, InvalidError(f"names the same package as {show(by_conda[key])}"))
        by_conda[key] = item
    by_pip: dict[str, str] = {}
    for item in pip:
        key = package_key(pip_name(item))
        if key in by_conda:
            why = (
                f"is installed by conda as well ({show(by_conda[key])}): pip would overwrite conda's files, and the "
                "next update would break the environment. Keep it in one of the two lists, best in packages"
            )
            errors.add(f"{where}.pip", item, InvalidError(why))
        elif key in by_pip:
            errors.add(f"{where}.pip", item, InvalidError(f"names the same package as {show(by_pip[key])}"))
        by_pip[key] = item


def split_file(data: Any) -> dict[str, Any]:
    """The parts of an environment.yml, as fields of a declaration. Raises InvalidError."""
    if not isinstance(data, dict) or not isinstance(data.get("dependencies"), list):
        raise InvalidError("is not an environment.yml", "a mapping with a list of dependencies")
    unknown = sorted(str(key) for key in data if key not in FILE_KEYS)
    if unknown:
        raise InvalidError(f"has keys that this version does not support: {', '.join(unknown)}", ", ".join(FILE_KEYS))
    packages: list[Any] = []
    pip: list[Any] = []
    for item in data["dependencies"]:
        if isinstance(item, dict) and list(item) == ["pip"] and isinstance(item["pip"], list):
            pip += item["pip"]
        else:
            packages.append(item)
    channels = [item for item in data.get("channels") or [] if item != "nodefaults"]
    return {"channels": channels, "packages": packages, "pip": pip}


def _with_python(packages: tuple[str, ...], pip: tuple[str, ...], python: str) -> tuple[str, ...]:
    names = {package_name(item) for item in packages}
    added = [f"python={python}.*"] if python and "python" not in names else []
    if pip and "pip" not in names:
        added.append("pip")
    return (*packages, *added)


def _python(value: Any) -> str:
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or not re.fullmatch(r"[23]\.[0-9]{1,2}", value):
        raise InvalidError("is not a Python version", '"3.11" (in quotes), or "" to add no Python')
    return value


def _environment(
    errors: _Errors, where: str, item: Any, channels: tuple[str, ...], python: str, anaconda_allowed: bool
) -> Environment | None:
    if not isinstance(item, dict):
        errors.add(where, item, InvalidError("is not an environment", "a mapping with name, packages, …"))
        return None
    before = len(errors.found)
    for key in sorted(str(key) for key in item if key not in FIELDS):
        errors.add(f"{where}.{key}", item.get(key), InvalidError("is unknown", ", ".join(FIELDS)))
    name = errors.check(f"{where}.name", item.get("name"), environment_name)
    state = errors.check(f"{where}.state", item.get("state") or "present", choice, ("present", "absent"))
    adopt = errors.check(f"{where}.adopt", item.get("adopt") or False, boolean)
    own_python = errors.check(f"{where}.python", item.get("python", python), _python)
    listed = _items(errors, f"{where}.channels", item.get("channels"), channel, anaconda_allowed) or channels
    packages = _items(errors, f"{where}.packages", item.get("packages"), package, anaconda_allowed)
    pip = _items(errors, f"{where}.pip", item.get("pip"), requirement)
    packages = _with_python(packages, pip, own_python or "")
    if state == "present" and not packages and len(errors.found) == before:
        errors.add(where, name, InvalidError("has nothing in it", "at least one of packages, python and file"))
    _duplicates(errors, where, packages, pip)
    if len(errors.found) > before:
        return None
    return Environment(str(name), tuple(dict.fromkeys(listed)), packages, pip, bool(adopt), state == "present")


def parse_environments(
    value: Any,
    *,
    channels: tuple[str, ...] = ("conda-forge",),
    python: str = "",
    anaconda_allowed: bool = False,
    variable: str = "environments",
) -> tuple[list[Environment], list[str]]:
    """The declared environments, and everything that is wrong with them."""
    errors = _Errors(variable)
    if not isinstance(value, (list, tuple)):
        errors.add("", value, InvalidError("is not a list", "a list of environments"))
        return [], errors.found
    found: dict[str, Environment] = {}
    for index, item in enumerate(value):
        environment = _environment(errors, f"[{index}]", item, channels, python, anaconda_allowed)
        if environment is None:
            continue
        if environment.name in found:
            errors.add(f"[{index}].name", environment.name, InvalidError("is declared twice"))
        found[environment.name] = environment
    return sorted(found.values(), key=lambda environment: environment.name), errors.found


# --- what is there, and what has to be done ------------------------------------------------------------------------

STATE_FORMAT = 1


@dataclass(frozen=True)
class State:
    """What we wrote beside an environment when we last finished (or began) work on it."""

    digest: str
    spec: dict[str, list[str]] = field(default_factory=dict)
    contents: tuple[str, ...] = ()
    pending: bool = False

    def dump(self) -> str:
        data = {
            "made_by": "devnode.gpu.conda_envs",
            "format": STATE_FORMAT,
            "digest": self.digest,
            "spec": self.spec,
            "contents": list(self.contents),
            "pending": self.pending,
        }
        return json.dumps(data, indent=1, sort_keys=True) + "\n"

    @classmethod
    def load(cls, text: str) -> State | None:
        """The state, or None for a file that is not ours or is damaged."""
        try:
            data = json.loads(text)
            spec = {key: [str(item) for item in data["spec"].get(key, [])] for key in ("channels", "packages", "pip")}
            if data["made_by"] != "devnode.gpu.conda_envs" or data["format"] != STATE_FORMAT:
                return None
            return cls(str(data["digest"]), spec, tuple(map(str, data["contents"])), bool(data["pending"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True)
class Found:
    """An environment's directory as it is on the host."""

    state: State | None = None
    contents: tuple[str, ...] = ()
    half_made: bool = False  # we began to create it and never finished


@dataclass(frozen=True)
class Step:
    """One thing to do. The reason is for people."""

    name: str
    action: str  # create | recreate | update | remove | refuse
    reason: str
    uninstall: tuple[str, ...] = ()  # pip packages to take away first


def _differences(old: list[str] | tuple[str, ...], new: list[str] | tuple[str, ...]) -> str:
    gone = [f"-{item}" for item in old if item not in new]
    come = [f"+{item}" for item in new if item not in old]
    items = [*gone, *come]
    return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "")


def _pip_of(contents: tuple[str, ...]) -> dict[str, str]:
    """Name → entry of what pip installed."""
    entries = [item for item in contents if item.startswith("pip:")]
    return {canonical_pip(item[4:].partition("==")[0]): item for item in entries}


def _step(wanted: Environment, found: Found | None) -> Step | None:
    if found is None:
        return Step(wanted.name, "create", "is declared and not there") if wanted.present else None
    if not wanted.present:
        return Step(wanted.name, "remove", "is declared absent")
    if found.half_made:
        return Step(wanted.name, "recreate", "was never finished: an earlier run was interrupted")
    if found.state is None:
        if not wanted.adopt:
            return Step(wanted.name, "refuse", "was not made by this role")
        return Step(wanted.name, "update", "is taken over (adopt: true)")
    unwanted = {pip_name(item) for item in found.state.spec.get("pip", [])} - {pip_name(item) for item in wanted.pip}
    strangers = {name for name, entry in _pip_of(found.contents).items() if entry not in found.state.contents} - {
        pip_name(item) for item in wanted.pip
    }
    uninstall = tuple(sorted((unwanted | strangers) & set(_pip_of(found.contents))))
    if found.state.digest != wanted.digest():
        old = [item for key in ("channels", "packages", "pip") for item in found.state.spec.get(key, [])]
        new = [item for items in wanted.spec().values() for item in items]
        reason = f"its declaration changed: {_differences(old, new) or 'another order'}"
        return Step(wanted.name, "update", reason, uninstall)
    if found.state.pending:
        return Step(wanted.name, "update", "an earlier update did not finish", uninstall)
    if found.state.contents != found.contents:
        reason = f"somebody changed it by hand: {_differences(found.state.contents, found.contents)}"
        return Step(wanted.name, "update", reason, uninstall)
    return None


def plan(declared: list[Environment], found: dict[str, Found]) -> list[Step]:
    """What to do, in the order of names; removals first, so that they free their space."""
    steps = [
        Step(name, "remove", "is no longer declared")
        for name, there in sorted(found.items())
        if (there.state is not None or there.half_made) and name not in {wanted.name for wanted in declared}
    ]
    for wanted in sorted(declared, key=lambda environment: environment.name):
        step = _step(wanted, found.get(wanted.name))
        if step is not None:
            steps.append(step)
    return sorted(steps, key=lambda step: (step.action != "remove", step.name))
