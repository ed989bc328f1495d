# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who works in a container, and when nobody minds if it is made anew."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable, List, Mapping, Set

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

WINDOW_RE = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


def in_window(window: str, minute: int) -> bool:
    """Whether a minute of the day lies in HH:MM-HH:MM, which may go over midnight. Never in an empty one."""
    if not window:
        return False
    found = WINDOW_RE.fullmatch(window)
    if not found:
        raise InvalidError("is not a window", "HH:MM-HH:MM, such as 02:00-05:00")
    hours, minutes, to_hours, to_minutes = (int(part) for part in found.groups())
    begin, end = hours * 60 + minutes, to_hours * 60 + to_minutes
    return begin <= minute < end if begin < end else minute >= begin or minute < end


@dataclass(frozen=True)
class Process:
    """One process of a container, as seen from the host."""

    uid: int
    started: str
    command: str


def parse_top(text: str) -> List[Process]:
    """`docker top NAME -eo uid,pid,lstart,args`."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split(None, 7)
        if len(words) == 8 and words[0].isdigit() and words[1].isdigit():
            found.append(Process(int(words[0]), words[5], words[7]))
    return found


JUPYTER_PROGRAMS = ("/opt/jupyter/bin/jupyter-lab", "/usr/local/bin/devnode-jupyter")
# What runs as root in every workspace. Anything else of root's was started with sudo, or by an operator.
OWN_PROGRAMS = re.compile(
    r"/usr/bin/tini|/usr/local/sbin/devnode-workspace|/usr/local/lib/devnode/.*|/usr/sbin/(sshd|cron|CRON)"
    r"|(/\S*/)?sshd(-[a-z]+)?:?"
)


def _program(command: str) -> str:
    """What a command line runs: its first word, or the script that a Python runs. Any other word is an argument."""
    first, second = [*command.split(None, 2), "", ""][:2]
    return second if second and re.fullmatch(r"python[0-9.]*", first.rsplit("/", 1)[-1]) else first


def busy(processes: Iterable[Process], logins: Mapping[int, str]) -> List[str]:
    """What people are doing in a container, in words. An idle JupyterLab is not a person's work."""
    found = []
    for process in processes:
        program = _program(process.command)
        if program in JUPYTER_PROGRAMS or 0 < process.uid < validators.UID_MIN:
            continue
        if process.uid == 0 and (OWN_PROGRAMS.fullmatch(program) or process.command.endswith("<defunct>")):
            continue
        command = process.command if len(process.command) <= 60 else process.command[:57] + "..."
        found.append(f"{logins.get(process.uid, process.uid or 'root')}: {command} (since {process.started})")
    return found


def who_left(logins: Mapping[int, str], people: "Iterable[str] | None") -> "Set[int]":
    """The uids of those who are nobody's colleague any more. Nobody is taken to have left when people are not known."""
    here = None if people is None else set(people)
    return {uid for uid, name in logins.items() if here is not None and uid >= validators.UID_MIN and name not in here}
