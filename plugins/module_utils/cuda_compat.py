# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a CUDA version or a PyTorch build runs on a driver and its GPUs; if not, why, and what would.

`check` is the answer; roles ask it before anything is pulled or installed. Pure functions over the tables below; each
row says where it comes from. What is newer than the tables is judged by NVIDIA's general rules and said to be so.
Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

Version = Tuple[int, ...]


class CompatError(ValueError):
    """Something asked for is not a version; the text is for people."""


# The driver that each CUDA release came with: with it or a newer one everything of that release works.
# Source of all rows: NVIDIA, "CUDA Toolkit Release Notes", table "CUDA Toolkit and Corresponding Driver Versions"
# (Linux x86_64, the GA row), read 2026-11 (docs.nvidia.com/cuda/cuda-toolkit-release-notes).
CUDA_DRIVER: Tuple[Tuple[str, str], ...] = (
    ("11.8", "520.61.05"),
    ("12.0", "525.60.13"),
    ("12.1", "530.30.02"),
    ("12.2", "535.54.03"),
    ("12.3", "545.23.06"),
    ("12.4", "550.54.14"),
    ("12.5", "555.42.02"),
    ("12.6", "560.28.03"),
    ("12.8", "570.26"),
    ("12.9", "575.51.03"),
    ("13.0", "580.65.06"),
    ("13.1", "590.44.01"),
    ("13.2", "595.45.04"),
)
# Minor-version compatibility: what was built with any release of a major version runs from this driver on, as long as
# it leaves no PTX for the driver to compile at run time, and needs no feature of a newer driver.
# Source: NVIDIA, "CUDA Compatibility", minor version compatibility (docs.nvidia.com/deploy/cuda-compatibility).
MAJOR_FLOOR: Tuple[Tuple[int, str], ...] = ((11, "450.80.02"), (12, "525.60.13"), (13, "580.65.06"))
# The compute capabilities that a CUDA release still makes code for (from, before). Sources: CUDA 12.0 release notes
# (Kepler, 3.5 and 3.7, removed); CUDA 13.0 release notes (Maxwell, Pascal and Volta, below 7.5, removed).
CUDA_REMOVED: Tuple[Tuple[str, str, str], ...] = (("12.0", "5.0", "11.8"), ("13.0", "7.5", "12.9"))
# The first CUDA release with code for a new generation. Sources: release notes of CUDA 11.8 (Ada 8.9, Hopper 9.0) and
# 12.8 (Blackwell 10.0, 12.0).
CUDA_ADDED: Tuple[Tuple[str, str], ...] = (("8.9", "11.8"), ("10.0", "12.8"))
# The last driver branch for a generation. Source: NVIDIA, "Unix driver end-of-life" (Kepler: 470; Maxwell, Pascal and
# Volta: 580; the latter also in the CUDA 13.0 release notes).
LAST_BRANCH: Tuple[Tuple[str, int], ...] = (("5.0", 470), ("7.5", 580))


@dataclass(frozen=True)
class TorchRow:
    """PyTorch releases (first to last) that are built with these CUDA versions."""

    first: str
    last: str
    cuda: Tuple[str, ...]


# Source of all rows: PyTorch's RELEASE.md, "Release Compatibility Matrix" (stable and experimental), read 2026-11.
TORCH_CUDA: Tuple[TorchRow, ...] = (
    TorchRow("2.0", "2.0", ("11.7", "11.8")),
    TorchRow("2.1", "2.3", ("11.8", "12.1")),
    TorchRow("2.4", "2.5", ("11.8", "12.1", "12.4")),
    TorchRow("2.6", "2.6", ("11.8", "12.4", "12.6")),
    TorchRow("2.7", "2.7", ("11.8", "12.6", "12.8")),
    TorchRow("2.8", "2.8", ("12.6", "12.8", "12.9")),
    TorchRow("2.9", "2.11", ("12.6", "12.8", "13.0")),
    TorchRow("2.12", "2.14", ("12.6", "13.0", "13.2")),
)


@dataclass(frozen=True)
class ArchRow:
    """The compute capabilities that PyTorch's x86_64 builds with one CUDA version hold code for."""

    cuda: str
    first: str  # PyTorch releases
    last: str
    capabilities: Tuple[str, ...]
    ptx: bool = False  # code that a driver can compile for GPUs that are newer than all of these


_TO_HOPPER = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")
_TO_BLACKWELL = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
# Source: PyTorch's RELEASE.md, "PyTorch CUDA Support Matrix", as it stood for each of these releases; 2.7 and 2.8 with
# 12.8 and 12.9: PyTorch's "CUDA/CUDNN Upgrade Runbook", table of supported architectures.
TORCH_ARCH: Tuple[ArchRow, ...] = (
    ArchRow("11.7", "2.0", "2.0", ("3.7", "5.0", "6.0", "7.0", "7.5", "8.0", "8.6")),
    ArchRow("11.8", "2.0", "2.7", ("3.7", *_TO_HOPPER)),
    ArchRow("12.1", "2.1", "2.5", _TO_HOPPER),
    ArchRow("12.4", "2.4", "2.6", _TO_HOPPER),
    ArchRow("12.6", "2.6", "2.14", _TO_HOPPER),
    ArchRow("12.8", "2.7", "2.8", _TO_BLACKWELL, ptx=True),
    ArchRow("12.8", "2.9", "2.10", ("7.0", *_TO_BLACKWELL)),
    ArchRow("12.8", "2.11", "2.11", _TO_BLACKWELL),
    ArchRow("12.9", "2.8", "2.8", _TO_BLACKWELL, ptx=True),
    ArchRow("13.0", "2.9", "2.14", _TO_BLACKWELL, ptx=True),
    ArchRow("13.2", "2.12", "2.14", _TO_BLACKWELL, ptx=True),
)

_IMAGE = re.compile(r":(?P<torch>\d+\.\d+(?:\.\d+)?)-cuda(?P<cuda>\d+\.\d+)(?:\.\d+)?-")
_VERSION = re.compile(r"\d{1,4}(\.\d{1,4}){0,3}")


@dataclass(frozen=True)
class Verdict:
    """The answer of `check`."""

    runs: bool
    cuda: str = ""  # the CUDA version that was judged; chosen here when only PyTorch was asked for
    reason: str = ""  # why it does not run
    remedy: str = ""  # what would
    note: str = ""  # it runs, with these limits

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.reason, self.remedy, self.note) if part)


@dataclass(frozen=True)
class Asked:
    """What an image's name says that is in it; empty where it does not."""

    torch: str = ""
    cuda: str = ""


def version(text: str, what: str) -> Version:
    if not _VERSION.fullmatch(text):
        raise CompatError(f'{what}: "{text}" is not a version. Write it like 12.8 or 570.124.06.')
    return tuple(int(part) for part in text.split("."))


def _v(text: str) -> Version:
    return tuple(int(part) for part in text.split("."))


def minor(text: str) -> str:
    """12.8 of 12.8.1."""
    return ".".join(text.split(".")[:2])


def asked_by_image(reference: str) -> Asked:
    """pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel names both; most other images say nothing."""
    found = _IMAGE.search(reference)
    return Asked(found.group("torch"), found.group("cuda")) if found else Asked()


def wheel_index(cuda: str) -> str:
    """The name of PyTorch's wheel index for a CUDA version: cu128."""
    return "cu" + minor(cuda).replace(".", "")


def full_driver(cuda: str) -> str:
    """The driver that a CUDA version came with; empty when the table does not know it."""
    return dict(CUDA_DRIVER).get(minor(cuda), "")


def lowest_driver(cuda: str) -> str:
    """The lowest driver that runs a CUDA version, by minor-version compatibility; empty for an unknown major."""
    return dict(MAJOR_FLOOR).get(int(cuda.split(".", maxsplit=1)[0]), "")


def newest_cuda(driver: str) -> str:
    """The newest CUDA version of the table that a driver runs without limits (as nvidia-smi prints it); or empty."""
    fits = [cuda for cuda, needed in CUDA_DRIVER if _v(driver) >= _v(needed)]
    return fits[-1] if fits else ""


def torch_builds(torch: str) -> Tuple[str, ...]:
    """The CUDA versions that a PyTorch release is built with, oldest first; empty when the table does not know it."""
    for row in TORCH_CUDA:
        if _v(row.first) <= _v(minor(torch)) <= _v(row.last):
            return row.cuda
    return ()


def torch_arch(torch: str, cuda: str) -> Optional[ArchRow]:
    for row in TORCH_ARCH:
        if row.cuda == minor(cuda) and _v(row.first) <= _v(minor(torch)) <= _v(row.last):
            return row
    return None


def has_code_for(row: ArchRow, capability: str) -> bool:
    """Code for 8.0 runs on 8.x with x >= 0, not on another major; PTX is compiled for anything newer."""
    wanted = _v(capability)
    if any(wanted[0] == _v(one)[0] and wanted >= _v(one) for one in row.capabilities):
        return True
    return row.ptx and wanted > max(_v(one) for one in row.capabilities)


def check(
    driver: str,
    capabilities: Sequence[str] = (),
    cuda: str = "",
    torch: str = "",
    minor_compatibility: bool = True,
) -> Verdict:
    """Whether this runs on every one of the GPUs.

    driver: as nvidia-smi prints it; empty: not known, or no GPU is asked for, and only PyTorch against CUDA is judged.
    capabilities: of the GPUs ("8.9"). cuda: empty means any that PyTorch is built with, the newest that runs.
    minor_compatibility: a driver that is older than the one this CUDA release came with, but within its major, will do.
    """
    if driver:
        version(driver, "driver")
    for name, text in (("cuda", cuda), ("torch", torch), *(("compute capability", one) for one in capabilities)):
        if text:
            version(text, name)
    builds = torch_builds(torch) if torch else ()
    if torch and builds and cuda and minor(cuda) not in builds:
        return Verdict(
            False,
            cuda,
            f"PyTorch {torch} is not built with CUDA {cuda}.",
            f"Take one of its builds: CUDA {_listed(builds)}.",
        )
    if cuda or not torch:
        return _judge(driver, capabilities, cuda, torch, minor_compatibility) if cuda else Verdict(True)
    if not builds:
        return Verdict(True, note=f"PyTorch {torch} is not in the tables of this collection, so nothing was checked.")
    judged = [_judge(driver, capabilities, one, torch, minor_compatibility) for one in reversed(builds)]
    fitting = [one for one in judged if one.runs]
    unlimited = [one for one in fitting if not one.note]
    return (unlimited or fitting or judged)[0]


def _judge(driver: str, capabilities: Sequence[str], cuda: str, torch: str, minor_compatibility: bool) -> Verdict:
    for capability in sorted(set(capabilities), key=_v):
        verdict = _capability(capability, cuda, torch, driver)
        if verdict:
            return verdict
    if not driver:
        return Verdict(True, cuda)
    needed, floor = full_driver(cuda), lowest_driver(cuda)
    if needed and _v(driver) >= _v(needed):
        return Verdict(True, cuda)
    least = floor if minor_compatibility or not needed else needed
    if floor and _v(driver) >= _v(least):
        came = f"came with driver {needed}" if needed else "is newer than this collection's tables"
        return Verdict(
            True,
            cuda,
            note=f"CUDA {cuda} {came}; driver {driver} runs it by minor-version compatibility, so a program that "
            "has the driver compile PTX at run time may ask for a newer one.",
        )
    if not floor:
        return Verdict(True, cuda, note=f"CUDA {cuda} is not in the tables of this collection, so nothing was checked.")
    own = newest_cuda(driver)
    return Verdict(
        False,
        cuda,
        f"CUDA {cuda} does not run with driver {driver}: it needs driver {least} or newer"
        + (f", and {driver} has CUDA {own}." if own else "."),
        _other(driver, capabilities, torch, f"Install driver {needed or floor} or newer", minor_compatibility),
    )


def _capability(capability: str, cuda: str, torch: str, driver: str) -> Optional[Verdict]:
    gpu = f"a GPU of compute capability {capability}"
    for since, first, last in CUDA_REMOVED:
        if _v(cuda) >= _v(since) and _v(capability) < _v(first):
            return Verdict(
                False,
                cuda,
                f"CUDA {cuda} has no code for {gpu}: it starts at {first}; CUDA {last} was the last below that.",
                _other(driver, [capability], torch, f"Take CUDA {last} or older"),
            )
    for first, since in reversed(CUDA_ADDED):
        if _v(capability) >= _v(first) and _v(cuda) < _v(since):
            return Verdict(
                False,
                cuda,
                f"CUDA {cuda} does not know {gpu}: CUDA {since} is the first that does.",
                _other(driver, [capability], torch, f"Take CUDA {since} or newer"),
            )
    row = torch_arch(torch, cuda) if torch else None
    if row and not has_code_for(row, capability):
        return Verdict(
            False,
            cuda,
            f"PyTorch {torch} with CUDA {cuda} has no code for {gpu} (it has {_listed(row.capabilities)}); the first "
            'operation would end with "no kernel image is available".',
            _other(driver, [capability], torch, ""),
        )
    return None


def _other(
    driver: str, capabilities: Sequence[str], torch: str, otherwise: str, minor_compatibility: bool = True
) -> str:
    """What would run: another build of the same PyTorch, if there is one; the other way as well."""
    ways: List[str] = [otherwise] if otherwise else []
    fitting = [
        one
        for one in (torch_builds(torch) if torch else ())
        if not any(_blocked(capability, one, torch) for capability in capabilities)
        and (not driver or _v(driver) >= _v(lowest_driver(one) if minor_compatibility else full_driver(one) or "0"))
    ]
    if fitting:
        ways.append(f"take PyTorch {torch} with CUDA {_listed(fitting)}")
    elif not ways:
        ways.append("take another PyTorch release (older ones know older GPUs, newer ones newer)")
    text = ", or ".join(ways)
    return f"{text[0].upper()}{text[1:]}."


def _blocked(capability: str, cuda: str, torch: str) -> bool:
    if any(_v(cuda) >= _v(since) and _v(capability) < _v(first) for since, first, _dummy in CUDA_REMOVED):
        return True
    if any(_v(capability) >= _v(first) and _v(cuda) < _v(since) for first, since in CUDA_ADDED):
        return True
    row = torch_arch(torch, cuda)
    return bool(row and not has_code_for(row, capability))


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values)


def driver_refuses_gpu(branch: int, capability: str) -> str:
    """Why a driver branch does not work with a GPU; empty when it does."""
    for below, last in LAST_BRANCH:
        if _v(capability) < _v(below) and branch > last:
            return (
                f"Driver branch {branch} does not know GPUs of compute capability {capability}: {last} is the last "
                f"branch that does. Take {last}."
            )
    return ""
