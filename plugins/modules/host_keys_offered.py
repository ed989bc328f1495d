# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_keys_offered
short_description: Read the host keys of the fleet's machines for a comparison
version_added: 0.1.0
author:
  - The devnode.gpu authors (@devnode)
description:
  - Runs C(ssh-keyscan) where the task runs, and compares what the machines offer with the fingerprints that are
    expected and with the record (C(devnode_known_hosts)).
  - Nothing is recorded here. What a network answers proves nothing by itself; see C(playbooks/enroll.yml).
options:
  of:
    description:
      - V(direct) asks the bastions and client machines, and is meant to run on the controller.
      - V(nodes) asks the nodes behind the current host, which is a bastion.
    type: str
    required: true
    choices: [direct, nodes]
  expected:
    description:
      - Fingerprints (V(SHA256:…)) that somebody vouches for, such as those on a cloud's console, as one or a list for
        each inventory name.
    type: dict
    default: {}
  replace:
    description: Machines that may offer other keys than those on record, because they were made anew.
    type: list
    elements: str
    default: []
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
- name: Read the host keys of the nodes from their bastions
  hosts: devnode_bastions
  gather_facts: false
  tasks:
    - name: Read them
      devnode.gpu.host_keys_offered:
        of: nodes
        expected:
          gpu-01: ["SHA256:uNiVztksCsDhcc0u9e8BrbJR4P2Wc8wM3UdyH8t8bFk"]
      register: offered
"""

RETURN = r"""
recorded:
  description: Machines whose offered keys are on record.
  returned: success
  type: list
  elements: str
  sample: [bastion]
expected:
  description: Machines that match their expected fingerprints, with the keys that may be recorded.
  returned: success
  type: dict
  sample: {gpu-01: ["ssh-ed25519 AAAA…"]}
open:
  description: Machines whose fingerprints somebody has to compare, with the keys that may then be recorded.
  returned: success
  type: dict
  sample: {}
fingerprints:
  description: Those fingerprints, as inventory name, type and fingerprint.
  returned: success
  type: list
  elements: str
  sample: ["gpu-02 ssh-ed25519 SHA256:uNiVztksCsDhcc0u9e8BrbJR4P2Wc8wM3UdyH8t8bFk"]
wrong:
  description: Machines whose keys must not be recorded, each with the reason.
  returned: success
  type: list
  elements: str
  sample: []
record:
  description: Path of the record on the controller.
  returned: success
  type: str
  sample: /srv/fleet/known_hosts
"""
