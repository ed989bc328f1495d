# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared conda environments: what they say, and whether that can be.

Pure: no files, no processes. The controller parses and refuses (before anything is changed anywhere); the host
parses again and plans against what it found (conda_state).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils import conda_lock
from ansible_collections.devnode.gpu.plugins.module_utils.conda_lock import Lock
from ansible_collections.devnode.gpu.plugins.module_utils.conda_values import (
    channel,
    composed_name,
    cuda_version,
    environment_name,
    index_url,
    module_name,
    package,
    package_key,
    package_name,
    pip_name,
    requirement,
)
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, boolean, choice, login, show

FIELDS = (
    *("name", "project", "framework", "owner", "channels", "packages", "pip", "pip_extra_index_urls", "python", "file"),
    *("lock", "imports", "cuda", "torch", "expect", "bundled", "adopt", "state"),
)
# What an environment is made from, in the order in which a difference is shown.
SPEC_KEYS = ("channels", "packages", "pip", "expect", "lock")
FILE_KEYS = ("name", "prefix", "channels", "dependencies")


@dataclass(frozen=True)
class Environment:
    """One declared environment, checked."""

    name: str
    channels: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    pip_extra_index_urls: tuple[str, ...] = ()
    lock: Lock = field(default_factory=Lock)
    bundled: Lock = field(default_factory=Lock)  # what a bundle has for it, with the URLs that it was made from
    owner: str = ""  # whose home it is in; empty for one of all users
    imports: tuple[str, ...] = ()
    cuda: str = ""  # the CUDA that its packages need of the host's driver
    torch: str = ""  # the PyTorch among them
    expect: tuple[str, ...] = ()  # what must have come of it, such as pip:torch==2.8.*+cu128
    adopt: bool = False
    present: bool = True

    @property
    def title(self) -> str:
        """What people call it: names in somebody's home are that person's own."""
        return f"{self.owner}/{self.name}" if self.owner else self.name

    def spec(self) -> dict[str, list[str]]:
        """What decides whether a built environment is still the declared one."""
        if self.lock:
            return {"lock": self.lock.identity()}
        # Not where packages come from: a mirror gives the same ones.
        spec = {"channels": self.channels, "packages": self.packages, "pip": self.pip, "expect": self.expect}
        return {key: list(value) for key, value in spec.items() if value}

    @property
    def exact(self) -> Lock:
        """The list of packages that it is built from, when there is one."""
        return self.bundled or self.lock

    def digest(self) -> str:
        text = json.dumps(self.spec(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def environment_file(self) -> str:
        """An environment.yml for conda (JSON is YAML). `nodefaults` keeps every channel out that is not listed."""
        dependencies: list[Any] = list(self.packages)
        if self.pip:
            indexes = [f"--extra-index-url {url}" for url in self.pip_extra_index_urls]
            dependencies.append({"pip": [*indexes, *self.pip]})
        data = {"name": self.name, "channels": [*self.channels, "nodefaults"], "dependencies": dependencies}
        return json.dumps(data, indent=2) + "\n"

    def declaration(self) -> dict[str, Any]:
        """The normal form, which parses to the same environment again."""
        contents: dict[str, Any] = (
            {"lock": self.lock.lines()}
            if self.lock
            else {
                **{"channels": list(self.channels), "packages": list(self.packages), "pip": list(self.pip)},
                "pip_extra_index_urls": list(self.pip_extra_index_urls),
                "python": "",
            }
        )
        if self.bundled:
            contents["bundled"] = self.bundled.lines()
        return {
            "name": self.name,
            "owner": self.owner,
            **contents,
            "imports": list(self.imports),
            "cuda": self.cuda,
            "torch": self.torch,
            "expect": list(self.expect),
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


def _python_of(packages: tuple[str, ...], lock: Lock) -> str:
    """The Python that the packages ask for, as 3.11; empty when they do not say."""
    asked = [item for item in packages if package_name(item) == "python"]
    locked = [item.stem for item in lock.packages if item.stem.startswith("python-")]
    found = re.search(r"[23]\.[0-9]{1,2}", "".join(asked or locked[:1]))
    return found.group() if found else ""


def _name(errors: _Errors, where: str, item: dict[str, Any], python: str) -> str:
    if not item.get("project"):
        if item.get("framework"):
            errors.add(f"{where}.framework", item["framework"], InvalidError("needs a project beside it"))
        return str(errors.check(f"{where}.name", item.get("name"), environment_name) or "")
    if item.get("name"):
        why = "and name are both given: the name follows from the project, or is given"
        errors.add(f"{where}.project", item["project"], InvalidError(why, "one of them"))
        return ""
    return str(errors.check(f"{where}.project", item["project"], composed_name, python, item.get("framework")) or "")


def _lock(errors: _Errors, where: str, item: dict[str, Any], anaconda_allowed: bool) -> Lock:
    both = [key for key in ("channels", "packages", "pip", "pip_extra_index_urls", "file") if item.get(key)]
    if both:
        errors.add(
            where, item.get("name"), InvalidError(f"and {', '.join(both)} are both given: a lock file says it all")
        )
        return Lock()
    try:
        lock = conda_lock.parse([str(line) for line in item["lock"]])
        for base in sorted({package.base for package in lock.packages}):
            channel(base, anaconda_allowed)
    except InvalidError as error:
        errors.add(where, item.get("name"), error)
        return Lock()
    return lock


def _environment(
    errors: _Errors, where: str, item: Any, channels: tuple[str, ...], python: str, anaconda_allowed: bool
) -> Environment | None:
    if not isinstance(item, dict):
        errors.add(where, item, InvalidError("is not an environment", "a mapping with name, packages, …"))
        return None
    before = len(errors.found)
    for key in sorted(str(key) for key in item if key not in FIELDS):
        errors.add(f"{where}.{key}", item.get(key), InvalidError("is unknown", ", ".join(FIELDS)))
    state = errors.check(f"{where}.state", item.get("state") or "present", choice, ("present", "absent"))
    adopt = errors.check(f"{where}.adopt", item.get("adopt") or False, boolean)
    owner = errors.check(f"{where}.owner", item["owner"], login) if item.get("owner") else ""
    own_python = errors.check(f"{where}.python", item.get("python", python), _python) or ""
    packages: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    lock = _lock(errors, f"{where}.lock", item, anaconda_allowed) if item.get("lock") else Lock()
    if not item.get("lock"):
        listed = _items(errors, f"{where}.channels", item.get("channels"), channel, anaconda_allowed) or channels
        packages = _items(errors, f"{where}.packages", item.get("packages"), package, anaconda_allowed)
        pip = _items(errors, f"{where}.pip", item.get("pip"), requirement)
        indexes = _items(errors, f"{where}.pip_extra_index_urls", item.get("pip_extra_index_urls"), index_url)
        packages = _with_python(packages, pip, own_python)
    bundled = conda_lock.parse([str(line) for line in item["bundled"]]) if item.get("bundled") else Lock()
    name = _name(errors, where, item, _python_of(packages, lock) or own_python)
    imports = _items(errors, f"{where}.imports", item.get("imports"), module_name)
    cuda = errors.check(f"{where}.cuda", item["cuda"], cuda_version) if item.get("cuda") else ""
    torch = errors.check(f"{where}.torch", item["torch"], cuda_version) if item.get("torch") else ""
    if state == "present" and not packages and not lock and len(errors.found) == before:
        errors.add(where, name, InvalidError("has nothing in it", "at least one of packages, python, file and lock"))
    _duplicates(errors, where, packages, pip)
    if len(errors.found) > before:
        return None
    return Environment(
        name=name,
        channels=tuple(dict.fromkeys(listed)),
        packages=packages,
        pip=pip,
        pip_extra_index_urls=indexes if pip else (),
        lock=lock,
        bundled=bundled,
        owner=owner,
        imports=imports,
        cuda=cuda or "",
        torch=torch or "",
        expect=tuple(str(pattern) for pattern in item.get("expect") or ()),
        adopt=bool(adopt),
        present=state == "present",
    )


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
        if environment.title in found:
            errors.add(f"[{index}].name", environment.title, InvalidError("is declared twice"))
        found[environment.title] = environment
    return sorted(found.values(), key=lambda environment: (environment.owner, environment.name)), errors.found
