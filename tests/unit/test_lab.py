# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's pure parts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import client_view, topology_view
from lab import demo
from lab.devlab import fleet, hosts, images, keys, needs, networks, people, playbook, scenario, trust
from lab.devlab.shell import LabError, attempt, run, wait_for
from lab.nvidia import build

CERT_A = "-----BEGIN CERTIFICATE-----\nQUFB\nQkJC\n-----END CERTIFICATE-----"
CERT_B = "-----BEGIN CERTIFICATE-----\nQ0ND\n-----END CERTIFICATE-----"


def make(*platforms: dict[str, object]) -> scenario.Scenario:
    return scenario.Scenario("ssh_server", Path("/nowhere"), list(platforms))


def test_a_content_hash_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = images.content_hash(tmp_path)
    assert images.content_hash(tmp_path) == first
    assert images.content_hash(tmp_path, "word") != first
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = images.content_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, images.content_hash(tmp_path)}) == 3


def test_an_unknown_system_is_refused_before_anything_runs() -> None:
    with pytest.raises(LabError, match=r"debian11.*Allowed: debian12, debian13"):
        images.ensure("debian11")


def test_only_root_on_debian_or_ubuntu_installs_an_engine() -> None:
    assert needs.refusal(0, "debian", "") == ""
    assert needs.refusal(0, "linuxmint", "ubuntu debian") == ""
    assert "not root" in needs.refusal(1000, "debian", "")
    assert "fedora" in needs.refusal(0, "fedora", "")


def test_every_name_has_a_subnet_of_its_own_and_falls_back_to_all_others() -> None:
    order = networks.preferred_subnets("x")
    assert order == networks.preferred_subnets("x")
    assert sorted(order) == sorted(networks.SUBNETS)
    assert networks.address_in("10.203.77.0/24", 2) == "10.203.77.12"


def test_name_servers_that_a_host_cannot_reach_are_left_out(tmp_path: Path) -> None:
    stub, real, empty = tmp_path / "stub", tmp_path / "real", tmp_path / "empty"
    stub.write_text("# nameserver 9.9.9.9\nnameserver 127.0.0.53\noptions edns0\n")
    real.write_text("nameserver 10.0.0.2\nnameserver 127.0.0.1\nnameserver fe80::1%eth0\n")
    empty.write_text("search example.org\n")
    assert networks.name_servers(stub, real) == ("10.0.0.2", "fe80::1%eth0")
    assert networks.name_servers(tmp_path / "none", empty, stub) == ()


def test_containers_carry_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVNODE_PREFIX", raising=False)
    assert make().container("debian13") == "devnode-ssh_server-debian13"
    monkeypatch.setenv("DEVNODE_PREFIX", "me")
    assert make().container("debian13") == "me-ssh_server-debian13"


def test_a_platform_becomes_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVNODE_PREFIX", "me")
    one = make(
        {"name": "b", "image": "debian12", "networks": [{"name": "public"}, {"name": "private"}]},
        {"name": "n", "image": "debian13", "labels": {"engine": "true"}, "networks": [{"name": "private"}]},
    )
    subnets = {"public": "10.203.70.0/24", "private": "10.203.71.0/24"}
    first, second = (scenario.host_spec(one, index, subnets) for index in (0, 1))
    assert [(a.network, a.address) for a in first.attachments] == [
        ("me-ssh_server-public", "10.203.70.10"),
        ("me-ssh_server-private", "10.203.71.10"),
    ]
    assert not first.engine
    assert second.engine
    assert second.attachments[0].address == "10.203.71.11"
    assert first.peers == (("n", "10.203.71.11"),)
    assert second.peers == (("b", "10.203.71.10"),)


def test_a_platform_with_a_wrong_image_is_named() -> None:
    with pytest.raises(LabError, match=r'platforms\[0\]\.image: "trixie"'):
        scenario.host_spec(make({"name": "x", "image": "trixie"}), 0, {"default": "10.203.70.0/24"})


def test_an_engine_host_gets_volumes_and_no_host_is_privileged() -> None:
    place = (hosts.Attachment("net", "10.203.70.10"),)
    plain = hosts.run_arguments(hosts.HostSpec(container="c", hostname="h", attachments=place), "image", ipv6=False)
    engine_host = hosts.run_arguments(
        hosts.HostSpec(container="c", hostname="h", engine=True, attachments=place), "image", ipv6=True
    )
    assert plain[-1] == "image"
    assert "--privileged" not in plain + engine_host
    assert "/var/lib/docker" not in plain
    assert "/var/lib/docker" in engine_host
    assert "net.ipv6.conf.all.disable_ipv6=0" in engine_host
    assert plain[plain.index("--ip") + 1] == "10.203.70.10"


def test_ssh_always_checks_the_host_key(tmp_path: Path) -> None:
    targets = [keys.Target("gpu-01", "10.0.0.1", "ssh-ed25519 AAAA", jump="bastion")]
    text = keys.ssh_config(targets, tmp_path / "with space")
    assert "StrictHostKeyChecking yes" in text
    assert "accept-new" not in text
    assert keys.known_hosts(targets) == "gpu-01 ssh-ed25519 AAAA\n"
    path = tmp_path / "config"
    path.write_text(text)
    effective = run(["ssh", "-G", "-F", path, "gpu-01"])
    for line in ("hostname 10.0.0.1", "hostkeyalias gpu-01", "user automation", "proxyjump bastion"):
        assert line in effective.splitlines()
    assert f"userknownhostsfile {tmp_path}/with space/known_hosts" in effective


def test_on_the_client_machine_the_keys_lie_where_the_model_looks_for_them() -> None:
    looked_for = {"bastion": topology_view.BASTION_KEY, "workspace": client_view.ClientView("ada").identity_files[0]}
    assert {purpose: f"~/{path}" for purpose, path in people.DEFAULT_PATHS.items()} == looked_for


def test_a_bundle_is_taken_apart_and_compared() -> None:
    assert trust.certificates(f"# a\n{CERT_A}\n# b\n{CERT_B}\n") == {CERT_A, CERT_B}
    assert trust.certificates(CERT_A.replace("\n", "\r\n")) == {CERT_A}
    assert trust.certificates("nothing") == set()


def test_the_extra_ca_can_be_named_or_turned_off(tmp_path: Path) -> None:
    given, local = tmp_path / "ca.pem", tmp_path / "local"
    local.mkdir()
    given.write_text(CERT_A)
    assert trust.bundle({}, local) == ""
    (local / "proxy.crt").write_text(CERT_B)
    assert trust.bundle({}, local) == CERT_B
    assert trust.bundle({"SSL_CERT_FILE": str(given)}, local) == CERT_A
    assert trust.bundle({"SSL_CERT_FILE": str(given), "DEVNODE_EXTRA_CA": ""}, local) == ""
    assert trust.bundle({"DEVNODE_EXTRA_CA": str(tmp_path / "none")}, local) == ""


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("", ""),
        ("global.timeout='10'", ""),
        ("global.extra-index-url='file:///srv/wheels'", ""),
        ("global.trusted-host='pypi.example.org'", ""),
        (
            "global.index-url='https://pypi.example.org/simple'\nglobal.trusted-host='pypi.example.org'",
            "[global]\nindex-url = https://pypi.example.org/simple\ntrusted-host = pypi.example.org\n",
        ),
    ],
)
def test_only_urls_of_an_index_go_to_hosts(listing: str, expected: str) -> None:
    assert trust.pip_config(listing) == expected


def test_a_failed_command_says_what_it_was_and_what_it_said() -> None:
    with pytest.raises(LabError, match="ended with 3:\nbroken"):
        run(["sh", "-c", "echo broken >&2; exit 3"])
    assert attempt(["devnode-no-such-program"]).returncode == 127
    assert attempt(["sleep", "5"], timeout=0.1).returncode == 124


def test_waiting_ends() -> None:
    with pytest.raises(LabError, match="the moon"):
        wait_for("the moon", lambda: False, 0.05, 0.01)


def test_a_recreated_host_loses_its_workspaces_keys_and_no_other() -> None:
    before = "gpu-01 ssh-ed25519 OLD\nnlp.gpu-01 ssh-ed25519 A\nvision.gpu-02 ssh-ed25519 B\n\n"
    merged = keys.merge_known_hosts(before, [keys.Target("gpu-01", "10.0.0.1", "ssh-ed25519 NEW")], {"gpu-01"})
    assert merged == "gpu-01 ssh-ed25519 NEW\nvision.gpu-02 ssh-ed25519 B\n"
    assert keys.merge_known_hosts(merged, [], set()) == merged


RECAP = """
TASK [x] ****
changed: [gpu-01]

PLAY RECAP *********************************************************************
bastion                    : ok=20   changed=0    unreachable=0    failed=0    skipped=3    rescued=0    ignored=0
gpu-01                     : ok=41   changed=12   unreachable=0    failed=0    skipped=3    rescued=0    ignored=0
localhost                  : ok=4    changed=2    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0

"""


def test_the_recap_counts_changes_on_hosts() -> None:
    recap = playbook.read_recap(RECAP)
    assert recap.changed == 12
    assert recap.table.startswith("bastion")
    assert recap.table.count("\n") == 2


def test_a_host_is_made_anew_when_what_it_is_made_from_changed() -> None:
    one = hosts.HostSpec(container="c", hostname="h", image="devnode-lab/debian13:1")
    same = hosts.HostSpec(container="c", hostname="h", image="devnode-lab/debian13:1")
    other = hosts.HostSpec(container="c", hostname="h", image="devnode-lab/debian13:2")
    assert fleet.labelled(one, "id") == fleet.labelled(same, "id")
    assert fleet.labelled(one, "id").labels != fleet.labelled(other, "id").labels
    assert fleet.labelled(one, "id").labels != fleet.labelled(one, "other id").labels


def test_only_the_bastion_is_in_both_networks() -> None:
    both = [machine.name for machine in fleet.MACHINES if len(machine.addresses) == 2]
    assert both == [fleet.BASTION]
    addresses = [address for machine in fleet.MACHINES for _, address in machine.addresses]
    assert len(set(addresses)) == len(addresses)
    for machine in fleet.MACHINES:
        for network, address in machine.addresses:
            assert address.rsplit(".", 1)[0] == fleet.SUBNETS[network].rsplit(".", 1)[0]


@pytest.mark.parametrize(
    "forward", ["127.0.0.1:24608 127.0.0.1:8888", "[127.0.0.1]:24608 [127.0.0.1]:8888", "24608 [::1]:8888"]
)
def test_the_summary_names_the_jupyter_forward(forward: str) -> None:
    assert (
        demo.jupyter_port(f"port 2201\nlocalforward 127.0.0.1:6006 127.0.0.1:6006\nlocalforward {forward}\n") == "24608"
    )


@pytest.mark.skipif(not shutil.which("gpg"), reason="the stand-in for NVIDIA's repositories is signed with gpg")
def test_two_that_need_a_stand_in_at_once_get_one(tmp_path: Path) -> None:
    argv = [sys.executable, str(Path(build.__file__)), str(tmp_path / "standins" / "nvidia")]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    assert [(one.communicate(timeout=120)[0], one.returncode) for one in both] == [("", 0), ("", 0)]
    facts = json.loads((tmp_path / "standins" / "nvidia" / "facts.json").read_text())
    assert facts["inputs"] == build.inputs_hash()
