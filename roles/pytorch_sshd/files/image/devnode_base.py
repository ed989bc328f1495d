# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parts of devnode_workspace.py share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORKSPACE = Path("/etc/devnode/workspace")
RUN = Path("/run/devnode")


class WorkspaceError(Exception):
    """What is wrong with the workspace, in words."""


def read_config() -> dict[str, Any]:
    """The workspace as the node describes it."""
    path = WORKSPACE / "workspace.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise WorkspaceError(f"{path} cannot be read ({exc}); the node's role pytorch_sshd writes it") from exc
    return config


def people(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everybody with a login, the owner first."""
    return [config["owner"], *config["members"]]


def put(path: Path, text: str, mode: int = 0o644) -> bool:
    """Write a file in one step, if its content or its mode differs."""
    if path.exists() and path.read_text() == text and path.stat().st_mode & 0o7777 == mode:
        return False
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)
    return True


def command(argv: list[str]) -> str:
    """What it printed; a failure is an error that says why."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WorkspaceError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
