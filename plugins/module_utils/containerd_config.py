# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd's configuration needs for GPUs, as edits of its text that can be taken back to the letter.

containerd 2 merges drop-in files, so it gets one (and the line that imports it). containerd 1 does not: a drop-in that
names the CRI plugin replaces everything that config.toml says about that plugin, and its default runtime. So there the
lines go into config.toml. Hosts need no TOML library for that; `containerd config dump` judges the result.
Pure functions; standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import List, Set, Tuple

CONFIG = "/etc/containerd/config.toml"
DROP_IN = "/etc/containerd/conf.d/80-devnode-gpu.toml"
PATTERN = "/etc/containerd/conf.d/*.toml"
RUNTIME = "/usr/bin/nvidia-container-runtime"
HEADER = "# Managed by Ansible (devnode.gpu, role nvidia_container_toolkit).\n"
MARK = "  # devnode.gpu"  # ends a line of ours
ASIDE = "#devnode.gpu# "  # begins a line that ours took the place of
CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
TABLE = re.compile(r"^\s*\[")


@dataclass(frozen=True)
class Effect:
    """What `containerd config dump` says comes of all files."""

    cdi: bool
    runtimes: Set[str]
    cri: bool


def effect(dump: str) -> Effect:
    disabled = re.search(r"^disabled_plugins = \[(.*?)\]", dump, re.MULTILINE | re.DOTALL)
    return Effect(
        cdi=bool(re.search(r"^\s*enable_cdi = true\s*$", dump, re.MULTILINE)),
        runtimes=set(re.findall(r"containerd\.runtimes\.[\"']?([\w-]+)[\"']?\]\s*$", dump, re.MULTILINE)),
        cri=not (disabled and re.search(r"[\"'](?:io\.containerd\.grpc\.v1\.)?cri[\"']", disabled.group(1))),
    )


def format_version(text: str) -> int:
    """Of a configuration file; one that does not say is of version 1."""
    found = re.search(r"^\s*version\s*=\s*(\d+)", _top(text), re.MULTILINE)
    return int(found.group(1)) if found else 1


def plain(text: str) -> str:
    """Without what is ours."""
    lines = [line for line in text.splitlines(keepends=True) if not line.rstrip("\n").endswith(MARK)]
    return "".join(line[len(ASIDE) :] if line.startswith(ASIDE) else line for line in lines)


def in_place(text: str, cdi: bool, runtime: bool) -> str:
    """config.toml of containerd 1."""
    lines = (_ended(plain(text)) or f"version = 2{MARK}\n").splitlines(keepends=True)
    if cdi:
        lines = _with_cdi(lines)
    if runtime:
        lines += _ours(_runtime_tables("".join(lines), CRI[2], whole=True))
    return "".join(lines)


def with_import(text: str, version: int) -> str:
    """config.toml of containerd 2: as it was, and it reads the drop-ins."""
    text = _ended(plain(text)) or f"version = {version}{MARK}\n"
    top = _top(text)
    found = re.search(r"^[ \t]*imports\s*=\s*\[(.*?)\][^\n]*\n", top, re.MULTILINE | re.DOTALL)
    if not found:
        at = re.search(r"^\s*version\s*=.*\n", top, re.MULTILINE)
        cut = at.end() if at else 0
        return f'{text[:cut]}imports = ["{PATTERN}"]{MARK}\n{text[cut:]}'
    items = re.findall(r"\"[^\"\n]*\"|'[^'\n]*'", re.sub(r"(?m)^\s*#.*$", "", found.group(1)))
    if PATTERN in [item[1:-1] for item in items]:
        return text
    aside = "".join(ASIDE + line for line in found.group(0).splitlines(keepends=True))
    line = ", ".join([*items, f'"{PATTERN}"'])
    return f"{text[: found.start()]}{aside}imports = [{line}]{MARK}\n{text[found.end() :]}"


def drop_in(version: int, main: str, cdi: bool, runtime: bool) -> str:
    """The drop-in of containerd 2, in the format of its config.toml."""
    cri = CRI[min(version, 3)]
    out = f"{HEADER}version = {version}\n"
    if cdi:
        out += f'\n[plugins."{cri}"]\n  enable_cdi = true\n  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]\n'
    if runtime:
        out += "\n" + "\n".join(_runtime_tables(main, cri, whole=False)) + "\n"
    return out


def _with_cdi(lines: List[str]) -> List[str]:
    header = re.compile(rf"^\s*\[\s*plugins\s*\.\s*([\"']){re.escape(CRI[2])}\1\s*\]")
    start = next((number for number, line in enumerate(lines) if header.match(line)), None)
    if start is None:
        return lines + _ours([f'[plugins."{CRI[2]}"]', "  enable_cdi = true"])
    out, body = [*lines[: start + 1], *_ours(["  enable_cdi = true"])], True
    for line in lines[start + 1 :]:
        body = body and not TABLE.match(line)
        out.append(ASIDE + line if body and re.match(r"\s*enable_cdi\s*=", line) else line)
    return out


def _runtime_tables(text: str, cri: str, whole: bool) -> List[str]:
    """The nvidia runtime's tables. With `whole`, runc's too: containerd 1 drops its default once another is named."""
    if _has_runtime(text, "nvidia"):
        return []
    base = f'[plugins."{cri}".containerd.runtimes'
    out = []
    if whole and not _has_runtime(text, "runc"):
        out += [f"{base}.runc]", '  runtime_type = "io.containerd.runc.v2"']
    out += [f"{base}.nvidia]", '  runtime_type = "io.containerd.runc.v2"']
    out += [f"{base}.nvidia.options]", f'  BinaryName = "{RUNTIME}"']
    if re.search(r"^\s*SystemdCgroup\s*=\s*true", text, re.MULTILINE):
        out.append("  SystemdCgroup = true")
    return out


def _has_runtime(text: str, name: str) -> bool:
    return bool(re.search(rf"^\s*\[.*containerd\.runtimes\.[\"']?{name}[\"']?\s*\]", text, re.MULTILINE))


def _ours(lines: List[str]) -> List[str]:
    return [f"{line}{MARK}\n" for line in lines]


def _top(text: str) -> str:
    """What stands before the first table."""
    head, _rest = _cut(text)
    return head


def _cut(text: str) -> Tuple[str, str]:
    length = 0
    depth = 0  # a line that begins with [ inside a list of several lines is no table
    for line in text.splitlines(keepends=True):
        bare = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'|#.*", "", line)
        if depth == 0 and TABLE.match(line):
            break
        depth += bare.count("[") - bare.count("]")
        length += len(line)
    return text[:length], text[length:]


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"
