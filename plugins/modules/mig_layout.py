#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mig_layout
short_description: Cut GPUs into the MIG devices that are declared
version_added: 0.1.0
description:
  - Compares the MIG devices of the named GPUs with the layout, and makes them what it says, with C(nvidia-smi). GPUs
    that
    it does not name are left alone.
  - Nothing is touched while a process runs on a GPU that would change; that is returned as pending, and tried again by
    the next run. CDI specifications are written again afterwards, where the unit for that is there.
author: The devnode.gpu authors (@devnode)
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Shows the MIG devices before and after.
    support: full
  platform:
    description: Linux with an NVIDIA driver.
    support: full
    platforms: linux
options:
  layout:
    description: Profiles by GPU index, see the example. An empty list turns MIG off on that GPU.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Seven small ones out of the first GPU
  devnode.gpu.mig_layout:
    layout:
      "0": [1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb]
"""

RETURN = r"""
changes:
  description: What was done (in check mode, would be), a line for each GPU.
  type: list
  elements: str
  returned: always
pending:
  description: Why it waits.
  type: list
  elements: str
  returned: always
"""

from typing import List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import dockerd, mig_layout

# Each MIG device is a CDI device of its own. At boot these run after the layout; now they have to be told.
REFRESH = ("nvidia-cdi-refresh.service", "devnode-cdi-refresh.service")


def main() -> None:
    module = AnsibleModule(argument_spec={"layout": {"type": "dict", "required": True}}, supports_check_mode=True)
    smi = dockerd.find("nvidia-smi")
    if not smi:
        module.fail_json(msg="This host has no nvidia-smi, and MIG devices are made with it. Install the driver first.")

    def run(argv: List[str]) -> Tuple[int, str, str]:
        return module.run_command([smi, *argv[1:]], environ_update={"LC_ALL": "C"})  # type: ignore[no-any-return]

    result = mig_layout.apply(module.params["layout"], run, module.check_mode)
    pending = [f"MIG layout: {one}; it waits" for one in result.busy]
    changed = bool(result.changes) and not pending
    done = {
        "changed": changed,
        "changes": result.changes,
        "pending": pending,
        "diff": [{"prepared": "".join(f"{line}\n" for line in result.changes)}] if changed else [],
    }
    if changed and not result.errors and not module.check_mode:
        unit = next((name for name in REFRESH if dockerd.read_unit(module.run_command, name).exists), None)
        if unit and module.run_command(["systemctl", "restart", unit])[0]:
            pending.append(f"CDI specifications are those of before: {unit} failed (journalctl -u {unit})")
    for one in pending:
        module.warn(one)
    if result.errors:
        module.fail_json(msg="\n".join(result.errors), **{**done, "changed": False})
    module.exit_json(**done)


if __name__ == "__main__":
    main()
