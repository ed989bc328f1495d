# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests knock at."""

from __future__ import annotations

import time

import pytest
from firewall_lab import ADDRESS, HOSTS, STRANGER
from scenario_hosts import address, root


@pytest.fixture(scope="session", autouse=True)
def listeners():
    """Something that answers on every port we knock at, so that "dropped" is the filter's doing."""
    for host in (*HOSTS, "outside"):
        for port in (8080, 8081, 9999):
            root(host, f"systemctl is-active -q listen-{port} || systemd-run -q --unit=listen-{port} "
                       f"python3 -m http.server --bind :: {port}")  # fmt: skip
    root("outside", f"ip address replace {STRANGER}/32 dev eth0")
    ADDRESS.update({host: address(host) for host in HOSTS})
    for host in HOSTS:
        root(host, f"ip route replace {STRANGER}/32 via {address('outside')}")
    time.sleep(1)
