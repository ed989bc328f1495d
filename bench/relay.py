#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A TCP relay that makes a line longer: python3 relay.py RTT_MS HOST PORT [LISTEN]. It prints the port it listens on.

For machines whose kernel has no netem. Every byte arrives half a round trip later, in its order. The handshake is part
of it: a connection through the kernel's loopback is open at once, over a long line after one round trip, and the far
side hears of it half a round trip after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

CHUNK = 256 * 1024
Pending = asyncio.Queue[tuple[float, bytes]]


async def take(reader: asyncio.StreamReader, queue: Pending, half: float) -> None:
    """Note each piece with the time at which it is due on the other side."""
    loop = asyncio.get_running_loop()
    data = b"-"
    while data:
        try:
            data = await reader.read(CHUNK)
        except ConnectionError:
            data = b""
        await queue.put((loop.time() + half, data))


async def give(queue: Pending, writer: asyncio.StreamWriter) -> None:
    """Hand each piece over when it is due."""
    loop = asyncio.get_running_loop()
    while True:
        due, data = await queue.get()
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        if not data:
            break
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):  # the other side may have hung up already
        writer.write_eof()


def quick(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def serve(rtt: float, host: str, port: int, listen: int) -> None:
    """Listen on the loopback until the process ends."""
    alive: set[asyncio.Task[None]] = set()  # asyncio itself lets go of a connection's task once one side is closed

    async def relay(near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        quick(near_out)
        await asyncio.sleep(rtt)  # the handshake: only now could the near side send anything
        up: Pending = asyncio.Queue(64)
        down: Pending = asyncio.Queue(64)
        tasks = [asyncio.create_task(take(near, up, rtt / 2))]
        await asyncio.sleep(rtt / 2)  # ... and only now the far side knows of the connection
        writers = [near_out]
        try:
            far, far_out = await asyncio.open_connection(host, port)
            writers.append(far_out)
            quick(far_out)
            tasks += [
                asyncio.create_task(work)
                for work in (take(far, down, rtt / 2), give(up, far_out), give(down, near_out))
            ]
            await asyncio.gather(*tasks)
        except OSError:
            pass  # either side is gone: so is the line
        finally:
            for task in tasks:
                task.cancel()
            for writer in writers:
                writer.close()

    def begin(near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(relay(near, near_out))
        alive.add(task)
        task.add_done_callback(alive.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", listen, limit=4 * CHUNK)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    milliseconds, address, port_there, *port_here = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(float(milliseconds) / 1000, address, int(port_there), int(*port_here or ["0"])))
