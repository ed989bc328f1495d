# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a small playbook on all hosts of the scenario at once, and looks at them over new ssh connections."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).resolve().parent.parent / "cases"
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CONTAINERS = "{}-file_set-{{}}".format(os.environ.get("DEVNODE_PREFIX", "devnode"))

Result = dict[str, Any]


class Hosts:
    """The scenario's hosts."""

    names = ("debian12", "debian13")

    def play(self, case: str, wanted: dict[str, Any], *options: str, only: str = "all") -> dict[str, Result]:
        """What the task returned, by host."""
        done = subprocess.run(
            self.command(case, wanted, *options, only=only),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(),
        )
        self.output = done.stdout + done.stderr
        start = done.stdout.find("{\n")
        assert start >= 0, self.output
        plays = json.JSONDecoder().raw_decode(done.stdout[start:])[0]["plays"]
        results: dict[str, Result] = plays[0]["tasks"][0]["hosts"]
        assert not any(result.get("unreachable") for result in results.values()), self.output
        return results

    def command(self, case: str, wanted: dict[str, Any], *options: str, only: str = "all") -> list[str]:
        variables = json.dumps({"wanted": wanted, "only": only})
        return [
            "ansible-playbook",
            "--inventory",
            os.environ["MOLECULE_INVENTORY_FILE"],
            "--extra-vars",
            variables,
            *options,
            str(CASES / f"{case}.yml"),
        ]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
        }

    def put(self, name: str, *files: dict[str, Any], options: tuple[str, ...] = (), **more: Any) -> dict[str, Result]:
        return self.play("put", {"name": name, "files": list(files), **more}, *options)

    def on(self, host: str, command: str, check: bool = True) -> str:
        """As root, over a connection that is opened for it."""
        done = subprocess.run(
            [
                "ssh",
                "-F",
                str(EPHEMERAL / "ssh_config"),
                "-o",
                "ControlPath=none",
                "-o",
                "ConnectTimeout=5",
                host,
                "sudo",
                "sh",
                "-c",
                "'" + command.replace("'", "'\\''") + "'",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def inside(self, host: str, command: str) -> str:
        """As a person at the machine's console, where no network is needed."""
        done = subprocess.run(
            ["docker", "exec", CONTAINERS.format(host), "sh", "-c", command],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    def answer(self, command: str) -> str:
        """What every host says at its console, which must be the same."""
        answers = {self.inside(host, command) for host in self.names}
        assert len(answers) == 1, answers
        return answers.pop()

    def everywhere(self, command: str) -> None:
        """Somebody does this at the console of every host."""
        for host in self.names:
            self.inside(host, command)

    def journal(self, host: str) -> str:
        return self.on(host, "journalctl --no-pager -o cat -t devnode-guard -n 20")

    def reboot(self, host: str) -> None:
        subprocess.run(["docker", "restart", "-t", "20", CONTAINERS.format(host)], check=True, capture_output=True)
        self.until(lambda: self.inside(host, "systemctl is-active ssh.service") == "active", 30)

    def soft_reboot(self, host: str) -> None:
        """All of user space anew, without the kernel; /run is kept."""
        count = "systemctl show -P SoftRebootsCount"
        before = self.inside(host, count)
        self.inside(host, "systemctl soft-reboot")
        self.until(lambda: self.inside(host, count) not in ("", before), 60)
        self.until(lambda: self.inside(host, "systemctl is-active ssh.service") == "active", 30)

    def start(self, name: str, *files: dict[str, Any], only: str = "all", **more: Any) -> subprocess.Popen[bytes]:
        """A run in the background, in a process group of its own."""
        command = self.command("put", {"name": name, "files": list(files), **more}, only=only)
        return subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment(),
            start_new_session=True,
        )

    @staticmethod
    def kill(run: subprocess.Popen[bytes]) -> None:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()

    @staticmethod
    def until(condition: Callable[[], bool], seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def hosts() -> Hosts:
    found = Hosts()
    # Of an earlier `molecule verify` on the same hosts.
    left = {name for host in found.names for name in found.inside(host, "ls /var/lib/devnode/file_set").split()}
    restart = [{"argv": ["systemctl", "restart", "ssh.service"]}]
    for name in sorted(left - {"converge.json", "converge_guarded.json"}):
        found.put(name.removesuffix(".json"), state="absent", activate=restart)
    return found
