# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's fleet: a bastion, two GPU nodes, a client and the services, in two networks."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from . import hosts, images, keys, networks, people, services, standins, trust
from .paths import CACHE_DIR, LAB_DIR
from .shell import LabError, attempt, docker, step

PREFIX = "devnode-lab-"
SUBNETS = {"public": "10.203.10.0/24", "private": "10.203.20.0/24"}
SERVICES_ADDRESS = "10.203.20.30"
SERVICES, BASTION, CLIENT = "git", "bastion", "client"
SERVICE_NAMES = ("git.lab.internal", "registry.lab.internal", "packages.lab.internal")


@dataclass(frozen=True)
class Machine:
    name: str
    os: str
    addresses: tuple[tuple[str, str], ...]  # network and address; the first is how this machine reaches it
    gpus: bool = False


MACHINES = (
    Machine(SERVICES, "debian13", (("private", SERVICES_ADDRESS),)),
    Machine(BASTION, "debian12", (("public", "10.203.10.10"), ("private", "10.203.20.10"))),
    Machine("gpu-01", "debian13", (("private", "10.203.20.11"),), gpus=True),
    Machine("gpu-02", "debian13", (("private", "10.203.20.12"),), gpus=True),
    Machine(CLIENT, "debian13", (("public", "10.203.10.20"),)),
)


def more_nodes(count: int) -> tuple[Machine, ...]:
    """GPU nodes beside the demo's own, for measurements."""
    first = 1 + sum(machine.gpus for machine in MACHINES)
    return tuple(
        Machine(f"gpu-{number:02}", "debian13", (("private", f"10.203.20.{100 + number}"),), gpus=True)
        for number in range(first, first + count)
    )


def container(name: str) -> str:
    return PREFIX + name


def spec(machine: Machine) -> hosts.HostSpec:
    plain = hosts.HostSpec(
        container=container(machine.name),
        hostname=machine.name,
        os=machine.os,
        engine=machine.gpus,
        attachments=tuple(hosts.Attachment(PREFIX + network, address) for network, address in machine.addresses),
    )
    if machine.name == SERVICES:
        own = tuple((name, "127.0.0.1") for name in SERVICE_NAMES)
        return replace(plain, image=services.image(), mounts=services.mounts(), peers=own)
    inside = "private" in dict(machine.addresses)
    return replace(plain, name_servers=(SERVICES_ADDRESS,) if inside else networks.name_servers())


def lab_id() -> str:
    """Changes with every new `.lab`: hosts of an older one know other keys."""
    note = LAB_DIR / "id"
    if not note.exists():
        keys.write_private(note, secrets.token_hex(6) + "\n")
    return note.read_text().strip()


def labelled(one: hosts.HostSpec, identity: str) -> hosts.HostSpec:
    """The label by which `up` later sees whether this is still the host that it would make."""
    content = json.dumps([identity, asdict(one)], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return replace(one, labels=("devnode.fleet=1", f"devnode.fleet.dir={LAB_DIR}", f"devnode.fleet.spec={digest}"))


def up(facts: dict[str, dict[str, Any]]) -> None:
    """Bring up what is not up already. The services come first: the others ask them for names."""
    refuse_another_checkout()
    identity = lab_id()
    people.make_keys()
    project_key = people.project_key()
    for network, subnet in SUBNETS.items():
        networks.ensure(PREFIX + network, subnet, ("devnode.fleet=1",))
    images.ensure("debian12")
    specs = {machine.name: labelled(_resolved(machine), identity) for machine in MACHINES}
    recreated = [SERVICES] if _ensure(specs[SERVICES]) else []
    keys.write_private(LAB_DIR / "ca.crt", services.configure(container(SERVICES), project_key))
    others = [machine for machine in MACHINES if machine.name != SERVICES]
    with ThreadPoolExecutor(max_workers=len(others) + 1) as pool:
        pushed = pool.submit(services.push, container(SERVICES), facts["pytorch"])
        made = list(pool.map(lambda machine: _ensure(specs[machine.name], machine.gpus), others))
        digest = pushed.result()
    recreated += [machine.name for machine, new in zip(others, made, strict=True) if new]
    people.settle(container(CLIENT), people.OWNER)
    write_access(recreated)
    keys.write_private(LAB_DIR / "extra_ca.crt", trust.extra_certificates(container(SERVICES)))
    write_facts(facts, digest)


def grow(machines: Sequence[Machine]) -> None:
    """More hosts in a lab that is up."""
    identity = lab_id()
    specs = [labelled(_resolved(machine), identity) for machine in machines]
    with ThreadPoolExecutor(max_workers=4) as pool:
        made = list(pool.map(lambda pair: _ensure(pair[0], pair[1].gpus), zip(specs, machines, strict=True)))
    write_access([machine.name for machine, new in zip(machines, made, strict=True) if new], (*MACHINES, *machines))


def shrink(machines: Sequence[Machine]) -> None:
    hosts.end_masters(machine.addresses[0][1] for machine in machines)
    for machine in machines:
        hosts.down(container(machine.name))
    write_access([machine.name for machine in machines])


def _resolved(machine: Machine) -> hosts.HostSpec:
    plain = spec(machine)
    return plain if plain.image else replace(plain, image=images.ensure(plain.os))


def _ensure(one: hosts.HostSpec, gpus: bool = False) -> bool:
    """True when the host is new."""
    wanted = next(label for label in one.labels if label.startswith("devnode.fleet.spec="))
    if _label(one.container, "devnode.fleet.spec") == wanted.partition("=")[2]:
        if _state(one.container) != "running":
            docker("start", one.container)
            hosts.wait_booted(one.container)
        return False
    public_key = keys.ensure_key(LAB_DIR / keys.AUTOMATION, keys.AUTOMATION)
    with step(f"Host {one.hostname}"):
        hosts.down(one.container)
        hosts.up(one, public_key)
        if gpus:
            docker("exec", "-i", one.container, "sh", "-s", stdin=standins.hardware_script().read_text())
    return True


def _label(name: str, label: str) -> str:
    template = f'{{{{index .Config.Labels "{label}"}}}}'
    return attempt(["docker", "container", "inspect", "--format", template, name]).stdout.strip()


def _state(name: str) -> str:
    return attempt(["docker", "container", "inspect", "--format", "{{.State.Status}}", name]).stdout.strip()


def refuse_another_checkout() -> None:
    for machine in MACHINES:
        owner = _label(container(machine.name), "devnode.fleet.dir")
        if owner and owner != str(LAB_DIR):
            raise LabError(
                f"{container(machine.name)} belongs to the lab in {owner}, and a machine has room for one: "
                f"the addresses are the same. Take that one down first: DEVNODE_LAB_DIR={owner} tests/lab/lab.py down"
            )


def write_access(recreated: Iterable[str], machines: Sequence[Machine] = MACHINES) -> None:
    """known_hosts, ssh_config and the git server's key, as an admin would have them before the first run."""
    targets = []
    for machine in machines:
        jump = BASTION if machine.gpus else ""
        target = keys.Target(machine.name, machine.addresses[0][1], keys.read_host_key(container(machine.name)), jump)
        targets.append(target)
    record = LAB_DIR / "known_hosts"
    before = record.read_text() if record.exists() else ""
    keys.write_private(record, keys.merge_known_hosts(before, targets, set(recreated)))
    keys.write_private(LAB_DIR / "ssh_config", keys.ssh_config(targets, LAB_DIR))
    git_key = next(target.host_key for target in targets if target.name == SERVICES)
    keys.write_private(LAB_DIR / "git_host_key.pub", f"{git_key}\n")


def write_facts(facts: dict[str, dict[str, Any]], digest: str) -> None:
    """What inventory/lab reads. JSON is YAML."""
    located = {name: {**given, "url": f"{services.PACKAGES_URL}/{name}"} for name, given in facts.items()}
    reference = facts["pytorch"]["reference"]
    located["pytorch"]["image"] = f"{services.REGISTRY}/{reference}@{digest}"
    whole = {
        "packages_url": services.PACKAGES_URL,
        "registry": services.REGISTRY,
        "nofile": hosts.open_files(container(SERVICES)),
        "pip_index_url": trust.index_settings(trust.pip_listing()).get("index-url", ""),
        **located,
    }
    keys.write_private(LAB_DIR / "facts.yml", json.dumps(whole, indent=2, sort_keys=True) + "\n")


def down(with_images: bool = False) -> None:
    """Take everything away; images and caches only when asked."""
    refuse_another_checkout()
    hosts.end_masters(machine.addresses[0][1] for machine in MACHINES)
    people.leave()
    # Nodes that a measurement added and could not take away again are in our networks, too.
    left = docker("ps", "--all", "--filter", f"name=^/?{container('gpu-')}", "--format", "{{.Names}}").split()
    with ThreadPoolExecutor(max_workers=len(MACHINES)) as pool:
        list(pool.map(hosts.down, sorted({*left, *(container(machine.name) for machine in MACHINES)})))
    for network in SUBNETS:
        networks.remove(PREFIX + network)
    shutil.rmtree(LAB_DIR, ignore_errors=True)
    if with_images:
        images.remove_all()
        for folder in (services.REGISTRY_STORE, standins.FOLDER, CACHE_DIR / "locks"):
            shutil.rmtree(folder, ignore_errors=True)
        if CACHE_DIR.is_dir() and not any(CACHE_DIR.iterdir()):
            CACHE_DIR.rmdir()


def status() -> list[str]:
    """A line per host, and one for the agent."""
    lines = []
    for machine in MACHINES:
        state = _state(container(machine.name)) or "not there"
        places = ", ".join(f"{address} ({network})" for network, address in machine.addresses)
        lines.append(f"{machine.name:<8} {machine.os:<9} {state:<9} {places}")
    lines.append(f"agent    {'pid ' + str(people.agent_pid()) if people.agent_pid() else 'not there'}")
    return lines
