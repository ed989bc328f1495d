# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host is one that the rest can work on: what it shows by plain sh, and what is wrong with that.

The probe needs no Python on the host and no root, so that a host without them gets a sentence instead of a stack trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence, Tuple

CHECKS = ("distribution", "systemd", "python", "sudo", "clock", "disk", "lock", "sources")
HEADER = "devnode-preflight"
# The modules' language; Debian 11 and Ubuntu 20.04 are the oldest that have it or a newer one.
OLDEST_PYTHON = (3, 9)
# Debian is what the scenarios run on; the others are written with care. See README.md.
DISTRIBUTIONS = {
    "debian": ("12", "13"),
    "ubuntu": ("22.04", "24.04"),
    "rhel": ("9",),
    "rocky": ("9",),
    "almalinux": ("9",),
    "centos": ("9",),
}
FAMILIES = {"debian": ("debian", "ubuntu"), "redhat": ("rhel", "rocky", "almalinux", "centos")}
# apt refuses lists "from the future", TLS certificates "not yet valid": five minutes is what Kerberos allows as well.
CLOCK_SECONDS = 300
# Package lists and packages of a bastion take about 400 MB. Images have a limit of their own (pytorch_sshd_min_free).
DISK_KIB = {"/": 1024 * 1024, "/var": 1024 * 1024, "/tmp": 50 * 1024}  # noqa: S108  the host's own
INODES = 5000

# One fact a line, fields parted by tabs. @PYTHONS@ is replaced.
PROBE = r"""
LC_ALL=C; export LC_ALL
say() { printf '%s\t' "$@"; echo; }
say devnode-preflight 1
if [ -r /etc/os-release ]; then (. /etc/os-release; say os "${ID:-}" "${VERSION_ID:-}"); fi
if [ -d /run/systemd/system ]; then say systemd; fi
for python in @PYTHONS@; do
  if command -v "$python" >/dev/null 2>&1; then
    say python "$python" "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1 | tail -n 1)"
    break
  fi
done
say user "$(id -un 2>/dev/null)" "$(id -u)"
if command -v sudo >/dev/null 2>&1; then
  if out=$(sudo -n true 2>&1); then say sudo ok; else say sudo refused "$(printf '%s' "$out" | tail -n 1)"; fi
fi
say time "$(date +%s)"
for place in / /var /tmp; do
  say disk "$place" "$(df -Pk "$place" 2>/dev/null | tail -n 1)" "$(df -Pi "$place" 2>/dev/null | tail -n 1)"
done
if [ -d /var/lib/devnode/file_set ]; then say known; fi
if grep -qs 'secret=/var/lib/devnode/totp/' /etc/pam.d/sshd; then say codes; fi
"""


@dataclass(frozen=True)
class Seen:
    """What the probe printed."""

    facts: Dict[str, List[str]] = field(default_factory=dict)
    disks: Tuple[Tuple[str, Optional[int], Optional[int]], ...] = ()  # place, free KiB, free inodes

    def get(self, name: str, index: int = 0) -> str:
        values = self.facts.get(name, [])
        return values[index] if index < len(values) else ""


def probe(pythons: List[str]) -> str:
    """The script; names of interpreters are words of sh, quoted by the caller."""
    return PROBE.replace("@PYTHONS@", " ".join(pythons))


def read(text: str) -> Optional[Seen]:
    """None when this is not what the probe prints: another shell, a banner that ends the session, nothing at all."""
    rows = [line.rstrip("\r").rstrip("\t").split("\t") for line in text.splitlines()]
    starts = [index for index, row in enumerate(rows) if row[0] == HEADER]
    if not starts:
        return None
    facts: Dict[str, List[str]] = {}
    disks: List[Tuple[str, Optional[int], Optional[int]]] = []
    for row in rows[starts[0] + 1 :]:
        if row[0] == "disk" and len(row) > 1:
            kib, inodes = (_available(row[index] if index < len(row) else "") for index in (2, 3))
            disks.append((row[1], kib, inodes))
        else:
            facts.setdefault(row[0], row[1:])
    return Seen(facts, tuple(disks))


def _available(line: str) -> Optional[int]:
    """The fourth column of df; file systems without inodes of their own say 0 of 0, or a dash."""
    words = line.split()
    numbers = [int(word) for word in words[-5:-2] if word.isdigit()]
    return numbers[2] if len(numbers) == 3 and numbers[0] else None


def problems(
    seen: Seen,
    now: float,
    become: str,
    skip: Tuple[str, ...] = (),
    families: Sequence[str] = tuple(FAMILIES),
    spread: float = 0,
    clock: int = CLOCK_SECONDS,
) -> List[str]:
    """Everything that is wrong, each with why it matters and what to do. `become`: "sudo" when it must not ask; `now`:
    when the host was asked for its time, give or take `spread` seconds; `clock`: by how many it may be off."""
    # Where codes are asked for already, a refusal would keep nobody in, and would keep from the host what puts its time
    # right, or takes somebody's access away.
    allowed = CLOCK_SECONDS if "codes" in seen.facts else clock
    found = {
        "distribution": _distribution(seen, families),
        "systemd": "" if "systemd" in seen.facts else _NO_SYSTEMD,
        "python": _python(seen),
        "sudo": _sudo(seen) if become == "sudo" else "",
        "clock": _clock(seen, now, spread, allowed),
        "disk": _disk(seen),
    }
    return [f"{name}: {text}" for name, text in found.items() if text and name not in skip]


def warnings(
    seen: Seen, now: float, skip: Tuple[str, ...] = (), spread: float = 0, clock: int = CLOCK_SECONDS
) -> List[str]:
    """What is wrong and no reason to stop."""
    if "clock" in skip or "codes" not in seen.facts or _clock(seen, now, spread, CLOCK_SECONDS):
        return []
    off = _clock(seen, now, spread, clock)
    return [off] if off else []


_NO_SYSTEMD = (
    "this host was not booted by systemd, which starts, orders and watches everything that is put there. "
    "A container or a chroot is no host: use a machine, or a container with systemd in it."
)


def _distribution(seen: Seen, families: Sequence[str]) -> str:
    name, version = seen.get("os"), seen.get("os", 1)
    known = {one: those for one, those in DISTRIBUTIONS.items() if any(one in FAMILIES[each] for each in families)}
    major = version if name in FAMILIES["debian"] else version.split(".")[0]
    if major in known.get(name, ()):
        return ""
    shown = f"{name} {version}".strip() or "unknown (there is no /etc/os-release)"
    listed = "; ".join(f"{one} {', '.join(those)}" for one, those in known.items())
    return (
        f'"{shown}" is not a distribution that this collection knows for such a host, and packages, paths and defaults '
        f"differ. Known: {listed}. Install one of these."
    )


def _python(seen: Seen) -> str:
    if "python" not in seen.facts:
        return (
            "there is no Python on this host, and Ansible's modules are written in it. Install it once: "
            "ansible HOST -b -m ansible.builtin.raw -a 'apt-get update && apt-get install -y python3'."
        )
    path, version = seen.get("python"), seen.get("python", 1)
    numbers = version.split(".")
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        return f"{path} does not run: {version or 'it printed nothing'}. Repair it, or set ansible_python_interpreter."
    if (int(numbers[0]), int(numbers[1])) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return (
            f"{path} is Python {version}; the modules need {oldest} or newer. Install a newer one beside it, and set "
            "ansible_python_interpreter to its path."
        )
    return ""


def _sudo(seen: Seen) -> str:
    user = seen.get("user")
    if seen.get("user", 1) == "0" or seen.get("sudo") == "ok":
        return ""
    if "sudo" not in seen.facts:
        return (
            f"there is no sudo on this host, and {user} is not root. Install it (as root: apt-get install sudo), or "
            "connect as root: ansible_user=root, where the host allows that."
        )
    answer = seen.get("sudo", 1)
    if "password" in answer:
        return (
            f"sudo asks {user} for a password, and none was given. Run ansible-playbook with --ask-become-pass, or "
            f"let the account do without (visudo -f /etc/sudoers.d/{user}): {user} ALL=(ALL) NOPASSWD:ALL"
        )
    return (
        f"sudo does not let {user} become root: {answer or 'it said nothing'}. Give the account that right, or connect "
        "with another one (ansible_user)."
    )


def _clock(seen: Seen, now: float, spread: float, allowed: int) -> str:
    shown = seen.get("time")
    if not shown.isdigit():
        return ""
    off = int(shown) - now
    if abs(off) - spread <= allowed:
        return ""
    side = "ahead of" if off > 0 else "behind"
    why = "Package lists and certificates are then refused as too old or not yet valid."
    if allowed < CLOCK_SECONDS:
        why = f"More than {allowed} seconds are too many for one-time codes: nobody who is asked for one would come in."
    return (
        f"the host's clock is {_duration(abs(off))} {side} the controller's. {why} Set it: "
        "timedatectl set-ntp true (or timedatectl set-time), and look "
        "which of the two is right."
    )


def _duration(seconds: float) -> str:
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} seconds"


def _disk(seen: Seen) -> str:
    found = []
    for place, free, inodes in seen.disks:
        needed = DISK_KIB.get(place, 0)
        if free is not None and free < needed:
            found.append(f"{place} has {free // 1024} MB free, and {needed // 1024} MB are needed")
        elif inodes is not None and inodes < INODES:
            found.append(f"{place} has {inodes} inodes free, and {INODES} are needed")
    if not found:
        return ""
    return (
        f"{'; '.join(found)}. An installation that runs out of space stops half-way. "
        "Look what fills it: du -xh / | sort -h | tail; often helps: apt-get clean, journalctl --vacuum-size=200M."
    )


@dataclass(frozen=True)
class Source:
    """A package source's host, how apt gets there, and what came of trying ("" is well)."""

    host: str
    port: int
    proxy: bool
    error: str


def sources_problem(tried: List[Source]) -> Tuple[str, str]:
    """What is wrong, and what is only worth a warning."""
    bad = [one for one in tried if one.error]
    if not bad:
        return "", ""
    shown = ", ".join(
        f"{'proxy ' if one.proxy else ''}{one.host}:{one.port} ({one.error})"
        for one in sorted(bad, key=lambda one: (one.host, one.port))
    )
    if len(bad) < len(tried):
        return "", f"Not all package sources of this host answer: {shown}. What comes from them cannot be installed."
    return (
        f"sources: none of this host's package sources can be reached: {shown}. Packages that are missing could not be "
        "installed. Give the host a route and a name server, a mirror that it reaches (/etc/apt/sources.list.d), or a "
        'proxy (/etc/apt/apt.conf.d/90proxy: Acquire::http::Proxy "http://proxy.example:3128";).'
    ), ""


def lock_problem(path: str, pid: int, program: str, waited: int) -> str:
    """Somebody else is installing."""
    who = f"{program or 'another program'}, process {pid}" if pid else "another program"
    return (
        f"lock: {path} is held by {who}, also after {waited} seconds. Two package managers cannot work at once. "
        "On a new machine that is the first upgrade: wait until it is done (systemctl list-jobs; ps), and run again."
    )
