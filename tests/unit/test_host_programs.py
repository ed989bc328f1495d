# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that the roles install on hosts as programs need nothing there but Python."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import (
    audit_join,
    audit_recorder,
    audit_show,
    audit_words,
    mig_layout,
    ssh_sessions,
    totp_state,
)
from ansible_collections.devnode.gpu.plugins.modules import file_set
from ansible_collections.devnode.gpu.plugins.plugin_utils import guard_program, host_program

ALONE = (audit_show, audit_words, mig_layout, ssh_sessions, totp_state)
TOGETHER = {"guard": guard_program.PARTS, **host_program.PROGRAMS}


def file_of(module: ModuleType) -> Path:
    return Path(str(module.__file__))


def imported(path: Path) -> set[str]:
    """Full names, without those of the standard library."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and str(node.module).endswith(".module_utils"):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return {name for name in found if name.split(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("module", ALONE, ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def test_it_runs_on_hosts_by_itself(module: ModuleType) -> None:
    assert imported(file_of(module)) == set()


def test_the_recorder_needs_what_the_role_installs_with_it() -> None:
    # python3-systemd is a package that the role brings.
    assert imported(file_of(audit_recorder)) == {"audit_join", audit_join.__name__, "systemd"}
    assert imported(file_of(audit_join)) == {"audit_words", audit_words.__name__}


@pytest.mark.parametrize("name", TOGETHER)
def test_the_parts_of_a_program_need_only_each_other(name: str) -> None:
    names = {f"{host_program.PACKAGE}.{part}" for part in TOGETHER[name]}
    for part in TOGETHER[name]:
        assert imported(host_program.FOLDER / f"{part}.py") <= names


def test_the_program_that_compares_runs_where_the_collection_is_not(tmp_path: Path) -> None:
    path = tmp_path / "check"
    path.write_bytes(host_program.host_program("sshd_check"))
    argv = [sys.executable, "-I", path, "--help"]
    done = subprocess.run(argv, cwd="/", env={}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage:")


def test_what_a_task_may_ask_for_is_what_there_is() -> None:
    choices = file_set.ARGUMENTS["files"]["options"]["program"]["choices"]
    assert choices == sorted(host_program.PROGRAMS)
    with pytest.raises(ValueError, match="program: 'other' is none"):
        host_program.host_program("other")
