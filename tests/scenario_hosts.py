# SPDX-License-Identifier: GPL-3.0-or-later
"""For tests of a Molecule scenario that look from one host at another, or run its play again with other variables."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
SCENARIO = Path(os.environ.get("MOLECULE_SCENARIO_DIRECTORY", "."))
TINY = Path(__file__).parent / "lab" / "nvidia" / "tiny-image.sh"

Done = subprocess.CompletedProcess[str]


def ssh(
    host: str, *command: str, user: str = "automation", key: str = "automation", options: tuple[str, ...] = ()
) -> Done:
    """A new connection to a host from this machine, with exactly one key (or none)."""
    fixed = ("BatchMode=yes", "ConnectTimeout=10", "IdentitiesOnly=yes", "ControlPath=none")
    identity = (f"IdentityFile={FOLDER / key}",) if key else ("PubkeyAuthentication=no",)
    # The first value of an option counts, so these come before the configuration file's.
    words = [word for option in (*options, *fixed, *identity) for word in ("-o", option)]
    argv = ["ssh", *words, "-F", str(FOLDER / "ssh_config"), "-l", user, host, *command]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)


def root(host: str, script: str) -> str:
    """What a shell script prints as root on a host; it must succeed."""
    argv = ["ssh", "-F", str(FOLDER / "ssh_config"), host, "sudo", "sh", "-eu"]
    done = subprocess.run(argv, input=script, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"on {host}: {script}\n{done.stdout}{done.stderr}"
    return done.stdout


def play(*arguments: str) -> Done:
    """The scenario's play, with more arguments."""
    argv = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], *arguments, str(SCENARIO / "converge.yml")]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=300)


def kill_while_waiting(file_set: str, hosts: Sequence[str], *arguments: str) -> None:
    """`kill -9` of the scenario's play when its guarded change is in effect on these hosts, and not yet confirmed."""
    argv = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], *arguments, str(SCENARIO / "converge.yml")]
    run = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    state = f"/var/lib/devnode/guard/{file_set}/state.json"
    for host in hosts:
        wait_until(lambda host=host: '"waiting"' in outside(host, "cat", state).stdout, f"a changed {host}")  # type: ignore[misc]
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def wait_until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Until something holds; what it is, is said when it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)


def processes(word: str) -> list[bytes]:
    """Command lines of this machine in which a word stands."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [line for line in [place.read_bytes()] if word.encode() in line]
    return found


def outside(host: str, *command: str) -> Done:
    """A command in a host, by the engine that runs it: also while the host has no sshd."""
    container = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-{SCENARIO.name}-{host}"
    return subprocess.run(["docker", "exec", container, *command], capture_output=True, text=True, check=False)


def restart(host: str, until: str) -> None:
    """Restart a host, as its power button does, until a unit is up again."""
    container = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-{SCENARIO.name}-{host}"
    subprocess.run(["docker", "restart", container], check=True, capture_output=True)
    wait_until(lambda: outside(host, "systemctl", "is-active", until).returncode == 0, f"{until} is up on {host}")


def upgrades(run: Callable[[str], str]) -> str:
    """What apt would install or upgrade now. `run`: what a script prints on a host; it fails with the script."""
    return run("plan=$(apt-get --simulate dist-upgrade) && printf '%s\\n' \"$plan\" | sed -n '/^Inst/p'")


def tiny_image(host: Any, name: str = "lab/tiny:1") -> str:
    """An image in the host's engine, made of the host's own shell; no registry is asked."""
    if host.run(f"docker image inspect {name}").rc != 0:
        host.check_output(f"cat >/tmp/tiny-image.sh <<'END'\n{TINY.read_text()}\nEND\nsh /tmp/tiny-image.sh {name}")
    return name


def address(host: str) -> str:
    """A host's address in the scenario's network."""
    return root(host, "ip -4 -o address show dev eth0 | head -1").split()[3].split("/")[0]


def connect(host: str, target: str, port: int, source: str = "", user: str = "root", times: int = 1) -> str:
    """What becomes of TCP connections from a host, a word each: open, refused (at once), dropped (no answer)."""
    bind = f"({source!r}, 0)" if source else "None"
    program = f"""
import socket
for _ in range({times}):
    try:
        socket.create_connection(({target!r}, {port}), timeout=1.5, source_address={bind}).close()
        print("open")
    except TimeoutError:
        print("dropped")
    except OSError as error:
        print("refused")
"""
    return root(host, f"runuser -u {user} -- python3 - <<'END'\n{program}\nEND\n").strip().replace("\n", " ")
