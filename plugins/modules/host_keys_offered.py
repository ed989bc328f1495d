# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_keys_offered
short_description: Read the host keys of a machine for a comparison
version_added: 0.1.0
author:
  - The devnode.gpu authors
description:
  - Runs C(ssh-keyscan) where the task runs, on the controller, or on the bastion that it is delegated to,
    and compares what a machine offers with the fingerprints that are expected and with the record.
  - Nothing is recorded here. What a network answers proves nothing by itself; see C(playbooks/enroll.yml).
  - Fails when the keys match neither the expected fingerprints nor the record.
options:
  name:
    description: The name that the keys are recorded by (the inventory name).
    type: str
    required: true
  address:
    description: Where the machine answers.
    type: str
    required: true
  port:
    description: The port of its sshd.
    type: int
    default: 22
  expected:
    description: Fingerprints (V(SHA256:…)) that somebody vouches for, such as those on a cloud's console.
    type: list
    elements: str
    default: []
  record:
    description: The record of host keys on the controller; it need not exist.
    type: path
    required: true
  replace:
    description: Whether a machine on record may offer other keys, because it was made anew.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for an answer.
    type: int
    default: 10
attributes:
  check_mode:
    description: Reads only, in check mode as well.
    support: full
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
seealso:
  - module: devnode.gpu.known_hosts_record
"""

EXAMPLES = r"""
- name: Read the host keys of a node from its bastion
  devnode.gpu.host_keys_offered:
    name: gpu-01
    address: 10.20.0.11
    record: "{{ inventory_dir }}/known_hosts"
    expected: ["SHA256:uNiVztksCsDhcc0u9e8BrbJR4P2Wc8wM3UdyH8t8bFk"]
  delegate_to: bastion
"""

RETURN = r"""
status:
  description:
    - V(recorded) when the record has the keys, V(expected) when they match the expected fingerprints, V(open) when
      somebody has to compare them.
  returned: success
  type: str
  sample: open
keys:
  description: The keys that may be recorded once they were compared.
  returned: success
  type: list
  elements: str
fingerprints:
  description: The same for people, as name, type and fingerprint.
  returned: success
  type: list
  elements: str
  sample: ["gpu-01 ssh-ed25519 SHA256:uNiVztksCsDhcc0u9e8BrbJR4P2Wc8wM3UdyH8t8bFk"]
"""
