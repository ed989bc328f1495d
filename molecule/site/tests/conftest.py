# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab must be up: these tests say so once instead of failing one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_site import CONFIG


@pytest.fixture(scope="session")
def lab() -> None:
    assert Path(CONFIG).exists(), f"{CONFIG} is not there: run `make demo` or the whole scenario first"
