#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workspace_host_keys
short_description: Which host keys of workspaces are to be signed
version_added: 0.2.0
author: The devnode.gpu authors (@devnode)
description:
  - Reads the public host keys of workspaces and the certificates beside them, for M(devnode.gpu.host_certificates). The
    key that is served is among them, and one that a rotation has made and not served yet.
  - Changes nothing.
attributes:
  check_mode:
    support: full
    description: Does the same.
  diff_mode:
    support: none
    description: Nothing changes.
  platform:
    support: full
    platforms: posix
    description: Linux.
options:
  workspaces:
    description: The workspaces, as described for C(pytorch_sshd_workspaces) of the role C(pytorch_sshd).
    type: list
    elements: dict
    required: true
seealso:
  - module: devnode.gpu.host_certificates
"""

EXAMPLES = r"""
- name: Read the workspaces' host keys
  devnode.gpu.workspace_host_keys:
    workspaces: "{{ pytorch_sshd_workspaces }}"
  register: found

- name: Sign them, on the controller
  devnode.gpu.host_certificates:
    authority: ~/.ssh/devnode_host_ca.pub
    wanted: "{{ found.wanted }}"
"""

RETURN = r"""
wanted:
  description: For O(devnode.gpu.host_certificates#module:wanted).
  type: list
  elements: dict
  returned: always
activate:
  description: >-
    For O(devnode.gpu.file_set#module:activate), how running containers take over what changed. Nobody's session ends.
  type: list
  elements: dict
  returned: always
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_host_keys as host_keys
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_parse

ARGUMENTS: Dict[str, Any] = {
    "workspaces": {"type": "list", "elements": "dict", "required": True, "no_log": False},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    workspaces, problems = workspace_parse.parse(module.params["workspaces"])
    if problems:
        module.fail_json(msg="\n".join(problems))
    options = model.Options()
    docker = module.get_bin_path("docker")
    running = module.run_command([docker, "ps", "--format", "{{.Names}}"])[1].split() if docker else []
    module.exit_json(
        changed=False,
        wanted=host_keys.to_sign(workspaces, options),
        activate=host_keys.activate(workspaces, options, running),
    )


if __name__ == "__main__":
    main()
