# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is connected, found in the processes above a module."""

from __future__ import annotations

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import session


@pytest.fixture
def proc(tmp_path):
    def process(pid, parent, environment, name="x"):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "environ").write_bytes(b"\0".join(f"{key}={value}".encode() for key, value in environment.items()))
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} 0 0")
        return str(tmp_path)

    return process


def test_found_above_sudo(proc):
    proc(30, 20, {"USER": "root", "SUDO_USER": "ops"})
    proc(20, 10, {}, name="sudo) S 99 (")
    root = proc(10, 1, {"SSH_CONNECTION": "192.0.2.9 50000 192.0.2.1 2222", "LOGNAME": "ops", "USER": "ops"})
    assert session.current(30, root) == session.Session("ops", "192.0.2.9", "192.0.2.1", 2222)


def test_none_without_ssh(proc):
    proc(30, 20, {"USER": "root"})
    root = proc(20, 1, {"SSH_CONNECTION": "nonsense"})
    assert session.current(30, root) is None
    assert session.current(4711, root) is None


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("::ffff:192.0.2.9 1 ::ffff:192.0.2.1 22", ("192.0.2.9", "192.0.2.1", 22)),
        ("fe80::1%eth0 1 fe80::2%eth0 22", ("fe80::1", "fe80::2", 22)),
        ("a b c", None),
        ("", None),
    ],
)
def test_addresses(text, ends):
    assert session.parse_connection(text) == ends
