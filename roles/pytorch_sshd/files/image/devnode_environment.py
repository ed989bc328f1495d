# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of every kind of session.

A session over ssh starts with a fresh one, so what the image and the workspace set would be missing there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from devnode_base import put


def container_environment() -> dict[str, str]:
    """What the engine gave the container's first process: the image's ENV and the workspace's own variables."""
    pairs = Path("/proc/1/environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def environment(given: Mapping[str, str], allow: Iterable[str]) -> dict[str, str]:
    """The variables that every session gets: those on the allow-list, printable ones only."""
    patterns = list(allow)
    return {
        name: given[name]
        for name in sorted(given)
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
        and any(fnmatchcase(name, pattern) for pattern in patterns)
        and given[name].isprintable()
    }


def sshd_setenv(variables: Mapping[str, str]) -> str:
    """All pairs on one line: sshd takes the first SetEnv only."""
    words = [f'"{name}={_backslashed(value)}"' for name, value in variables.items()]
    return f"SetEnv {' '.join(words)}\n" if words else ""


def _backslashed(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def profile(variables: Mapping[str, str]) -> str:
    """For login shells, whose /etc/profile sets PATH anew."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "# Written at the container's start from its environment.\n" + "\n".join([*lines, ""])


def pam_environment(variables: Mapping[str, str]) -> str:
    """/etc/environment, for what starts neither a login shell nor an sshd session: cron, su, sudo.

    Its format has no escapes, so a value with quotes, a backslash or # stays out; sshd and shells still have it.
    """
    plain = {name: value for name, value in variables.items() if not set(value) & set("\"'\\#")}
    return "".join(f'{name}="{value}"\n' for name, value in plain.items())


def sudoers(variables: Mapping[str, str]) -> str:
    """The same environment under sudo. It gives nobody a right."""
    lines = ["Defaults env_file=/etc/environment"]
    if "PATH" in variables:
        lines.append(f'Defaults secure_path="{_backslashed(variables["PATH"])}"')
    return "\n".join([*lines, ""])


def put_environment(variables: Mapping[str, str]) -> list[str]:
    """Every place that a kind of session takes its environment from."""
    places = (
        (Path("/etc/environment"), pam_environment(variables), 0o644),
        (Path("/etc/profile.d/zz-devnode.sh"), profile(variables), 0o644),
        (Path("/etc/sudoers.d/devnode"), sudoers(variables), 0o440),
    )
    return [str(path) for path, text, mode in places if put(path, text, mode)]
