# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a name, an address, a port, a path … may look like.

Every function takes one value, returns it in its normal form, and raises InvalidError otherwise. The rules
are allow-lists: whatever passes can stand in an sshd_config, an ssh_config, an nftables rule, a unit file and
a file name without any quoting. Standard library only.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

NAME_RE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
LOGIN_RE = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
LABEL_RE = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
PATH_RE = re.compile(r"/[A-Za-z0-9._+@/-]*")
ENV_NAME_RE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
SIZE_RE = re.compile(r"([1-9][0-9]{0,12})([bkmgt]?)")
CPUS_RE = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,3})?")
RATE_RE = re.compile(r"[1-9][0-9]{0,5}/(?:second|minute|hour) burst [1-9][0-9]{0,5}")
UUID_RE = re.compile(r"(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
GPU_INDEX_RE = re.compile(r"[0-9]{1,3}(?::[0-9]{1,3})?")
IMAGE_RE = re.compile(
    r"(?:(?P<registry>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)

# Accounts that a Debian, Ubuntu or EL host may have by itself; a person must not get one of them.
RESERVED_LOGINS = frozenset(
    """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody
    _apt sshd messagebus systemd-network systemd-resolve systemd-timesync docker ulog ntp chrony
    polkitd tcpdump fail2ban syslog adm wheel sudo operator halt shutdown ftp dbus tss nfsnobody
    """.split()  # noqa: SIM905 - a list of words reads better
)
UID_MIN, UID_MAX = 1000, 2147483647
# Debian policy 9.2.2: reserved, and "nobody"; systemd takes 61184-65519 for dynamic users.
UID_RESERVED = (60000, 65535)

# The names that docker run --ulimit takes.
ULIMITS = tuple(
    """
    core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
    """.split()  # noqa: SIM905 - a list of words reads better
)
ULIMIT_RE = re.compile(r"(-1|[0-9]{1,15})(?::(-1|[0-9]{1,15}))?")

PRIVATE_MARKS = ("PRIVATE KEY", "b3BlbnNzaC1rZXktdjE", "PuTTY-User-Key-File", "AGE-SECRET-KEY-")


class InvalidError(ValueError):
    """A value that must not be used: why, and what is allowed instead."""

    def __init__(self, why: str, allowed: str = "") -> None:
        self.why = why
        self.allowed = allowed
        super().__init__(f"{why}. Allowed: {allowed}" if allowed else why)


def holds_private_key(value: Any) -> bool:
    """Whether a text (or anything inside a list or dict) looks like private key material."""
    texts, rest = [], [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, dict):
            rest.extend(item)
            rest.extend(item.values())
        elif isinstance(item, (list, tuple)):
            rest.extend(item)
    text = "\n".join(texts)  # once for all of them: a large fleet has millions
    return any(mark in text for mark in PRIVATE_MARKS)


def show(value: Any) -> str:
    """The value for a message: one line, ASCII, short, and never a secret."""
    if holds_private_key(value):
        return '"(private key, not shown)"'
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError):
        text = json.dumps(str(value), ensure_ascii=True)
    text = text.replace("\x7f", "\\u007f")
    return text if len(text) <= 80 else text[:60] + "…" + text[-12:]


def _text(value: Any, allowed: str) -> str:
    if not isinstance(value, str):
        raise InvalidError(f"is {_kind(value)}, not text", allowed)
    if not value:
        raise InvalidError("is empty", allowed)
    return str(value)


_KINDS: dict[type, str] = {
    bool: "true/false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
    type(None): "empty",
}


def _kind(value: Any) -> str:
    return next((word for kind, word in _KINDS.items() if isinstance(value, kind)), "something else")


def name(value: Any) -> str:
    """Name of a workspace, project or forward: also part of host aliases, containers' and files' names."""
    allowed = "1-63 of a-z 0-9 -, beginning and ending with a letter or digit"
    text = _text(value, allowed)
    if not NAME_RE.fullmatch(text):
        raise InvalidError("is not a plain name", allowed)
    return text


def login(value: Any) -> str:
    """Name of a person's account."""
    allowed = "a POSIX login: 1-31 of a-z 0-9 _ -, beginning with a letter or _"
    text = _text(value, allowed)
    if not LOGIN_RE.fullmatch(text):
        raise InvalidError("is not a POSIX login", allowed)
    if text in RESERVED_LOGINS:
        raise InvalidError("is an account that systems have by themselves", "a name of a person's own")
    return text


def ip(value: Any) -> str:
    """One IPv4 or IPv6 address, in its usual form, without a zone."""
    allowed = "one IPv4 or IPv6 address, such as 192.0.2.10"
    text = _text(value, allowed)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidError("is not an IP address", allowed) from None
    if "%" in text:
        raise InvalidError("has a zone", allowed)
    if address.is_unspecified or address.is_multicast:
        raise InvalidError("is not the address of one host", allowed)
    return str(address)


def host(value: Any) -> str:
    """What HostName says: a host name or an IP address, exactly as ssh and sshd will compare it."""
    allowed = "a lower-case host name (labels of a-z 0-9 -, at most 253 characters) or an IP address"
    text = _text(value, allowed)
    if ":" in text or re.fullmatch(r"[0-9.]+", text):
        address = ip(text)
        if address != text:
            raise InvalidError(f"is not the usual spelling, and ssh compares text: write {address}", allowed)
        return address
    if len(text) > 253 or not all(NAME_RE.fullmatch(label) for label in text.split(".")):
        raise InvalidError("is not a host name", allowed)
    if text.rsplit(".", 1)[-1].isdigit():
        raise InvalidError("ends like an IP address, but is none", allowed)
    return text


def host_alias(value: Any) -> str:
    """An inventory name: it becomes an ssh alias and a HostKeyAlias (matched in lower case only)."""
    allowed = "lower-case labels of a-z 0-9 - _ joined by dots, at most 253 characters"
    text = _text(value, allowed)
    if len(text) > 253 or not all(LABEL_RE.fullmatch(label) for label in text.split(".")):
        raise InvalidError("is not usable as an ssh alias", allowed)
    return text


def network(value: Any) -> str:
    """A network or one address, as a CIDR."""
    allowed = "a network such as 192.0.2.0/24 or 2001:db8::/32, or one address"
    text = _text(value, allowed)
    try:
        if "%" in text:
            raise ValueError
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidError("is not a network", allowed) from None
    if "%" in text or not re.fullmatch(r"[0-9A-Fa-f:.]+/[0-9]{1,3}", text):
        raise InvalidError("is not a network", allowed)
    raise InvalidError(f"has bits set behind its prefix: write {loose}, or the bare address", allowed)


def integer(value: Any, low: int, high: int) -> int:
    """A whole number between two bounds; digits in a string count (INI inventories, --extra-vars)."""
    allowed = f"a whole number from {low} to {high}"
    if isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,18}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError(f"is {_kind(value)}, not a whole number", allowed)
    number = int(value)
    if not low <= number <= high:
        raise InvalidError("is out of range", allowed)
    return number


def port(value: Any) -> int:
    """A TCP or UDP port."""
    return integer(value, 1, 65535)


def uid(value: Any) -> int:
    """The number of a person's account."""
    number = integer(value, UID_MIN, UID_MAX)
    if UID_RESERVED[0] <= number <= UID_RESERVED[1]:
        low, high = UID_RESERVED
        raise InvalidError("is reserved by the system", f"{UID_MIN}-{low - 1}, {high + 1}-{UID_MAX}")
    return number


def rate(value: Any) -> str:
    """How many new connections one address may open; empty for any number."""
    allowed = '"<number>/second|minute|hour burst <number>", such as "120/minute burst 300", or empty'
    if value == "":
        return ""
    if not RATE_RE.fullmatch(_text(value, allowed)):
        raise InvalidError("is not a rate", allowed)
    return str(value)


def boolean(value: Any) -> bool:
    """true or false (and the words that INI inventories and --extra-vars make of them)."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    raise InvalidError("is neither true nor false", "true, false")


def choice(value: Any, choices: tuple[str, ...]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidError("is not one of the choices", ", ".join(choices))
    return str(value)


def ulimit_name(value: Any) -> str:
    """The name of a resource limit."""
    return choice(value, ULIMITS)


def ulimit(value: Any) -> str:
    """A resource limit as SOFT:HARD; one number is both, -1 is none."""
    found = ULIMIT_RE.fullmatch("" if isinstance(value, bool) else str(value))
    if not found:
        raise InvalidError("is not a limit", "a whole number, SOFT:HARD, or -1 for none")
    soft, hard = found.group(1), found.group(2) or found.group(1)
    if hard != "-1" and (soft == "-1" or int(soft) > int(hard)):
        raise InvalidError("has a soft limit above its hard limit", "SOFT:HARD with SOFT not above HARD")
    return f"{soft}:{hard}"


def path(value: Any) -> str:
    """An absolute path that needs no quoting anywhere and has one spelling only."""
    allowed = "an absolute path of A-Z a-z 0-9 . _ + @ - /, without .. and without // or a / at the end"
    text = _text(value, allowed)
    if not PATH_RE.fullmatch(text) or "//" in text or (text != "/" and text.endswith("/")):
        raise InvalidError("is not a plain absolute path", allowed)
    if any(part in (".", "..") for part in text.split("/")):
        raise InvalidError("has a . or .. in it", allowed)
    return text


def size_bytes(value: Any) -> int:
    """How many bytes a memory size means."""
    allowed = "a number with an optional unit b, k, m, g or t (powers of 1024), such as 512m or 64g"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    found = SIZE_RE.fullmatch(_text(value, allowed).lower())
    if not found:
        raise InvalidError("is not a size", allowed)
    power: int = "bkmgt".index(found.group(2) or "b")
    return int(found.group(1)) * int(1024**power)


def size(value: Any) -> str:
    """A memory size in the form that docker takes."""
    if size_bytes(value) < 6 * 1024**2:
        raise InvalidError("is less than the engine accepts", "6m and more")
    return str(value).lower()


def cpus(value: Any) -> str:
    """How many CPUs, as docker's --cpus takes it."""
    allowed = "a number such as 4 or 0.5"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    text = _text(value, allowed)
    if not CPUS_RE.fullmatch(text) or float(text) <= 0:
        raise InvalidError("is not a number of CPUs", allowed)
    return text


def gpu(value: Any) -> str:
    """One GPU as the CDI specification names it: index, MIG index or UUID."""
    allowed = "an index (0), a MIG index (0:1) or a UUID (GPU-… or MIG-…)"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = _text(value, allowed)
    if not GPU_INDEX_RE.fullmatch(text) and not UUID_RE.fullmatch(text):
        raise InvalidError("is not a GPU", allowed)
    return text


def image(value: Any) -> str:
    """A container image with a fixed tag or digest."""
    allowed = "registry/name:tag or registry/name@sha256:…, with a tag other than latest"
    text = _text(value, allowed)
    found = IMAGE_RE.fullmatch(text)
    if not found or len(text) > 400:
        raise InvalidError("is not an image reference", allowed)
    if not found.group("digest") and found.group("tag") in (None, "latest"):
        raise InvalidError("does not say which version it is", allowed)
    return text


def env_name(value: Any) -> str:
    """Name of an environment variable."""
    allowed = "A-Z 0-9 _, beginning with a letter or _"
    text = _text(value, allowed)
    if not ENV_NAME_RE.fullmatch(text):
        raise InvalidError("is not a name for an environment variable", allowed)
    return text


def env_value(value: Any) -> str:
    """Value of an environment variable: one printable line (spaces and quotes are fine), no secret."""
    allowed = "one line of printable text, at most 4096 characters"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidError(f"is {_kind(value)}, not text (quote it)", allowed)
    text = str(value)
    if not text.isprintable() or len(text) > 4096:
        raise InvalidError("has control characters or is too long", allowed)
    if holds_private_key(text):
        raise InvalidError("holds a private key", "no secrets here")
    return text


def line(value: Any) -> str:
    """A short free text for a comment: one line, printable, without quotes or backslashes."""
    allowed = "at most 120 printable characters without quotes, backslashes and %"
    text = _text(value, allowed)
    if len(text) > 120 or not text.isprintable() or any(char in text for char in "\"'`\\%$"):
        raise InvalidError("is not a plain line of text", allowed)
    return text
