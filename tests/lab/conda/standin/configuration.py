# SPDX-License-Identifier: GPL-3.0-or-later
"""Where conda is, and what its configuration files say."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(sys.prefix)
PLATFORM = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[os.uname().machine]
TERMS_HOSTS = ("repo.anaconda.com",)
DEFAULT_CHANNELS = ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"]


class CondaError(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


TYPES: dict[str, type | tuple[str, ...]] = {
    "channels": list,
    "default_channels": list,
    "envs_dirs": list,
    "pkgs_dirs": list,
    "create_default_packages": list,
    "custom_channels": dict,
    "proxy_servers": dict,
    "plugins": dict,
    "channel_alias": str,
    "channel_priority": ("strict", "flexible", "disabled", True, False),  # type: ignore[dict-item]
    "auto_activate": bool,
    "auto_activate_base": bool,
    "always_yes": bool,
    "changeps1": bool,
    "notify_outdated_conda": bool,
    "offline": bool,
    "protect_frozen_envs": bool,
    "report_errors": bool,
    "show_channel_urls": bool,
}


def config_files() -> list[Path]:
    """In order of rising priority, as documented for conda."""
    home = Path(os.path.expanduser("~"))
    places = [Path("/etc/conda"), Path("/var/lib/conda"), ROOT, home / ".conda"]
    found: list[Path] = []
    for place in places:
        found += [place / ".condarc", place / "condarc", *sorted((place / "condarc.d").glob("*.y*ml"))]
    found.append(home / ".condarc")
    for name in ("CONDA_PREFIX", "CONDARC"):
        if os.environ.get(name):
            path = Path(os.environ[name])
            found.append(path / ".condarc" if name == "CONDA_PREFIX" else path)
    unique = dict.fromkeys(path for path in found if path.is_file() and os.access(path, os.R_OK))
    return list(unique)


def read_config(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CondaError(
            "ConfigurationLoadError", f"Unable to load configuration file.\n  path: {path}\n  {error}"
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise CondaError(
            "ConfigurationLoadError", f"Unable to load configuration file.\n  path: {path}\n  not a mapping"
        )
    for key, value in data.items():
        wanted = TYPES.get(key)
        wrong = value not in wanted if isinstance(wanted, tuple) else wanted and not isinstance(value, wanted)
        if wrong and value is not None:
            what = f"one of {wanted}" if isinstance(wanted, tuple) else f"a {wanted.__name__}"  # type: ignore[union-attr]
            raise CondaError(
                "InvalidTypeError",
                f"Parameter {key} = {value!r} declared in {path} has type {type(value).__name__}.\nIt must be {what}.",
            )
    return data


def load_config() -> dict[str, Any]:
    merged: dict[str, Any] = {
        "channels": [],
        "default_channels": [],
        "custom_channels": {},
        "channel_alias": "https://conda.anaconda.org",
        "channel_priority": "flexible",
        "envs_dirs": [],
        "pkgs_dirs": [],
        "plugins": {},
        "protect_frozen_envs": True,
        "offline": False,
    }
    final: set[str] = set()
    for path in config_files():
        data = read_config(path)
        finals = set(re.findall(r"^(\w+):.*#!final", path.read_text(encoding="utf-8"), re.M))
        for key, value in data.items():
            if key in final or value is None:
                continue
            if isinstance(value, list):
                merged[key] = list(dict.fromkeys([*value, *merged.get(key, [])]))
            elif isinstance(value, dict):
                merged[key] = {**merged.get(key, {}), **value}
            else:
                merged[key] = value
        final |= finals
    for name in ("PROTECT_FROZEN_ENVS", "OFFLINE"):
        if f"CONDA_{name}" in os.environ:
            merged[name.lower()] = os.environ[f"CONDA_{name}"].lower() in ("1", "true", "yes")
    if not merged["channels"]:
        merged["channels"] = ["defaults"]
    if not merged["default_channels"]:
        merged["default_channels"] = DEFAULT_CHANNELS
    home = Path(os.path.expanduser("~"))
    merged["envs_dirs"] += [str(ROOT / "envs"), str(home / ".conda" / "envs")]
    merged["pkgs_dirs"] += [str(ROOT / "pkgs"), str(home / ".conda" / "pkgs")]
    return merged


CONFIG: dict[str, Any] = {}


def channel_urls(names: list[str]) -> list[str]:
    urls: list[str] = []
    for name in names:
        if name == "defaults":
            urls += channel_urls(CONFIG["default_channels"])
        elif "://" in name:
            urls.append(name.rstrip("/"))
        elif name.startswith("/"):
            urls.append(f"file://{name.rstrip('/')}")
        else:
            base = CONFIG["custom_channels"].get(name, CONFIG["channel_alias"])
            urls.append(f"{str(base).rstrip('/')}/{name}")
    terms = [url for url in urls if urlsplit(url).hostname in TERMS_HOSTS]
    accepted = CONFIG["plugins"].get("auto_accept_tos") or os.environ.get("CONDA_PLUGINS_AUTO_ACCEPT_TOS") == "yes"
    if terms and not accepted:
        listing = "\n".join(f"    - {url}" for url in terms)
        raise CondaError(
            "CondaToSNonInteractiveError",
            f"Terms of Service have not been accepted for the following channels. Please accept or remove them before "
            f"proceeding:\n{listing}",
        )
    return list(dict.fromkeys(urls))
