# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# pylint: disable=ansible-bad-function  # is also a program of the host, which prints and exits
"""Who came to this bastion, from where, with which key, went where, when, and for how long.

Role bastion installs it as the command devnode-audit. It reads what devnode-audit.service wrote (audit_recorder.py):
standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

Record = dict[str, Any]

UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
VIEWS = {
    "connections": "where people went (the default)",
    "logins": "who logged in, and for how long",
    "refused": "what people asked for and did not get, and what the packet filter stopped",
    "failed": "logins that failed",
    "events": "every record as it was written",
}
REFUSED = ("denied", "blocked", "unexplained")
COLUMNS = {
    "connections": ("since", "user", "source", "key", "to", "address", "lasted"),
    "logins": ("since", "user", "source", "key", "method", "lasted"),
    "refused": ("since", "user", "source", "key", "event", "to", "address"),
    "failed": ("since", "user", "source", "key", "method"),
}
HEADS = {"since": "WHEN (UTC)", "user": "WHO", "source": "FROM", "to": "ASKED FOR", "lasted": "HOW LONG"}


def moment(text: str, now: datetime) -> datetime:
    """A time as people write it: 2h, 3d, 2026-11-22, "2026-11-22 10:30" (UTC), or with an offset."""
    ago = re.fullmatch(r"(\d{1,6})\s*(s|min|m|h|d|w)", text.strip())
    if ago:
        return now - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is not a time. Allowed: 90s, 15min, 2h, 3d, 1w (ago); 2026-11-22; "2026-11-22 10:30" (UTC)'
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def parse_time(text: str) -> datetime:
    """A record's time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def duration(seconds: float) -> str:
    """As people say it."""
    whole = int(seconds)
    if whole < 1:
        return "under 1 s"
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours < 1:
        return f"{minutes} min {whole % 60:02d} s"
    if days < 1:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24:02d} h"


def files(path: str, since: Optional[datetime]) -> list[str]:
    """The file and its older parts, oldest first; those that were finished before `since` are left out."""
    parts = [name for name in glob.glob(f"{glob.escape(path)}-*") if re.search(r"-\d{8}(-\d+)?(\.gz)?$", name)]
    found = [*sorted(parts), *([path] if os.path.exists(path) else [])]
    return [name for name in found if since is None or os.stat(name).st_mtime >= since.timestamp()]


def read(names: Iterable[str]) -> Iterator[Record]:
    """Every record. A line that was cut off is passed over."""
    for name in names:
        with gzip.open(name, "rt") if name.endswith(".gz") else open(name, encoding="utf-8") as handle:
            for line in handle:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict) and "time" in record:
                    yield record


def rows(records: Iterable[Record], view: str) -> list[Record]:
    """One row per connection or login: its beginning and its end are two records. What is open has no `seconds`."""
    found: dict[Any, Record] = {}
    begins, ends, name = ("open", "close", "connection") if view == "connections" else ("login", "logout", "session")
    for record in records:
        event = record.get("event")
        if (view, event) == ("failed", "failed") or (view == "refused" and event in REFUSED):
            found[json.dumps(record)] = record  # after a crash it may be there twice
        elif view in ("connections", "logins") and event in (begins, ends):
            # After a crash a record may be there twice: the name keeps it one.
            row = found.setdefault(record.get(name), {})
            row.update(record, since=record.get("since", record["time"]))
    plain = ({key: value for key, value in row.items() if key != "time"} for row in found.values())
    if view in ("failed", "refused"):
        plain = ({"since": row["time"], **row} for row in found.values())
    return sorted(plain, key=lambda row: str(row["since"]))


def wanted(record: Record, arguments: argparse.Namespace) -> bool:
    """Whether it is among what was asked for."""
    if arguments.user and record.get("user") != arguments.user:
        return False
    if arguments.source and record.get("source") != arguments.source:
        return False
    if arguments.key and record.get("key") != arguments.key:
        return False
    return not arguments.to or arguments.to in (record.get("to"), record.get("address"), _target(record))


def _in_time(row: Record, arguments: argparse.Namespace) -> bool:
    """Something counts as long as it lasted: what began before and was still open is in it."""
    began = parse_time(str(row.get("since", row.get("time"))))
    ended = began + timedelta(seconds=float(row["seconds"])) if "seconds" in row else None
    lasting = row.get("event") in ("open", "login")
    if arguments.until and began > arguments.until:
        return False
    return not arguments.since or lasting or (ended or began) >= arguments.since


def _target(record: Record) -> str:
    port = f":{record['to_port']}" if record.get("to_port") else ""  # a socket has none
    return f"{record['to']}{port}" if record.get("to") else ""


def cell(record: Record, column: str) -> str:
    """One field of the table."""
    if column == "since":
        return str(record["since"])[:19].replace("T", " ")
    if column == "to":
        return _target(record) or str(record.get("what", ""))
    if column == "address":
        return f"{record['address']}:{record['to_port']}" if record.get("address") else "-"
    if column == "lasted":
        seconds = record.get("seconds")
        text = "open" if seconds is None else duration(float(seconds))
        return text if record.get("reached", True) else "not reached"
    return str(record.get(column) or "-")


def table(found: list[Record], columns: tuple[str, ...]) -> str:
    """Aligned columns."""
    heads = [HEADS.get(column, column.upper()) for column in columns]
    lines = [heads, *[[_printable(cell(record, column)) for column in columns] for record in found]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join("  ".join(text.ljust(widths[at]) for at, text in enumerate(line)).rstrip() for line in lines)


def _printable(text: str) -> str:
    # Names and targets come from clients: nothing of them may steer a terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def main(argv: Optional[list[str]] = None) -> int:
    """0: something was found. 1: nothing. 2: the question or the file is not usable."""
    now = datetime.now(timezone.utc)

    def when(text: str) -> datetime:
        return moment(text, now)

    views = "\n".join(f"  {name:12} {what}" for name, what in VIEWS.items())
    parser = argparse.ArgumentParser(
        description=f"{(__doc__ or '').splitlines()[0]}\n\n{views}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("view", nargs="?", choices=list(VIEWS), default="connections")
    parser.add_argument(
        "--since", type=when, help="a time, such as 2h (ago), 2026-11-22, '2026-11-22 10:30'; all in UTC"
    )
    parser.add_argument("--until", type=when)
    parser.add_argument("--user", help="a login")
    parser.add_argument("--from", dest="source", help="the address that they came from")
    parser.add_argument("--key", help="a fingerprint, SHA256:…")
    parser.add_argument("--to", help="a target as asked for, its address, or host:port")
    parser.add_argument("--open", action="store_true", help="only what is open now")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--file", default="/var/log/devnode/audit.jsonl", help="where the records are")
    arguments = parser.parse_args(argv)
    # What began earlier may have ended within the time asked for, so records are cut by time only afterwards.
    try:
        records: Iterable[Record] = list(read(files(arguments.file, arguments.since)))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}. Only root and group adm may read it.", file=sys.stderr)
        return 2
    found = list(records) if arguments.view == "events" else rows(records, arguments.view)
    found = [row for row in found if wanted(row, arguments) and _in_time(row, arguments)]
    if arguments.open:
        found = [row for row in found if row.get("event") in ("open", "login")]
    if arguments.json or arguments.view == "events":
        print("".join(f"{json.dumps(row)}\n" for row in found), end="")
    elif found:
        print(table(found, COLUMNS[arguments.view]))
    else:
        print("Nothing.", file=sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
