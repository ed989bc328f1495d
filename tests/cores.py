#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lint, sanity, units and one scenario on the oldest and the newest ansible-core that the collection says it runs on.

Each core gets a venv of its own in .cache/cores: the locked requirements, with another ansible-core. Where this Python
is too old for a core, its checks run in a container of the lab's Debian 13, with this machine's engine and network.
A deprecation is an error: what is one today is gone from the core after next.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from lab.devlab import engine, hosts, images, trust  # noqa: E402
from lab.devlab.shell import LabError, docker  # noqa: E402

PLACE = ROOT / ".cache" / "cores"
OUTPUT = ROOT / "tests" / "output"
TAIL_LINES = 40
REQUIREMENTS = ROOT / ".config" / "requirements.txt"
# A role with modules, actions and filters of ours on both releases, in two minutes.
SCENARIO = "host_firewall"
SOCKET = Path("/var/run/docker.sock")
# What a checkout needs on Debian, and the engine's client, by which the scenario's hosts are made.
INSTALL = """set -e
apt-get update -q
apt-get install -q -y --no-install-recommends python3-venv git openssh-client docker-cli gpg gpg-agent >/dev/null
git config --global --add safe.directory '*'
"""
PASSED_ON = ("ENGINE", "DEVNODE_PREFIX", "DEVNODE_DEBIAN_MIRROR", "DEVNODE_DEBIAN_SECURITY_MIRROR")
SKIPPED = "skipped: "
DEPRECATED = ("DEPRECATION", "does not support Ansible")


@dataclass(frozen=True)
class Core:
    version: str
    oldest_python: tuple[int, int]
    newest_python: tuple[int, int]


# The ends of requires_ansible in meta/runtime.yml (tests/unit/test_galaxy.py compares). 2.18 lacks trust_as_template.
# The oldest: until 2.19.3 a run sometimes ends, or hangs, in a KeyError of the core itself (its issue 86027).
CORES = (Core("2.19.5", (3, 11), (3, 13)), Core("2.21.5", (3, 12), (3, 14)))


def suits(core: Core) -> bool:
    """Whether this Python is one that the core runs on."""
    return core.oldest_python <= sys.version_info[:2] <= core.newest_python


def venv_for(core: Core) -> Path:
    """Made once; other requirements or another Python make it anew."""
    folder = PLACE / core.version
    mark = folder / "made-of"
    python = sys.executable
    wanted = f"{python} {sys.version}\n{REQUIREMENTS.read_text()}"
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        pip: list[str | Path] = [
            folder / "bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, "--require-hashes", "-r", REQUIREMENTS], check=True)
        # Alone: the `ansible` package beside it, which brings other collections, names another core.
        subprocess.run([*pip, "--no-deps", f"ansible-core=={core.version}"], check=True)
        mark.write_text(wanted)
    return folder / "bin"


def steps(bin_: Path) -> dict[str, list[str]]:
    """What is asked of each core, by name."""
    books = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("playbooks/*.yml"))
    return {
        "syntax": [
            str(bin_ / "ansible-playbook"),
            "--syntax-check",
            "-i",
            "inventory/example/hosts.yml",
            "site.yml",
            *books,
        ],
        "ansible-lint": [str(bin_ / "ansible-lint"), "-c", ".config/ansible-lint.yml", "--offline"],
        "sanity": [str(bin_ / "python"), "tests/sanity.py"],
        "unit": [str(bin_ / "python"), "-m", "pytest", "tests/unit"],
        SCENARIO: [str(bin_ / "molecule"), "test", "-s", SCENARIO],
    }


def no_engine() -> bool:
    return os.environ.get("ENGINE") == "none"


def skip(core: Core, name: str, why: str = "ENGINE=none") -> None:
    """tests/run.py counts lines that begin so."""
    print(f"{SKIPPED}ansible-core {core.version}, {name}: {why}", flush=True)


def check(core: Core, bin_: Path) -> int:
    """How many of the steps failed. Their output is in tests/output/cores-VERSION-STEP.log."""
    env = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(bin_.parent),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "MOLECULE_EPHEMERAL_DIRECTORY": f"/tmp/devnode-mol-{core.version}",  # noqa: S108  short, for sockets
    }
    failed = 0
    for name, argv in steps(bin_).items():
        if name == SCENARIO and no_engine():
            skip(core, name)
            continue
        log = OUTPUT / f"cores-{core.version}-{name}.log"
        started = time.monotonic()
        with log.open("w") as out:
            status = subprocess.run(
                argv, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, check=False
            ).returncode
        said = log.read_text(errors="replace").splitlines()
        deprecated = [line for line in said if any(word in line for word in DEPRECATED)]
        good = status == 0 and not deprecated
        print(f"  {'ok ' if good else 'FAILED'} {name}  {time.monotonic() - started:.0f} s", flush=True)
        for line in said:
            if line.startswith(SKIPPED):
                skip(core, *line.removeprefix(SKIPPED).split(": ", 1))
        if not good:
            failed += 1
            print("\n".join(f"      | {line}" for line in [*deprecated[:5], *said[-TAIL_LINES:]]), flush=True)
    return failed


def in_container(core: Core) -> int:
    """The same command in Debian 13, whose Python is newer."""
    engine.ensure()
    name = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-core-{core.version}"
    same = [word for path in (ROOT, Path("/tmp"), SOCKET) for word in ("--volume", f"{path}:{path}")]  # noqa: S108
    hosts.down(name)
    try:
        docker(
            *("run", "--detach", "--name", name, "--label", "devnode.lab=1", "--network", "host", *same),
            *("--entrypoint", "sleep", images.ensure("debian13"), "infinity"),
        )
        trust.give(name)
        docker("exec", "--env", "DEBIAN_FRONTEND=noninteractive", name, "sh", "-c", INSTALL)
        settings = {one: os.environ[one] for one in PASSED_ON if one in os.environ}
        words = [word for one in settings for word in ("--env", one)]
        inside = ["docker", "exec", "--workdir", str(ROOT), *words, name, "python3", __file__, "--core", core.version]
        return subprocess.run(inside, check=False).returncode
    finally:
        hosts.down(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", choices=[core.version for core in CORES], help="only this one, and on this Python")
    only = parser.parse_args().core
    OUTPUT.mkdir(parents=True, exist_ok=True)
    failed = 0
    for core in CORES:
        if only not in (None, core.version):
            continue
        if only or suits(core):
            print(f"==> ansible-core {core.version} on Python {sys.version.split()[0]}", flush=True)
            failed += check(core, venv_for(core))
        elif no_engine():
            for name in steps(Path()):
                skip(core, name)
        else:
            failed += in_container(core)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as exc:
        print(f"cores: {exc}", file=sys.stderr)
        sys.exit(1)
