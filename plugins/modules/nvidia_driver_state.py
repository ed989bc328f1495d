#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_state
short_description: Whether a host's NVIDIA driver works, what it still needs, and a note of that on the host
version_added: 0.1.0
description:
  - Looks whether the driver's module is loaded, is the same as its library, and runs the CUDA that is asked for.
    Loads the module
    where nothing else holds the GPUs. Starts the persistence daemon and the fabric manager.
  - Never restarts the host. It says whether a restart is needed and allowed, and remembers for which driver it was
    allowed, so that
    it is not tried twice.
  - Writes what it found to a local fact (C(ansible_local.devnode_gpu)). Made for role C(devnode.gpu.nvidia_driver).
author: The devnode.gpu authors (@devnode)
attributes:
  check_mode:
    description: Says what would change. A driver that would only be installed now is not judged.
    support: full
  diff_mode:
    description: Shows the local fact and the services.
    support: full
  platform:
    description: Linux with systemd.
    support: full
    platforms: linux
options:
  source:
    description: Where the driver comes from; decides what is said when there is none.
    type: str
    choices: [preinstalled, cuda_repo, distro]
    default: preinstalled
  cuda:
    description: A CUDA version that has to run here.
    type: str
    default: ""
  optional:
    description: A host without GPUs is fine.
    type: bool
    default: false
  reboot:
    description: V(idle) allows one restart for each driver, when nothing uses the GPUs.
    type: str
    choices: [never, idle]
    default: never
  waits:
    description: Why another driver was not installed; goes into the note.
    type: str
    default: ""
  coming:
    description: In check mode, that a driver would have been installed now.
    type: bool
    default: false
  persistence:
    description: Start C(nvidia-persistenced), where it is installed.
    type: bool
    default: true
  fabric_manager:
    description: Start C(nvidia-fabricmanager), and require that its version is the driver's.
    type: bool
    default: false
  fact:
    description: Where the local fact is written.
    type: path
    default: /etc/ansible/facts.d/devnode_gpu.fact
  state_dir:
    description: Where it is remembered for which driver the host was restarted.
    type: path
    default: /var/lib/devnode
"""

EXAMPLES = r"""
- name: The driver runs CUDA 12.8
  devnode.gpu.nvidia_driver_state:
    cuda: "12.8"
"""

RETURN = r"""
reboot:
  description: Whether the host is to be restarted now.
  type: bool
  returned: always
pending:
  description: What still has to happen, and why it has not.
  type: list
  elements: str
  returned: always
  sample: ['reboot needed: driver 570.195.03 is loaded, and 580.95.05 is installed…']
driver:
  description: As M(devnode.gpu.gpu_info) returns it.
  type: dict
  returned: always
gpus:
  description: As M(devnode.gpu.gpu_info) returns it.
  type: list
  elements: dict
  returned: always
"""

import json
import os
from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import dockerd, driver_state, gpu_host, whole_file

PERSISTENCE = "nvidia-persistenced.service"
FABRIC_MANAGER = "nvidia-fabricmanager.service"


class Task:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.record_path = os.path.join(self.params["state_dir"], "nvidia_driver.json")
        self.record: Dict[str, Any] = read_json(self.record_path)
        self.changes: List[str] = []

    def command(self, argv: List[str]) -> Tuple[int, str, str]:
        return self.module.run_command(argv, environ_update={"LC_ALL": "C"})  # type: ignore[no-any-return]

    def run(self) -> None:
        found = self._look()
        boot = gpu_host.boot_moment(self.command)
        restarted_for = self.record.get("driver", "") if self.record.get("boot") not in (None, boot) else ""
        judged = driver_state.judge(
            found,
            self.params["source"],
            self.params["cuda"],
            self.params["optional"],
            self.params["reboot"],
            restarted_for,
            "nouveau" in gpu_host.kernel_modules(),
        )
        coming = self.module.check_mode and self.params["coming"]
        if coming:
            # What is judged here is the driver of before; the one that would come can only be judged when it is there.
            judged = driver_state.Judgement()
        if self.params["waits"]:
            judged.pending.append(self.params["waits"])
        # Before a restart that is needed, services of the new version do not work with the old module.
        if found["driver"]["loaded"] and not judged.errors and not judged.restart_for:
            judged.errors += self._services(found)
        if not coming:
            self._note(found, judged)
        if judged.restart and not self.module.check_mode:
            self.record = {"driver": judged.restart_for, "boot": boot}
            write_json(self.record_path, self.record)
        if judged.restart:
            self.changes.append(f"the host is restarted: {judged.notes[-1]}")
        result = {
            "changed": bool(self.changes),
            "reboot": judged.restart,
            "pending": judged.pending,
            "notes": judged.notes,
            "driver": found["driver"],
            "gpus": found["gpus"],
            "diff": [{"prepared": "".join(f"{line}\n" for line in self.changes)}] if self.changes else [],
        }
        for text in judged.pending:
            self.module.warn(f"NVIDIA driver: {text}.")
        for text in judged.notes:
            if not judged.restart:
                self.module.warn(f"NVIDIA driver: {text}")
        if judged.errors:
            self.module.fail_json(msg="\n".join(judged.errors), **result)
        self.module.exit_json(**result)

    def _look(self) -> Dict[str, Any]:
        found = gpu_host.gather(self.command)
        driver = found["driver"]
        idle = not driver["loaded"] and driver["library"] and "nouveau" not in gpu_host.kernel_modules()
        modprobe = dockerd.find("modprobe")
        if not idle or not modprobe:
            return found
        if self.module.check_mode:
            self.changes.append("the module nvidia is loaded, where that works without a restart")
            return found
        code, _dummy, err = self.command([modprobe, "nvidia"])
        if code == 0:
            self.changes.append("the module nvidia is loaded")
            return gpu_host.gather(self.command)
        driver["said"] = err.strip()
        return found

    def _services(self, found: Dict[str, Any]) -> List[str]:
        """Started, and at every boot; what is wrong with them."""
        errors = []
        wanted = [PERSISTENCE] * self.params["persistence"] + [FABRIC_MANAGER] * self.params["fabric_manager"]
        for name in wanted:
            unit = dockerd.read_unit(self.command, name)
            if not unit.exists:
                if name == FABRIC_MANAGER:
                    errors.append(f"{name} is not installed, and machines with NVSwitch do not work without it.")
                continue
            if unit.active and unit.enabled:
                continue
            self.changes.append(f"{name} is enabled and started")
            if not self.module.check_mode:
                code, _dummy, err = self.command(["systemctl", "enable", "--now", name])
                if code:
                    errors.append(f"{name} does not start: {err.strip()}. See `journalctl -u {name}`.")
        if self.params["fabric_manager"]:
            errors += self._fabric_trouble(found["driver"]["version"])
        return errors

    def _fabric_trouble(self, version: str) -> List[str]:
        argv = ["dpkg-query", "--show", "--showformat=${Version}\n", "nvidia-fabricmanager", "nvidia-fabricmanager-*"]
        if not dockerd.find("dpkg-query"):
            return []
        have = self.command(argv)[1].split()
        trouble = driver_state.fabric_trouble(version, have[0]) if have else ""
        return [trouble] if trouble else []

    def _note(self, found: Dict[str, Any], judged: driver_state.Judgement) -> None:
        fact = {
            "driver": found["driver"]["version"],
            "installed": found["driver"]["library"],
            "reboot_needed": bool(judged.restart_for),
            "pending": judged.pending,
        }
        if read_json(self.params["fact"]) == fact:
            return
        self.changes.append(f"{self.params['fact']}: {json.dumps(fact, sort_keys=True)}")
        if not self.module.check_mode:
            write_json(self.params["fact"], fact)


def read_json(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: str, data: Dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    whole_file.write(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "choices": ["preinstalled", "cuda_repo", "distro"], "default": "preinstalled"},
            "cuda": {"type": "str", "default": ""},
            "optional": {"type": "bool", "default": False},
            "reboot": {"type": "str", "choices": ["never", "idle"], "default": "never"},
            "waits": {"type": "str", "default": ""},
            "coming": {"type": "bool", "default": False},
            "persistence": {"type": "bool", "default": True},
            "fabric_manager": {"type": "bool", "default": False},
            "fact": {"type": "path", "default": "/etc/ansible/facts.d/devnode_gpu.fact"},
            "state_dir": {"type": "path", "default": "/var/lib/devnode"},
        },
        supports_check_mode=True,
    )
    Task(module).run()


if __name__ == "__main__":
    main()
