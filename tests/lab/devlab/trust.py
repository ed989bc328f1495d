# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine trusts, given to hosts at run time: an extra CA and the package index. Never part of an image."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from .shell import attempt, docker

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
LOCAL = Path("/usr/local/share/ca-certificates")
FRESH = "cat /usr/share/ca-certificates/mozilla/*.crt"
# update-ca-certificates wants a file for each.
INSTALL = r"""
umask 022
cd /usr/local/share/ca-certificates
awk '/BEGIN CERT/ {n++} {print > ("lab-extra-" n ".crt")}'
update-ca-certificates >/dev/null 2>&1
"""
# The settings of pip that name an index. Paths of this machine mean nothing on a host, so only URLs go over.
INDEX_SETTINGS = ("index-url", "extra-index-url", "trusted-host")


def bundle(env: Mapping[str, str], local: Path = LOCAL) -> str:
    """DEVNODE_EXTRA_CA (empty: none), else what this machine's tools were given, else what its admin added (PEM)."""
    names = ("DEVNODE_EXTRA_CA",) if "DEVNODE_EXTRA_CA" in env else ("SSL_CERT_FILE", "PIP_CERT")
    files = [Path(env[name]) for name in names if env.get(name) and Path(env[name]).is_file()][:1]
    if not files and "DEVNODE_EXTRA_CA" not in env:
        files = sorted(local.rglob("*.crt"))
    return "\n".join(path.read_text(errors="replace") for path in files)


def certificates(text: str) -> set[str]:
    """Each certificate of a bundle, in one form, so that bundles can be compared."""
    return {"\n".join(found.split("\n")).strip().replace("\r", "") for found in CERTIFICATE.findall(text)}


def pip_config(listing: str) -> str:
    """`pip config list` of this machine, as a pip.conf for a host. Empty when no index is named there."""
    values = index_settings(listing)
    if not set(values) & {"index-url", "extra-index-url"}:
        return ""
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in sorted(values.items()))


def index_settings(listing: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        words = [w for w in value.strip("'\"").replace("\\n", " ").split() if name == "trusted-host" or _is_url(w)]
        if name in INDEX_SETTINGS and words:
            values[name] = " ".join(words)
    return values


def _is_url(word: str) -> bool:
    return word.startswith(("http://", "https://"))


def give(container: str) -> None:
    """Let a host trust and use what this machine does."""
    extra = extra_certificates(container)
    if extra:
        docker("exec", "-i", container, "sh", "-c", INSTALL, stdin=extra)
    config = pip_config(pip_listing())
    if config:
        docker("exec", "-i", container, "sh", "-c", "umask 022; cat >/etc/pip.conf", stdin=config)


def extra_certificates(container: str) -> str:
    """What this machine trusts beyond a fresh host (PEM)."""
    wanted = certificates(bundle(os.environ))
    if not wanted:
        return ""
    known = certificates(docker("exec", container, "sh", "-c", FRESH))
    return "".join(f"{one}\n" for one in sorted(wanted - known))


def pip_listing() -> str:
    return attempt([sys.executable, "-m", "pip", "config", "list"]).stdout
