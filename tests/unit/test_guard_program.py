# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard's program runs on a host that has Python and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.devnode.gpu.plugins.plugin_utils.guard_program import PARTS, guard_program
from ansible_collections.devnode.gpu.plugins.plugin_utils.host_program import FOLDER


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """As it lies on a host, far from the collection."""
    path = tmp_path / "guard"
    path.write_bytes(f"#!{sys.executable} -I\n".encode() + guard_program())
    path.chmod(0o755)
    return path


def ask(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], cwd="/", env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60
    )


def test_it_runs_by_itself(program: Path) -> None:
    assert ask(program, "status").stdout.startswith('devnode-guard: {"armed": [')
    usage = ask(program)
    assert (usage.returncode, usage.stdout) == (2, "")
    assert usage.stderr.startswith("usage: guard status")


def test_the_text_of_a_part_can_be_read_in_it(program: Path) -> None:
    for part in PARTS:
        assert (FOLDER / f"{part}.py").read_bytes() in program.read_bytes()


def test_it_is_the_same_each_time() -> None:
    assert guard_program() == guard_program()
