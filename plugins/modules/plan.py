# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: What the inventory means for one host, or for people
version_added: 0.1.0
author:
  - The devnode.gpu authors (@devnode)
description:
  - Reads the C(devnode_*) variables of the inventory, checks all of them against each other, and returns what they
    mean for this host, in the form that the roles of this collection take.
  - Everything that is wrong is reported at once, each with the variable, the value, the reason and what is allowed.
    Nothing is changed, and no connection to the host is opened.
  - An undefined C(devnode_users), C(devnode_workspaces) or C(devnode_allowed_networks) is an error, not an empty list.
options:
  kind:
    description:
      - V(bastion) and V(node) plan for the current host, which must be in C(devnode_bastions) or C(devnode_nodes).
      - V(client) gives the views of the people of the current host, which must be in C(devnode_clients).
        C(devnode_client_people) names them; without it everybody is meant. Their configuration is made for this
        machine. What C(devnode_users[].client) says about a machine of their own (paths, platform, version) does not
        hold here; C(devnode_client) may say it for everybody on this one.
      - V(fleet) checks everything and gives the views of all people. It can run on any host, also on C(localhost).
        A place for the kits or for the record of host keys that cannot be written is an error, unless in check mode.
    type: str
    required: true
    choices: [bastion, node, client, fleet]
  host_keys:
    description:
      - For O(kind=client) and O(kind=fleet), which host keys must be on record in C(devnode_known_hosts).
      - V(hosts) needs those of bastions and nodes. V(all) also warns about workspaces that have none yet; these
        are left out of the views. V(none) asks for nothing, for a check before the first contact.
    type: str
    default: hosts
    choices: [none, hosts, all]
attributes:
  check_mode:
    description: Can run in check mode and returns the same.
    support: full
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
seealso:
  - module: devnode.gpu.known_hosts_record
"""

EXAMPLES = r"""
- name: Check the whole inventory before anything is touched (in a play on localhost)
  devnode.gpu.plan:
    kind: fleet

- name: What the inventory means for this host
  devnode.gpu.plan:
    kind: bastion
  register: devnode_plan
"""

RETURN = r"""
ssh_server:
  description: Inputs of the role ssh_server, operators with their keys, the port, networks without penalties.
  returned: kind is bastion or node
  type: dict
  sample: {operators: [], port: 22, exempt_networks: [192.0.2.0/24]}
firewall:
  description: Inputs of the role host_firewall.
  returned: kind is bastion or node
  type: dict
  sample:
    services: [{name: ssh, port: 22, protocol: tcp, sources: [10.0.0.10/32], rate: ""}]
    containers: {outbound: true, published: []}
bastion:
  description: Inputs of the role bastion, the people it relays and the places each may reach.
  returned: kind is bastion
  type: dict
  sample: {relay_users: [{name: ada, uid: 2001, keys: [], targets: [{host: gpu-01.example.com, port: 2201}]}]}
nvidia_driver:
  description: Input of the role nvidia_driver. A node whose workspaces ask for no GPU needs no driver.
  returned: kind is node
  type: dict
  sample: {optional: false}
people:
  description: Names of everybody who is present; for the role pytorch_sshd.
  returned: for a node
  type: list
  elements: str
workspaces:
  description: Inputs of the role pytorch_sshd.
  returned: kind is node
  type: list
  elements: dict
views:
  description: Inputs of the role ssh_client_config, one view for each person who may reach something.
  returned: kind is client or fleet
  type: list
  elements: dict
kits_dir:
  description: Where the kits go (C(devnode_kits_dir), or C(-kits) behind the name of the inventory's folder).
  returned: kind is fleet
  type: str
  sample: /srv/fleet/inventory-kits
left_out:
  description: Host key aliases of workspaces that are in no view, because no host key of theirs is on record yet.
  returned: kind is client or fleet
  type: list
  elements: str
"""
