#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action ssh_kits."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ssh_kits
short_description: Write people's ssh kits on the controller
version_added: "0.1.0"
description:
  - Renders the kit of every person (configuration, known hosts, a page with their own commands, installer) and writes
    it on the controller, as the user who runs Ansible. Nothing is sent to a host.
  - A kit goes to a directory of its own below O(directory), named after the person. One with an absolute C(base_dir) is
    meant to be used where it lies, and goes there.
  - What was written is remembered in O(directory). The kit of somebody who is no longer in O(views) is removed.
  - Meant for the role C(ssh_client_config), whose files it uses.
options:
  views:
    description: What each person sees of the fleet. See the role's argument C(ssh_client_config_views).
    type: list
    elements: dict
    default: []
  directory:
    description: Where the kits go, on the controller.
    type: path
    required: true
  state:
    description: V(absent) removes all that was written.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Shows what would be written.
    support: full
  diff_mode:
    description: Shows every file before and after. There is no secret in them.
    support: full
author:
  - The devnode.gpu authors (@devnode)
"""

EXAMPLES = r"""
- name: Write the kits
  devnode.gpu.ssh_kits:
    views: "{{ ssh_client_config_views }}"
    directory: "{{ inventory_dir }}-kits"
"""

RETURN = r"""
kits:
  description: Where each person's kit lies.
  type: dict
  returned: always
  sample: {ada: /srv/fleet/kits/ada}
"""
