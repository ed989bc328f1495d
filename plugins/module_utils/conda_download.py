# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch a file, and keep it only if it is the right one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible.module_utils.urls import open_url
from ansible_collections.devnode.gpu.plugins.module_utils.conda_host import HostError


def fetch(url: str, sha256: str, target: Path, timeout: int) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        source = open_url(url, timeout=min(timeout, 60), http_agent="devnode.gpu")
        with target.open("wb") as file:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
    except Exception as error:
        raise HostError(
            f"{url}: could not be fetched: {error}. Nothing was run. Check URL, mirror and proxy."
        ) from None
    if digest.hexdigest() != sha256:
        target.unlink()
        raise HostError(
            f"{url}: its sha256 is {digest.hexdigest()} ({size} bytes), and {sha256} is wanted. The file is "
            "truncated, altered or another version; it was not run and nothing was changed. Try another mirror "
            "(miniconda_mirror); if its maker publishes this file, correct miniconda_installer_sha256."
        )
