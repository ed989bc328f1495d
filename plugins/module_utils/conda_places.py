# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a prefix and in the directories of environments, without starting anything there, and who made it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.devnode.gpu.plugins.module_utils import conda_install, conda_state, conda_values
from ansible_collections.devnode.gpu.plugins.module_utils.conda_host import notes, read, remove_tree, write

# conda reads every *.json in conda-meta as a package record, so our files there have no such ending.
MARKER = "conda-meta/devnode-install"
ENVIRONMENT_STATE = "conda-meta/devnode-environment"


def _base_package(prefix: Path, name: str) -> str:
    """Version of a package in base, from the names of its records; the newest if an upgrade left two."""
    pattern = re.compile(re.escape(name) + r"-([0-9][^-]*)-[^-]+\.json")
    found = [
        match.group(1)
        for item in (prefix / "conda-meta").glob(f"{name}-*.json")
        if (match := pattern.fullmatch(item.name))
    ]
    return max(found, key=conda_install.version_key, default="")


@dataclass(frozen=True)
class Place:
    """A directory of environments: the prefix's, for all users, or one in somebody's home."""

    environments: Path
    unfinished: Path  # names of what a run began to create and did not finish

    def directories(self) -> list[Path]:
        if not self.environments.is_dir():
            return []
        return sorted(
            item
            for item in self.environments.iterdir()
            if item.is_dir() and not item.is_symlink() and item.name[0] != "."
        )


def shared(prefix: Path) -> Place:
    return Place(prefix / "envs", notes(prefix, ".creating"))


def private(home: Path) -> Place:
    """Where conda puts a user's environments when the prefix belongs to root. Only for a process of that user."""
    return Place(home / ".conda/envs", home / ".conda/.devnode-creating")


def owners(prefix: Path) -> set[str]:
    """People in whose homes the role made environments. Root's note: a home can say nothing to root."""
    try:
        return {str(item) for item in json.loads(read(notes(prefix, ".owners")) or "[]")}
    except (ValueError, TypeError):
        return set()


def note_owners(prefix: Path, names: set[str]) -> None:
    _note(notes(prefix, ".owners"), names)


def _note(path: Path, names: set[str]) -> None:
    if names:
        write(path, json.dumps(sorted(names)) + "\n")
    else:
        path.unlink(missing_ok=True)


def find_installation(prefix: Path) -> conda_install.Found:
    """Look at a prefix, without starting anything in it."""
    if not prefix.is_dir() or not any(prefix.iterdir()):
        return conda_install.Found()
    traces = ("conda-meta", "_conda", "install_tmp", "preconda.tar.bz2", "pkgs", "bin/conda")
    parts = ("bin/conda", "bin/python", "conda-meta/history")
    missing = [part for part in parts if not (prefix / part).exists()]
    conda, python = _base_package(prefix, "conda"), _base_package(prefix, "python")
    missing += [f"package {name}" for name, version in (("conda", conda), ("python", python)) if not version]
    if (prefix / "install_tmp").exists():
        missing.append("end of its installation (install_tmp is still there)")
    try:
        interrupted = str(json.loads(read(notes(prefix, ".doing")) or "{}").get("doing", ""))
    except (ValueError, AttributeError):
        interrupted = "installation"
    return conda_install.Found(
        exists=True,
        conda_like=any((prefix / trace).exists() for trace in traces),
        missing=tuple(missing),
        conda=conda,
        python=".".join(python.split(".")[:2]),
        marker=conda_install.Marker.load(read(prefix / MARKER)),
        interrupted=interrupted,
        environments=len(shared(prefix).directories()),
    )


def contents(directory: Path) -> tuple[str, ...]:
    """What is installed in an environment, read from names of files: cheap enough for every run."""
    found = [f"conda:{item.name[:-5]}" for item in (directory / "conda-meta").glob("*.json")]
    for info in directory.glob("lib/python3*/site-packages/*.dist-info"):
        if read(info / "INSTALLER").strip() == "pip":
            name, _dummy, version = info.name[: -len(".dist-info")].partition("-")
            found.append(f"pip:{conda_values.canonical_pip(name)}=={version}")
    return tuple(sorted(found))


def creating(place: Place) -> set[str]:
    """Environments that a run began to create and did not finish."""
    try:
        return {str(item) for item in json.loads(read(place.unfinished) or "[]")}
    except (ValueError, TypeError):
        return set()


def note_creating(place: Place, names: set[str]) -> None:
    _note(place.unfinished, names)


def find_environments(place: Place) -> dict[str, conda_state.Found]:
    """The environments in a place, without starting conda."""
    unfinished = creating(place)
    found: dict[str, conda_state.Found] = {}
    for directory in place.directories():
        state = conda_state.State.load(read(directory / ENVIRONMENT_STATE))
        half_made = state is None and directory.name in unfinished
        found[directory.name] = conda_state.Found(state, contents(directory), half_made)
    return found


def forget_home(home: Path) -> None:
    """Remove what the role made in somebody's home. Only for a process of that user."""
    place = private(home)
    for name, found in find_environments(place).items():
        if found.state is not None or found.half_made:
            remove_tree(place.environments / name)
    place.unfinished.unlink(missing_ok=True)
