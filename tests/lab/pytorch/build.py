#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the STAND-IN for the official PyTorch image (see image/Dockerfile), and its archive.

    python tests/lab/pytorch/build.py OUT

makes in OUT one docker archive, named after what it is made from, and prints facts about it as JSON. The image stays in
this machine's engine too. Standard library and the docker command only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECIPE = HERE / "image"
sys.path.insert(0, str(HERE.parent.parent))

from lab.devlab import engine, images, locks, trust  # noqa: E402
from lab.devlab.shell import LabError, docker, run, step  # noqa: E402

REPOSITORY = "devnode-lab/pytorch"
SYSTEM = "debian13"


def build(out: Path) -> dict[str, Any]:
    """Have the image and its archive; both only if they are not there yet."""
    suite = images.SYSTEMS[SYSTEM].suite
    name = images.content_hash(RECIPE, suite, images.MIRROR, images.SECURITY_MIRROR)
    image = f"{REPOSITORY}:{name}"
    archive = (out / f"pytorch-{name}.tar").resolve()
    with locks.only_one(locks.beside(out)):
        if not archive.exists():
            if not images.exists(image):
                with step(f"Image {image} (about 300 MB of Debian packages)"):
                    _build(suite, image)
            with step(f"Archive {archive.name}"):
                _save(image, archive)
    # For what is built on top of it on this machine.
    index = trust.index_settings(trust.pip_listing()).get("index-url", "")
    return {"archive": str(archive), "reference": image, "pip_index_url": index}


def _build(suite: str, image: str) -> None:
    arguments = {"BASE": images.base(suite), "MIRROR": images.MIRROR, "SECURITY_MIRROR": images.SECURITY_MIRROR}
    words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    run(["docker", "build", "-q", "-t", image, *words, RECIPE], env={**os.environ, "DOCKER_BUILDKIT": "0"})


def _save(image: str, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    for old in archive.parent.glob("pytorch-*"):
        old.unlink()
    new = archive.with_suffix(".tar.new")
    docker("save", "--output", new, image)
    new.rename(archive)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    try:
        engine.ensure()
        print(json.dumps(build(parser.parse_args().out), indent=2))
    except LabError as exc:
        print(f"pytorch stand-in: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
