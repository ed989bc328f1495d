#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""An execution environment, built from docs/ci/execution-environment.yml by the real ansible-builder, and used once.

Three things differ from the page's: the base is the lab's Debian 13 in place of Fedora (with apt-get, and a Python in a
virtual environment, because Debian's own takes no packages), and the collections come from files in place of Galaxy.
So what ansible-builder reads in meta/ (system packages, Python requirements) is installed and used.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import bundled  # noqa: E402
from lab.devlab import engine, hosts, images, trust  # noqa: E402
from lab.devlab.shell import LabError, docker, run, step  # noqa: E402

BUILDER = "3.2.0"
VENV = ROOT / ".cache" / "ee"
NAME = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-ee"
SHIPPED = "/usr/share/ansible/collections/ansible_collections/devnode/gpu"
PREPARE = """set -e
apt-get update -q
apt-get install -q -y --no-install-recommends python3-venv git >/dev/null
apt-get remove -q -y openssh-client >/dev/null
python3 -m venv /opt/ee
"""


def definition(archives: list[str]) -> dict[str, Any]:
    """The page's, for this base and these files."""
    page: dict[str, Any] = yaml.safe_load((ROOT / "docs/ci/execution-environment.yml").read_text())
    needs = page["dependencies"]
    needs["galaxy"]["collections"] = [{"name": name, "type": "file"} for name in archives]
    needs["python_interpreter"] = {"python_path": "/opt/ee/bin/python3"}
    page["images"]["base_image"]["name"] = f"{NAME}:base"
    return {
        **page,
        "options": {"package_manager_path": "/usr/bin/apt-get"},
        "additional_build_files": [{"src": name, "dest": "."} for name in archives],
    }


def base() -> None:
    """What a Debian image for this has, with this machine's package index."""
    hosts.down(NAME)
    docker(
        *("run", "--detach", "--name", NAME, "--label", "devnode.lab=1", "--network", "host"),
        *("--entrypoint", "sleep", images.ensure("debian13"), "infinity"),
    )
    try:
        trust.give(NAME)
        docker("exec", "--env", "DEBIAN_FRONTEND=noninteractive", NAME, "sh", "-c", PREPARE)
        path = "ENV PATH=/opt/ee/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        docker("commit", "--change", path, "--change", "ENTRYPOINT []", NAME, f"{NAME}:base")
    finally:
        hosts.down(NAME)


def inside(*command: str) -> str:
    return docker("run", "--rm", "--network", "none", f"{NAME}:built", *command)


def main() -> int:
    engine.ensure()
    builder = VENV / "bin" / "ansible-builder"
    if not builder.exists():
        run([sys.executable, "-m", "venv", "--clear", VENV])
        run([VENV / "bin/python", "-m", "pip", "install", "--quiet", f"ansible-builder=={BUILDER}"])
    with tempfile.TemporaryDirectory(prefix="ee.") as folder:
        place = Path(folder)
        galaxy = Path(sys.executable).with_name("ansible-galaxy")
        run([galaxy, "collection", "build", "--output-path", place, ROOT])
        bundled.archives(place)
        names = sorted(path.name for path in place.glob("*.tar.gz"))
        (place / "ee.yml").write_text(yaml.safe_dump(definition(names)))
        with step("The base"):
            base()
        try:
            run([builder, "create", "-f", "ee.yml", "-c", "context", "--output-filename", "Dockerfile"], cwd=place)
            with step("The environment"):
                env = {**os.environ, "DOCKER_BUILDKIT": "0"}
                words = ["docker", "build", "--network", "host", "--label", "devnode.lab=1", "-t", f"{NAME}:built"]
                with (place / "build.log").open("w") as log:
                    status = subprocess.run([*words, place / "context"], env=env, stdout=log, stderr=log).returncode
                if status:
                    print((place / "build.log").read_text()[-6000:])
                    return 1
            use()
        finally:
            for tag in ("built", "base"):
                subprocess.run(["docker", "image", "rm", "--force", f"{NAME}:{tag}"], capture_output=True, check=False)
    return 0


def use() -> None:
    """What a job in AWX does first: the client is there, the collection is found, and its plays are understood."""
    print(inside("ssh", "-V"), inside("ansible", "--version").splitlines()[0])
    hosts_file = f"{SHIPPED}/inventory/example/hosts.yml"
    for book in sorted((ROOT / "playbooks").glob("*.yml")):
        print(inside("ansible-playbook", "--syntax-check", "-i", hosts_file, f"devnode.gpu.{book.stem}").strip())
    for module in ("devnode.gpu.file_set", "community.crypto.openssh_cert"):
        print(inside("ansible-doc", "-t", "module", module).splitlines()[0])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as exc:
        print(f"ee: {exc}", file=sys.stderr)
        sys.exit(1)
