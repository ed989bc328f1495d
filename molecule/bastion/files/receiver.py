#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A log server: takes TLS connections from whoever has a certificate of the CA, and appends what comes to a file.

Frames as they come: octet counting (RFC 5425) or a line end. One frame becomes one line. As `receiver.py FILE
CERTIFICATE PORT` on another port, the bytes as they are.
"""

import re
import socketserver
import ssl
import sys


def split(data):
    """Whole frames, and the rest."""
    frames = []
    while data:
        counted = re.match(rb"(\d{1,7}) <", data)
        if counted:
            start = len(counted[1]) + 1
            stop = after = start + int(counted[1])
        else:
            end = data.find(b"\n")
            start, stop, after = (0, end, end + 1) if end >= 0 else (0, 0, len(data) + 1)
        if len(data) < after:
            break
        frames.append(data[start:stop])
        data = data[after:]
    return frames, data


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        data = b""
        while True:
            try:
                more = self.request.recv(65536)
            except OSError:
                return
            if not more:
                return
            with open(sys.argv[1], "ab") as out:
                if raw:
                    out.write(more)
                    continue
                frames, data = split(data + more)
                out.writelines(frame.replace(b"\n", b" ") + b"\n" for frame in frames)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def get_request(self):
        connection, address = super().get_request()
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address


name = sys.argv[2] if len(sys.argv) > 2 else "logs"
raw = len(sys.argv) > 3
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"/root/{name}.pem", f"/root/{name}.key")
context.load_verify_locations("/root/ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
Server(("", int(sys.argv[3]) if raw else 6514), Handler).serve_forever()
