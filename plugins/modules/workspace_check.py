#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workspace_check
short_description: Whether the workspaces of a host are healthy
version_added: "0.1.0"
author: The devnode.gpu authors (@devnode)
description:
  - Asks each workspace. Does its sshd answer on its address; has it as many GPUs as it was given; does C(torch) import,
    and multiply matrices on every one of them (on the CPU where there is none); has C(/dev/shm) its size.
  - Changes nothing. The sums are small (some MB on each device, for less than a second), so it may run beside jobs.
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
    description: Linux with the docker command.
options:
  workspaces:
    description: The workspaces, as described for C(pytorch_sshd_workspaces) of the role C(pytorch_sshd).
    type: list
    elements: dict
    required: true
  only:
    description: Names of those to ask. Empty for all.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that one workspace has to answer.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Ask the workspaces
  devnode.gpu.workspace_check:
    workspaces: "{{ pytorch_sshd_workspaces }}"
"""

RETURN = r"""
workspaces:
  description: What each said, by name.
  type: dict
  returned: always
problems:
  description: What is wrong, in words. The task fails if there is anything.
  type: list
  elements: str
  returned: always
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_health as health
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_parse

ARGUMENTS: Dict[str, Any] = {
    "workspaces": {"type": "list", "elements": "dict", "required": True, "no_log": False},
    "only": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 120},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    workspaces, problems = workspace_parse.parse(module.params["workspaces"])
    names = [item.name for item in workspaces]
    only = module.params["only"] or names
    allowed = ", ".join(names)
    strangers = [name for name in only if name not in names]
    problems += [f'only: "{name}" is no workspace of this host. Allowed: {allowed}.' for name in strangers]
    if problems:
        module.fail_json(msg="\n".join(problems))
    found = {
        item.name: health.ask(module.run_command, item, module.params["timeout"])
        for item in workspaces
        if item.name in only
    }
    wrong = [text for item in workspaces if item.name in found for text in health.judge(item, found[item.name])]
    answer = {"changed": False, "workspaces": found, "problems": wrong}
    if wrong:
        module.fail_json(msg="\n".join(wrong), **answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
