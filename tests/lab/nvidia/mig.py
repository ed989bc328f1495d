#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""STAND-IN for nvidia-smi where GPUs can be cut into MIG devices (two A100 80 GB), as /usr/local/bin/nvidia-smi.

Its output has the form of NVIDIA's. As with the real one, devices live until the host restarts (in /run) and MIG mode
stays (in /var), a GPU has seven slices, and compute instances go before GPU instances. What it does not know goes to
the host's other nvidia-smi.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MODE = Path("/var/lib/devnode-lab-mig.json")
DEVICES = Path("/run/devnode-lab-mig.json")
CALLS = Path("/run/devnode-lab-mig.calls")
APPS = Path("/etc/devnode-lab-gpu/processes")
# name: (id, slices, memory slices of eight, memory in GiB)
PROFILES = {
    "1g.10gb": (19, 1, 1, 9.75),
    "2g.20gb": (14, 2, 2, 19.62),
    "3g.40gb": (9, 3, 4, 39.5),
    "7g.80gb": (0, 7, 8, 79.25),
}
OTHER = "/usr/bin/nvidia-smi"
UUIDS = ("GPU-3f1a7c52-8d0e-4b6f-9a41-c2e57d90b813", "GPU-b86e04d9-27c3-4f15-8e6a-5d19f3a07c44")


def load(path: Path) -> dict[str, list[str]]:
    return json.loads(path.read_text()) if path.exists() else {"0": [], "1": []}


def listing(devices: dict[str, list[str]]) -> None:
    for gpu, uuid in enumerate(UUIDS):
        print(f"GPU {gpu}: NVIDIA A100-SXM4-80GB (UUID: {uuid})")
        for at, name in enumerate(devices[str(gpu)]):
            print(f"  MIG {name}     Device  {at}: (UUID: MIG-{gpu}{at}2b3c4d-5e6f-5708-9a0b-1c2d3e4f5a6b)")


def offered(gpu: str) -> None:
    print("+-----------------------------------------------------------------------------+")
    print("| GPU instance profiles:                                                      |")
    print("| GPU   Name             ID    Instances   Memory     P2P    SM    DEC   ENC  |")
    print("|                              Free/Total   GiB              CE    JPEG  OFA  |")
    print("|=============================================================================|")
    for name, (number, slices, _memory, size) in PROFILES.items():
        free = f"{7 // slices}/{7 // slices}"
        print(f"|   {gpu}  MIG {name:<12} {number:>5}     {free}        {size:<8} No     {14 * slices:<5} 0     0   |")
    print("+-----------------------------------------------------------------------------+")


def change(words: list[str], gpu: str) -> int:
    modes, devices = load(MODE), load(DEVICES)
    if "-mig" in words:
        modes[gpu] = ["on"] if words[-1] == "1" else []
        MODE.write_text(json.dumps(modes))
        print(f"{'Enabled' if modes[gpu] else 'Disabled'} MIG Mode for GPU 0000000{gpu}:00:05.0\nAll done.")
        return 0
    if not modes[gpu]:
        print("No MIG-enabled devices found.")
        return 6
    if words[-1] in ("-dci", "-dgi"):
        if not devices[gpu]:
            print("No GPU instances found: Not Found")
            return 6
        if words[-1] == "-dgi":
            devices[gpu] = []
        print(f"Successfully destroyed {'GPU' if words[-1] == '-dgi' else 'compute'} instance ID  1 from GPU  {gpu}")
    else:
        names = words[words.index("-cgi") + 1].split(",")
        if sum(PROFILES[name][1] for name in names) > 7 or sum(PROFILES[name][2] for name in names) > 8:
            print("Unable to create a GPU instance on GPU  0 using profile 0: Insufficient Resources")
            return 19
        devices[gpu] = names
        for at, name in enumerate(names):
            print(f"Successfully created GPU instance ID  {at + 1} on GPU  {gpu} using profile MIG {name}")
    DEVICES.write_text(json.dumps(devices))
    return 0


def main(words: list[str]) -> int:
    gpu = words[words.index("-i") + 1] if "-i" in words else ""
    line = " ".join(words)
    if words == ["-L"]:
        listing(load(DEVICES))
    elif "--query-gpu=index,mig.mode.current" in line:
        modes = load(MODE)
        for one in [gpu] if gpu else sorted(modes):
            print(f"{one}, {'Enabled' if modes[one] else 'Disabled'}")
    elif "--query-gpu=" in line:
        done = subprocess.run([OTHER, *words], capture_output=True, text=True, check=False)
        rows = done.stdout.replace("NVIDIA L4", "NVIDIA A100-SXM4-80GB").replace(" 8.9", " 8.0").splitlines()
        for row, mode in zip(rows, load(MODE).values(), strict=False):
            print(row.replace("[N/A]", "Enabled" if mode else "Disabled"))
        return done.returncode
    elif "--query-compute-apps" in line and gpu:
        print(APPS.read_text() if APPS.exists() else "", end="")
    elif "-lgip" in words:
        offered(gpu)
    elif words[0] == "mig" or "-mig" in words:
        with CALLS.open("a") as file:
            file.write(line + "\n")
        return change(words, gpu)
    else:
        os.execv(OTHER, ["nvidia-smi", *words])  # noqa: S606
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
