#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""JupyterLab of this workspace.

  devnode-jupyter [--port PORT]   print the address to open (PORT: the local port that your ssh forwards, default 8888)
  devnode-jupyter token           print the token alone

It runs as the workspace's owner, on the container's loopback only. The token lies in a file that only they can read.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path

PORT = 8888
LAB = "/opt/jupyter/bin/jupyter-lab"
TOKEN = Path("~/.local/share/devnode/jupyter-token")
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
START_SECONDS = 20.0


def main(argv: list[str]) -> int:
    """Run one of the commands."""
    if argv == ["serve"]:
        serve()
    elif argv == ["token"]:
        print(read_token())
    elif not argv:
        print(address(PORT))
    elif len(argv) == 2 and argv[0] == "--port" and argv[1].isdigit():
        print(address(int(argv[1])))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


def address(port: int) -> str:
    """Where a browser on the person's own machine finds it."""
    token = read_token()
    end = time.monotonic() + START_SECONDS
    while not (owners := listeners()) and time.monotonic() < end:
        time.sleep(0.2)
    if not owners:
        sys.exit(f"devnode-jupyter: nothing listens on port {PORT} of this workspace. JupyterLab does not run (yet).")
    if owners != {os.getuid()}:
        others = ", ".join(str(uid) for uid in sorted(owners - {os.getuid()}))
        sys.exit(
            f"devnode-jupyter: port {PORT} of this workspace is held by somebody else (uid {others}). Whoever that is "
            "would get your token: do not open it. Have that program ended; JupyterLab starts again by itself."
        )
    return f"http://127.0.0.1:{port}/lab?token={token}"


def listeners() -> set[int]:
    """Whose programs listen on the port, on any address."""
    rows = (line.split() for table in TABLES if table.exists() for line in table.read_text().splitlines()[1:])
    return {int(row[7]) for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == PORT}


def read_token() -> str:
    """The token, for the owner."""
    try:
        return TOKEN.expanduser().read_text().strip()
    except OSError:
        sys.exit(
            "devnode-jupyter: there is no token of yours here. JupyterLab runs as the workspace's owner, and only they "
            "can read its token; or it is switched off for this workspace."
        )


def make_token(path: Path) -> None:
    """Make the token once; it survives restarts, so that bookmarks stay good."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    token = path.read_text().strip() if path.exists() else ""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(token or secrets.token_hex(24))  # no end of line: the server takes the file as it is


def serve() -> None:
    """Become the server. Its settings are in /opt/jupyter/etc/jupyter/jupyter_server_config.json."""
    token = TOKEN.expanduser()
    make_token(token)
    os.chdir(Path.home())
    os.environ["JUPYTER_TOKEN_FILE"] = str(token)
    os.execv(LAB, [LAB, f"--ServerApp.port={PORT}", f"--ServerApp.root_dir={Path.home()}"])  # noqa: S606 - no shell


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
