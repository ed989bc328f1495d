# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a value in a client view may look like: times, versions, paths, patterns. Made like those of validators."""

from __future__ import annotations

import re
from typing import Any, Dict, Optional, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

PLATFORMS = ("linux", "macos", "windows")
KINDS = ("workspace", "host")
MARKERS = ("", "@cert-authority", "@revoked")
TTY = ("no", "yes", "force", "auto")

# Name of a profile -> seconds that a shared connection stays after its last use; None: connections are not shared.
PROFILES: Dict[str, Optional[int]] = {"interactive": 1800, "ci": 60, "high_security": None, "no": None}
MAX_PERSIST = 24 * 3600  # a shared connection that outlives a day is one that nobody remembers
MAX_LIFETIME = 7 * 24 * 3600

# Local ports are chosen here: above the well-known ones, below those that systems hand out to outgoing connections.
FIRST_LOCAL_PORT, LOCAL_PORTS = 20000, 10000

# A client whose version is not declared is taken to be at least this: Debian 11, RHEL 9, supported macOS and Windows.
UNDECLARED_OPENSSH = (8, 4)
OLDEST_OPENSSH = (8, 0)

_VERSION = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})(?:p[0-9]{1,2})?")
_DURATION = re.compile(r"(?:[0-9]{1,6}[smh]?)+")
_DURATION_PART = re.compile(r"([0-9]{1,6})([smh]?)")
_PATTERN = re.compile(r"[a-z0-9?*._-]{1,253}")
_PATTERN_HOSTNAME = re.compile(r"(?:[a-z0-9.-]|%h){1,253}")


def seconds(text: str) -> Optional[int]:
    """The seconds in a time as ssh writes it ("1800", "30m", "1h30m"), or None when it is no time."""
    if not _DURATION.fullmatch(text):
        return None
    unit = {"": 1, "s": 1, "m": 60, "h": 3600}
    return sum(int(number) * unit[letter] for number, letter in _DURATION_PART.findall(text))


def version(text: str) -> Tuple[int, int]:
    """(9, 2) for "9.2" or "9.2p1"."""
    found = _VERSION.fullmatch(text)
    if not found:
        raise InvalidError("is no OpenSSH version", 'such as "9.2", in quotes')
    return int(found.group(1)), int(found.group(2))


def home_path(value: Any) -> str:
    """An absolute path, or one below the home ("~/…")."""
    if isinstance(value, str) and value.startswith("~/") and len(value) > 2:
        return "~" + validators.path(value[1:])
    try:
        return validators.path(value)
    except InvalidError as error:
        raise InvalidError(error.why, error.allowed + '; or one below the home, beginning with "~/"') from None


def multiplexing(value: Any) -> str:
    """A profile's name or how long a shared connection stays."""
    allowed = f"{', '.join(PROFILES)}, or a time from 1 second to {MAX_PERSIST // 3600} hours such as 600 or 10m"
    return _time(value, tuple(PROFILES), MAX_PERSIST, allowed)


def lifetime(value: Any) -> str:
    return _time(value, ("no",), MAX_LIFETIME, "no, or a time of at most a week such as 4h")


def _time(value: Any, words: Tuple[str, ...], most: int, allowed: str) -> str:
    if value is False:  # an unquoted `no` in YAML
        value = "no"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and value in words:
        return value
    length = seconds(value) if isinstance(value, str) else None
    if length is None:
        raise InvalidError("is no time", allowed)
    if not 1 <= length <= most:
        raise InvalidError("would keep it open without an end" if length == 0 else "is too long", allowed)
    return str(value)


def yes_no(value: Any) -> Any:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value  # an unquoted `yes` in YAML


def port_range(value: Any) -> str:
    allowed = 'two UDP ports from 1024, the lower one first, such as "60001:60010"'
    found = re.fullmatch(r"([0-9]{4,5}):([0-9]{4,5})", value) if isinstance(value, str) else None
    if not found or not 1024 <= int(found.group(1)) <= int(found.group(2)) <= 65535:
        raise InvalidError("is no range of ports", allowed)
    return str(value)


def openssh(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidError("is not text", 'a version in quotes such as "9.2"')
    if version(value) < OLDEST_OPENSSH:
        raise InvalidError("is too old", "{}.{} and newer".format(*OLDEST_OPENSSH))
    return value


def login(value: Any) -> str:
    """A login on a host; unlike a person's name it may be one that systems have by themselves."""
    if isinstance(value, str) and value in validators.RESERVED_LOGINS:
        return value
    return validators.login(value)


def pattern(value: Any) -> str:
    """A name with wildcards that cannot take in hosts of others."""
    allowed = 'a-z 0-9 . _ - with * and ?, at least three letters or digits before the first wildcard, such as "gpu-*"'
    if not isinstance(value, str) or not _PATTERN.fullmatch(value):
        raise InvalidError("is no pattern", allowed)
    if len(re.sub(r"[^a-z0-9]", "", re.split(r"[*?]", value)[0])) < 3:
        raise InvalidError(
            "would also take in hosts that are not ours, with their keys, agents and connections", allowed
        )
    return value


def known_name(value: Any) -> str:
    """Names that a CA vouches for. The file is read for our hosts only, so any pattern will do."""
    if not isinstance(value, str) or not _PATTERN.fullmatch(value):
        raise InvalidError("is no host key alias", "a-z 0-9 . _ - with * and ?")
    return value


def pattern_hostname(value: Any) -> str:
    if not isinstance(value, str) or not _PATTERN_HOSTNAME.fullmatch(value):
        raise InvalidError("is no host name", "a host name, in which %h stands for what was typed")
    validators.host(value.replace("%h", "x"))
    return value


def destination(value: Any) -> str:
    hops = value.split(">") if isinstance(value, str) else []
    if not 1 <= len(hops) <= 8:
        raise InvalidError("is no chain of hosts", 'host key aliases joined by ">"')
    return ">".join(validators.host_alias(hop) for hop in hops)


def url_path(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[A-Za-z0-9/._~?=&-]{0,200}", value):
        raise InvalidError("is no path of an address", "a / and then letters, digits and /._~?=&-")
    return value
