#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who can do what on a bastion, as a table: what is tried, as whom, from where, and what has to come of it.

molecule/bastion/tests/test_attack_table.py tries every cell on hosts. docs/security-model.md shows the table; `make
docs` writes it again, and tests/unit/test_attack_table.py fails while it differs.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "security-model.md"
BEGIN = "<!-- attack table: from tests/attack_table.py, by `make docs` -->"
END = "<!-- end of the attack table -->"


class Outcome(StrEnum):
    """What comes of an attempt."""

    WORKS = "**works**"
    REFUSED = "refused"  # logged in, and this is refused
    WITHOUT = "left out"  # the session works, and this does not come along
    NO_LOGIN = "no login"
    NO_TALK = "no connection"  # there is no algorithm to agree on
    SILENCE = "no answer"  # the packet filter


class Column(StrEnum):
    """As whom, and from where."""

    STRANGER = "a stranger"
    PERSON = "a person"
    OPERATOR = "an operator"
    OPERATOR_ELSEWHERE = "an operator's key elsewhere"
    AUTOMATION = "Ansible"
    AUTOMATION_ELSEWHERE = "Ansible's key elsewhere"
    OUTSIDE = "anybody from outside"


WORKS, REFUSED, WITHOUT, NO_LOGIN, NO_TALK, SILENCE = Outcome
NOT_IN = (Column.STRANGER, Column.OPERATOR_ELSEWHERE, Column.AUTOMATION_ELSEWHERE)
LOGGED_IN = (Column.PERSON, Column.OPERATOR, Column.AUTOMATION)


@dataclass(frozen=True)
class Row:
    """One kind of attempt: in how many ways it is made, how to tell that it worked, and what the log has to say.

    `tries` are shell scripts. They know $SSH (shares the connection of its kind of user), $NEW (opens one), $AS (the
    same, with a login still to be named), $OPTIONS (those of $SSH, for sftp and scp), $HOST, $KEY, $N (a number of its
    own), $TARGET, $TARGET_HEX (the listed target, written in another way), $OTHER (a host off the list), $BASTION,
    $SECOND and $THIRD (logins of others), $READ (molecule/bastion/files/read.py).
    `denied` is what the audit trail calls it when it is refused; `to` the place that it names.
    """

    name: str
    tries: tuple[str, ...]
    works: str
    person: Outcome
    staff: Outcome  # operators, and Ansible
    denied: str = ""
    to: tuple[str, ...] = ()  # one for each try

    def cell(self, column: Column) -> Outcome:
        """What has to come of it."""
        if column is Column.OUTSIDE or self.person is SILENCE:
            return SILENCE
        if column is Column.PERSON:
            return self.person
        if column in NOT_IN:
            return NO_TALK if self.staff is NO_TALK else NO_LOGIN
        return self.staff


IN = 'echo "in:$(id -un)"'
WHO = r"in:(ada|ops|automation)\b"
SESSION = "shell, command or subsystem"


def _onward(name: str, places: tuple[str, ...], works: str, person: Outcome, ask: str = "") -> Row:
    """Connections through the bastion, with `ssh -W`."""
    words = f"printf '{ask}'" if ask else ":"
    tries = tuple(f'{words} | $SSH -W "{place}" "$HOST"' for place in places)
    return Row(name, tries, works, person, WORKS, "connection", places)


def _session(name: str, script: str, works: str = WHO) -> Row:
    return Row(name, (script,), works, REFUSED, WORKS, SESSION)


def _login(name: str, options: tuple[str, ...]) -> Row:
    """What nobody gets in with, whoever they say they are."""
    return Row(name, tuple(f'$NEW {one} "$HOST" {IN!r}' for one in options), WHO, NO_LOGIN, NO_LOGIN)


METHODS = ("password", "keyboard-interactive", "hostbased", "gssapi-with-mic", "none")
# One line each that no client of today needs. A server that takes it can be talked down to it.
OLD = (
    "-o KexAlgorithms=diffie-hellman-group14-sha1",
    "-o KexAlgorithms=diffie-hellman-group-exchange-sha1",
    "-o KexAlgorithms=ecdh-sha2-nistp256",
    "-o Ciphers=aes128-cbc",
    "-o Ciphers=3des-cbc",
    # AES-GCM and ChaCha20 need no MAC, so it is asked for with a cipher that does and that the server takes.
    "-o Ciphers=aes256-ctr -o MACs=hmac-sha1",
    "-o Ciphers=aes256-ctr -o MACs=hmac-sha2-256",
    "-o HostKeyAlgorithms=ssh-rsa",
    "-o HostKeyAlgorithms=ecdsa-sha2-nistp256",
)
NEVER = r"(?!)"  # it would stay open, and say nothing
HTTP = r"HEAD / HTTP/1.0\r\n\r\n"
SOCKS = '$SSH -O forward -D "127.0.0.1:$N" "$HOST"; $READ socks $N {}; $SSH -O cancel -D "127.0.0.1:$N" "$HOST"'
COMMAND = _session("a command", f"$SSH \"$HOST\" '{IN}'")

TABLE = (
    _onward("`-W` and `ProxyJump` to a listed target", ("$TARGET:22",), r"SSH-2\.0", WORKS),
    Row(
        "`-D`, to a listed target",
        (SOCKS.format("$TARGET 22"),),
        r"got: b'SSH-2\.0",
        WORKS,
        WORKS,
    ),
    _session("a shell", f"echo '{IN}' | $SSH -T \"$HOST\""),
    _session("a terminal", f"printf '%s\\nexit\\n' '{IN}' | $SSH -tt \"$HOST\""),
    COMMAND,
    _session(
        "a subsystem",
        r"""(printf '\0\0\0\5\1\0\0\0\3'; sleep 1) | $SSH -s "$HOST" sftp | od -An -tx1; echo""",
        "00 00 .. .. 02 00 00 00 03",
    ),
    _session("sftp", 'echo pwd | sftp $OPTIONS -b - "$HOST"', "Remote working directory"),
    _session("scp", 'scp $OPTIONS "$HOST:/etc/hostname" "stolen-$N" && echo copied', "copied"),
    _onward("another host", ("$OTHER:22",), r"SSH-2\.0", REFUSED),
    Row(
        "`-L` to another host",
        (
            '$SSH -O forward -L "$PWD/l-$N:$OTHER:22" "$HOST"; $READ unix "l-$N"; '
            '$SSH -O cancel -L "$PWD/l-$N:$OTHER:22" "$HOST"',
        ),
        r"got: b'SSH-2\.0",
        REFUSED,
        WORKS,
        "connection",
        ("$OTHER:22",),
    ),
    _onward("another port of a listed host", ("$TARGET:9999",), "HTTP/1", REFUSED, HTTP),
    _onward("a listed target, written in another way", ("$TARGET_HEX:22",), r"SSH-2\.0", REFUSED),
    _onward(
        "the bastion's own ports",
        ("127.0.0.1:22", "localhost:22", "[::1]:22", "$BASTION:22"),
        r"SSH-2\.0",
        REFUSED,
    ),
    _onward("the metadata address", ("169.254.169.254:80",), "HTTP/1", REFUSED, HTTP),
    Row(
        "`-D`, to anything else",
        (SOCKS.format("$TARGET 9999"),),
        "got: b'HTTP/1",
        REFUSED,
        WORKS,
        "connection",
        ("$TARGET:9999",),
    ),
    Row(
        "`-R`, a port",
        tuple(
            f'$SSH -O forward -R {at}:127.0.0.1:22 "$HOST" && echo open'
            for at in ("9002", "0.0.0.0:9003", "localhost:0")
        ),
        r"\bopen$",
        REFUSED,
        REFUSED,
        "remote forwarding",
    ),
    Row(
        "`-R`, a socket",
        ('$SSH -O forward -R "/run/back-$N:127.0.0.1:22" "$HOST" && echo open',),
        r"\bopen$",
        REFUSED,
        REFUSED,
        "remote forwarding to a socket",
    ),
    Row(
        "a socket of the bastion",
        (
            '$SSH -O forward -L "$PWD/s-$N:/run/dbus/system_bus_socket" "$HOST"; $READ bus "s-$N"; '
            '$SSH -O cancel -L "$PWD/s-$N:/run/dbus/system_bus_socket" "$HOST"',
        ),
        "got: b'.+'",
        REFUSED,
        REFUSED,
        "socket",
        ("/run/dbus/system_bus_socket",),
    ),
    Row(
        "a tunnel",
        tuple(
            f'$NEW -N -w any:any -o Tunnel={kind} -o ExitOnForwardFailure=yes "$HOST"'
            for kind in ("point-to-point", "ethernet")
        ),
        NEVER,
        REFUSED,
        REFUSED,
        "tunnel",
    ),
    Row(
        "agent forwarding",
        (
            'eval $(ssh-agent) >/dev/null; ssh-add -q "$KEY"; '
            '$NEW -A "$HOST" \'echo "agent=${SSH_AUTH_SOCK:-none}"\'; ssh-agent -k >/dev/null',
        ),
        "agent=/",
        REFUSED,
        WITHOUT,
        SESSION,
    ),
    Row(
        "X11 forwarding",
        ('DISPLAY=:7 $NEW -X "$HOST" \'echo "screen=${DISPLAY:-none}"\'',),
        "screen=[^n]",
        REFUSED,
        WITHOUT,
        SESSION,
    ),
    Row(
        "variables smuggled in",
        (
            '$NEW -o "SetEnv=LD_PRELOAD=/none.so PYTHONPATH=/none BASH_ENV=/none DEVNODE_X=1" "$HOST" '
            "'echo smuggled=$(env | grep -cE \"^(LD_PRELOAD|PYTHONPATH|BASH_ENV|DEVNODE_X)=\")'",
        ),
        "smuggled=[1-9]",
        REFUSED,
        WITHOUT,
        SESSION,
    ),
    Row(
        "one's own key, as somebody else",
        tuple(f'$AS -l {login} "$HOST" {IN!r}' for login in ("root", "grace", '"$SECOND"', '"$THIRD"')),
        WHO,
        NO_LOGIN,
        NO_LOGIN,
    ),
    _login(
        "a password, keyboard-interactive, hostbased, GSSAPI, nothing",
        tuple(f"-o PubkeyAuthentication=no -o PreferredAuthentications={method} -o BatchMode=no" for method in METHODS),
    ),
    Row(
        "old algorithms (key exchange, cipher, MAC, host key)",
        tuple(f'$NEW {one} "$HOST" {IN!r}' for one in OLD),
        WHO,
        NO_TALK,
        NO_TALK,
    ),
    # No login is needed to try that: it has a test of its own.
    Row("packets routed through the bastion", (), NEVER, SILENCE, SILENCE),
)


def outcome(row: Row, text: str) -> str:
    """What came of an attempt, by what it printed; the text itself where that says nothing."""
    left_out = {
        "agent forwarding": "agent=none",
        "X11 forwarding": "screen=none",
        "variables smuggled in": "smuggled=0",
    }
    signs = (
        (WORKS, row.works),
        (NO_TALK, "no matching"),
        (NO_LOGIN, r"Permission denied \(publickey"),
        (WITHOUT, left_out.get(row.name, NEVER)),
        (SILENCE, "Connection timed out"),
        (
            REFUSED,
            r"administratively prohibited|open failed|refused by peer|not permitted|forwarding (request )?failed"
            r"|got: b''|[Tt]unnel",
        ),
    )
    for found, sign in signs:
        if re.search(sign, text, re.MULTILINE):
            return found
    return f"? {text}"


def markdown() -> str:
    """The table as the page has it."""
    lines = ["| | " + " | ".join(column.value for column in Column) + " |", "|" + "---|" * (len(Column) + 1)]
    lines += [f"| {row.name} | " + " | ".join(row.cell(column).value for column in Column) + " |" for row in TABLE]
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with the table in it."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{BEGIN} and {END} have to stand in the page")
    return f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{after}"


def main() -> int:
    """Write it again."""
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
