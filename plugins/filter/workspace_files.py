# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the containers of a host read about themselves, as files.

What the filter works with is imported when it is called: see access.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: workspace_files
short_description: The files of a host's workspaces, for file_set
version_added: "0.1.0"
author: The devnode.gpu authors (@devnode)
description:
  - Turns workspaces into entries for M(devnode.gpu.file_set). For each, a folder that its container sees read-only,
    with its description, its people's public keys, and the known hosts of its git servers.
options:
  _input:
    description: The workspaces, as described for the role pytorch_sshd.
    type: list
    elements: dict
    required: true
  environment_allow:
    description: See M(devnode.gpu.workspace_set).
    type: list
    elements: str
    default: []
  algorithms:
    description: See M(devnode.gpu.workspace_set).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Describe the workspaces to their containers
  devnode.gpu.file_set:
    name: pytorch_sshd
    files: "{{ pytorch_sshd_workspaces | devnode.gpu.workspace_files }}"
"""

RETURN = r"""
_value:
  description: Entries for O(devnode.gpu.file_set#module:files).
  type: list
  elements: dict
"""


def workspace_files(
    specs: Any,
    environment_allow: Sequence[str] | None = None,
    algorithms: dict[str, Sequence[str]] | None = None,
) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
    from ansible_collections.devnode.gpu.plugins.module_utils import workspace_container, workspace_parse

    if not isinstance(specs, (list, tuple)):
        raise AnsibleFilterError("workspace_files: the input is not a list of workspaces")
    workspaces, problems = workspace_parse.parse(specs)
    if problems:
        raise AnsibleFilterError("\n".join(problems))
    options = model.Options(
        environment_allow=tuple(environment_allow or ()),
        algorithms={name: tuple(values) for name, values in (algorithms or {}).items()},
    )
    return workspace_container.config_files(workspaces, options)


class FilterModule:
    """Offers the filter."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {"workspace_files": workspace_files}
