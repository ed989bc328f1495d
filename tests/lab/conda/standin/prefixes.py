# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments: which one is meant, what is in it, and whether it may be changed."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from .configuration import CONFIG, ROOT, CondaError


def find_prefix(args: argparse.Namespace, *, create: bool = False) -> Path:
    if getattr(args, "prefix", None):
        return Path(args.prefix).absolute()
    name: str | None = getattr(args, "name", None)
    if not name:
        current = os.environ.get("CONDA_PREFIX")
        return Path(current) if current else ROOT
    if name in ("base", "root"):
        return ROOT
    if "/" in name or not name.strip():
        raise CondaError("CondaValueError", f"Invalid environment name: {name!r}\n Characters not allowed: / , space")
    places = [Path(place) for place in CONFIG["envs_dirs"]]
    for directory in places:
        if (directory / name / "conda-meta" / "history").is_file():
            return directory / name
    if not create:
        raise CondaError("EnvironmentLocationNotFound", f"Not a conda environment: {CONFIG['envs_dirs'][0]}/{name}")
    for directory in places:
        parent = directory if directory.exists() else directory.parent
        if os.access(parent, os.W_OK) or (not directory.exists() and not str(directory).startswith(str(ROOT))):
            return directory / name
    raise CondaError("NoWritableEnvsDirError", "No writable envs directories configured.")


def cache_dir() -> Path:
    for directory in map(Path, CONFIG["pkgs_dirs"]):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return directory
    raise CondaError("NoWritablePkgsDirError", "No writeable pkgs directories configured.")


def records(prefix: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((prefix / "conda-meta").glob("*.json"))]
    return sorted(found, key=lambda record: str(record["name"]))


def check_writable(prefix: Path, args: argparse.Namespace) -> None:
    if (prefix / "conda-meta").exists() and not os.access(prefix / "conda-meta", os.W_OK):
        raise CondaError(
            "EnvironmentNotWritableError",
            "The current user does not have write permissions to the target environment.\n"
            f"  environment location: {prefix}",
        )
    frozen = prefix / "conda-meta" / "frozen"
    if frozen.exists() and CONFIG["protect_frozen_envs"] and not getattr(args, "override_frozen", False):
        try:
            reason = json.loads(frozen.read_text(encoding="utf-8") or "{}").get("message", "")
        except ValueError:
            reason = ""
        raise CondaError(
            "EnvironmentIsFrozenError", f"Cannot modify '{prefix}'. The environment is marked as frozen. {reason}"
        )


def environments() -> list[Path]:
    found = [ROOT]
    for directory in map(Path, CONFIG["envs_dirs"]):
        if directory.is_dir():
            found += sorted(path.parent.parent for path in directory.glob("*/conda-meta/history"))
    return found
