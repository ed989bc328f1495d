# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the stand-ins. Each has a `build.py OUT` that keeps what is up to date and says its facts as JSON
(in OUT/facts.json, or on its standard output)."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import needs
from .paths import CACHE_DIR, LAB_CODE
from .shell import run, step

NAMES = ("pytorch", "nvidia", "conda")  # the longest first
FOLDER = CACHE_DIR / "standins"


def build_all() -> dict[str, dict[str, Any]]:
    """Facts of each, by name."""
    needs.ensure(needs.STANDINS, "the stand-ins are packages and signatures")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(NAMES, pool.map(_build, NAMES), strict=True))


def _build(name: str) -> dict[str, Any]:
    out = FOLDER / name
    with step(f"Stand-in {name}"):
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        said = run([sys.executable, LAB_CODE / name / "build.py", out], env=env)
    note = out / "facts.json"
    facts: dict[str, Any] = json.loads(note.read_text() if note.exists() else said)
    return facts


def hardware_script() -> Path:
    """What makes a container a machine with GPUs and their driver."""
    return LAB_CODE / "nvidia" / "host.sh"
