# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_certificates
short_description: Sign host keys with an authority on the controller
version_added: 0.2.0
author:
  - The devnode.gpu authors (@devnode)
description:
  - Makes certificates for host keys with M(community.crypto.openssh_cert), run on the controller in the middle of the
    host's task. The authority's private key goes nowhere else.
  - A certificate that a host has already is kept as long as it fits the key, the names and the authority, and more than
    a third of its time is left.
  - Returns files for M(devnode.gpu.file_set), and changes nothing by itself.
options:
  authority:
    description:
      - Path of the authority's private key on the controller, with its public key beside it (C(.pub)). One with a
        passphrase belongs in an agent; then this is the path of the C(.pub) file.
      - A relative path counts from the inventory.
    type: str
    required: true
  days:
    description: How long a certificate counts, in days (1 to 3650).
    type: int
    default: 90
  names:
    description: The names that certificates are for, as clients compare them (C(HostKeyAlias), or what is typed).
    type: list
    elements: str
    default: []
  wanted:
    description: The host keys.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where the certificate belongs on the host.
        type: path
        required: true
      key:
        description: The public host key, read over a connection that was verified.
        type: str
        required: true
      names:
        description: The names it is for; the default is O(names).
        type: list
        elements: str
      certificate:
        description: The certificate that the host has now.
        type: str
        default: ""
attributes:
  check_mode:
    description: Runs in check mode as ever, since it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
requirements:
  - community.crypto 3.0.0 or newer, on the controller
seealso:
  - module: community.crypto.openssh_cert
  - module: devnode.gpu.known_hosts_record
"""

EXAMPLES = r"""
- name: A certificate for a host key
  devnode.gpu.host_certificates:
    authority: ~/.ssh/devnode_host_ca
    wanted:
      - path: /etc/ssh/ssh_host_ed25519_key-cert.pub
        key: ssh-ed25519 AAAA...
        names: [bastion]
  register: certificates
"""

RETURN = r"""
files:
  description: The certificates as files for M(devnode.gpu.file_set).
  returned: success
  type: list
  elements: dict
signed:
  description: The paths of those that were made anew, each with the reason.
  returned: success
  type: list
  elements: str
"""
