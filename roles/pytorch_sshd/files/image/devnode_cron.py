#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Your table of regular jobs, as crontab(1) has it.

  crontab FILE | crontab -     take the table from there
  crontab -e                   edit it
  crontab -l                   show it
  crontab -r                   take it away

It lies in ~/.config/devnode/crontab, so a new container has it too. Jobs get the variables of your sessions.
"""

# The crontab of the distribution cannot serve people here: it needs a group that it gains when it starts, and a
# workspace gives nobody new privileges; and what it writes goes with the container. So the container's main process
# reads each person's table as that person, puts the sessions' variables above it (cron sets a PATH of its own, and
# /etc/environment cannot say every value), has the real crontab check and install it, and leaves the answer to read.

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CRON = "/usr/sbin/cron"
REAL = "/usr/bin/crontab"
PLACE = ".config/devnode/crontab"
ANSWERS = Path("/run/devnode/crontabs")
LIMIT = 65536
LINE = 990  # cron reads 1,000 characters of a variable and takes the rest for a line of its own
PATIENCE = 45.0  # seconds; the main process looks every 5
AGAIN = 10.0  # seconds between two starts of cron


# --- the main process's side ------------------------------------------------------------------------------------------


def assignment(name: str, value: str) -> str:
    """One variable as cron reads it: quotes of either kind around the value, and nothing that escapes. Or nothing."""
    quote = next((mark for mark in "\"'" if mark not in value), "")
    if not quote and (value[:1] in "\"'" or value != value.strip()):
        return ""
    line = f"{name}={quote}{value}{quote}"
    return f"{line}\n" if len(line.encode()) <= LINE else ""


def head_of(variables: Mapping[str, str]) -> str:
    """What every table begins with; the person's own lines come later, so they win."""
    return "".join(assignment(name, value) for name, value in variables.items())


def in_their_lines(said: str, above: int) -> str:
    """crontab's complaint, with the numbers that the lines have in the person's own file."""
    # It counts from 0.
    text = re.sub(r'^"?-"?:(\d+):', lambda found: f"line {int(found[1]) + 1 - above}:", said, flags=re.MULTILINE)
    return "\n".join(line for line in text.strip().splitlines() if not line.startswith("errors in crontab file"))


def read_as(uid: int, path: Path) -> str | None:
    """A person's file, read with their rights: root would follow their links anywhere."""
    words = ["head", "-c", str(LIMIT + 1), "--", str(path)]
    try:
        done = subprocess.run(
            words, user=uid, group=uid, extra_groups=[], capture_output=True, timeout=2, check=False, cwd="/"
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def install(login: str, text: str | None) -> str:
    """Hand a table to cron, or take it away; what is wrong with it, in words."""
    words = [REAL, "-u", login, "-"] if text is not None else [REAL, "-u", login, "-r"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 or text is None else (done.stderr or done.stdout).strip() or "crontab refused it"


class Crontabs:
    """Keeps cron running, and its tables as people have them at home."""

    def __init__(
        self,
        home: Callable[[str], Path] = lambda login: Path("/home") / login,
        read: Callable[[int, Path], str | None] = read_as,
        give: Callable[[str, str | None], str] = install,
        answers: Path = ANSWERS,
    ) -> None:
        self.home, self.read, self.give, self.answers = home, read, give, answers
        self.seen: dict[str, tuple[Any, ...]] = {}
        self.cron: subprocess.Popen[bytes] | None = None
        self.after = 0.0  # when cron may be started again

    def tend(self, people: Mapping[str, int], variables: Mapping[str, str]) -> None:
        """Once every few seconds."""
        if not Path(CRON).exists():
            return
        for login in [gone for gone in self.seen if gone not in people]:
            self.drop(login)
        for login, uid in people.items():
            self._tend_one(login, uid, head_of(variables))
        if (self.cron is None or self.cron.poll() is not None) and time.monotonic() >= self.after:
            self.after = time.monotonic() + AGAIN
            self.cron = subprocess.Popen([CRON, "-f"], stdin=subprocess.DEVNULL, start_new_session=True, cwd="/")

    def stop(self) -> None:
        """No new jobs; those that run go on."""
        if self.cron is not None and self.cron.poll() is None:
            self.cron.terminate()

    def drop(self, login: str) -> None:
        """Who has left starts nothing here any more. Their own file stays in their home."""
        self.seen.pop(login, None)
        (self.answers / login).unlink(missing_ok=True)
        Path("/var/spool/cron/crontabs", login).unlink(missing_ok=True)

    def _tend_one(self, login: str, uid: int, head: str) -> None:
        path = self.home(login) / PLACE
        try:
            found = path.stat()
            state: tuple[Any, ...] = (found.st_ino, found.st_mtime_ns, found.st_size, stat.S_ISREG(found.st_mode), head)
        except OSError:
            state = (None, head)
        if self.seen.get(login) == state:
            return
        text = self.read(uid, path) if state[0] is not None and state[3] else None
        if text is not None and len(text) > LIMIT:
            self._answer(login, uid, text, f"it is longer than {LIMIT} characters")
        elif text is None:
            self.give(login, None)
            (self.answers / login).unlink(missing_ok=True)
        else:
            said = self.give(login, head + text)
            self._answer(login, uid, text, in_their_lines(said, head.count("\n")))
        # Last: what could not be done this time is done the next.
        self.seen[login] = state

    def _answer(self, login: str, uid: int, text: str, error: str) -> None:
        self.answers.mkdir(mode=0o755, exist_ok=True)
        new = self.answers / f".{login}.new"
        new.write_text(json.dumps({"table": digest(text), "error": error}))
        os.chown(new, 0 if os.getuid() == 0 else -1, uid if os.getuid() == 0 else -1)
        new.chmod(0o640)
        new.replace(self.answers / login)


def digest(text: str) -> str:
    """Names a table."""
    return hashlib.sha256(text.encode()).hexdigest()


# --- people's side ----------------------------------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """Run one of the commands."""
    if os.getuid() == 0:
        os.execv(REAL, [REAL, *argv])  # noqa: S606 - no shell
    path = Path.home() / PLACE
    text = path.read_text() if path.exists() else ""
    try:
        if argv == ["-l"]:
            sys.stdout.write(text)
            return 0 if path.exists() else _say(f"no crontab for {_me()}")
        if argv == ["-r"]:
            path.unlink(missing_ok=True)
            return 0
        if argv == ["-e"]:
            new = edited(text)
            return 0 if new == text else put(path, new)
        if len(argv) == 1 and (argv[0] == "-" or not argv[0].startswith("-")):
            return put(path, sys.stdin.read() if argv[0] == "-" else Path(argv[0]).read_text())
    except OSError as exc:
        return _say(str(exc))
    print(__doc__, file=sys.stderr)
    return 2


def put(path: Path, text: str, answers: Path = ANSWERS, patience: float = PATIENCE) -> int:
    """Keep the table, and wait for what cron says to it."""
    if not Path(CRON).exists():
        return _say("there is no cron in this image (pytorch_sshd_packages)")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            said = json.loads((answers / _me()).read_text())
        except (OSError, ValueError):
            said = {}
        if said.get("table") == digest(text):
            return _say(f"refused, the one before it stays in force:\n{said['error']}") if said["error"] else 0
        time.sleep(0.2)
    return _say(f"no answer; the table is kept in {path} all the same")


def edited(text: str) -> str:
    """The table as its person leaves it."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "nano"
    with tempfile.NamedTemporaryFile("w+", suffix=".crontab") as draft:
        draft.write(text)
        draft.flush()
        subprocess.run(["sh", "-c", f'{editor} "$1"', "sh", draft.name], check=False)
        return Path(draft.name).read_text()


def _me() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _say(text: str) -> int:
    print(f"crontab: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
