# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that the roles install on hosts as programs need nothing there but Python."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import (
    audit_join,
    audit_recorder,
    audit_show,
    mig_layout,
    ssh_sessions,
    sshd_check,
    totp_state,
)
from ansible_collections.devnode.gpu.plugins.plugin_utils import guard_program

ALONE = (audit_join, audit_show, mig_layout, ssh_sessions, sshd_check, totp_state)


def imported(module: ModuleType) -> set[str]:
    """Full names, without those of the standard library."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return {name for name in found if name.split(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("module", ALONE, ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def test_it_runs_on_hosts_by_itself(module: ModuleType) -> None:
    assert imported(module) == set()


def test_the_recorder_needs_what_the_role_installs_with_it() -> None:
    # python3-systemd is a package that the role brings.
    assert imported(audit_recorder) == {"audit_join", audit_join.__name__, "systemd"}


def test_the_guards_parts_need_only_each_other() -> None:
    names = {part.__name__ for part in guard_program.PARTS}
    for part in guard_program.PARTS:
        assert imported(part) <= names
