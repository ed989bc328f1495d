# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking times, and saying where they were taken."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class BenchError(Exception):
    """Something that is measured does not work, so that its time would mean nothing."""


def timed(argv: Sequence[str]) -> float:
    """Seconds that a command takes. A master that stays behind must not hold our pipes, so there are none."""
    started = time.perf_counter()
    code = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode
    seconds = time.perf_counter() - started
    if code != 0:
        again = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        raise BenchError(f"{' '.join(argv)} ended with {code}: {again.stderr.strip()[-400:]}")
    return seconds


def clocked(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def settle(longest: float = 180.0) -> None:
    """Wait until this machine has little else to do, so that what ran before a measurement is not part of it.

    The load is an average over a minute, and falls to half in 42 s.
    """
    until = time.monotonic() + longest
    while os.getloadavg()[0] > (os.cpu_count() or 1) / 2 and time.monotonic() < until:
        time.sleep(5)


def ms(seconds: Sequence[float]) -> float:
    """The median, in milliseconds."""
    return round(statistics.median(seconds) * 1000, 1)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much y grows with x: least squares. Time over round-trip time gives the number of round trips."""
    return round(statistics.linear_regression(*zip(*points, strict=True)).slope, 1)


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.strip()
    cpu = next((line.partition(": ")[2] for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "ssh": ssh,
        "cpu": f"{os.cpu_count()} x {cpu}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they need to be; the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in pairs)
        for pairs in ([*enumerate(zip(row, widths, strict=True))] for row in cells)
    ]
    return "\n".join(f"  {line.rstrip()}" for line in lines)
