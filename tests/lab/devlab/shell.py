# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands, progress lines and the one kind of error that people see."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class LabError(Exception):
    """What is wrong, why it matters, what to do. Printed without a stack trace."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step that takes a while, and say how long it took."""
    say(f"==> {title}")
    started = time.monotonic()
    yield
    say(f"    {title}: {time.monotonic() - started:.0f} s")


def attempt(
    argv: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command, keep what it says. A time-out and a missing program count as failures."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            env=env,
            cwd=cwd,
            timeout=timeout,
        )
    except FileNotFoundError as exc:
        return subprocess.CompletedProcess(words, 127, "", str(exc))
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"no end after {timeout} s")
    return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run a command that must succeed; return what it printed."""
    done = attempt(argv, stdin=stdin, env=env, cwd=cwd, timeout=timeout)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise LabError(f"{' '.join(done.args)}\nended with {done.returncode}:\n{said}")
    return done.stdout


def docker(*words: str | Path, stdin: str | bytes | None = None, timeout: float | None = None) -> str:
    return run(["docker", *words], stdin=stdin, timeout=timeout)


def wait_for(what: str, ready: Callable[[], bool], seconds: float, pause: float = 0.2) -> None:
    """Ask again until it is so."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise LabError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(pause)
