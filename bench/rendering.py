# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes to make everybody's files, and ssh to read them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils.client_check import parse_views
from ansible_collections.devnode.gpu.plugins.module_utils.client_render import kit
from ansible_collections.devnode.gpu.plugins.module_utils.topology import Source, load
from ansible_collections.devnode.gpu.plugins.module_utils.topology_view import views

from bench import ROOT, measure
from bench.measure import BenchError

NODES, EACH, PEOPLE, OPERATORS = 1000, 3, 200, 5
ALIASES = 3000
JINJA_HOSTS = 1000
# How such roles usually do it: a loop over hosts, in it a loop over options.
JINJA = """\
{% for host in ssh_hosts %}
Host {{ host.aliases | join(' ') }}
{% for option in ['hostname', 'port', 'user', 'host_key_alias', 'jump'] %}
{% if host[option] is defined and host[option] | string | length > 0 %}
    {{ {'host_key_alias': 'HostKeyAlias', 'jump': 'ProxyJump'}.get(option, option | capitalize) }} {{ host[option] }}
{% endif %}
{% endfor %}
    IdentitiesOnly yes
    StrictHostKeyChecking yes
    ControlMaster auto
    ControlPath ~/.ssh/cm/%C
    ControlPersist 1800

{% endfor %}
"""


def key(name: str) -> str:
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + hashlib.sha256(name.encode()).digest()
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def source() -> Source:
    """An inventory: every person owns some workspaces and is a member of twice as many; five see all machines."""
    people = [f"p{number:03}" for number in range(PEOPLE)]
    nodes = [f"gpu-{number:04}" for number in range(NODES)]
    workspaces = [
        {
            "name": f"w{number}-{node}",
            "node": node,
            "port": 2201 + number,
            "owner": people[(index * EACH + number) % PEOPLE],
            "members": [people[(index * EACH + number + step) % PEOPLE] for step in (7, 70)],
        }
        for index, node in enumerate(nodes)
        for number in range(EACH)
    ]
    names = ["bastion", *nodes, *(f"{space['name']}.{space['node']}" for space in workspaces)]
    return Source(
        bastions={"bastion": {"devnode_address": "bastion.example.com", "devnode_ip": "203.0.113.10"}},
        nodes={name: {"devnode_address": f"10.1.{at // 250}.{at % 250 + 1}"} for at, name in enumerate(nodes)},
        users=[
            {"name": name, "uid": 2000 + at, "keys": [key(name)], "operator": at < OPERATORS}
            for at, name in enumerate(people)
        ],
        workspaces=workspaces,
        projects=[],
        allowed_networks=["198.51.100.0/24"],
        controllers=["198.51.100.5"],
        known_hosts="".join(f"{name} {key(name)}\n" for name in names),
    )


def everybody() -> Source:
    """The same, and everybody is a member of every workspace: the most that these numbers can mean."""
    found = source()
    people = [person["name"] for person in found.users]
    for workspace in found.workspaces:
        workspace["members"] = [name for name in people if name != workspace["owner"]]
    return found


def fleet(given: Source) -> dict[str, Any]:
    """From the inventory's values to the texts of everybody's kit."""
    found: dict[str, Any] = {}
    seconds = {"check the inventory": measure.clocked(lambda: found.update(topology=load(given)))}
    seconds["make the views"] = measure.clocked(lambda: found.update(views=views(found["topology"])[0]))
    seconds["check the views"] = measure.clocked(lambda: found.update(parsed=parse_views(found["views"])))
    parsed, errors = found["parsed"]
    if errors:
        raise BenchError("\n".join(errors[:5]))
    seconds["write the texts"] = measure.clocked(lambda: found.update(kits=[kit(view) for view in parsed]))
    return {
        "nodes": NODES,
        "workspaces": NODES * EACH,
        "people": PEOPLE,
        "entries": sum(len(view.entries) for view in parsed),
        "bytes": sum(len(each.content) for files in found["kits"] for each in files),
        "seconds": {name: round(taken, 2) for name, taken in seconds.items()},
        "total_seconds": round(sum(seconds.values()), 2),
    }


def one_view(hosts: int) -> dict[str, Any]:
    """Somebody with this many hosts."""
    names = ("bastion", *(f"w{number}" for number in range(hosts)))
    return {
        "person": "ada",
        "source": "bench",
        "jumps": [{"aliases": ["bastion"], "hostname": "b.example.com", "user": "ada", "host_key_alias": "bastion"}],
        "hosts": [
            {
                "aliases": [f"w{number}"],
                "hostname": f"10.1.{number // 250}.{number % 250 + 1}",
                "port": 2201,
                "user": "ada",
                "jump": "bastion",
                "host_key_alias": f"w{number}",
            }
            for number in range(hosts)
        ],
        "known_hosts": [{"names": [name], "keys": [key(name)]} for name in names],
    }


def reading(rounds: int) -> dict[str, Any]:
    """ssh -G on an empty file, and on one with 3,000 names: for one of them, and for a host that is not ours."""
    with tempfile.TemporaryDirectory(prefix="dnb-") as name:
        empty, full = Path(name) / "empty", Path(name) / "full"
        empty.write_text("")
        parsed, _ = parse_views([one_view(ALIASES)])
        full.write_text(next(found.content for found in kit(parsed[0]) if found.name == "config"))
        cases = {
            "empty file": (empty, "w0"),
            "last of them": (full, f"w{ALIASES - 1}"),
            "another host": (full, "other"),
        }
        taken: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(rounds):
            for case, (path, alias) in cases.items():
                taken[case].append(measure.timed(["ssh", "-G", "-F", str(path), alias]))
    return {
        "aliases": ALIASES,
        "rounds": rounds,
        "median_ms": {case: measure.ms(times) for case, times in taken.items()},
    }


def beside_jinja(say: Any) -> dict[str, Any]:
    """One person with 1,000 hosts, in Ansible: our role, and an ordinary template with a loop. The median of three."""
    say(f"    {JINJA_HOSTS} hosts in a playbook: this role, and a template with a loop")
    view = one_view(JINJA_HOSTS)
    with tempfile.TemporaryDirectory(prefix="dnb-") as name:
        folder = Path(name)
        (folder / "loop.j2").write_text(JINJA)
        template = {"src": str(folder / "loop.j2"), "dest": str(folder / "config"), "mode": "0600"}
        tasks = {
            "nothing": {"ansible.builtin.meta": "noop"},
            "a template with a loop": {"ansible.builtin.template": template},
            "this role": {"ansible.builtin.include_role": {"name": "devnode.gpu.ssh_client_config"}},
        }
        (folder / "vars.json").write_text(
            json.dumps(
                {
                    "ansible_python_interpreter": sys.executable,
                    "ssh_hosts": view["hosts"],
                    "ssh_client_config_views": [view],
                    "ssh_client_config_kits_dir": str(folder / "kits"),
                }
            )
        )
        taken: dict[str, list[float]] = {what: [] for what in tasks}
        for _ in range(3):
            for what, task in tasks.items():
                play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
                (folder / "play.json").write_text(json.dumps([play]))
                shutil.rmtree(folder / "kits", ignore_errors=True)
                (folder / "config").unlink(missing_ok=True)
                taken[what].append(measure.clocked(lambda: _playbook(folder)))
    return {
        "hosts": JINJA_HOSTS,
        "seconds": {what: round(measure.ms(times) / 1000, 2) for what, times in taken.items()},
    }


def _playbook(folder: Path) -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "--inventory=localhost,",
            f"--extra-vars=@{folder}/vars.json",
            str(folder / "play.json"),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise BenchError(done.stdout[-2000:] + done.stderr[-500:])


def run(rounds: int, say: Any) -> dict[str, Any]:
    say(f"    {NODES} nodes x {EACH} workspaces x {PEOPLE} people; then everybody in all of them")
    found = {"fleet": fleet(source()), "fleet_everybody": fleet(everybody())}
    return {**found, "ssh_reads": reading(rounds), "beside_jinja": beside_jinja(say)}


def text(result: dict[str, Any]) -> str:
    """The tables."""
    reads, jinja = result["ssh_reads"], result["beside_jinja"]
    fleets = result["fleet"], result["fleet_everybody"]
    steps = [[name, *(f"{each['seconds'][name]:.2f}" for each in fleets)] for name in fleets[0]["seconds"]]
    title = f"{fleets[0]['workspaces']} workspaces, {fleets[0]['people']} people: seconds"
    return "\n\n".join(
        (
            measure.table(
                [title, "a usual fleet", "everybody in all"],
                [
                    *steps,
                    ["together", *(f"{each['total_seconds']:.2f}" for each in fleets)],
                    ["entries", *(each["entries"] for each in fleets)],
                ],
            ),
            measure.table(
                [f"ssh -G, {reads['aliases']} names", "ms"],
                [[name, found] for name, found in reads["median_ms"].items()],
            ),
            measure.table(
                [f"a playbook for {jinja['hosts']} hosts", "seconds"],
                [[name, f"{found:.2f}"] for name, found in jinja["seconds"].items()],
            ),
        )
    )
