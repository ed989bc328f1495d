# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also a program of the host, which prints and exits
"""Cuts GPUs into the MIG devices that are declared, with nvidia-smi. Also a program of its own, installed on the host.

    mig-layout [--check] [FILE]

FILE (/etc/devnode/mig.json) is {"0": ["3g.40gb", "1g.10gb"], …}: profiles by GPU index; [] turns MIG off. GPUs that it
does not name are left alone. MIG devices do not survive a restart, so a unit runs this at boot, before CDI
specifications
are written and containers start. Nothing is touched while something runs on a GPU that would change. Standard library
only, no Ansible.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Mapping, Sequence, Tuple

Run = Callable[[List[str]], Tuple[int, str, str]]

PROFILE = re.compile(r"[1-9]g\.\d{1,3}gb(\+[a-z]+(\.[a-z]+)?)?")
SMI = "nvidia-smi"
_GPU = re.compile(r"^GPU (\d+): ")
_DEVICE = re.compile(r"^\s+MIG (\S+)\s+Device\s+\d+: ")
_OFFERED = re.compile(r"\bMIG (\d+g\.\S+)")


@dataclass
class Result:
    changes: List[str] = field(default_factory=list)  # what is (or would be) done, a line for each GPU
    errors: List[str] = field(default_factory=list)
    busy: List[str] = field(default_factory=list)  # why it waits


def devices(listing: str) -> Dict[str, List[str]]:
    """The profiles of the MIG devices of each GPU, from `nvidia-smi -L`."""
    out: Dict[str, List[str]] = {}
    gpu = ""
    for line in listing.splitlines():
        found, device = _GPU.match(line), _DEVICE.match(line)
        if found:
            gpu = found.group(1)
            out[gpu] = []
        elif device and gpu:
            out[gpu].append(device.group(1))
    return out


def modes(csv: str) -> Dict[str, str]:
    """enabled, disabled or "" (not supported), from `--query-gpu=index,mig.mode.current`."""
    rows = [[part.strip() for part in line.split(",")] for line in csv.splitlines()]
    return {row[0]: row[1].lower() if row[1][:1] != "[" else "" for row in rows if len(row) == 2}


def offered(listing: str) -> List[str]:
    """The profiles of `nvidia-smi mig -lgip`."""
    return list(dict.fromkeys(_OFFERED.findall(listing)))


def apply(layout: Mapping[str, Sequence[str]], run: Run, check: bool = False) -> Result:
    """Bring the GPUs to the layout. First everything is looked at; only then is anything touched."""
    result = Result()
    code, listing, err = run([SMI, "-L"])
    if code:
        result.errors.append(f"nvidia-smi -L does not work: {(err or listing).strip()}")
        return result
    now = devices(listing)
    mode = modes(run([SMI, "--query-gpu=index,mig.mode.current", "--format=csv,noheader"])[1])
    todo = []
    for gpu, profiles in sorted(layout.items()):
        if gpu not in now:
            result.errors.append(f"GPU {gpu} does not exist on this host (it has {', '.join(sorted(now)) or 'none'}).")
        elif not mode.get(gpu):
            if profiles:
                result.errors.append(f"GPU {gpu} cannot be cut into MIG devices.")
        elif sorted(profiles) != sorted(now[gpu]) or (mode[gpu] == "enabled") != bool(profiles):
            todo.append(gpu)
            was = ", ".join(now[gpu]) or ("no MIG devices" if mode[gpu] == "enabled" else "MIG off")
            result.changes.append(f"GPU {gpu}: {was} -> {', '.join(profiles) or 'MIG off'}")
            if mode[gpu] == "enabled" and profiles:
                result.errors += _unknown(gpu, profiles, run)
    for gpu in todo:
        apps = run([SMI, "-i", gpu, "--query-compute-apps=pid,process_name", "--format=csv,noheader"])[1]
        users = [
            " ".join(line.replace(",", " ").split()) for line in apps.splitlines() if re.match(r"\s*\d+\s*,", line)
        ]
        result.busy += [f"GPU {gpu} is in use by process {user}" for user in users]
    if result.errors or result.busy or check:
        return result
    for gpu in todo:
        trouble = _cut(gpu, list(layout[gpu]), mode[gpu] == "enabled", run)
        if trouble:
            if now[gpu] and layout[gpu]:
                back = run([SMI, "mig", "-i", gpu, "-cgi", ",".join(now[gpu]), "-C"])[0] == 0
                trouble += f" Its MIG devices are {'again as they were' if back else 'gone'}."
            result.errors.append(trouble)
            break
    return result


def _unknown(gpu: str, profiles: Sequence[str], run: Run) -> List[str]:
    have = offered(run([SMI, "mig", "-i", gpu, "-lgip"])[1])
    lacking = [name for name in dict.fromkeys(profiles) if have and name not in have]
    return [f"GPU {gpu} has no MIG profile {name} (it has {', '.join(have)})." for name in lacking]


def _cut(gpu: str, profiles: List[str], enabled: bool, run: Run) -> str:
    """What went wrong, or empty."""
    if enabled:
        for word in ("-dci", "-dgi"):  # compute instances first: they live in GPU instances
            code, out, err = run([SMI, "mig", "-i", gpu, word])
            if code and "No " not in out + err:
                return f"GPU {gpu}: its MIG devices could not be removed: {(err or out).strip()}"
    if enabled != bool(profiles):
        code, out, err = run([SMI, "-i", gpu, "-mig", "1" if profiles else "0"])
        now = modes(run([SMI, "-i", gpu, "--query-gpu=index,mig.mode.current", "--format=csv,noheader"])[1])
        if code or (now.get(gpu) == "enabled") != bool(profiles):
            return (
                f"GPU {gpu}: MIG mode could not be turned {'on' if profiles else 'off'} at once. A restart of the host "
                f"does it, or `nvidia-smi --gpu-reset -i {gpu}` while nothing uses it. It says: {(err or out).strip()}"
            )
    if not profiles:
        return ""
    unknown = _unknown(gpu, profiles, run)
    if unknown:
        return unknown[0]
    code, out, err = run([SMI, "mig", "-i", gpu, "-cgi", ",".join(profiles), "-C"])
    if code:
        return (
            f"GPU {gpu}: {', '.join(profiles)} could not be made: {(err or out).strip()}. "
            f"`nvidia-smi mig -i {gpu} -lgipp` shows which profiles fit beside each other."
        )
    return ""


def _run(argv: List[str]) -> Tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def main(argv: Sequence[str]) -> int:
    check = "--check" in argv
    paths = [word for word in argv if not word.startswith("-")]
    with open(paths[0] if paths else "/etc/devnode/mig.json", encoding="utf-8") as file:
        layout = json.load(file)
    result = apply(layout, _run, check)
    for line in [*result.changes, *result.busy, *result.errors]:
        print(line)
    return 1 if result.errors or result.busy else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
