#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens connections from one address and never logs in: as many as it can for some seconds, at most 3,000 tries."""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

SOURCE = "10.203.251.1"
TRIES = 3000
AT_ONCE = 400


def main() -> None:
    bastion, seconds = sys.argv[1], float(sys.argv[2])
    selector = selectors.DefaultSelector()
    end = time.monotonic() + seconds
    tries = opened = 0
    held: list[socket.socket] = []
    while time.monotonic() < end:
        while tries < TRIES and len(selector.get_map()) < AT_ONCE:
            knock = socket.socket()
            knock.setblocking(False)
            knock.bind((SOURCE, 0))
            knock.connect_ex((bastion, 22))
            selector.register(knock, selectors.EVENT_WRITE)
            tries += 1
            time.sleep(0.005)  # it shares the machine with those whom it is to disturb
        for key, _event in selector.select(0.1):
            selector.unregister(key.fileobj)
            if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                opened += 1
                held.append(key.fileobj)
    print(json.dumps({"tries": tries, "opened": opened}))


if __name__ == "__main__":
    main()
