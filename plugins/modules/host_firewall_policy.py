#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_firewall_policy
short_description: Work out a packet filter, and refuse one that would cut off this run
version_added: 0.1.0
description:
  - Checks the variables of role P(devnode.gpu.host_firewall#role) and returns them as the pieces of its rule set.
  - Refuses a rule set that would not let in the ssh connection that Ansible itself came by, and one that would cut
    off containers that are there.
  - Changes nothing.
author: The devnode.gpu authors (@devnode)
options:
  state:
    description: With V(absent), nothing is refused that would cut somebody off.
    type: str
    choices: [present, absent]
    default: present
  services:
    description: What may be reached on this host, see the role.
    type: list
    elements: dict
    default: []
  egress:
    description: Accounts with a limited set of targets, see the role.
    type: list
    elements: dict
    default: []
  egress_resolvers:
    description: Name servers that those accounts may ask.
    type: list
    elements: str
    default: []
  containers:
    description: Published ports and what containers may reach, see the role. Empty for a host without containers.
    type: dict
    default: {}
  container_interfaces:
    description: Bridges of container networks. A name may end in C(*).
    type: list
    elements: str
    default: [docker0, "br-*"]
  egress_log_group:
    description: Number of the netfilter log group that hears of the connections of those accounts; 0 for none.
    type: int
    default: 0
attributes:
  check_mode:
    description: Runs in check mode as ever, since it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: What the rule set needs
  devnode.gpu.host_firewall_policy:
    services:
      - {name: ssh, port: 22, sources: [192.0.2.0/24]}
  register: policy
"""

RETURN = r"""
plan:
  description: The pieces of the rule set, as the role's template takes them.
  returned: success
  type: dict
"""

import fnmatch
import os
from dataclasses import asdict
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import firewall, session, sshd_check

SSHD = "/usr/sbin/sshd"


def _ssh_ports() -> set[int]:
    """Where sshd listens by its configuration: it may have moved since this connection was opened."""
    if not os.path.exists(SSHD):
        return set()
    effective, _failure = sshd_check.ask(SSHD, [], "root", "127.0.0.1")
    return {int(port) for port in effective.get("port", []) if port.isdigit()}


def _own_resolvers() -> list[str]:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as handle:
            return firewall.name_servers(handle.read())
    except OSError:
        return []


def _present() -> Optional[firewall.Present]:
    connected = session.current()
    if connected is None:
        return None
    ports = {connected.server_port} | _ssh_ports()
    return firewall.Present(connected.client, tuple(sorted(ports)))


def _bridges(patterns: list[str]) -> list[str]:
    try:
        links = sorted(os.listdir("/sys/class/net"))
    except OSError:
        return []
    return [link for link in links if any(fnmatch.fnmatchcase(link, str(pattern)) for pattern in patterns)]


def main() -> None:
    """Check, decide, answer."""
    dicts: dict[str, Any] = {"type": "list", "elements": "dict", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "services": dicts,
            "egress": dicts,
            "egress_resolvers": {"type": "list", "elements": "str", "default": []},
            "containers": {"type": "dict", "default": {}},
            "container_interfaces": {"type": "list", "elements": "str", "default": ["docker0", "br-*"]},
            "egress_log_group": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="This needs root on the host, to see which connection this run came by. Set become: true.")
    given = module.params
    try:
        plan = firewall.make_plan(
            given["services"],
            given["egress"],
            given["containers"],
            given["container_interfaces"],
            given["egress_resolvers"],
            given["egress_log_group"],
            _own_resolvers(),
        )
    except firewall.FirewallError as error:
        module.fail_json(msg=str(error))
        raise AssertionError from error  # fail_json does not come back
    if given["state"] == "absent":
        module.exit_json(changed=False, plan=asdict(plan))
    problems = firewall.refusals(plan, _present(), _bridges(given["container_interfaces"]))
    if problems:
        module.fail_json(msg="\n".join(problems))
    module.exit_json(changed=False, plan=asdict(plan))


if __name__ == "__main__":
    main()
