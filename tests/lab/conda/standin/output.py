# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said, as text or as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any


def say(args: argparse.Namespace, text: str) -> None:
    if not getattr(args, "json", False) and not getattr(args, "quiet", False):
        print(text, flush=True)


def answer(args: argparse.Namespace, data: Any, text: str = "") -> None:
    if getattr(args, "json", False):
        print(json.dumps(data, indent=2, default=str))
    elif text:
        print(text)
