# SPDX-License-Identifier: GPL-3.0-or-later
"""The image: what it is called, what it says of itself, and that no secret is in any of its layers."""

from __future__ import annotations

import json
from typing import Any

# Runs on the node: reads `docker save` as it comes, every layer of it, and prints what should not be there.
SCAN = r"""
import re, sys, tarfile
NAME = re.compile(r"(^|/)(ssh_host_[a-z0-9]+_key|authorized_keys|id_(rsa|ecdsa|ed25519)|\.netrc|pip\.conf|\.docker)$")
found, layers, files = [], 0, 0
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as image:
    for blob in image:
        data = image.extractfile(blob) if blob.isfile() and blob.size > 1024 else None
        if not data or blob.name.endswith(".json"):
            continue
        try:
            layer = tarfile.open(fileobj=data, mode="r|")
        except tarfile.ReadError:
            continue
        layers += 1
        for entry in layer:
            files += 1
            if NAME.search(entry.name):
                found.append(entry.name)
            if not entry.isfile() or entry.size > 100000:
                continue
            text = layer.extractfile(entry).read()
            if re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}", text):
                found.append(entry.name + ": private key")
            if entry.name == "etc/shadow" and re.search(rb"^[^:]+:[^:*!]", text, re.M):
                found.append("etc/shadow: a password")
print(layers, files, *found)
"""


def image_of(host: Any) -> str:
    return str(host.check_output("docker inspect -f '{{.Config.Image}}' devnode-nlp")).strip()


def test_no_secret_in_any_layer(host: Any) -> None:
    done = host.run("docker save %s | python3 -c %s", image_of(host), SCAN)
    assert done.rc == 0, done.stderr
    layers, files, *found = done.stdout.split(None, 2)
    assert int(layers) >= 4
    assert int(files) > 10000
    assert found == []


def test_name_and_labels(host: Any) -> None:
    image = image_of(host)
    name, _, tag = image.rpartition(":")
    assert name == "devnode/pytorch-sshd"
    assert tag != "latest"
    config = json.loads(host.check_output("docker image inspect %s", image))[0]["Config"]
    assert config["Labels"]["devnode.image.inputs"].startswith(tag.rpartition("-")[2])
    assert config["Labels"]["org.opencontainers.image.base.name"].startswith("devnode-lab/pytorch:")
    assert config["Entrypoint"][0] == "/usr/bin/tini"
    assert not config.get("User")


def test_built_once(host: Any) -> None:
    tags = host.check_output("docker image ls devnode/pytorch-sshd --format '{{.Tag}}'").split()
    assert len(tags) == 1
