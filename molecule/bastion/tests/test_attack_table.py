# SPDX-License-Identifier: GPL-3.0-or-later
"""Every cell of tests/attack_table.py, tried from the client on both bastions; and what the log says of each.

In the gate, whoever gets no login is tried with a few rows, since none of them comes any further; in the full run
(DEVNODE_TESTS=full) with all.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from attack_table import COMMAND, LOGGED_IN, SESSION, TABLE, Column, Outcome, Row, outcome
from scenario_hosts import FOLDER, SCENARIO, address, connect, root, wait_until

FULL = os.environ.get("DEVNODE_TESTS") == "full"
BASTIONS = ("bastion", "bastion13")
OUTSIDE, ROUTED = "198.51.100.77", "198.51.100.9"
PERSONS, AUTOMATIONS = "10.203.255.98", "10.203.255.99"  # converge.yml names the second one
TRAIL = "/var/log/devnode/audit.jsonl"
# Login, key, and two logins of others.
WHO = {
    Column.STRANGER: ("ada", "wrong1", "ops", "automation"),
    Column.PERSON: ("ada", "ada", "ops", "automation"),
    Column.OPERATOR: ("ops", "ops", "ada", "automation"),
    Column.OPERATOR_ELSEWHERE: ("ops", "ops", "ada", "automation"),
    Column.AUTOMATION: ("automation", "automation", "ops", "ada"),
    Column.AUTOMATION_ELSEWHERE: ("automation", "automation", "ops", "ada"),
}
ONWARD = TABLE[0]
FIRST = (COMMAND, ONWARD)
PROGRAMS = ("attempts.py", "read.py")


@dataclass
class Attempt:
    """One try of one cell."""

    row: Row
    column: Column
    number: int
    login: str
    source: str
    environment: dict[str, str]
    text: str = ""

    @property
    def expected(self) -> Outcome:
        return self.row.cell(self.column)

    @property
    def script(self) -> str:
        script = self.row.tries[self.number]
        # Who gets no login has no connection to share.
        alone = re.match(r'\$SSH -O forward (.*?"\$HOST")', script)
        return f"$NEW -N -o ExitOnForwardFailure=yes {alone[1]}" if alone and self.column not in LOGGED_IN else script

    @property
    def place(self) -> str:
        """Where it wants to go, as the trail has it."""
        if not self.row.to:
            return ""
        name = self.row.to[self.number]
        for word in ("TARGET_HEX", "TARGET", "OTHER", "BASTION"):
            name = name.replace(f"${word}", self.environment[word])
        return name


def wanted(row: Row, column: Column) -> bool:
    """Whether this run tries it: whoever gets no login, or no connection, comes no further with any other row."""
    if FULL or column in LOGGED_IN:
        return FULL or row.cell(column) is not Outcome.NO_TALK
    if column is Column.STRANGER:
        return row in (COMMAND, ONWARD) or row.person in (Outcome.NO_LOGIN, Outcome.NO_TALK)
    return row is COMMAND or (row is ONWARD and column is not Column.OUTSIDE)


class Bastion:
    """Everything that was tried on one bastion, and what its logs said of it."""

    fresh = (f"10.203.{third}.{last}" for third in range(248, 254) for last in range(1, 255))
    numbers = itertools.count(20000)

    def __init__(self, name: str, places: dict[str, str]) -> None:
        self.name, self.places = name, {**places, "BASTION": address(name)}
        self.attempts = [
            one for row in TABLE for column in Column if wanted(row, column) for one in self._of(row, column)
        ]
        self.began = root(name, f"date +%s; wc -l < {TRAIL}; nft list chain inet devnode input").split("\n", 2)
        for column in LOGGED_IN:
            self._share(column)
        self._try()

    def _of(self, row: Row, column: Column) -> Iterator[Attempt]:
        who = [column] if column is not Column.OUTSIDE else [Column.STRANGER, *(LOGGED_IN if row is COMMAND else ())]
        for one in who:
            login, key, second, third = WHO[one]
            names = [login, "nosuchuser"] if column is Column.STRANGER and row.staff is not Outcome.NO_TALK else [login]
            for number, name in itertools.product(range(len(row.tries)), names):
                source = OUTSIDE if column is Column.OUTSIDE else self._source(row, column)
                options = self._options(column, key, source)
                shared = "none" if row.denied == SESSION and column is Column.PERSON else self._socket(column)
                environment = {
                    "OPTIONS": f"{options} -o User={name} -o ControlPath={shared}",
                    "SSH": f"ssh {options} -o User={name} -o ControlPath={shared}",
                    "NEW": f"ssh {options} -o User={name} -o ControlPath=none",
                    "AS": f"ssh {options} -o ControlPath=none",
                    "HOST": f"{self.name}-nobody",
                    "KEY": f"/root/kit/{key}",
                    "READ": "python3 /root/kit/read.py",
                    "SECOND": second,
                    "THIRD": third,
                    "N": str(next(self.numbers)),
                    **self.places,
                }
                yield Attempt(row, column, number, name, source, environment)

    def _source(self, row: Row, column: Column) -> str:
        """OpenSSH 10 soon stops answering an address that fails, so who fails has one of their own each time."""
        fails = row.cell(column) in (Outcome.NO_LOGIN, Outcome.NO_TALK)
        if column is Column.OPERATOR and row.cell(column) is not Outcome.NO_TALK:
            return self.places["CLIENT"]
        if column is Column.AUTOMATION and row.cell(column) is not Outcome.NO_TALK:
            return AUTOMATIONS
        return PERSONS if column is Column.PERSON and not fails else next(self.fresh)

    def _options(self, column: Column, key: str, source: str) -> str:
        patience = 3 if column is Column.OUTSIDE else 15
        return (
            f"-F /root/kit/config -o BindAddress={source} -o IdentityFile=/root/kit/{key} -o ConnectTimeout={patience}"
        )

    def _socket(self, column: Column) -> str:
        return f"/root/kit/{self.name}-{column.name}" if column in LOGGED_IN else "none"

    def _share(self, column: Column) -> None:
        """The connection that this kind of user works through."""
        one = next(one for one in self.attempts if one.column is column and one.row is ONWARD)
        words = one.environment["NEW"].replace("ControlPath=none", f"ControlPath={self._socket(column)}")
        # Kept open in the background, where it must not hold on to what this is waiting for.
        root(
            "client", f"{words} -f -N -M {self.name}-nobody >/root/kit/share 2>&1 || {{ cat /root/kit/share; exit 1; }}"
        )

    def _try(self) -> None:
        """Some at a time, the ones of a kind together."""
        for at in range(0, len(self.attempts), 120):
            some = self.attempts[at : at + 120]
            jobs = [{"script": one.script, "environment": one.environment, "seconds": 30} for one in some]
            script = f"cat > jobs <<'END'\n{json.dumps(jobs)}\nEND\npython3 /root/kit/attempts.py jobs"
            texts = json.loads(root("client", f"cd /root/kit/attack\n{script}"))
            for one, text in zip(some, texts, strict=True):
                one.text = text

    def records(self) -> list[dict[str, object]]:
        """What the audit trail has written since."""
        since = int(self.began[1]) + 1
        return [json.loads(line) for line in root(self.name, f"tail -n +{since} {TRAIL}").splitlines()]

    def journal(self) -> list[str]:
        """What sshd has said since."""
        words = f"journalctl -t sshd -t sshd-session --since=@{self.began[0]} --no-pager -o cat"
        return root(self.name, words).splitlines()

    def tried(self, column: Column, *outcomes: Outcome) -> list[Attempt]:
        return [one for one in self.attempts if one.column is column and (not outcomes or one.expected in outcomes)]


@pytest.fixture(scope="module")
def bastions():
    """All attempts, on both."""
    client, target = address("client"), address("target")
    kit = "".join(
        f"cat > /root/kit/{name} <<'END'\n{(SCENARIO / 'files' / name).read_text()}\nEND\n" for name in PROGRAMS
    )
    # Any of these addresses is the client's, without a line for each.
    local = "".join(f"ip route replace local {one} dev lo\n" for one in ("10.203.248.0/21", f"{OUTSIDE}/32"))
    # For a tunnel that the client could offer.
    device = "mkdir -p /dev/net; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200"
    root("client", f"rm -rf /root/kit/attack; mkdir /root/kit/attack\n{kit}{local}{device}")
    root(
        "target",
        f"systemctl is-active -q listen || systemd-run -q --unit=listen python3 -m http.server 9999\n"
        f"systemctl is-active -q metadata || systemd-run -q --unit=metadata python3 -m http.server 80\n"
        f"ip address replace 169.254.169.254/32 dev lo; ip address replace {ROUTED}/32 dev lo",
    )
    places = {
        "TARGET": target,
        "TARGET_HEX": "0x" + "".join(f"{int(part):02x}" for part in target.split(".")),
        "OTHER": client,
        "CLIENT": client,
    }
    for name in BASTIONS:
        root(name, f"ip route replace 10.203.248.0/21 via {client}; ip route replace 169.254.169.254/32 via {target}")
    yield {name: Bastion(name, places) for name in BASTIONS}
    for name in BASTIONS:
        root(name, "fail2ban-client unban --all >/dev/null; ip route del 169.254.169.254/32")
        for column in LOGGED_IN:
            root("client", f"ssh -S /root/kit/{name}-{column.name} -O exit {name}-nobody 2>/dev/null || true")
    root("client", f"ip route del local 10.203.248.0/21; ip route del local {OUTSIDE}/32")
    root(
        "target",
        f"ip address del 169.254.169.254/32 dev lo; ip address del {ROUTED}/32 dev lo; systemctl stop metadata",
    )


@pytest.mark.parametrize("column", Column, ids=lambda column: column.name)
@pytest.mark.parametrize("name", BASTIONS)
def test_what_comes_of_it(bastions, name, column):
    tried = bastions[name].tried(column)
    assert tried
    wrong = [
        f"{one.row.name} [{one.number}] as {one.login}: {came}, expected: {one.expected}"
        for one in tried
        for came in [outcome(one.row, one.text)]
        if came != one.expected
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("column", LOGGED_IN, ids=lambda column: column.name)
@pytest.mark.parametrize("name", BASTIONS)
def test_the_trail_has_it(bastions, name, column):
    """The login with its key; each connection that was made; each thing that was refused, by its name."""
    bastion, (login, key, *_others) = bastions[name], WHO[column]
    words = ["ssh-keygen", "-l", "-f", FOLDER / f"{key}.pub"]
    fingerprint = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[1]
    made = Counter(one.place for one in bastion.tried(column, Outcome.WORKS) if one.place)
    refused = Counter((one.row.denied, one.place) for one in bastion.tried(column, Outcome.REFUSED))

    def missing() -> str:
        mine = [row for row in bastion.records() if row.get("user") == login and row.get("key") == fingerprint]
        opened = Counter(_place(row) for row in mine if row["event"] == "open")
        denied = Counter((row.get("what"), _place(row)) for row in mine if row["event"] == "denied")
        logins = [row for row in mine if row["event"] == "login"]
        return "" if logins and not made - opened and not refused - denied else f"{made - opened} {refused - denied}"

    try:
        wait_until(lambda: not missing(), "the trail has it all", 30)
    except AssertionError:
        assert missing() == ""
        raise


def _place(row: dict[str, object]) -> str:
    host, port = str(row.get("to") or ""), row.get("to_port")
    return host if not port else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.mark.parametrize("column", Column, ids=lambda column: column.name)
@pytest.mark.parametrize("name", BASTIONS)
def test_sshds_log_has_who_got_no_login(bastions, name, column):
    """By the address that it came from, and by what kept it out."""
    bastion = bastions[name]
    tried = bastion.tried(column, Outcome.NO_LOGIN, Outcome.NO_TALK)
    # A stolen key is told apart from a wrong one.
    stolen = {
        Column.OPERATOR_ELSEWHERE: ("not from a permitted host", "not allowed from"),
        Column.AUTOMATION_ELSEWHERE: ("not allowed because listed in DenyUsers",),
    }.get(column, ("",))

    def missing() -> list[str]:
        lines = bastion.journal()
        found = []
        for one in tried:
            asked, there = _asked(one), re.compile(rf"(?<![0-9.]){re.escape(one.source)}(?![0-9.])")
            words = stolen if one.row in FIRST else ("",)
            if one.expected is Outcome.NO_TALK:
                words = ("Unable to negotiate",)
            # What a line says instead of a login, it says of an address that nobody else here comes from.
            here = [line for line in lines if there.search(line) and (asked in line or words != ("",))]
            if not any(word in line for word in words for line in here):
                found.append(f"{one.row.name} [{one.number}] as {asked} from {one.source}: {here}")
        return found

    try:
        wait_until(lambda: not missing(), "the log has each of them", 30)
    except AssertionError:
        assert missing() == []
        raise


def _asked(one: Attempt) -> str:
    """The login that the bastion was told."""
    words = one.row.tries[one.number].partition(" -l ")[2].split()
    name = words[0].strip('"') if words else one.login
    return one.environment.get(name.lstrip("$"), name)


@pytest.mark.parametrize("name", BASTIONS)
def test_who_comes_from_outside_is_dropped_in_silence(bastions, name):
    bastion = bastions[name]
    assert connect("client", bastion.places["BASTION"], 22, source=OUTSIDE) == "dropped"
    assert connect("client", bastion.places["BASTION"], 22) == "open"
    assert not [line for line in bastion.journal() if OUTSIDE in line]
    now = root(name, "nft list chain inet devnode input")
    assert _dropped(now) - _dropped(bastion.began[2]) >= len(bastion.tried(Column.OUTSIDE))


def _dropped(chain: str) -> int:
    (line,) = [line for line in chain.splitlines() if "everything else is dropped" in line]
    words = line.split()
    return int(words[words.index("packets") + 1])


@pytest.mark.parametrize("name", BASTIONS)
def test_a_bastion_is_no_router(bastions, name):
    """Not even where the kernel would forward: from an allowed address, and from outside."""
    bastion, target = bastions[name], bastions[name].places["TARGET"]
    root(name, f"ip route replace {ROUTED}/32 via {target}; sysctl -q -w net.ipv4.ip_forward=1")
    try:
        root("client", f"ip route replace {ROUTED}/32 via {target}")
        assert connect("client", ROUTED, 9999) == "open"
        root("client", f"ip route replace {ROUTED}/32 via {bastion.places['BASTION']}")
        before = _dropped(root(name, "nft list chain inet devnode forward"))
        assert connect("client", ROUTED, 9999) == "dropped"
        assert connect("client", ROUTED, 9999, source=OUTSIDE) == "dropped"
        assert _dropped(root(name, "nft list chain inet devnode forward")) >= before + 2
    finally:
        root("client", f"ip route del {ROUTED}/32")
        root(name, f"ip route del {ROUTED}/32; sysctl -q -p /etc/sysctl.d/zz-devnode-forwarding.conf")
