# SPDX-License-Identifier: GPL-3.0-or-later
"""The image: what it is called, what it says of itself, and that no secret is in any of its layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytorch_sshd_lab import (
    CONTAINER,
    EPHEMERAL,
    SCENARIO,
    converge,
    converge_started,
    node_address,
    ok,
    wait_until,
)

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
    assert config["Labels"]["devnode.collection"] == "0.1.0"
    assert config["Labels"]["org.opencontainers.image.source"].endswith("/devnode.gpu")
    assert config["Entrypoint"][0] == "/usr/bin/tini"
    assert not config.get("User")


def tags(host: Any) -> list[str]:
    listed = host.check_output("docker image ls devnode/pytorch-sshd --format '{{.Repository}}:{{.Tag}}'")
    return str(listed).split()


def test_built_once(host: Any) -> None:
    assert len(tags(host)) == 1


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
    assert "docker pull of registry.invalid/none:1 failed" in out
    code, out, changed = converge(**changed_input, pytorch_sshd_min_free="900t")
    assert (code != 0, changed) == (True, 0)
    assert "MiB free, and" in out
    packages = "ca-certificates curl git less nano mosh openssh-client openssh-server procps rsync sudo tini tmux"
    slow = {**changed_input, "pytorch_sshd_packages": packages.split()}
    with converge_started(**slow) as run:
        wait_until("the build runs", lambda: host.run("pgrep -f '[d]ocker build'").rc == 0, 60)
        host.check_output("pkill -f '[d]ocker build'")
        assert run.wait(120) != 0
    wait_until("the engine has ended the build's own container", lambda: container_ids(host) == before, 60)
    code, out, _ = converge(**slow, pytorch_sshd_recreate="never")
    assert code == 0, out
    code, out, changed = converge(**slow, pytorch_sshd_recreate="never")
    assert (code, changed) == (0, 0), out
    new = [line for line in host.check_output("docker image ls devnode/pytorch-sshd -q").split() if line]
    assert len(new) == 2
    host.check_output(f"docker image rm -f {new[0]}")


def container_ids(host: Any) -> str:
    return str(host.check_output("docker ps -q --no-trunc"))


PLAIN = "devnode-lab/plain:1"


@contextmanager
def conda_mirror(host: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stand-in for Miniconda with its channel (tests/lab/conda), served by the node to its builds."""
    out = SCENARIO.parents[1] / ".cache" / "standins" / "conda"
    subprocess.run([sys.executable, str(SCENARIO.parents[1] / "tests/lab/conda/build.py"), str(out)], check=True)
    on_node = ["ssh", "-F", str(EPHEMERAL / "ssh_config"), "debian13", "sudo"]
    with subprocess.Popen(["tar", "-C", str(out), "-c", "."], stdout=subprocess.PIPE) as pack:
        unpack = [*on_node, "sh", "-c", "'mkdir -p /srv/conda && tar -C /srv/conda -x'"]
        subprocess.run(unpack, stdin=pack.stdout, check=True)
    gateway = host.check_output("docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' bridge")
    serve = f"python3 -m http.server --bind {gateway} 8077"
    host.check_output(f"systemd-run --unit=conda-mirror --working-directory=/srv/conda {serve}")
    try:
        wait_until("the mirror listens", lambda: host.run("ss -Hltn 'sport = :8077'").stdout, 20)
        yield f"http://{gateway}:8077", json.loads((out / "facts.json").read_text())
    finally:
        host.check_output("systemctl stop conda-mirror; rm -rf /srv/conda")


@pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: builds an image of another kind")
def test_miniconda_and_a_declared_environment_in_a_base_without_pytorch(host: Any) -> None:
    """By the role miniconda's declaration. An installer that is not the declared one is not run."""
    base = subprocess.run(
        ["docker", "inspect", "-f", "{{.Config.Image}}", CONTAINER], capture_output=True, text=True, check=True
    ).stdout.strip()
    on_node = ["ssh", "-F", str(EPHEMERAL / "ssh_config"), "debian13", "sudo"]
    with subprocess.Popen(["docker", "save", base], stdout=subprocess.PIPE) as save:
        subprocess.run([*on_node, "docker", "load", "-q"], stdin=save.stdout, check=True, stdout=subprocess.DEVNULL)
    before = container_ids(host).split()
    key = (EPHEMERAL / "people" / "ada.pub").read_text().strip()
    plain = {"name": "plain", "port": 2204, "bind_address": node_address(), "host_key_alias": "plain.debian13"}
    plain |= {"owner": {"name": "ada", "uid": 2001}, "keys": {"ada": [key]}, "shm_size": "64m", "jupyter": False}
    listed = {"pytorch_sshd_workspaces": ["{{ nlp }}", "{{ vision }}", "{{ team }}", plain]}
    more: dict[str, Any] = {"pytorch_sshd_base_image": PLAIN, "pytorch_sshd_jupyter": False}
    more |= {"pytorch_sshd_recreate": "never"}
    try:
        with conda_mirror(host) as (mirror, facts):
            # pip takes nothing from a place without TLS, unless the image says so.
            trusted = f"FROM {base}\\nENV PIP_TRUSTED_HOST={mirror.split(':')[1].strip('/')}\\n"
            host.check_output(f"printf '{trusted}' | docker build -q -t {PLAIN} -")
            installer = facts["installers"][-1]
            conda = {"installer_url": f"{mirror}/{installer['file']}", "installer_sha256": installer["sha256"]}
            conda |= {"mirror": {"channels": {"conda-forge": f"{mirror}/channels"}, "pypi": f"{mirror}/simple"}}
            conda |= {"environment": {"packages": ["labplot"], "pip": ["labpip==1.0"]}}
            words = ("--extra-vars", json.dumps(listed))
            code, out, _ = converge(*words, **more, pytorch_sshd_conda={**conda, "installer_sha256": "0" * 64})
            assert code != 0
            assert "does not have the sha256" in out
            wrong = {**conda, "environment": {"packages": ["a b c"]}}
            code, out, _ = converge(*words, **more, pytorch_sshd_conda=wrong)
            assert code != 0
            assert "pytorch_sshd_conda.environment.packages[0]" in out
            code, out, _ = converge(*words, **more, pytorch_sshd_conda=conda)
            assert code == 0, out
            assert set(before) < set(container_ids(host).split())
            code, out, changed = converge(*words, **more, pytorch_sshd_conda=conda)
            assert (code, changed) == (0, 0), out
        said = [ok("plain", "ada", command) for command in ("python3 --version", "bash -lc 'python3 --version'")]
        said.append(host.check_output("docker exec devnode-plain sudo -u ada python3 --version"))
        assert [one[:11] for one in said] == ["Python 3.11"] * 3
        assert ok("plain", "ada", "python3 -c 'import labplot, labpip, sys; print(sys.prefix)'").strip() == (
            "/opt/conda/envs/workspace"
        )
        assert ok("plain", "ada", "conda --version").startswith("conda ")
    finally:
        host.run("docker rm -f devnode-plain; docker volume rm devnode-plain-home")
        host.run("systemctl disable devnode-workspace@plain; rm -rf /var/lib/devnode/workspaces/plain")
        assert converge()[0] == 0
        made = [one for one in tags(host) if one != image_of(host)]
        host.run(f"docker image rm -f {' '.join([PLAIN, base, *made])}")
    assert container_ids(host).split() == before
