# SPDX-License-Identifier: GPL-3.0-or-later
"""The services host: what the fleet finds in its private network (git, registry, packages, names)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from . import images, standins
from .paths import CACHE_DIR, LAB_CODE
from .shell import LabError, attempt, docker, run, step, wait_for

RECIPE = LAB_CODE / "services"
REGISTRY = "registry.lab.internal:5000"
PACKAGES_URL = "http://packages.lab.internal"
REGISTRY_STORE = CACHE_DIR / "registry"
CA_FILE = "/etc/docker/registry/tls/ca.crt"


def image() -> str:
    """The host image with the services in it."""
    base = images.ensure("debian13")
    name = f"{images.REPOSITORY}/services:{images.content_hash(RECIPE, base)}"
    with images.only_one(name):
        if images.exists(name):
            return name
        with step(f"Image {name}"):
            words = ["-q", "-t", name, "--label", "devnode.lab=1", "--build-arg", f"BASE={base}"]
            run(["docker", "build", *words, RECIPE], env={**os.environ, "DOCKER_BUILDKIT": "0"})
    return name


def mounts() -> tuple[str, ...]:
    """The stand-ins are served from where they are built; what was pushed once stays for the next lab."""
    for folder in (standins.FOLDER, REGISTRY_STORE):
        folder.mkdir(parents=True, exist_ok=True)
    return (f"{standins.FOLDER}:/srv/packages:ro", f"{REGISTRY_STORE}:/var/lib/docker-registry")


def configure(container: str, project_key: str) -> str:
    """Returns the certificate authority's certificate."""
    docker("exec", "-i", container, "lab-services", stdin=project_key + "\n")
    wait_for("the registry answers", lambda: _ask(container, "").returncode == 0, 30)
    return docker("exec", container, "cat", CA_FILE)


def push(container: str, facts: dict[str, Any]) -> str:
    """Put the PyTorch base image into the registry; returns its digest."""
    name, _, tag = str(facts["reference"]).rpartition(":")
    archive = Path("/srv/packages/pytorch") / Path(str(facts["archive"])).name
    digest = _digest(container, name, tag)
    if digest:
        return digest
    with step(f"Pushing {name}:{tag} to {REGISTRY}"):
        kind = "oci-archive" if facts.get("format") == "oci" else "docker-archive"
        source, target = f"{kind}:{archive}", f"docker://{REGISTRY}/{name}:{tag}"
        docker(
            "exec", container, "skopeo", "copy", "-q", "--insecure-policy", "--dest-compress-level=1", source, target
        )
    digest = _digest(container, name, tag)
    if not digest:
        raise LabError(f"{REGISTRY}/{name}:{tag} is not in the registry after it was pushed.")
    return digest


def _ask(container: str, path: str) -> Any:
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    words = ["curl", "-sSf", "--max-time", "10", "-I", "-H", f"Accept: {accept}", f"https://{REGISTRY}/v2/{path}"]
    return attempt(["docker", "exec", container, *words])


def _digest(container: str, name: str, tag: str) -> str:
    found = re.search(
        r"(?im)^docker-content-digest:\s*(sha256:[0-9a-f]{64})", _ask(container, f"{name}/manifests/{tag}").stdout
    )
    return found[1] if found else ""
