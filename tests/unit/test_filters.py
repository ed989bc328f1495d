# SPDX-License-Identifier: GPL-3.0-or-later
"""For one filter Ansible loads every file of filters, in each task on each host: they have to be cheap to load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "plugins" / "filter"
PROGRAM = """
import importlib, sys
importlib.import_module(sys.argv[1]).FilterModule().filters()
print([name for name in sys.modules if name.startswith("ansible_collections.devnode.gpu.plugins.module_utils.")])
"""


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_to_load_a_file_of_filters_loads_nothing_else_of_the_collection(name: str) -> None:
    argv = [sys.executable, "-c", PROGRAM, f"ansible_collections.devnode.gpu.plugins.filter.{name}"]
    env = {"PYTHONPATH": str(FOLDER.parents[1] / ".collections"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
