# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard's program: `fileset_guard` with what it imports, as one file that a host's Python runs."""

from __future__ import annotations

from ansible_collections.devnode.gpu.plugins.plugin_utils.host_program import archive

PARTS = (
    "fileset_guard",
    "fileset_transaction",
    "fileset_manifest",
    "fileset_states",
    "fileset_commands",
    "fileset_disk",
)


def guard_program() -> bytes:
    """The archive, without the first line, which is the host's matter."""
    return archive(PARTS)
