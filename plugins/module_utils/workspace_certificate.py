# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of JupyterLab over HTTPS on a host: those that the host makes itself, and what all of them are."""

from __future__ import annotations

import glob
import os
import re
from typing import Callable, Dict, Iterable, List, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import workspace_web
from ansible_collections.devnode.gpu.plugins.module_utils.workspace import Workspace
from ansible_collections.devnode.gpu.plugins.module_utils.workspace_web import Web

Run = Callable[[List[str]], Tuple[int, str, str]]
DAYS = 825  # what browsers take from an authority of one's own
RENEW_SECONDS = 60 * 86400


class CertificateError(Exception):
    """What is wrong with a certificate, and what to do."""


def ensure(run: Run, workspaces: Iterable[Workspace], check: bool, base: str = workspace_web.STATE_DIR) -> List[str]:
    """Have a certificate for each that is given none; take away those that nobody needs. What was done, in words."""
    made = {item.name: item.web for item in workspaces if item.web and workspace_web.made_here(item.web)}
    actions = []
    for path in sorted(glob.glob(f"{base}/*")):
        if os.path.splitext(os.path.basename(path))[0] not in made:
            actions.append(f"remove {path}")
            if not check:
                os.unlink(path)
    if os.path.isdir(base) and not made and not check:
        os.rmdir(base)
    for name, web in sorted(made.items()):
        if sound(run, f"{base}/{name}.crt", web) and os.path.exists(f"{base}/{name}.key"):
            continue
        actions.append(f"make certificate of {name} for {web.name}")
        if not check:
            make(run, f"{base}/{name}", name, web)
    return actions


def sound(run: Run, path: str, web: Web) -> bool:
    """Whether a certificate is for this name and has some time left."""
    if not os.path.exists(path):
        return False
    look = ["openssl", "x509", "-in", path, "-noout"]
    option = "-checkip" if _is_ip(web.name) else "-checkhost"
    # One question at a time: of two it answers one. An older openssl says no with a word only.
    lasts, _dummy, _dummy = run([*look, "-checkend", str(RENEW_SECONDS)])
    return lasts == 0 and "does match certificate" in run([*look, option, web.name])[1]


def make(run: Run, stem: str, workspace: str, web: Web) -> None:
    """A new key and a certificate that it signs itself. Both are there, or neither."""
    os.makedirs(os.path.dirname(stem), mode=0o700, exist_ok=True)
    kind = "IP" if _is_ip(web.name) else "DNS"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", str(DAYS), "-subj", f"/CN={workspace}", "-addext", f"subjectAltName={kind}:{web.name}"]
    words += ["-addext", "extendedKeyUsage=serverAuth", "-keyout", f"{stem}.key", "-out", f"{stem}.crt"]
    for ending in ("crt", "key"):
        if os.path.exists(f"{stem}.{ending}"):
            os.unlink(f"{stem}.{ending}")
    mask = os.umask(0o077)
    try:
        code, out, err = run(words)
    finally:
        os.umask(mask)
    if code != 0:
        raise CertificateError(
            f"workspace {workspace}: openssl could not make its certificate: {(err or out).strip()[-300:]}"
        )


def fingerprints(run: Run, workspaces: Iterable[Workspace]) -> Dict[str, str]:
    """SHA-256 of each certificate: what people compare, and what tells that another one lies there now."""
    found = {}
    for item in workspaces:
        path = workspace_web.certificate_paths(item.name, item.web)[0] if item.web else ""
        if not path or not os.path.exists(path):
            continue
        code, out, err = run(["openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256"])
        said = re.search(r"=([0-9A-F:]{95})", out)
        if code != 0 or not said:
            why = (err or out).strip()[-200:]
            raise CertificateError(f"workspace {item.name}: {path} is no certificate that openssl reads: {why}")
        found[item.name] = said.group(1)
    return found


def _is_ip(name: str) -> bool:
    return ":" in name or bool(re.fullmatch(r"[0-9.]+", name))
