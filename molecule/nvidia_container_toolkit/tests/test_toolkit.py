# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers see the GPUs that they were given, and only these. GPUs and packages are the lab's stand-ins."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from scenario_hosts import outside, play, restart, tiny_image, upgrades

IMAGE = "lab/tiny:1"
SPEC = "/var/run/cdi/nvidia.yaml"
PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
UUID_0 = "GPU-3f1a7c52-8d0e-4b6f-9a41-c2e57d90b813"
UUID_1 = "GPU-b86e04d9-27c3-4f15-8e6a-5d19f3a07c44"


def cdi_spec(host: Any, check: bool = False, **options: Any) -> dict[str, Any]:
    return host.ansible("devnode.gpu.cdi_spec", json.dumps({"devices": [], **options}), check=check)


@pytest.fixture
def cdi(host: Any) -> None:
    """For what an engine without CDI cannot do."""
    if host.system_info.release.startswith("12"):
        pytest.skip("Debian 12's engine (20.10) knows no CDI: configuration is tested there, containers are not")


@pytest.fixture
def image(host: Any, cdi: None) -> str:
    return tiny_image(host, IMAGE)


@pytest.fixture
def job(host: Any, image: str) -> Iterator[str]:
    """A container that works on GPU 0."""
    host.check_output(
        "docker rm --force job >/dev/null 2>&1; docker run --detach --name job --label devnode.job=1 "
        f"--device nvidia.com/gpu=0 {image} sleep 600"
    )
    yield started(host)
    host.check_output("docker rm --force job")


def started(host: Any) -> str:
    return host.check_output("docker inspect --format '{{.State.StartedAt}} {{.State.Pid}}' job")


def gpu_works(host: Any) -> bool:
    """The device can be opened, which the device cgroup has to allow."""
    return host.run("docker exec job sh -c ': </dev/nvidia0'").rc == 0


def seen(host: Any, *devices: str) -> list[str]:
    """What nvidia-smi -L shows in a container with these devices."""
    flags = " ".join(f"--device {device}" for device in devices)
    return host.check_output(f"docker run --rm {flags} {IMAGE} nvidia-smi -L").splitlines()


def test_the_four_packages_have_one_version_and_are_held(host: Any) -> None:
    for name in PACKAGES:
        assert host.package(name).version == "1.19.1-1"
    assert set(PACKAGES) <= set(host.check_output("apt-mark showhold").split())
    # 1.20.0 is in the repository, and stays there.
    assert "nvidia" not in upgrades(host.check_output)


def test_an_interrupted_installation_is_brought_to_its_end(host: Any, cdi: None) -> None:
    folder = f"/srv/nvidia/stable/deb/{host.check_output('dpkg --print-architecture')}"
    host.check_output(f"dpkg --unpack {folder}/nvidia-container-toolkit-base_1.20.0-1_*.deb")
    arguments = json.dumps({"names": [f"{name}=1.19.1-*" for name in PACKAGES], "hold": True})
    result = host.ansible("devnode.gpu.apt_packages", arguments, check=False)
    assert result["installed"] == {"nvidia-container-toolkit-base": "1.19.1-1"}, result
    assert host.check_output("dpkg --audit") == ""
    assert host.ansible("devnode.gpu.apt_packages", arguments, check=True)["changed"] is False


def test_packages_from_files_are_what_was_meant(host: Any) -> None:
    path = host.check_output(
        "ls /srv/nvidia/stable/deb/$(dpkg --print-architecture)/libnvidia-container1_1.19.1-1_*.deb"
    )
    digest = host.check_output(f"sha256sum {path}").split()[0]
    good = {"files": [{"path": path, "sha256": digest}]}
    assert host.ansible("devnode.gpu.apt_packages", json.dumps(good), check=False)["changed"] is False
    wrong = {"files": [{"path": path, "sha256": "0" * 64}]}
    assert digest in host.ansible("devnode.gpu.apt_packages", json.dumps(wrong), check=False)["msg"]


def test_a_gpu_process_makes_the_engine_wait(host: Any, cdi: None) -> None:
    host.check_output("echo '4711, python train.py' >/etc/devnode-lab-gpu/processes")
    arguments = {"owner": "test", "settings": {"fixed-cidr": "172.17.1.0/24"}}
    result = host.ansible("devnode.gpu.daemon_json", json.dumps(arguments), check=True)
    host.check_output("rm /etc/devnode-lab-gpu/processes")
    assert result["action"] == "defer"
    assert "GPU process 4711 python train.py" in result["pending"][0]


def test_older_entries_for_the_repository_are_gone(host: Any) -> None:
    listed = host.check_output("ls /etc/apt/sources.list.d").split()
    assert "nvidia-container-toolkit.sources" in listed
    assert "nvidia-docker.list" not in listed
    assert "old-mirror.list" not in listed
    found = host.run("apt-get update")
    assert found.rc == 0, found.stderr
    assert "Conflicting values" not in found.stderr
    assert host.run("find /var/lib/devnode/backup/apt_source -name nvidia-docker.list").stdout.strip()


def test_a_key_with_another_fingerprint_is_refused(host: Any) -> None:
    arguments = {
        "name": "other",
        "uris": ["file:///srv/nvidia/stable/deb/amd64"],
        "key_url": "file:///srv/nvidia/gpgkey",
        "fingerprints": ["C95B321B61E88C1809C4F759DDCAE044F796ECB0"],
    }
    result = host.ansible("devnode.gpu.apt_source", json.dumps(arguments), check=False)
    assert "only C95B321B61E88C1809C4F759DDCAE044F796ECB0 is allowed" in result["msg"]
    assert not host.file("/etc/apt/sources.list.d/other.sources").exists


def test_docker_knows_the_gpus_and_keeps_what_others_set(host: Any) -> None:
    document = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert document["features"]["buildkit"] is True
    assert document["max-concurrent-uploads"] == 3
    if host.system_info.release.startswith("12"):
        assert "cdi" not in document["features"]
        assert document["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
        assert "nvidia" in json.loads(host.check_output("docker info --format '{{json .Runtimes}}'"))
    else:
        assert document["features"]["cdi"] is True
        assert "runtimes" not in document


def test_every_gpu_has_a_device(host: Any) -> None:
    found = cdi_spec(host, check=True, devices=["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"])
    assert found["changed"] is False
    assert [gpu["uuid"] for gpu in found["gpus"]] == [UUID_0, UUID_1]
    assert f"nvidia.com/gpu={UUID_1}" in found["devices"]


def test_a_run_that_changes_nothing_has_few_results(host: Any, cdi: None) -> None:
    """The three roles together; each result costs about a quarter of a second."""
    done = play("--limit", host.check_output("hostname"))
    recap = re.search(r"ok=(\d+) +changed=(\d+) .* skipped=(\d+)", done.stdout)
    assert done.returncode == 0, done.stdout
    assert recap, done.stdout
    ok, changed, skipped = (int(number) for number in recap.groups())
    assert changed == 0, done.stdout
    results = ok + skipped - 3  # the three include_role of the test's own play
    print(f"{results} results: {ok} ok, {skipped} skipped")
    assert results <= 25, done.stdout


def test_an_exchanged_driver_is_pending_not_a_failure(host: Any, cdi: None) -> None:
    host.check_output("sed -i s/580.95.05/570.195.03/ /proc/driver/nvidia/version")
    try:
        found = cdi_spec(host)
        assert found["changed"] is False
        assert "has to restart" in found["pending"][0]
    finally:
        host.check_output("sed -i s/570.195.03/580.95.05/ /proc/driver/nvidia/version")


def test_a_container_has_the_gpu_it_was_given_and_no_other(host: Any, image: str) -> None:
    assert seen(host, "nvidia.com/gpu=0") == [f"GPU 0: NVIDIA L4 (UUID: {UUID_0})"]
    assert seen(host, "nvidia.com/gpu=1") == [f"GPU 0: NVIDIA L4 (UUID: {UUID_1})"]
    assert len(seen(host, "nvidia.com/gpu=all")) == 2
    nodes = host.check_output(f"docker run --rm --device nvidia.com/gpu=1 {image} ls /dev").split()
    assert [name for name in nodes if name.startswith("nvidia")] == [
        "nvidia-uvm",
        "nvidia-uvm-tools",
        "nvidia1",
        "nvidiactl",
    ]
    assert "nvidia" not in host.check_output(f"docker run --rm {image} ls /dev")


def test_a_device_that_does_not_exist_is_refused_by_name(host: Any, image: str) -> None:
    found = host.run(f"docker run --rm --device nvidia.com/gpu=7 {image} true")
    assert found.rc != 0
    assert "nvidia.com/gpu=7" in found.stderr


def test_a_job_keeps_its_gpu_over_daemon_reload_and_restart_of_the_engine(host: Any, job: str) -> None:
    assert gpu_works(host)
    host.check_output("systemctl daemon-reload")
    assert gpu_works(host)
    host.check_output("systemctl restart docker")
    assert started(host) == job
    assert gpu_works(host)


def test_gpus_that_come_and_go_are_followed(host: Any, cdi: None) -> None:
    try:
        host.check_output("echo 1 >/etc/devnode-lab-gpu/count; systemctl restart devnode-lab-gpu")
        result = cdi_spec(host, check=False, devices=["nvidia.com/gpu=1"])
        assert "nvidia.com/gpu=1: asked for, but no CDI device" in result["msg"]
        assert cdi_spec(host, check=True, devices=["nvidia.com/gpu=0"])["changed"] is False
    finally:
        host.check_output("echo 2 >/etc/devnode-lab-gpu/count; systemctl restart devnode-lab-gpu")
        assert cdi_spec(host, check=False)["refreshed"] == [
            "nvidia.com/gpu=1: the driver shows this GPU, but no CDI device"
        ]
    assert cdi_spec(host, check=True)["changed"] is False


def test_half_a_specification_is_written_again(host: Any, cdi: None) -> None:
    host.check_output(f"head -c 700 {SPEC} >/tmp/half; cat /tmp/half >{SPEC}")
    assert cdi_spec(host, check=True)["changed"] is True
    assert cdi_spec(host, check=False)["changed"] is True
    assert cdi_spec(host, check=True)["changed"] is False


def test_a_toolkit_without_a_unit_of_its_own_gets_ours(host: Any, cdi: None) -> None:
    """Which writes the specification at boot, and after depmod has seen another driver."""
    theirs = "nvidia-cdi-refresh.service nvidia-cdi-refresh.path"
    host.check_output(
        f"systemctl disable --now --quiet {theirs}; cd /usr/lib/systemd/system; mv {theirs} /root; "
        f"systemctl daemon-reload; systemctl restart devnode-cdi-refresh.path; rm {SPEC}"
    )
    try:
        host.check_output("systemctl start devnode-cdi-refresh.service")
        assert cdi_spec(host, check=True, devices=["nvidia.com/gpu=1"])["changed"] is False
        host.check_output(f"rm {SPEC}; echo >>/lib/modules/$(uname -r)/modules.dep")
        host.check_output(f"timeout 30 sh -c 'until test -s {SPEC}; do sleep 0.2; done'")
        order = host.check_output("systemctl show devnode-cdi-refresh.service --property=Before --value").split()
        assert {"docker.service", "containerd.service"} <= set(order)
    finally:
        host.check_output(
            f"cd /root; mv {theirs} /usr/lib/systemd/system; systemctl daemon-reload; "
            f"systemctl enable --now --quiet {theirs}; systemctl restart nvidia-cdi-refresh.service"
        )
    assert cdi_spec(host, check=True)["changed"] is False


def test_the_role_installs_files_where_there_is_no_repository(host: Any, cdi: None) -> None:
    if os.environ.get("DEVNODE_TESTS") != "full":
        pytest.skip("two more runs of the three roles; in the full run (DEVNODE_TESTS=full)")
    folder = f"/srv/nvidia/stable/deb/{host.check_output('dpkg --print-architecture')}"
    lines = host.check_output(f"sha256sum {folder}/*_1.19.1-1_*.deb").splitlines()
    files = [{"sha256": line.split()[0], "path": line.split()[1]} for line in lines]
    assert len(files) == len(PACKAGES)
    remove = ("libnvidia-container-tools", "nvidia-container-toolkit")
    host.check_output(f"apt-mark unhold {' '.join(PACKAGES)}; dpkg --force-depends --remove {' '.join(remove)}")
    name = host.check_output("hostname")

    def run(chosen: list[dict[str, str]], **more: str) -> Any:
        given = {"nvidia_container_toolkit_files": chosen, "nvidia_container_toolkit_repository": "", **more}
        return play("--limit", name, "--extra-vars", json.dumps(given))

    wrong = run([{**files[0], "sha256": "0" * 64}, *files[1:]])
    assert wrong.returncode != 0
    assert files[0]["sha256"] in wrong.stdout
    assert not host.package(remove[0]).is_installed
    both = run(files, nvidia_container_toolkit_repository="file:///srv/nvidia/stable/deb/amd64")
    assert "both are given" in both.stdout
    done = run(files)
    assert done.returncode == 0, done.stdout
    for package in PACKAGES:
        assert host.package(package).version == "1.19.1-1"
    assert set(PACKAGES) <= set(host.check_output("apt-mark showhold").split())


def test_after_a_reboot_the_devices_are_there_before_the_engine(host: Any, image: str) -> None:
    name = host.check_output("hostname")
    restart(name, "docker.service")

    def at(unit: str, moment: str) -> int:
        return int(outside(name, "systemctl", "show", unit, f"--property={moment}Monotonic", "--value").stdout)

    assert (
        0 < at("nvidia-cdi-refresh.service", "InactiveEnterTimestamp") <= at("docker.service", "ExecMainStartTimestamp")
    )
    run = ("docker", "run", "--rm", "--device", "nvidia.com/gpu=0", image, "nvidia-smi", "-L")
    assert UUID_0 in outside(name, *run).stdout
