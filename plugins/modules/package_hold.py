#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_hold
short_description: Hold Debian packages at their version, all in one go
version_added: 0.1.0
description:
  - Sets C(apt-mark hold) for packages, so that neither C(apt upgrade) nor unattended-upgrades moves them. Packages that
    are not installed are left alone.
author: The devnode.gpu authors (@devnode)
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Lists the packages.
    support: full
  platform:
    description: Debian and Ubuntu.
    support: full
    platforms: debian
options:
  names:
    description: The packages.
    type: list
    elements: str
    required: true
  state:
    description: V(held) or V(free).
    type: str
    choices: [held, free]
    default: held
"""

EXAMPLES = r"""
- name: No upgrade behind our back
  devnode.gpu.package_hold:
    names: [docker-ce, containerd.io]
"""

RETURN = r"""
names:
  description: The packages whose state changed.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["held", "free"], "default": "held"},
        },
        supports_check_mode=True,
    )
    names, hold = module.params["names"], module.params["state"] == "held"
    listing = module.run_command(["dpkg-query", "--show", "--showformat", "${db:Status-Want} ${Package}\n", *names])[1]
    held = dict(line.split(" ", 1)[::-1] for line in listing.splitlines() if " " in line)
    todo = sorted(name for name in names if held.get(name) == ("install" if hold else "hold"))
    if todo and not module.check_mode:
        module.run_command(["apt-mark", "hold" if hold else "unhold", *todo], check_rc=True)
    word = "held" if hold else "free"
    module.exit_json(
        changed=bool(todo), names=todo, diff={"before": "", "after": "".join(f"{name}: {word}\n" for name in todo)}
    )


if __name__ == "__main__":
    main()
