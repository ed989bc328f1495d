# SPDX-License-Identifier: GPL-3.0-or-later
"""Host images, named after the content they are made from: made once, shared by every scenario."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import locks, needs
from .paths import CACHE_DIR
from .shell import LabError, attempt, docker, run, say, step

REPOSITORY = "devnode-lab"
RECIPE = Path(__file__).resolve().parent.parent / "host"
MIRROR = os.environ.get("DEVNODE_DEBIAN_MIRROR", "http://deb.debian.org/debian")
SECURITY_MIRROR = os.environ.get("DEVNODE_DEBIAN_SECURITY_MIRROR", "http://deb.debian.org/debian-security")
# An unreachable registry must not cost minutes; a reachable one sends 50 MB within this.
PULL_SECONDS = 90


@dataclass(frozen=True)
class HostOS:
    name: str
    suite: str


SYSTEMS = {
    "debian12": HostOS("debian12", "bookworm"),
    "debian13": HostOS("debian13", "trixie"),
}


def content_hash(folder: Path, *more: str) -> str:
    """A short name for what is in a folder (names and contents) and some words beside it."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    for word in more:
        digest.update(word.encode() + b"\0")
    return digest.hexdigest()[:12]


def tag(system: HostOS) -> str:
    return f"{REPOSITORY}/{system.name}:{content_hash(RECIPE, system.suite, MIRROR, SECURITY_MIRROR)}"


def exists(image: str) -> bool:
    return attempt(["docker", "image", "inspect", image]).returncode == 0


def ensure(name: str) -> str:
    """The image of a host system; built when its content is not there yet."""
    if name not in SYSTEMS:
        raise LabError(f'os: "{name}" is not a system of the lab. Allowed: {", ".join(SYSTEMS)}.')
    system = SYSTEMS[name]
    image = tag(system)
    with only_one(image):
        if not exists(image):
            with step(f"Image {image}"):
                _build(system, image)
    return image


@contextmanager
def only_one(image: str) -> Iterator[None]:
    with locks.only_one(CACHE_DIR / "locks" / image.replace("/", "_")):
        yield


def _build(system: HostOS, image: str) -> None:
    arguments = {
        "BASE": base(system.suite),
        "SUITE": system.suite,
        "MIRROR": MIRROR,
        "SECURITY_MIRROR": SECURITY_MIRROR,
    }
    words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    # The classic builder: it is everywhere, and it needs nothing from a registry.
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    run(["docker", "build", "-q", "-t", image, "--label", "devnode.lab=1", *words, RECIPE], env=env)


def base(suite: str) -> str:
    """Debian's own image where a registry answers, else the same thing made by mmdebstrap."""
    official, ours = f"debian:{suite}", f"{REPOSITORY}/base:{suite}"
    with only_one(ours):
        for image in (official, ours):
            if exists(image):
                return image
        if attempt(["docker", "pull", "-q", official], timeout=PULL_SECONDS).returncode == 0:
            return official
        say(f"    no registry gives {official}: making it with mmdebstrap")
        _bootstrap(suite, ours)
        return ours


def _bootstrap(suite: str, image: str) -> None:
    programs = [("mmdebstrap", "mmdebstrap"), (needs.KEYRING, "debian-archive-keyring")]
    needs.ensure(programs, f"no registry gave the base image {image}")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        run(["mmdebstrap", "--variant=minbase", f"--keyring={needs.KEYRING}", suite, archive, MIRROR])
        docker("import", "--change", "LABEL devnode.lab=1", archive, image)


def remove_all() -> None:
    """Every image of the lab. Others' images, and Debian's own, stay."""
    for line in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split():
        if line.startswith(f"{REPOSITORY}/"):
            attempt(["docker", "image", "rm", line])
