# SPDX-License-Identifier: GPL-3.0-or-later
"""Leads from a unix socket of the host to one workspace's JupyterLab, which listens on its container's loopback only.

  devnode_door.py WORKSPACE     started by devnode-door@WORKSPACE.socket

As root it finds the container's network, enters it and gives every right up. From then on it hands connections to
port 8888 there, if whoever listens is the workspace's owner: who shares a workspace could take that port while
JupyterLab does not run, and would get its owner's cookies. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

CONFIG = Path("/etc/devnode/workspaces")
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
PORT = 8888
PASSED = 3  # the descriptor that systemd passes
NOBODY = "65534"
PIECE = 1 << 16


def main(argv: list[str]) -> int:
    """Enter the container's network, then serve."""
    if len(argv) == 2 and argv[0] == "--inside" and argv[1].isdigit():
        return asyncio.run(Door(int(argv[1])).serve())
    if len(argv) != 1 or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", argv[0]):
        print(__doc__, file=sys.stderr)
        return 2
    network, owner = network_of(argv[0]), owner_of(argv[0])
    if not network or owner is None:
        # nginx says that nothing answers. The next connection looks again.
        socket.socket(fileno=PASSED).accept()[0].close()
        return 0
    given_up = ("--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    inside = (sys.executable, "-I", __file__, "--inside", str(owner))
    words = ["nsenter", f"--net={network}", "--", "setpriv", *given_up, "--no-new-privs", *inside]
    os.execvp(words[0], words)  # noqa: S606 - no shell


def network_of(workspace: str) -> str:
    """The path of a running container's network namespace; empty if it does not run."""
    form = "{{if .State.Running}}{{.NetworkSettings.SandboxKey}}{{end}}"
    words = ["docker", "container", "inspect", "--format", form, f"devnode-{workspace}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def owner_of(workspace: str) -> int | None:
    """The uid that JupyterLab runs under."""
    try:
        return int(json.loads((CONFIG / workspace / "workspace.json").read_text())["owner"]["uid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def listeners() -> set[int]:
    """Whose programs listen on the port, on any address of the container."""
    rows = (line.split() for table in TABLES if table.exists() for line in table.read_text().splitlines()[1:])
    return {int(row[7]) for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == PORT}


class Door:
    """Hands connections on until the container's network is gone."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.open = 0
        self.gone = asyncio.Event()

    async def serve(self) -> int:
        """Until nothing answers any more: the next connection starts another, in the container that runs then."""
        server = await asyncio.start_unix_server(self._hand_on, sock=socket.socket(fileno=PASSED))
        async with server:
            await self.gone.wait()
        return 0

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            if listeners() != {self.owner}:
                raise OSError("nobody, or somebody else, listens there")
            there, back = await asyncio.open_connection("127.0.0.1", PORT)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        except OSError as exc:
            print(f"port {PORT}: {exc}", file=sys.stderr)
            if self.open == 1:
                self.gone.set()
        finally:
            self.open -= 1
            writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """One direction, to its end."""
    try:
        while data := await source.read(PIECE):
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
    except (ConnectionError, RuntimeError):
        target.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
