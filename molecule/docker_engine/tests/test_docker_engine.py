# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine that suits GPU work, shown by what the engine and its containers do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from scenario_hosts import tiny_image

FILE = "/etc/docker/daemon.json"
DROPIN = "/etc/systemd/system/docker.service.d/test.conf"


def info(host: Any) -> dict[str, Any]:
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


def document(host: Any) -> dict[str, Any]:
    return json.loads(host.file(FILE).content_string)


def major(host: Any) -> int:
    return int(info(host)["ServerVersion"].split(".")[0])


def main_pid(host: Any) -> str:
    return host.check_output("systemctl show docker.service --property MainPID --value")


def merge(host: Any, settings: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
    """The module as a role calls it; an owner of the test's own."""
    arguments = json.dumps({"owner": "test", "settings": settings, **more})
    return host.ansible("devnode.gpu.daemon_json", arguments, check=check)


@pytest.fixture(scope="module")
def image(host: Any) -> str:
    return tiny_image(host)


@pytest.fixture
def workload(host: Any, image: str) -> Iterator[str]:
    """A container that somebody works in."""
    host.check_output(
        "docker rm --force work >/dev/null 2>&1; docker run --detach --name work "
        f"--label devnode.workspace=nlp {image} sleep 600"
    )
    yield host.check_output("docker inspect --format '{{.State.StartedAt}} {{.State.Pid}}' work")
    host.check_output("docker rm --force work")


def unharmed(host: Any) -> str:
    return host.check_output("docker inspect --format '{{.State.StartedAt}} {{.State.Pid}}' work")


@pytest.fixture
def newest(host: Any) -> None:
    """These restart the engine several times, and the engine's age makes no difference to them."""
    if major(host) < 25 and os.environ.get("DEVNODE_TESTS") != "full":
        pytest.skip("shown on Debian 13 in the gate, on both in the full run (DEVNODE_TESTS=full)")


@pytest.fixture
def cleared(host: Any) -> Iterator[None]:
    """Afterwards everything is as the role left it."""
    before = host.file(FILE).content_string
    yield
    host.run(f"rm -f {DROPIN}; systemctl daemon-reload")
    merge(host, {}, restart="always")
    assert json.loads(before) == document(host)


def test_the_engine_runs_as_asked(host: Any) -> None:
    found = info(host)
    assert found["LiveRestoreEnabled"] is True
    assert found["LoggingDriver"] == "json-file"
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled
    assert (
        host.check_output("docker network inspect bridge --format '{{(index .IPAM.Config 0).Subnet}}'")
        == "172.30.0.0/24"
    )


def test_a_host_without_gpus_is_a_normal_answer(host: Any) -> None:
    found = host.ansible("devnode.gpu.gpu_info", "torch=2.8.0 cuda=12.8", check=False)
    assert (found["changed"], found["gpus"], found["processes"]) == (False, [], [])
    assert (found["driver"]["version"], found["driver"]["loaded"]) == ("", False)
    assert found["engine"]["docker"] == info(host)["ServerVersion"]


def test_cdi_is_on_where_the_engine_knows_it(host: Any) -> None:
    if major(host) >= 25:
        assert document(host)["features"]["cdi"] is True
        assert "/etc/cdi" in info(host)["CDISpecDirs"]
    else:
        assert "cdi" not in document(host)["features"]


def test_what_others_had_set_is_still_there(host: Any) -> None:
    found = document(host)
    assert found["features"]["buildkit"] is True
    assert found["log-opts"]["labels"] == "team"
    assert found["max-concurrent-uploads"] == 3


def test_containers_get_limits_and_rotation(host: Any, workload: str) -> None:
    assert host.check_output("docker exec work sh -c 'ulimit -Sn; ulimit -Hn'").split() == ["4096", "8192"]
    options = host.check_output("docker inspect --format '{{json .HostConfig.LogConfig.Config}}' work")
    assert json.loads(options) == {"labels": "team", "max-file": "3", "max-size": "50m"}


def test_new_networks_come_from_the_pool(host: Any) -> None:
    host.check_output("docker network create probe")
    subnet = host.check_output("docker network inspect probe --format '{{(index .IPAM.Config 0).Subnet}}'")
    host.check_output("docker network rm probe")
    assert subnet.startswith("10.210.")


def test_nobody_is_root_by_group(host: Any) -> None:
    assert host.group("docker").members == []


def test_a_registry_has_its_certificate(host: Any) -> None:
    file = host.file("/etc/docker/certs.d/registry.example.invalid:5000/ca.crt")
    assert file.contains("BEGIN CERTIFICATE")
    assert file.mode == 0o644


def test_what_can_be_reloaded_is_not_restarted(host: Any, newest: None, workload: str, cleared: None) -> None:
    pid = main_pid(host)
    assert merge(host, {"max-concurrent-downloads": 7})["action"] == "reload"
    assert main_pid(host) == pid
    assert unharmed(host) == workload


def test_a_restart_keeps_containers(host: Any, workload: str, cleared: None) -> None:
    pid = main_pid(host)
    result = merge(host, {"dns-search": ["example.invalid"]})
    assert (result["action"], result["pending"]) == ("restart", [])
    assert main_pid(host) != pid
    assert unharmed(host) == workload
    assert host.run("docker exec work true").rc == 0


def test_what_would_end_containers_waits_and_says_for_whom(
    host: Any, newest: None, workload: str, cleared: None
) -> None:
    pid = main_pid(host)
    for _ in range(2):  # and is not forgotten by the next run
        result = merge(host, {"fixed-cidr": "172.30.0.128/25"})
        assert result["action"] == "defer"
        assert "live-restore cannot keep containers through a change of fixed-cidr" in result["pending"][0]
        assert "work (devnode.workspace=nlp)" in result["pending"][0]
        assert main_pid(host) == pid
        assert unharmed(host) == workload
    assert result["changed"] is False
    host.check_output("docker stop --time 1 work")
    assert merge(host, {"fixed-cidr": "172.30.0.128/25"})["action"] == "restart"


def test_check_mode_announces_and_leaves(host: Any) -> None:
    before, pid = host.file(FILE).content_string, main_pid(host)
    result = merge(host, {"dns-search": ["example.invalid"]}, check=True)
    assert result["changed"] is True
    assert result["action"] == "restart"
    assert (host.file(FILE).content_string, main_pid(host)) == (before, pid)


def test_invalid_json_is_reported_and_left(host: Any) -> None:
    host.check_output("printf '{\"debug\": tru' >/root/broken.json")
    result = merge(host, {"debug": True}, path="/root/broken.json", service="none.service")
    assert "/root/broken.json is not valid JSON" in result["msg"]
    assert host.file("/root/broken.json").content_string == '{"debug": tru'


def test_what_the_engine_itself_would_not_accept_is_left(host: Any) -> None:
    """dockerd --validate says so before anything is written; an engine before 23 has no such option."""
    if major(host) < 23:
        pytest.skip("Debian 12's engine (20.10) has no --validate")
    before, pid = host.file(FILE).content_string, main_pid(host)
    result = merge(host, {"no-such-key": True})
    assert "dockerd --validate does not accept" in result["msg"]
    assert "no-such-key" in result["msg"]
    assert (host.file(FILE).content_string, main_pid(host)) == (before, pid)


def test_a_flag_of_the_unit_that_clashes_is_named(host: Any, newest: None, cleared: None) -> None:
    host.check_output(
        f"mkdir -p $(dirname {DROPIN}); printf '[Service]\\nExecStart=\\nExecStart=/usr/sbin/dockerd -H fd:// "
        f"--dns-search=example.invalid\\n' >{DROPIN}; systemctl daemon-reload"
    )
    before = host.file(FILE).content_string
    result = merge(host, {"dns-search": ["example.invalid"]})
    # dns-search is a flag and a key of one name; the message says both, and where the flag is.
    assert "dns-search (--dns-search)" in result["msg"]
    assert DROPIN in result["msg"]
    assert host.file(FILE).content_string == before


def test_an_engine_that_does_not_come_up_gets_its_old_file_back(host: Any, cleared: None) -> None:
    before = host.file(FILE).content_string
    result = merge(host, {"storage-driver": "nosuchdriver"}, restart="always")
    assert "nosuchdriver" in result["msg"]
    assert host.file(FILE).content_string == before
    assert host.service("docker").is_running


def test_a_wanted_restart_is_not_refused_by_the_start_limit(host: Any, newest: None, cleared: None) -> None:
    host.check_output(
        f"mkdir -p $(dirname {DROPIN}); printf '[Unit]\\nStartLimitIntervalSec=600\\nStartLimitBurst=1\\n' >{DROPIN}; "
        "systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker"
    )
    result = merge(host, {"dns-search": ["example.invalid"]})
    assert result["action"] == "restart", result
    assert host.service("docker").is_running
    # The limit is real: the next one by hand is refused.
    assert host.run("systemctl restart docker").rc != 0


def test_limits_that_the_machine_cannot_give_are_refused_with_both_numbers(host: Any) -> None:
    most = int(host.check_output("sh -c 'ulimit -Hn'"))
    limits = {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 5_000_000}}
    result = merge(host, {"default-ulimits": limits}, path="/root/limits.json", service="none.service")
    assert "default-ulimits.nofile: the hard limit asked for is 5000000" in result["msg"]
    assert f"the most this machine gives is {most}" in result["msg"]
    assert not host.file("/root/limits.json").exists


def test_addresses_in_use_are_refused(host: Any) -> None:
    own = host.check_output("ip -4 -o route show scope link").split()[0]
    pools = [{"base": own, "size": 28}]
    result = host.ansible(
        "devnode.gpu.daemon_json",
        json.dumps({"owner": "other", "settings": {"default-address-pools": pools}, "path": "/root/pools.json"}),
        check=False,
    )
    assert "overlaps the route to" in result["msg"]
    assert "where this run comes from" in result["msg"]
    assert not host.file("/root/pools.json").exists
