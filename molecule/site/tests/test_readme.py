# SPDX-License-Identifier: GPL-3.0-or-later
"""The README's commands for the engineer, as they stand there."""

from __future__ import annotations

import subprocess

import pytest
from doc_blocks import to_run
from lab_site import LAB, ROOT, ssh

pytestmark = pytest.mark.usefixtures("lab")

[BLOCK] = to_run(ROOT / "README.md", "engineer")
[CHINESE] = to_run(ROOT / "README.zh-CN.md", "engineer-zh")
*MEANT, REFUSED = BLOCK.text.strip().splitlines()


def _typed(line: str) -> subprocess.CompletedProcess[str]:
    """In the checkout's folder; the lab may lie elsewhere."""
    script = line.replace(".lab/engineer", str(LAB / "engineer"))
    return subprocess.run(
        ["bash", "-c", script], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


def test_the_readmes_commands_work_as_printed() -> None:
    ssh("gpu-01", "rm -rf demo")
    for line in MEANT:
        done = _typed(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert ssh("gpu-01", "rm -rf demo && rm README.md").returncode == 0


def test_the_chinese_readme_says_nothing_else() -> None:
    assert set(CHINESE.text.splitlines()) <= set(BLOCK.text.splitlines())


def test_the_last_one_is_refused() -> None:
    done = _typed(REFUSED)
    assert done.returncode == 255
    assert not done.stdout
