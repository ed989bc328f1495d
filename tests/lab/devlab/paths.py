# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lab keeps things. `.lab` goes with the lab; `.cache` stays, like the images."""

from __future__ import annotations

import os
from pathlib import Path

LAB_CODE = Path(__file__).resolve().parents[1]
ROOT = LAB_CODE.parents[1]
LAB_DIR = Path(os.environ.get("DEVNODE_LAB_DIR") or ROOT / ".lab").resolve()
CACHE_DIR = Path(os.environ.get("DEVNODE_CACHE_DIR") or ROOT / ".cache").resolve()
