# SPDX-License-Identifier: GPL-3.0-or-later
"""The image: what it is called, what it says of itself, and that no secret is in any of its layers."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from pytorch_sshd_lab import converge, converge_started, wait_until

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


@pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: writes and reads 1 GB")
def test_saved_and_loaded_as_an_archive(host: Any) -> None:
    """What one host saves another loads, with the same name; containers do not notice. The scanner is asked first."""
    image, archive = image_of(host), "/var/tmp/devnode-image.tar"  # noqa: S108 - on the node
    before = host.check_output("docker inspect -f '{{.Id}} {{.Image}}' devnode-nlp")
    code, out, changed = converge(pytorch_sshd_image_save=archive)
    assert (code, changed) == (0, 1), out
    code, out, changed = converge(pytorch_sshd_image_save=archive)
    assert (code, changed) == (0, 0), out
    host.check_output(f"docker tag {image} keep:1 && docker image rm {image}")
    load = {"pytorch_sshd_image_source": "load", "pytorch_sshd_image_archive": archive}
    try:
        code, out, changed = converge(**load, pytorch_sshd_scan_command=["sh", "-c", "echo CVE-0 in {image}; exit 3"])
        assert (code != 0, changed) == (True, 0)
        assert f"{image} was refused by sh (exit 3)" in out
        assert f"CVE-0 in {image}" in out
        assert host.run(f"docker image inspect {image}").rc != 0
        code, out, changed = converge(**load, pytorch_sshd_sbom_command=["docker", "image", "history", "{image}"])
        assert (code, changed) == (0, 1), out
    finally:
        host.check_output(f"docker tag keep:1 {image} && docker image rm keep:1 && rm -f {archive}")
    assert host.file(f"/var/lib/devnode/sbom/{image.rpartition(':')[2]}").size > 0
    assert host.check_output("docker inspect -f '{{.Id}} {{.Image}}' devnode-nlp") == before


@pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: builds an image twice")
def test_interrupted_build_recovers_and_bad_inputs_are_refused(host: Any) -> None:
    """Killed in the middle, a build leaves nothing that a later run believes in."""
    before = container_ids(host)
    changed_input = {"pytorch_sshd_image_environment": {"LANG": "C.UTF-8", "BUILD": "again"}}
    code, out, _ = converge(**changed_input, pytorch_sshd_base_image="registry.invalid/none:1")
    assert code != 0
    assert "registry.invalid/none:1" in out
    code, out, changed = converge(**changed_input, pytorch_sshd_min_free="900t")
    assert (code != 0, changed) == (True, 0)
    assert "MiB free, and" in out
    packages = "ca-certificates curl git less nano mosh openssh-client openssh-server procps rsync sudo tini tmux"
    slow = {**changed_input, "pytorch_sshd_packages": packages.split()}
    with converge_started(**slow) as run:
        wait_until("the build runs", lambda: host.run("pgrep -f '[d]ocker build'").rc == 0, 60)
        host.check_output("pkill -f '[d]ocker build'")
        assert run.wait(120) != 0
    assert container_ids(host) == before
    code, out, _ = converge(**slow, pytorch_sshd_recreate="never")
    assert code == 0, out
    code, out, changed = converge(**slow, pytorch_sshd_recreate="never")
    assert (code, changed) == (0, 0), out
    new = [line for line in host.check_output("docker image ls devnode/pytorch-sshd -q").split() if line]
    assert len(new) == 2
    host.check_output(f"docker image rm -f {new[0]}")


def container_ids(host: Any) -> str:
    return str(host.check_output("docker ps -q --no-trunc"))
