#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # plain functions, which have no module at hand

from __future__ import annotations

DOCUMENTATION = r"""
module: host_firewall_policy
short_description: Work out a packet filter, and refuse one that would cut off this run
version_added: 0.1.0
description:
  - Checks the variables of role P(devnode.gpu.host_firewall#role) and returns them as the pieces of its rule set.
  - Refuses a rule set that would not let in the ssh connection that Ansible itself came by, and one that would cut
    off containers that are there.
  - Compares the table that filters with the file that it was loaded from. If it is another, or gone, the pieces say so,
    and the file that is made of them differs from the one that is there, so that it is loaded again.
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
  rules:
    description: The file that the table is loaded from.
    type: path
    default: /etc/devnode/firewall.nft
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
import glob
import os
import subprocess
from dataclasses import asdict
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import firewall, firewall_live, session, sshd_check

SSHD = "/usr/sbin/sshd"
NFT = "/usr/sbin/nft"
LIST = f"{NFT} --json list table inet devnode"
# Somebody's own comes before the distribution's.
NFTABLES_UNITS = tuple(f"{folder}/systemd/system/nftables.service" for folder in ("/etc", "/usr/lib", "/lib"))
DROP_INS = tuple(
    f"{folder}/systemd/system/nftables.service.d" for folder in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
# The role's own, under its name of today and that of before.
OWN_DROP_INS = ("zz-devnode.conf", "devnode.conf")


def _ssh_ports() -> set[int]:
    """Where sshd listens by its configuration: it may have moved since this connection was opened."""
    if not os.path.exists(SSHD):
        return set()
    effective, _failure = sshd_check.ask(SSHD, [], "root", "127.0.0.1")
    return {int(port) for port in effective.get("port", []) if port.isdigit()}


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return None


def _resolvers(path: str) -> list[str]:
    return firewall.name_servers(_read(path) or "")


def _said(*argv: str) -> Optional[str]:
    """What a command prints; None when it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _is_as_meant(rules: str) -> bool:
    """Whether the table that filters is what the file makes in a network of its own. Where there can be no such
    network, it has to be there at least."""
    live = _said(*LIST.split())
    if live is None:
        return False
    # As one program: a network of its own that nothing else is in goes with it.
    meant = _said("unshare", "--net", "/bin/sh", "-c", f'{NFT} -f "$1" && {LIST}', "sh", rules)
    return meant is None or firewall_live.same(live, meant)


def _again(rules: str) -> int:
    """How often the file has been loaded again, with this time, if it has to be."""
    text = _read(rules)
    if text is None:
        return 0
    before = firewall_live.times_again(text)
    return before if not os.path.exists(NFT) or _is_as_meant(rules) else before + 1


def _nftables_conf() -> str:
    found = [text for text in map(_read, NFTABLES_UNITS) if text is not None]
    paths = [path for folder in DROP_INS for path in sorted(glob.glob(f"{folder}/*.conf"))]
    others = [_read(path) or "" for path in paths if os.path.basename(path) not in OWN_DROP_INS]
    # Not installed yet, in check mode: as Debian has it.
    return firewall_live.loaded_by(found[0], others) if found else "/etc/nftables.conf"


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
            "rules": {"type": "path", "default": "/etc/devnode/firewall.nft"},
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
            _resolvers("/etc/resolv.conf"),
            # Behind systemd-resolved, whose own address no container can ask: those that engines take instead.
            _resolvers("/run/systemd/resolve/resolv.conf"),
        )
    except firewall.FirewallError as error:
        module.fail_json(msg=str(error))
        raise AssertionError from error  # fail_json does not come back
    if given["state"] == "absent":
        module.exit_json(changed=False, plan=asdict(plan))
    problems = firewall.refusals(plan, _present(), _bridges(given["container_interfaces"]))
    if problems:
        module.fail_json(msg="\n".join(problems))
    plan.again = _again(given["rules"])
    plan.nftables_conf = _nftables_conf()
    module.exit_json(changed=False, plan=asdict(plan))


if __name__ == "__main__":
    main()
