#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a container runtime for a pod as a kubelet does, where no crictl is to be had. Run on the host, as root.

    cri.py IMAGE DEVICE[,DEVICE…] COMMAND…

makes a pod with one container that has these CDI devices, runs the command in it, prints what it said, and takes the
pod away. The messages are those of runtime.v1.RuntimeService (the CRI); field numbers are from its api.proto.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import grpc  # type: ignore[import-untyped]  # Debian: python3-grpcio

SOCKET = os.environ.get("CONTAINER_RUNTIME_ENDPOINT", "unix:///run/containerd/containerd.sock")
HOST_NETWORK = {1: 2}  # NamespaceOption.network = NODE: it needs no CNI
Message = dict[int, Any]  # field number → number, text, message, or a list of these


def varint(number: int) -> bytes:
    rest, last = divmod(number, 128)
    return bytes([last + 128]) + varint(rest) if rest else bytes([last])


def packed(message: Message) -> bytes:
    """A message in protobuf's wire format."""
    out = b""
    for number, given in message.items():
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, int):
                out += varint(number << 3) + varint(value)
                continue
            data = value.encode() if isinstance(value, str) else packed(value)
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def unpacked(data: bytes) -> dict[int, bytes | int]:
    """The fields of an answer; of these here none is repeated."""
    found: dict[int, bytes | int] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 2:
            length = number()
            found[key >> 3] = data[at : at + length]
            at += length
        else:
            found[key >> 3] = number()
    return found


class Runtime:
    def __init__(self) -> None:
        self.channel = grpc.insecure_channel(SOCKET, options=[("grpc.default_authority", "localhost")])

    def ask(self, method: str, message: Message) -> dict[int, bytes | int]:
        call = self.channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}", request_serializer=packed, response_deserializer=unpacked
        )
        answer: dict[int, bytes | int] = call(message, timeout=60)
        return answer


def text(value: bytes | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def main(image: str, devices: str, *command: str) -> int:
    runtime = Runtime()
    name = f"lab-{os.getpid()}"
    pod: Message = {
        1: {1: name, 2: name, 3: "default"},
        8: {2: {1: HOST_NETWORK}},
    }
    sandbox = text(runtime.ask("RunPodSandbox", {1: pod})[1])
    try:
        container: Message = {
            1: {1: "main"},
            2: {1: image},
            3: ["sleep", "600"],
            15: {2: {3: HOST_NETWORK}},
            17: [{1: device} for device in devices.split(",") if device],
        }
        made = text(runtime.ask("CreateContainer", {1: sandbox, 2: container, 3: pod})[1])
        runtime.ask("StartContainer", {1: made})
        said = runtime.ask("ExecSync", {1: made, 2: list(command), 3: 30})
        sys.stdout.write(text(said.get(1, b"")))
        sys.stderr.write(text(said.get(2, b"")))
        return int(said.get(3, 0))
    finally:
        runtime.ask("StopPodSandbox", {1: sandbox})
        runtime.ask("RemovePodSandbox", {1: sandbox})


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
