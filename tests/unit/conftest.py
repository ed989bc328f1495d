# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate draws the same examples every time: red only for what a change did. `make test-full` draws new ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from file_set_case import Case
from hypothesis import settings

settings.register_profile("gate", derandomize=True, database=None)
settings.register_profile("full", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)
