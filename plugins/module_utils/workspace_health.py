# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a workspace says about itself, and what is wrong with it."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.workspace import Workspace
from ansible_collections.devnode.gpu.plugins.module_utils.workspace_keeper import answers_ssh

Run = Callable[[List[str]], Tuple[int, str, str]]

# Runs in the container as the owner, in a login's environment. Prints one line of JSON.
PROBE = r"""
import glob, json, os, re
said = {"devices": len([p for p in glob.glob("/dev/nvidia*") if re.fullmatch(r"/dev/nvidia[0-9]+", p)])}
shm = os.statvfs("/dev/shm")
said["shm"] = shm.f_frsize * shm.f_blocks
try:
    import torch
    said.update(torch=torch.__version__, cuda=torch.version.cuda or "", sums={})
    available = torch.cuda.is_available()
    said["torch_devices"] = torch.cuda.device_count() if available else 0
    for device in [f"cuda:{i}" for i in range(said["torch_devices"])] or ["cpu"]:
        try:
            one = torch.ones(256, 256, device=device)
            said["sums"][device] = "right" if float((one @ one).sum()) == 256.0**3 else "wrong result"
        except Exception as exc:
            said["sums"][device] = f"{type(exc).__name__}: {exc}".splitlines()[0]
except Exception as exc:
    said["torch_error"] = f"{type(exc).__name__}: {exc}".splitlines()[0]
print("devnode:" + json.dumps(said))
"""


def ask(run: Run, item: Workspace, seconds: int) -> Dict[str, Any]:
    """One workspace's answers."""
    found: Dict[str, Any] = {"sshd": answers_ssh(item.bind_address, item.port)}
    shell = ["bash", "-lc", 'exec timeout "$0" python3 -c "$1"', str(seconds), PROBE]
    code, out, err = run(["docker", "exec", "--user", str(item.owner.uid), item.container, *shell])
    lines = [line for line in out.splitlines() if line.startswith("devnode:")]
    if lines:
        found.update(json.loads(lines[-1][len("devnode:") :]))
    else:
        last = (err or out).strip().splitlines()[-1:]
        found["error"] = f"no answer within {seconds} s" if code == 124 else " ".join(last) or f"exit code {code}"
    return found


def judge(item: Workspace, said: Dict[str, Any]) -> List[str]:
    """What is wrong, in words; empty when nothing is."""
    where = f'workspace "{item.name}"'
    wrong = []
    if not said["sshd"]:
        place = f"{item.bind_address} port {item.port}"
        wrong.append(f"{where}: no sshd answers on {place}. See: docker logs {item.container}")
    if "error" in said:
        return [*wrong, f"{where}: {said['error']}"]
    wrong += [f"{where}: {text}" for text in (*_devices(item, said), *_torch(item, said))]
    wanted = validators.size_bytes(item.shm_size)
    if said["shm"] < wanted:
        wrong.append(f"{where}: /dev/shm has {said['shm']} bytes, and {item.shm_size} were asked for")
    return wrong


def _devices(item: Workspace, said: Dict[str, Any]) -> List[str]:
    names = [device.split("=")[1] for device in item.gpus]
    if "all" in names or any(":" in name or name.startswith("MIG-") for name in names):
        return [] if said["devices"] else ["no GPU device is in it, and some were asked for"]  # how many, CDI knows
    if said["devices"] != len(names):
        return [f"{said['devices']} GPU devices are in it, and {len(names)} were asked for"]
    return []


def _torch(item: Workspace, said: Dict[str, Any]) -> List[str]:
    if "torch_error" in said:
        return [f"torch does not import: {said['torch_error']}"]
    wrong = [f"a matrix product on {device}: {text}" for device, text in said["sums"].items() if text != "right"]
    if item.gpus and said["cuda"] and not said["torch_devices"]:
        wrong.append(
            f"torch {said['torch']} (CUDA {said['cuda']}) finds no GPU. Often a driver that is too old, or one that "
            "was updated while it was loaded: compare nvidia-smi on the host."
        )
    return wrong
