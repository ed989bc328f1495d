# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PyTorch by its CUDA version: from `pytorch: {version: "2.8", cuda: "12.8"}` to the packages and the index. Pure."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils import cuda_compat
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

# PyTorch's own wheels, one index for each CUDA version: https://pytorch.org/get-started/previous-versions/
WHEELS = "https://download.pytorch.org/whl"
KEYS = ("version", "cuda", "source", "extras")
SOURCES = ("pip", "conda")
EXTRAS = ("torchvision", "torchaudio")


def _partner(name: str, torch: str) -> str:
    """The release of a partner package that belongs to a PyTorch release; empty when its own pin has to say it.

    torchvision 0.23 belongs to PyTorch 2.8, 0.24 to 2.9, 0.29 to 2.14 (https://github.com/pytorch/vision, README);
    torchaudio had PyTorch's number up to 2.9. Either pins its PyTorch itself.
    """
    major, minor = (int(part) for part in cuda_compat.minor(torch).split("."))
    if name == "torchvision" and major == 2:
        return f"0.{minor + 15}"
    return f"{major}.{minor}" if (major, minor) <= (2, 9) else ""


def _version(value: Any, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,2}\.[0-9]{1,2}(\.[0-9]{1,2})?", value):
        raise InvalidError(f"has no version in {what}", f'{what}: a version in quotes, such as "2.8" or "12.8"')
    return value


def _check(value: Any) -> tuple[str, str, str, list[str]]:
    if not isinstance(value, dict):
        raise InvalidError("is not a mapping", '{version: "2.8", cuda: "12.8"}')
    unknown = sorted(str(key) for key in value if key not in KEYS)
    if unknown:
        raise InvalidError(f"has unknown keys: {', '.join(unknown)}", ", ".join(KEYS))
    torch = _version(value.get("version"), "version")
    cuda = value.get("cuda")
    if cuda != "cpu":
        cuda = cuda_compat.minor(_version(cuda, "cuda"))
    source = value.get("source") or "pip"
    if source not in SOURCES:
        raise InvalidError("has an unknown source", " or ".join(SOURCES))
    extras = value.get("extras", list(EXTRAS))
    if not isinstance(extras, list) or any(item not in EXTRAS for item in extras):
        raise InvalidError("has unknown extras", f"a list of {' and '.join(EXTRAS)}")
    builds = cuda_compat.torch_builds(torch)
    if not builds:
        known = f"{cuda_compat.TORCH_CUDA[0].first} to {cuda_compat.TORCH_CUDA[-1].last}"
        why = (
            f"asks for PyTorch {torch}, which this collection does not know ({known}). Name packages and index "
            "yourself then (pip, pip_extra_index_urls)"
        )
        raise InvalidError(why, f"PyTorch {known}")
    if cuda != "cpu":
        verdict = cuda_compat.check("", cuda=cuda, torch=torch)
        if not verdict.runs:
            raise InvalidError(
                f"does not exist: {verdict.reason} {verdict.remedy}".strip(), f"CUDA {', '.join(builds)}"
            )
    return torch, str(cuda), str(source), extras


def expanded(item: Any, wheels: str = WHEELS) -> Any:
    """A declaration in which `pytorch` has become packages, index and what to check. Raises InvalidError."""
    if not isinstance(item, dict) or not item.get("pytorch"):
        return item
    if item.get("lock"):
        raise InvalidError("and lock are both given: a lock file says it all", "cuda, beside a lock file")
    torch, cuda, source, extras = _check(item["pytorch"])
    rest = {key: value for key, value in item.items() if key != "pytorch"}
    if rest.get("project") and not rest.get("framework"):
        rest["framework"] = f"torch {cuda_compat.minor(torch)}"
    gpu = cuda != "cpu"
    if gpu:
        rest.update(cuda=cuda, torch=torch)
    wanted = {name: _partner(name, torch) for name in extras}
    pin = torch if torch.count(".") == 2 else f"{torch}.*"
    if source == "conda":
        build = "cuda*" if gpu else "cpu*"
        packages = [
            f"pytorch={pin}={build}",
            *(f"{name}={version}.*" if version else name for name, version in wanted.items()),
        ]
        if gpu:
            packages.append(f"cuda-version={cuda}")
        return {**rest, "packages": [*(rest.get("packages") or []), *packages]}
    index = cuda_compat.wheel_index(cuda) if gpu else "cpu"
    pip = [f"torch=={pin}", *(f"{name}=={version}.*" if version else name for name, version in wanted.items())]
    return {
        **rest,
        "pip": [*pip, *(rest.get("pip") or [])],
        "pip_extra_index_urls": [f"{wheels}/{index}", *(rest.get("pip_extra_index_urls") or [])],
        # Of one version pip takes the one with a local part, which only this index has; unless it is not reached.
        "expect": [f"pip:torch=={pin}+{index}"],
    }
