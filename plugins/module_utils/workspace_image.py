# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image and its build context as data: what it is made from names it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from typing import Dict, Iterable, List, Mapping

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

SOURCE = "https://github.com/devnode/devnode.gpu"
NAME_RE = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
REGISTRY_RE = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?(?:/[a-z0-9._/-]+)?")


def digest(context: Mapping[str, str]) -> str:
    """Names a build context: the same files and the same Dockerfile (with its base) give the same name everywhere."""
    found = hashlib.sha256()
    for path in sorted(context):
        found.update(path.encode() + b"\0" + context[path].encode() + b"\0")
    return found.hexdigest()


def reference(registry: str, name: str, base: str, context: Mapping[str, str]) -> str:
    """The image's full name: a tag that says the base's version and the content. Never latest."""
    version = re.sub(r"[^A-Za-z0-9_.-]", "-", base.split("@")[0].rpartition("/")[2].partition(":")[2])[:100]
    tag = "-".join(part for part in (version.lstrip(".-"), digest(context)[:12]) if part)
    return "/".join(part for part in (registry, name) if part) + f":{tag}"


def pack(context: Mapping[str, str]) -> bytes:
    """The context as the archive that `docker build -` takes. Equal contexts give equal bytes, so the cache holds."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(context):
            data = context[path].encode()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def digest_of(image: str, repo_digests: Iterable[str]) -> str:
    """The digest that belongs to a name, of those that the engine knows (one for each registry and name)."""
    path = image.split("@")[0]
    repository = path.rpartition(":")[0] if ":" in path.rpartition("/")[2] else path
    found = [item.partition("@")[2] for item in repo_digests if item.partition("@")[0] == repository]
    return found[0] if found else ""


def archive_holds(path: str, image: str) -> bool:
    """Whether an archive of `docker save` is there, whole, and holds this image."""
    try:
        with tarfile.open(path) as archive:
            entry = archive.extractfile("manifest.json")
            return entry is not None and any(image in (item.get("RepoTags") or []) for item in json.load(entry))
    except (OSError, KeyError, ValueError, tarfile.TarError):
        return False


def problems(name: str, base: str, registry: str, others: List[str]) -> List[str]:
    """Everything that is wrong with the names, in words."""
    found = []
    if not NAME_RE.fullmatch(name):
        found.append(f"name: {show(name)} is not an image's name. Allowed: lower-case words joined by . _ - and /.")
    if registry and not REGISTRY_RE.fullmatch(registry):
        found.append(f"registry: {show(registry)} is not HOST, HOST:PORT or HOST:PORT/PATH.")
    for place, value in [("base", base), *(("others", other) for other in others)]:
        try:
            validators.image(value)
        except InvalidError as exc:
            found.append(f"{place}: {show(value)} {exc}.")
    return found


def labels(base: str, base_id: str, context: Mapping[str, str], version: str, base_digest: str = "") -> Dict[str, str]:
    """What the image says about itself. A base that no registry gave has no digest."""
    known = {"org.opencontainers.image.base.digest": base_digest} if base_digest else {}
    return {
        **known,
        "org.opencontainers.image.source": SOURCE,
        "org.opencontainers.image.title": "PyTorch workspace with sshd",
        "org.opencontainers.image.base.name": base,
        "devnode.image.base-id": base_id,
        "devnode.image.inputs": digest(context),
        "devnode.collection": version,
    }
