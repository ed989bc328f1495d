#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cdi_spec
short_description: NVIDIA's CDI specification follows the hardware, and every device in it resolves
version_added: 0.1.0
description:
  - Compares the GPUs that C(nvidia-smi) shows with the devices that C(nvidia-ctk cdi list) finds, and looks whether
    everything on the host that these devices name is there. If not, the unit that writes the specification is
    run once, and it is looked at again. What is still wrong then is named.
  - A host without GPUs is a normal answer, unless devices were asked for.
author: The devnode.gpu authors (@devnode)
attributes:
  check_mode:
    description: Looks, and says whether the specification would be written again.
    support: full
  diff_mode:
    description: Says why it would be written again.
    support: full
  platform:
    description: Hosts with systemd.
    support: full
    platforms: linux
options:
  devices:
    description: Full names of devices that have to be there, such as V(nvidia.com/gpu=0).
    type: list
    elements: str
    default: []
  below:
    description: The format of NVIDIA's specifications has to be older than this, because a runtime of this host cannot
      read it or newer ones. Empty means any.
    type: str
    default: ""
  units:
    description: Units that write the specification. The first one that exists on the host is used.
    type: list
    elements: str
    default: [nvidia-cdi-refresh.service, devnode-cdi-refresh.service]
  spec_dirs:
    description: Where specifications lie.
    type: list
    elements: path
    default: [/etc/cdi, /var/run/cdi]
"""

EXAMPLES = r"""
- name: Both GPUs can be given to containers
  devnode.gpu.cdi_spec:
    devices: [nvidia.com/gpu=0, nvidia.com/gpu=1]
"""

RETURN = r"""
gpus:
  description: The GPUs of the host.
  type: list
  elements: dict
  returned: always
  sample: [{index: "0", uuid: GPU-b2c0f1de-6a34-4c59-a0a3-5d6a2a1f9d10, name: NVIDIA L4}]
devices:
  description: The CDI devices of the host, by full name.
  type: list
  elements: str
  returned: always
pending:
  description: Why it could not be looked at now.
  type: list
  elements: str
  returned: always
refreshed:
  description: Why the specification was written again (in check mode, would be); empty if it was not.
  type: list
  elements: str
  returned: always
"""

import glob
import os
from typing import Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import cdi, dockerd, gpu_probe


class Host:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.ctk = dockerd.find("nvidia-ctk")
        self.pending = ""

    def gpus(self) -> List[cdi.Gpu]:
        smi = dockerd.find("nvidia-smi")
        if not smi:
            return []
        code, out, err = self.module.run_command([smi, "-L"])
        if code != 0:
            if "No devices were found" in out + err:
                return []
            if gpu_probe.trouble(code, out, err).kind == "mismatch":
                # Only a restart helps, and the specification is right again after it. What runs goes on; so does
                # this run.
                self.pending = "the driver was exchanged, and the host has to restart before its GPUs can be looked at"
                return []
            self.module.fail_json(
                msg=f"nvidia-smi -L does not work on this host: {(err or out).strip()}\nWithout it nobody can tell "
                "which GPUs there are. Repair the driver first (a mismatch of driver and library needs a reboot)."
            )
        return cdi.parse_gpus(out)

    def look(self, gpus: List[cdi.Gpu], wanted: List[str]) -> Tuple[List[str], List[str]]:
        """The CDI devices, and what is wrong with them."""
        out = self.module.run_command([self.ctk, "cdi", "list"], check_rc=True)[1] if self.ctk else ""
        devices = cdi.parse_devices(out)
        paths: Dict[str, List[str]] = {}
        troubles = []
        for file in self._files():
            try:
                with open(file, encoding="utf-8") as spec:
                    text = spec.read()
                paths.update(cdi.device_paths(text))
                troubles += [f"{file}: {one}" for one in cdi.too_new(text, self.module.params["below"])]
            except (OSError, UnicodeDecodeError, cdi.CdiError) as error:
                troubles.append(f"{file}: {error}")
        there = [path for needed in paths.values() for path in needed if os.path.exists(path)]
        troubles += [
            f"{name}: the driver shows this GPU, but no CDI device" for name in cdi.missing_gpus(gpus, devices)
        ]
        troubles += [
            f"{device}: needs {path}, which is not on this host" for device, path in cdi.unresolved(paths, there)
        ]
        troubles += [f"{name}: asked for, but no CDI device" for name in cdi.unknown(wanted, devices)]
        return devices, list(dict.fromkeys(troubles))

    def _files(self) -> List[str]:
        """NVIDIA's specifications; others' are not ours to judge."""
        found = [path for folder in self.module.params["spec_dirs"] for path in glob.glob(f"{folder}/nvidia*")]
        return sorted(path for path in found if path.endswith((".yaml", ".yml", ".json")))

    def refresh(self) -> str:
        """Run the unit; what it said when it failed."""
        for unit in self.module.params["units"]:
            if dockerd.read_unit(self.module.run_command, unit).exists:
                code, _dummy, err = self.module.run_command(["systemctl", "restart", unit])
                log = self.module.run_command(["journalctl", "-u", unit, "-n", "10", "--no-pager", "-o", "cat"])[1]
                return "" if code == 0 else f"{unit}: {err.strip()}\n{log.strip()}"
        return f"none of the units {', '.join(self.module.params['units'])} exists"


def main() -> None:
    texts = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "devices": {**texts, "default": []},
            "below": {"type": "str", "default": ""},
            "units": {**texts, "default": ["nvidia-cdi-refresh.service", "devnode-cdi-refresh.service"]},
            "spec_dirs": {"type": "list", "elements": "path", "default": ["/etc/cdi", "/var/run/cdi"]},
        },
        supports_check_mode=True,
    )
    host = Host(module)
    wanted = module.params["devices"]
    gpus = host.gpus()
    if host.pending:
        module.warn(f"CDI specification: {host.pending}.")
        module.exit_json(
            changed=False, gpus=[], devices=[], refreshed=[], pending=[f"CDI specification: {host.pending}"]
        )
    shown = [{"index": gpu.index, "uuid": gpu.uuid, "name": gpu.name} for gpu in gpus]
    devices, troubles = host.look(gpus, wanted)
    result = {
        "changed": bool(troubles),
        "gpus": shown,
        "devices": devices,
        "refreshed": troubles,
        "pending": [],
        "diff": [{"prepared": "".join(f"{one}\n" for one in troubles)}] if troubles else [],
    }
    if not troubles or module.check_mode:
        module.exit_json(**result)
    said = host.refresh()
    devices, troubles = host.look(gpus, wanted)
    if troubles:
        have = ", ".join(devices) or "no CDI device at all"
        module.fail_json(
            msg="Not every GPU device of this host can be given to containers:\n"
            + "\n".join(f"  {one}" for one in troubles)
            + f"\nThis host has: {have}."
            + (f"\nWriting the specification again failed: {said}" if said else "")
            + "\nRemove what does not exist from the inventory, or repair the driver so that `nvidia-smi -L` shows it.",
            **{**result, "changed": False, "devices": devices},
        )
    module.exit_json(**{**result, "devices": devices})


if __name__ == "__main__":
    main()
