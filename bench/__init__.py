# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`. The collection and the lab are imported from this checkout."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "tests")]
