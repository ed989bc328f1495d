# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: known_hosts_record
short_description: Write host keys into the controller's record
version_added: 0.1.0
author:
  - The devnode.gpu authors (@devnode)
description:
  - The record is an ordinary OpenSSH C(known_hosts) file beside the inventory, whose names are host key aliases
    (inventory names of hosts, C(<workspace>.<node>) for workspaces). Ansible and everybody's configuration trust it.
  - Give it keys that are known to be right only, which are those read over a connection that was verified already, or
    those whose fingerprints were compared.
  - Runs on the controller, also in a play on hosts, and also for many hosts at once. The file is locked, and replaced
    as a whole.
  - Lines that this collection wrote carry their O(scope) as a comment. Other lines are changed only in a
    O(rotation).
options:
  entries:
    description: Names, each with the list of its public host keys (V(<type> <base64>), with or without a comment).
    type: dict
    required: true
  scope:
    description:
      - Which part of the record this task describes in full. The default is V(workspaces@<inventory name>).
    type: str
  prune:
    description: Whether names of this scope that are not in O(entries) any more are removed.
    type: bool
    default: true
  replace:
    description:
      - Names that may get another key than the one on record. For all others such a change is an error.
      - A key of a further type, or a new key that comes beside a known one (a rotation), is no such change.
      - Of a name that gets another key, lines of the scope C(workspaces@NAME) go as well; that host was made anew.
    type: list
    elements: str
    default: []
  rotation:
    description:
      - The names get exactly these keys of their type, of which one must be on record already. Nothing is pruned. Lines
        of others that name them become this collection's, since a key that is dropped has to go from them, too.
    type: bool
    default: false
  path:
    description: The record. The default is C(devnode_known_hosts), or V(known_hosts) beside the inventory.
    type: path
attributes:
  check_mode:
    description: Says what would change, and changes nothing.
    support: full
  diff_mode:
    description: Shows the lines that change.
    support: full
seealso:
  - module: devnode.gpu.plan
"""

EXAMPLES = r"""
- name: Record the workspaces' host keys, read over this verified connection
  devnode.gpu.known_hosts_record:
    entries:
      nlp.gpu-01:
        - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKUqbX2qMWlSx1ATZRWR2qKQpvb9LHRKOaP2YWuP9tMv
"""

RETURN = r"""
path:
  description: The record.
  returned: success
  type: str
  sample: /srv/fleet/known_hosts
added:
  description: Names that were not on record before.
  returned: success
  type: list
  elements: str
  sample: [nlp.gpu-01]
removed:
  description: Names that are no longer on record.
  returned: success
  type: list
  elements: str
  sample: []
"""
