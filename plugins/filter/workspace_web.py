# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nginx reads on a host whose workspaces have a JupyterLab over HTTPS.

What the filter works with is imported when it is called: see access.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: workspace_web
short_description: What nginx reads on a host with workspaces
version_added: 0.2.0
author: The devnode.gpu authors (@devnode)
description:
  - Turns those workspaces that ask for C(web) into the servers of nginx, and into files with who may come in, for
    M(devnode.gpu.file_set). Both are empty when none asks.
options:
  _input:
    description: The workspaces, as described for the role pytorch_sshd.
    type: list
    elements: dict
    required: true
  passwords:
    description: Hashes of passwords by login.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: How many are there
  ansible.builtin.debug:
    msg: "{{ (pytorch_sshd_workspaces | devnode.gpu.workspace_web(pytorch_sshd_web_passwords)).servers | length }}"
"""

RETURN = r"""
_value:
  description: C(servers), one for each workspace, and C(files), entries for O(devnode.gpu.file_set#module:files).
  type: dict
"""


def workspace_web_filter(specs: Any, passwords: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """See DOCUMENTATION."""
    from ansible_collections.devnode.gpu.plugins.module_utils import workspace_parse, workspace_web

    if not isinstance(specs, (list, tuple)):
        raise AnsibleFilterError("workspace_web: the input is not a list of workspaces")
    workspaces, problems = workspace_parse.parse(specs)
    webs = {item.name: item.web for item in workspaces if item.web}
    problems += workspace_web.password_problems(webs, passwords or {})
    if problems:
        raise AnsibleFilterError("\n".join(problems))
    asking = [item for item in workspaces if item.web]
    return {
        "servers": [workspace_web.server(item.name, item.bind_address, item.web) for item in asking if item.web],
        "files": workspace_web.password_files(webs, passwords or {}),
    }


class FilterModule:
    """Offers the filter."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {"workspace_web": workspace_web_filter}
