# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenario's hosts, and connections to them from outside."""

from __future__ import annotations

import os

from scenario_hosts import root

HOSTS = ("plain", "node")
STRANGER = "10.203.255.77"
ADDRESS: dict[str, str] = {}
CONTAINER = f"{os.environ.get('DEVNODE_PREFIX', 'devnode')}-host_firewall"


def knock(places):
    """What becomes of connections from the outside host, all at once: (address, port, source or "")."""
    program = f"""
import socket
from concurrent.futures import ThreadPoolExecutor
def knock(place):
    try:
        socket.create_connection(place[:2], timeout=1.5, source_address=(place[2], 0)).close()
        return "open"
    except TimeoutError:
        return "dropped"
    except OSError:
        return "refused"
with ThreadPoolExecutor() as pool:
    print(*pool.map(knock, {places!r}))
"""
    return root("outside", f"python3 - <<'END'\n{program}\nEND\n").split()
