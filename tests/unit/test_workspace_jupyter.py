# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""devnode-jupyter gives the token's address only when the token's owner is the one who listens there."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "pytorch_sshd" / "files" / "image" / "devnode_jupyter.py"
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = "   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 4711 1\n"


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("devnode_jupyter", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "token").write_text("secret")
    monkeypatch.setattr(module, "TOKEN", tmp_path / "token")
    monkeypatch.setattr(module, "TABLES", (tmp_path / "tcp", tmp_path / "tcp6"))
    monkeypatch.setattr(module, "START_SECONDS", 0.0)
    return module


def listen(table: Path, uid: int, port: int = 8888, state: str = "0A") -> None:
    before = table.read_text() if table.exists() else HEAD
    table.write_text(before + ROW.format(address="0100007F", port=port, state=state, uid=uid))


def test_the_owners_own_server_gets_the_token(jupyter: ModuleType, tmp_path: Path) -> None:
    listen(tmp_path / "tcp", os.getuid())
    listen(tmp_path / "tcp", os.getuid() + 1, port=8889)
    listen(tmp_path / "tcp", os.getuid() + 1, state="01")
    assert jupyter.address(9999) == "http://127.0.0.1:9999/lab?token=secret"


@pytest.mark.parametrize("table", ["tcp", "tcp6"])
def test_somebody_elses_listener_does_not(jupyter: ModuleType, tmp_path: Path, table: str) -> None:
    listen(tmp_path / "tcp", os.getuid())
    listen(tmp_path / table, os.getuid() + 1)
    with pytest.raises(SystemExit, match="held by somebody else") as refused:
        jupyter.address(8888)
    assert "secret" not in str(refused.value)


def test_without_a_server_there_is_nothing_to_open(jupyter: ModuleType) -> None:
    with pytest.raises(SystemExit, match="nothing listens on port 8888"):
        jupyter.address(8888)
