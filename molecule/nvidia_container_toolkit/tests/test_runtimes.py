# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd and Podman, the distributions' own. Podman's containers have the GPUs that they asked for, and so have
the pods that a kubelet asks containerd for.

Debian 13 has containerd 1.7 and Podman 5.4; Debian 12 has 1.6, which knows no CDI, and 4.3, which reads older
specifications only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_toolkit import IMAGE, SPEC, UUID_0, UUID_1, cdi, image  # noqa: F401  fixtures
from visible import visible  # noqa: F401  fixture

CONFIG = "/etc/containerd/config.toml"
BEFORE = """version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example.invalid/pause:1"
  enable_unprivileged_ports = true
  restrict_oom_score_adj = true  # a host in a container may not lower it
"""
CRI = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "tests" / "lab" / "nvidia" / "cri.py"
PAUSE = "registry.example.invalid/pause:1"
HOOK = "/usr/share/containers/oci/hooks.d/oci-nvidia-hook.json"


def runtimes(host: Any, *names: str, check: bool = False, **options: Any) -> dict[str, Any]:
    arguments = json.dumps({"runtimes": names, **options})
    return host.ansible("devnode.gpu.container_runtimes", arguments, check=check)


def dump(host: Any) -> str:
    return host.check_output("containerd config dump")


@pytest.fixture
def ctr(host: Any, image: str) -> str:  # noqa: F811
    """The test's image, as containerd's own client names it."""
    name = f"docker.io/{image}"
    if name not in host.check_output("ctr images ls -q").split():
        host.check_output(f"docker save {image} | ctr images import -")
    return name


@pytest.fixture
def pod(host: Any, image: str) -> str:  # noqa: F811
    """A command that makes a pod with one container, as a kubelet does; its devices and a command follow."""
    if host.run("test -e /root/cri.py").failed:
        host.check_output(
            f"docker run --name pause {image} true; docker export pause | docker import "
            f'--change \'ENTRYPOINT ["/usr/bin/sleep", "600"]\' - {PAUSE}; docker rm pause; '
            f"docker save {image} {PAUSE} | ctr --namespace k8s.io images import -"
        )
        host.check_output(f"cat >/root/cri.py <<'END'\n{CRI.read_text()}\nEND")
    return f"python3 /root/cri.py docker.io/{image}"


@pytest.fixture
def podman(host: Any, image: str) -> str:  # noqa: F811
    """The command, for root; vfs because the lab's hosts are containers themselves."""
    if not host.exists("podman"):
        pytest.skip("Podman is shown on Debian 13 in the gate, on both in the full run (DEVNODE_TESTS=full)")
    command = "podman --storage-driver=vfs"
    if host.run(f"{command} image exists {image}").rc != 0:
        host.check_output(f"docker save --output /tmp/tiny.tar {image}; chmod a+r /tmp/tiny.tar")
        host.check_output(f"{command} load --input /tmp/tiny.tar")
    return f"{command} run --rm --network=none"


@pytest.fixture
def ours_again(host: Any) -> Iterator[None]:
    yield
    runtimes(host, "docker", "containerd", "podman")


def test_containerd_has_cdi_on_and_keeps_what_others_set(host: Any) -> None:
    shown = dump(host)
    assert 'sandbox_image = "registry.example.invalid/pause:1"' in shown
    assert "enable_unprivileged_ports = true" in shown
    assert "containerd.runtimes.runc]" in shown
    if host.system_info.release.startswith("12"):
        assert "enable_cdi" not in shown
        assert "containerd.runtimes.nvidia]" in shown
    else:
        assert "enable_cdi = true" in shown
        assert "containerd.runtimes.nvidia]" not in shown


def test_a_pod_has_the_gpu_that_was_asked_for_and_no_other(host: Any, pod: str) -> None:
    """Through the CRI, by CDI names, as Kubernetes' device plugin asks; the runtime is the one that the role set up."""
    look = "sh -c 'ls /dev && nvidia-smi -L'"
    for device, uuid in (("nvidia.com/gpu=0", UUID_0), ("nvidia.com/gpu=1", UUID_1)):
        said = host.check_output(f"{pod} {device} {look}").splitlines()
        nodes = [line for line in said if line.startswith("nvidia")]
        assert nodes == ["nvidia-uvm", "nvidia-uvm-tools", f"nvidia{device[-1]}", "nvidiactl"]
        assert said[-1] == f"GPU 0: NVIDIA L4 (UUID: {uuid})"
    both = host.check_output(f"{pod} nvidia.com/gpu=0,nvidia.com/gpu=1 {look}")
    assert both.count("NVIDIA L4") == 2
    assert "nvidia" not in host.check_output(f"{pod} '' ls /dev")
    refused = host.run(f"{pod} nvidia.com/gpu=7 true")
    assert refused.rc != 0
    assert "unresolvable CDI devices nvidia.com/gpu=7" in refused.stderr


def test_containerd_restarts_under_its_containers_and_gets_back_what_it_had(
    host: Any, ctr: str, ours_again: None
) -> None:
    host.check_output(f"ctr run --detach {ctr} stays sleep 600")
    try:
        task = host.check_output("ctr task ls | grep stays")
        announced = host.ansible("devnode.gpu.container_runtimes", json.dumps({"runtimes": ["docker"]}), check=True)
        assert announced["changed"] is True
        pid = host.check_output("systemctl show containerd --property=MainPID --value")
        assert runtimes(host, "docker")["changed"] is True
        assert host.file(CONFIG).content_string == BEFORE
        assert host.check_output("systemctl show containerd --property=MainPID --value") != pid
        both = runtimes(host, "containerd", nvidia_runtime=True)
        assert both["versions"]["containerd"].startswith("1.7")
        assert "containerd.runtimes.nvidia]" in dump(host)
        assert "containerd.runtimes.runc]" in dump(host)
        assert host.check_output("ctr task ls | grep stays") == task
        assert host.run("ctr task exec --exec-id look stays true").rc == 0
        assert runtimes(host, "containerd", nvidia_runtime=True)["changed"] is False
    finally:
        host.run("ctr task kill --signal KILL stays; sleep 1; ctr task rm stays; ctr container rm stays")


def test_a_restart_that_would_end_containers_waits(host: Any, cdi: None, ours_again: None) -> None:  # noqa: F811
    dropin = "/etc/systemd/system/containerd.service.d/test.conf"
    host.check_output(
        f"mkdir -p $(dirname {dropin}); printf '[Service]\\nKillMode=mixed\\n' >{dropin}; systemctl daemon-reload"
    )
    try:
        pid = host.check_output("systemctl show containerd --property=MainPID --value")
        for _ in range(2):  # and is not forgotten
            found = runtimes(host, "containerd", nvidia_runtime=True)
            assert "it would end containers (KillMode=mixed in its unit)" in found["pending"][0]
        assert found["changed"] is False
        assert host.check_output("systemctl show containerd --property=MainPID --value") == pid
    finally:
        host.check_output(f"rm {dropin}; systemctl daemon-reload")


def test_a_configuration_that_containerd_cannot_read_is_left(host: Any) -> None:
    good = host.file(CONFIG).content_string
    try:
        host.check_output(f"echo 'debug = [' >>{CONFIG}")
        found = runtimes(host, "docker")
        assert "containerd cannot read /etc/containerd/config.toml" in found["msg"], found
        assert host.file(CONFIG).content_string == good + "debug = [\n"
    finally:
        host.check_output(f"cat >{CONFIG} <<'END'\n{good.rstrip(chr(10))}\nEND")


def test_podman_gives_the_gpu_that_was_asked_for(host: Any, podman: str) -> None:
    assert not host.file(HOOK).exists, "the way before CDI, which would give the GPU a second time"
    found = host.check_output(f"{podman} --device nvidia.com/gpu=0 {IMAGE} nvidia-smi -L")
    assert found == f"GPU 0: NVIDIA L4 (UUID: {UUID_0})"
    refused = host.run(f"{podman} --device nvidia.com/gpu=7 {IMAGE} true")
    assert refused.rc != 0
    assert "nvidia.com/gpu=7" in refused.stderr


@pytest.mark.usefixtures("visible")
def test_people_without_root_have_gpus_by_podman(host: Any, podman: str) -> None:
    host.check_output("id guest >/dev/null 2>&1 || useradd --create-home --shell /bin/sh guest")
    run = f"{podman.replace(' run ', ' --cgroup-manager=cgroupfs run ')} --device nvidia.com/gpu=1 {IMAGE}"
    load = "podman --storage-driver=vfs load --quiet --input /tmp/tiny.tar"
    found = host.check_output(f"runuser -l guest -c '{load} && {run} nvidia-smi -L'")
    assert found.splitlines()[-1] == f"GPU 0: NVIDIA L4 (UUID: {UUID_1})"


def test_specifications_are_in_a_format_that_every_runtime_here_reads(host: Any) -> None:
    found = json.loads(host.check_output(f'grep cdiVersion {SPEC} | sed \'s/.*: *//; s/"//g; s/.*/"&"/\''))
    old = host.exists("podman") and host.check_output("podman --version").split()[-1].startswith("4.")
    assert (found < "0.7.0") is bool(old)


def test_runtimes_that_cannot_be_set_up_are_refused(host: Any) -> None:
    found = runtimes(host, "crio", "rkt")
    assert "crio is asked for, and this host has none" in found["msg"]
    assert '"rkt" is not a runtime' in found["msg"]
    assert "Allowed: docker, containerd, crio, podman" in found["msg"]
