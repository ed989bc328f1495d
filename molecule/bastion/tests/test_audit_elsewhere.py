# SPDX-License-Identifier: GPL-3.0-or-later
"""What a log server makes of the trail: GELF messages as they arrive, and the alert rules on what was written.

After test_audit.py, which has filled the trail, and made of everything that is refused a record.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import jinja2
import pytest
import yaml
from alert_rules import rules
from ansible_collections.devnode.gpu.plugins.module_utils import bastion_setup
from scenario_hosts import SCENARIO, address, root, wait_until

BASTIONS = ["bastion", "bastion13"]
ROLE = SCENARIO.parents[1] / "roles" / "bastion"
PORT = 12201
PLACE = "/root/gelf"
ARRIVED = "/root/gelf.raw"
# A name as a stranger may have typed it, and what a program may have logged.
ODD = 'x","_event":"login","_user":"\\ada\té'
LINES = ['quoted "twice" and \\ back', "tab\there, é and 漢", "Accepted publickey for ada"]
NUMBERS = ("uid", "source_port", "to_port", "seconds", "sent", "received")
TEXTS = ("event", "session", "connection", "user", "key", "method", "to", "address", "what")


def configuration(target: str) -> str:
    """The role's, for GELF: the inventory's scenario has the other formats. Nothing of it is put in place for good."""
    defaults = yaml.safe_load(Path(ROLE / "defaults" / "main.yml").read_text())
    server = {"host": target, "port": PORT, "name": "logs.lab.internal", "format": "gelf", "ca": "a"}
    server |= {"certificate": "b", "key": "c"}
    given = {name.removeprefix("bastion_"): value for name, value in defaults.items()}
    given |= {"log_server": server, "account": ""}
    plan = bastion_setup.setup(given, "/collection")
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True)  # noqa: S701
    text = environment.from_string((ROLE / "templates" / "ship.conf.j2").read_text()).render(setup=plan["variables"])
    for there, here in (("/var/spool/rsyslog", PLACE), ("/var/log/devnode", PLACE)):
        assert there in text
        text = text.replace(there, here)
    lines = f'input(type="imfile" File="{PLACE}/lines" Tag="sshd[12]:" Facility="auth" Severity="info")\n'
    return f'global(workDirectory="{PLACE}")\n{text}{lines}'


@pytest.fixture(scope="module")
def messages():
    """Everything that came as GELF from each bastion, and what was in its trail then."""
    target = address("target")
    root("target", f"systemd-run -q --collect --unit=gelf python3 /root/receiver.py {ARRIVED} logs {PORT}")
    root("target", f"until ss -Hltn | grep -q :{PORT}; do sleep 0.1; done")
    found = {}
    for bastion in BASTIONS:
        root("target", f": >{ARRIVED}")
        odd = {"time": "2026-01-01T00:00:00.000Z", "host": bastion, "event": "failed", "user": ODD, "source_port": 7}
        files = {"conf": configuration(target), "lines": "".join(f"{line}\n" for line in LINES)}
        puts = [f"cat >{PLACE}/{name} <<'END'\n{text}END" for name, text in files.items()]
        puts += [f"{{ devnode-audit --json events; cat; }} >{PLACE}/audit.jsonl <<'END'\n{json.dumps(odd)}\nEND"]
        root(bastion, "\n".join([f"install -d {PLACE}", *puts, f"rsyslogd -N1 -f {PLACE}/conf"]))
        trail = [json.loads(line) for line in root(bastion, f"cat {PLACE}/audit.jsonl").splitlines()]
        root(bastion, f"systemd-run -q --collect --unit=gelf rsyslogd -n -f {PLACE}/conf -i {PLACE}/pid")
        wait_until(lambda trail=trail: arrived(len(trail)), "everything has arrived")
        root(bastion, f"systemctl stop gelf; rm -r {PLACE}")
        found[bastion] = (root("target", f"cat {ARRIVED}"), trail)
    root("target", f"systemctl stop gelf; rm {ARRIVED}")
    return found


def arrived(records):
    text = root("target", f"cat {ARRIVED}")
    return text.count('"_audit":') >= records and text.count('"_program":"sshd"') >= len(LINES)


@pytest.mark.parametrize("bastion", BASTIONS)
def test_gelf_messages_are_valid_and_whole(bastion, messages):
    """GELF 1.1 over TCP: a JSON object each, and a zero byte behind it."""
    raw, trail = messages[bastion]
    *objects, rest = raw.split("\0")
    assert rest == ""
    assert "\n" not in raw
    seen = []
    for text in objects:
        one = json.loads(text, object_pairs_hook=once)
        assert one["version"] == "1.1"
        assert one["host"] == bastion
        assert one["short_message"].strip()
        assert time.time() - 86400 < one["timestamp"] <= time.time() + 1
        assert one["level"] in range(8)
        known = {"version", "host", "short_message", "timestamp", "level"}
        assert all(re.fullmatch(r"_[\w.-]+", name) and name != "_id" for name in set(one) - known)
        assert all(isinstance(value, (str, int, float)) for value in one.values())
        if one["_program"] == "devnode-audit":
            seen.append(one)
    assert [json.loads(one["_audit"]) for one in seen] == trail
    for one, record in zip(seen, trail, strict=True):
        assert one["_client"] == record.get("source", "")
        assert {name: one[f"_{name}"] for name in TEXTS} == {name: record.get(name, "") for name in TEXTS}
        assert {name: one.get(f"_{name}") for name in NUMBERS} == {name: record.get(name) for name in NUMBERS}
    text = [json.loads(text)["short_message"] for text in objects if '"_program":"sshd"' in text]
    assert [line.strip() for line in text] == LINES


def once(pairs):
    """A JSON object in which nothing is said twice."""
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


@pytest.mark.skipif(os.environ.get("DEVNODE_TESTS") != "full", reason="the full run: units try records that it wrote")
@pytest.mark.parametrize("bastion", BASTIONS)
def test_alert_rules_fire_on_what_they_are_for(bastion, messages):
    """On the trail, and on the same as Graylog has it. Nothing fires on mere comings and goings."""
    raw, trail = messages[bastion]
    graylog = [json.loads(text) for text in raw.split("\0") if '"_program":"devnode-audit"' in text]
    fields = [{name[1:]: value for name, value in one.items() if name.startswith("_")} for one in graylog]
    as_there = [{**one, "source": one["client"], "time": json.loads(one["audit"]).get("time")} for one in fields]
    usual = {"login", "logout", "open", "close"}
    for records in (trail, as_there):
        for name in ("a way around sshd", "a way in for others", "a shell where none should be"):
            rule = rules()[name]
            assert rule.fires(records), name
            assert not rule.fires([one for one in records if one["event"] in usual]), name
