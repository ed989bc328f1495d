# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/rotate_host_keys.yml: what it refuses before it goes to any host."""

from __future__ import annotations

import pytest
from unit.playbook import inventory, play

PLAYBOOK = "playbooks/rotate_host_keys.yml"


@pytest.mark.parametrize("clients", [False, True])
def test_a_limit_that_leaves_the_kits_out_is_refused(tmp_path, clients):
    def change(_variables, groups):
        if clients:
            groups["devnode_clients"] = {"hosts": {"laptop": {}}}

    inventory(tmp_path, change)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    done = play(tmp_path, PLAYBOOK, "--limit", "gpu-01", "-e", "devnode_rotate=serve")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert '--limit "gpu-01" leaves out localhost, where everybody' in said
    assert f"Say --limit gpu-01,localhost{',devnode_clients' if clients else ''}." in said
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_with_the_kits_it_goes_on_to_the_hosts(tmp_path):
    """And ends there: this machine's own host key is none of the inventory's."""
    inventory(tmp_path)
    done = play(tmp_path, PLAYBOOK, "--check", "--limit", "gpu-01,localhost", "-e", "devnode_rotate=cancel")
    assert "leaves out localhost" not in done.stdout
    assert "TASK [Go to the stage]" in done.stdout
