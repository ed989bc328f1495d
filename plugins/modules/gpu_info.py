#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: A host's NVIDIA GPUs, their driver, and what uses them
version_added: 0.1.0
description:
  - Reads C(nvidia-smi), C(/proc/driver/nvidia), the PCI bus, C(mokutil), C(nvidia-ctk) and the container engine.
    Changes nothing.
  - A host without GPUs, or without any of these programs, is a normal answer.
  - With O(cuda) or O(torch) it also says whether that runs here, and if not, why and what would.
author: The devnode.gpu authors (@devnode)
attributes:
  check_mode:
    description: It only reads.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
  platform:
    description: Linux.
    support: full
    platforms: linux
options:
  cuda:
    description: A CUDA version that is to run here, such as V(12.8).
    type: str
    default: ""
  torch:
    description: A PyTorch version that is to run here, such as V(2.8.0). Without O(cuda) the build that suits best
      is chosen.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: What is in this machine
  devnode.gpu.gpu_info:
  register: gpu

- name: Whether PyTorch 2.8 with CUDA 12.8 runs here
  devnode.gpu.gpu_info:
    cuda: "12.8"
    torch: 2.8.0
  register: gpu
  failed_when: not gpu.compatibility.runs
"""

RETURN = r"""
driver:
  description:
    - C(loaded), C(version) and C(modules) (V(open) or V(proprietary)) of the kernel module; C(library), the version
      of the library
      that programs load; C(cuda), the newest CUDA version that the driver runs.
    - C(trouble) is empty when nvidia-smi answers, else V(no_driver), V(mismatch), V(no_devices) or V(other); C(said)
      is what it said.
  type: dict
  returned: always
gpus:
  description: C(index), C(uuid), C(name), C(memory_mib), C(bus), C(compute_capability), C(mig), C(mig_devices) of each.
  type: list
  elements: dict
  returned: always
processes:
  description: C(pid) and C(name) of each compute process on a GPU.
  type: list
  elements: dict
  returned: always
hardware:
  description: How many C(gpus) and C(nvswitches) of NVIDIA the PCI bus has, with or without a driver.
  type: dict
  returned: always
secure_boot:
  description: C(state) (V(on), V(off), V(unknown)), C(key) (the one DKMS signs with) and whether it is C(enrolled).
  type: dict
  returned: always
toolkit:
  description: Version of the NVIDIA Container Toolkit, or empty.
  type: str
  returned: always
engine:
  description: Version of the C(docker) engine that answers, or empty, and whether it has C(cdi) on. Versions of
    C(containerd), C(crio) and C(podman), or empty.
  type: dict
  returned: always
cdi_devices:
  description: The CDI devices of the host, by full name.
  type: list
  elements: str
  returned: always
in_use:
  description: What a restart of the host or an exchange of its driver would end, in words. GPU processes,
    containers, and what
    people run in their workspaces.
  type: list
  elements: str
  returned: always
compatibility:
  description: C(runs), C(cuda), C(reason), C(remedy) and C(note).
  type: dict
  returned: when O(cuda) or O(torch) is given
"""

from typing import List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import cuda_compat, gpu_host


def main() -> None:
    module = AnsibleModule(
        argument_spec={"cuda": {"type": "str", "default": ""}, "torch": {"type": "str", "default": ""}},
        supports_check_mode=True,
    )

    def run(argv: List[str]) -> Tuple[int, str, str]:
        return module.run_command(argv, environ_update={"LC_ALL": "C"})  # type: ignore[no-any-return]

    result = gpu_host.gather(run)
    if module.params["cuda"] or module.params["torch"]:
        capabilities = [gpu["compute_capability"] for gpu in result["gpus"] if gpu["compute_capability"]]
        version = result["driver"]["version"] or result["driver"]["library"]
        try:
            verdict = cuda_compat.check(version, capabilities, module.params["cuda"], module.params["torch"])
        except cuda_compat.CompatError as error:
            module.fail_json(msg=str(error))
        result["compatibility"] = {
            "runs": verdict.runs,
            "cuda": verdict.cuda,
            "reason": verdict.reason,
            "remedy": verdict.remedy,
            "note": verdict.note,
        }
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
