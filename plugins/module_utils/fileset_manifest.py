# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sets on this host own, and what was there before them.

Part of the guard's program, so: the standard library and its other parts only (see `plugin_utils/guard_program.py`).
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from typing import Any, Dict, Optional

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import (
    BASE,
    FileSetError,
    read_json,
    sha256,
    write_json,
)

# Of a set of files or accounts. It becomes a file name, and a unit's.
SET_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def manifest_path(name: str, kind: str = "file_set", base: str = BASE) -> str:
    return os.path.join(base, kind, name + ".json")


def load_manifest(name: str, kind: str = "file_set", base: str = BASE) -> Dict[str, Any]:
    """What the set owns: ``entries`` by path (or by account name). Empty for a new set."""
    value = read_json(manifest_path(name, kind, base))
    if value is None:
        return {"version": 1, "name": name, "entries": {}}
    if value.get("version") != 1:
        raise FileSetError(
            f"{manifest_path(name, kind, base)} was written by a newer version of devnode.gpu "
            f"(format {value.get('version')!r}, this one knows 1). Use that version for this host."
        )
    return dict(value)


def save_manifest(manifest: Dict[str, Any], kind: str = "file_set", base: str = BASE) -> None:
    """An empty manifest is no manifest."""
    path = manifest_path(manifest["name"], kind, base)
    if any(manifest.get(key) for key in ("entries", "groups")):
        write_json(path, manifest)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if kind == "file_set":
        _drop_originals(manifest, base)


def original_path(name: str, digest: str, base: str = BASE) -> str:
    return os.path.join(base, "original", name, digest)


def read_original(name: str, original: Dict[str, Any], base: str = BASE) -> Optional[bytes]:
    """What was in a file before the set took it over, or None when that is lost."""
    try:
        with open(original_path(name, original["sha256"], base), "rb") as stream:
            data = stream.read()
    except OSError:
        return None
    return data if sha256(data) == original["sha256"] else None


def _drop_originals(manifest: Dict[str, Any], base: str) -> None:
    """Those that no path of the set needs any more."""
    needed = {entry.get("original", {}).get("sha256") for entry in manifest["entries"].values()}
    directory = os.path.dirname(original_path(manifest["name"], "x", base))
    with contextlib.suppress(OSError):
        for digest in os.listdir(directory):
            if digest not in needed:
                os.unlink(os.path.join(directory, digest))
        os.rmdir(directory)  # only when it is empty


def owned_by_others(name: str, kind: str = "file_set", base: str = BASE) -> Dict[str, str]:
    """What the other sets on this host own: path (or account) -> set."""
    owners: Dict[str, str] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(base), kind, "*.json"))):
        other = os.path.basename(path)[: -len(".json")]
        if other != name:
            for key, entry in load_manifest(other, kind, base)["entries"].items():
                if not entry.get("implicit"):
                    owners[key] = other
    return owners
