# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How sshd is started, by its unit and as it runs: what stands on its command line wins over every file.

Part of the program that `sshd_check` is on hosts: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import getopt
import glob
import os
import re
import shlex
from dataclasses import dataclass

from ansible_collections.devnode.gpu.plugins.module_utils.sshd_files import Setting, canonical

# What a unit puts on sshd's command line wins over every file. The first of them that is there is the host's; what
# several directories have counts from the first.
UNITS = ("ssh.service", "sshd.service")
UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
# Options of sshd: of these, the ones that say something about its configuration go to sshd -T.
OPTIONS = "C:E:b:c:f:g:h:k:o:p:u:46DGQRTdeiqrtV"
CONFIGURING = ("-o", "-p", "-h", "-c", "-f", "-4", "-6")


@dataclass(frozen=True)
class Word:
    """One word of a command line, and the line that it comes from."""

    text: str
    path: str
    line: int


@dataclass(frozen=True)
class CommandLine:
    """What sshd was or will be started with: options for sshd -T, the settings among them, and the file it reads."""

    options: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    config: str = ""


def command_lines(root: str = "", proc: str = "/proc") -> list[CommandLine]:
    """How sshd will be started, and how the one that runs was, where that is something else."""
    unit, running = unit_command(root), running_command(proc)
    shown = [" ".join(word.text for word in words) for words in (unit, running)]
    return [understood(unit), *([understood(running)] if running and shown[0] != shown[1] else [])]


def understood(words: list[Word]) -> CommandLine:
    """What a command line says about the configuration."""
    try:
        pairs, _rest = getopt.getopt([word.text for word in words[1:]], OPTIONS)
    except getopt.GetoptError:
        pairs = []
    options: list[str] = []
    settings: list[Setting] = []
    config = ""
    for option, value in pairs:
        if option not in CONFIGURING:
            continue
        options += [option, value] if value else [option]
        config = value if option == "-f" else config
        parsed = re.match(r"([A-Za-z0-9]+)[=\s]\s*(.*)$", value if option == "-o" else f"port={value}")
        if option in ("-o", "-p") and parsed:
            source = next(word for word in words[1:] if word.text.endswith(value))
            settings.append(Setting(source.path, source.line, canonical(parsed.group(1)), parsed.group(2)))
    return CommandLine(tuple(options), tuple(settings), config)


def unit_command(root: str = "") -> list[Word]:
    """The words that the unit starts sshd with, where there is a unit."""
    lines = unit_lines(root)
    variables = _variables(lines, root)
    starts = [(value, path, number) for key, value, path, number in lines if key == "ExecStart"]
    if not starts or not starts[-1][0]:
        return []
    value, path, number = starts[-1]
    words = []
    for text in _split(value.lstrip("@-:+!")):
        whole = re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", text)
        known = variables.get(whole.group(1)) if whole else None
        if known:
            words += [Word(part, known.path, known.line) for part in _split(known.text)]
        elif not whole:
            text = re.sub(
                r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}",
                lambda name: variables.get(name.group(1), Word("", "", 0)).text,
                text,
            )
            words.append(Word(text.replace("%%", "%"), path, number))
    return words


def unit_lines(root: str = "") -> list[tuple[str, str, str, int]]:
    """KEY=VALUE of sshd's unit and of its drop-ins, in systemd's order, each with file and line."""
    found = [
        f"{place}/{unit}" for unit in UNITS for place in UNIT_DIRECTORIES if os.path.isfile(f"{root}{place}/{unit}")
    ]
    drop_ins: dict[str, str] = {}
    for place in UNIT_DIRECTORIES:
        # Debian's sshd.service is another name of ssh.service, and brings its drop-ins along.
        for unit in (*UNITS, "service"):
            for path in glob.glob(f"{root}{place}/{unit}.d/*.conf"):
                drop_ins.setdefault(os.path.basename(path), path[len(root) :])
    lines = []
    for path in [*found[:1], *(drop_ins[name] for name in sorted(drop_ins))] if found else []:
        lines += [(key, value, path, number) for number, key, value in _assignments(root + path)]
    return lines


def _assignments(path: str) -> list[tuple[int, str, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            lines = handle.read().splitlines()
    except OSError:
        return []
    found, whole, first = [], "", 0
    for number, line in enumerate(lines, 1):
        whole, first = (f"{whole} {line}", first) if whole else (line, number)
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        key, equals, value = whole.strip().partition("=")
        if equals and key[:1] not in ("#", ";", "["):
            found.append((first, key.strip(), value.strip()))
        whole = ""
    return found


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _variables(lines: list[tuple[str, str, str, int]], root: str) -> dict[str, Word]:
    """The environment that a unit gives; what comes from a file counts more."""
    found: dict[str, Word] = {}
    for key, value, path, number in lines:
        if key == "Environment":
            for pair in _split(value):
                name, _equals, text = pair.partition("=")
                found[name] = Word(text, path, number)
    for key, value, _path, _number in lines:
        if key == "EnvironmentFile":
            name = value.lstrip("-")
            for number, variable, text in _assignments(root + name):
                found[variable] = Word(" ".join(_split(text)), name, number)
    return found


def running_command(proc: str = "/proc") -> list[Word]:
    """The words that the sshd which listens now was started with, as its title shows them. Not that of a container."""
    for path in glob.glob(f"{proc}/[0-9]*/cgroup"):
        process = os.path.dirname(path)
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                units = [line.rstrip("\n").rsplit("/", 1)[-1] for line in handle]
            if not set(units) & set(UNITS) or os.readlink(f"{process}/ns/pid") != os.readlink(f"{proc}/self/ns/pid"):
                continue
            with open(f"{process}/cmdline", encoding="utf-8", errors="replace") as handle:
                title = handle.read().replace("\0", " ")
        except OSError:
            continue
        shown = re.match(r"sshd: (.*) \[listener\]", title)
        if shown:
            return [Word(text, f"{process}/cmdline", 1) for text in _rejoined(shown.group(1).split())]
    return []


def _rejoined(words: list[str]) -> list[str]:
    """Options with a space in them, which a title does not quote: the next word with a dash begins the next one."""
    found: list[str] = []
    for word in words:
        if len(found) > 1 and found[-2] == "-o" and not word.startswith("-"):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found
