# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JupyterLab over HTTPS on the node, for those who must: what may be asked for, and what nginx and its doors read.

Pure. A workspace's JupyterLab listens on its container's loopback only. A door (devnode-door@.service) leads from a
unix socket of the host, which nothing but nginx opens, to that loopback.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

CONFIG_DIR = "/etc/devnode/web"
STATE_DIR = "/var/lib/devnode/web"
DOOR_DIR = "/run/devnode-door"
GROUP = "devnode-web"
PASSWORDS = "pytorch_sshd_web_passwords"
# The kernel takes these for outgoing connections (net.ipv4.ip_local_port_range).
EPHEMERAL = (32768, 60999)

# crypt(3) as nginx uses it. bcrypt above 2^12 takes the better part of a second, and nginx checks every request.
SHA512_RE = re.compile(r"\$6\$(?:rounds=(?P<rounds>[0-9]{4,9})\$)?[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{86}")
BCRYPT_RE = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{53}")
COSTS = (10, 12)
ROUNDS = (5000, 200000)
HASH_ALLOWED = (
    f"SHA-512 crypt ($6$…, {ROUNDS[0]} to {ROUNDS[1]} rounds; `openssl passwd -6` makes one) or bcrypt ($2y$…, cost "
    f"{COSTS[0]} to {COSTS[1]}; `htpasswd -nB`)"
)


@dataclass(frozen=True)
class Web:
    """How one workspace's JupyterLab is reached by a browser without ssh."""

    name: str  # what stands in the browser's address
    port: int
    networks: Tuple[str, ...]
    users: Tuple[str, ...]
    certificate: str = ""  # paths on the node; none: made there
    key: str = ""


def web_port(value: Any) -> int:
    """Where nginx listens: 443, or one that no system service and no outgoing connection has."""
    number = validators.integer(value, 443, 65535)
    low, high = EPHEMERAL
    if 443 < number < 1024 or low <= number <= high:
        raise InvalidError("belongs to the system", f"443, 1024-{low - 1}, {high + 1}-65535")
    return number


def password_hash(value: Any) -> str:
    """A password as nginx may keep it. What is wrong with it is said without showing it."""
    sha512 = SHA512_RE.fullmatch(value) if isinstance(value, str) else None
    bcrypt = BCRYPT_RE.fullmatch(value) if isinstance(value, str) else None
    if sha512:
        low, high = ROUNDS
        sound = low <= int(sha512["rounds"] or low) <= high
    elif bcrypt:
        sound = COSTS[0] <= int(bcrypt["cost"]) <= COSTS[1]
    else:
        raise InvalidError("(not shown) is no hash of a password; one in clear text is never taken", HASH_ALLOWED)
    if not sound:
        raise InvalidError("(not shown) is too cheap to guess, or too dear to check for every request", HASH_ALLOWED)
    return str(value)


def password_problems(webs: Mapping[str, Web], passwords: Mapping[str, Any]) -> List[str]:
    """What is missing or unsound among the passwords of those who may come in. Never a value."""
    problems = []
    for login in sorted({user for web in webs.values() for user in web.users}):
        if login not in passwords:
            where = ", ".join(sorted(name for name, web in webs.items() if login in web.users))
            problems.append(f"{PASSWORDS}.{login}: is missing, and web.users of {where} names them. {HASH_ALLOWED}.")
            continue
        try:
            password_hash(passwords[login])
        except InvalidError as exc:
            problems.append(f"{PASSWORDS}.{login}: {exc}.")
    return problems


def made_here(web: Web) -> bool:
    """Whether the node makes the certificate itself."""
    return not web.certificate


def certificate_paths(workspace: str, web: Web) -> Tuple[str, str]:
    """Where nginx finds the certificate and its key."""
    if made_here(web):
        return f"{STATE_DIR}/{workspace}.crt", f"{STATE_DIR}/{workspace}.key"
    return web.certificate, web.key


def address(web: Web) -> str:
    """What a person opens."""
    return f"https://{authority(web)}/"


def authority(web: Web) -> str:
    """Name and port as they stand in the address, and in a browser's Host and Origin."""
    name = f"[{web.name}]" if ":" in web.name else web.name
    return name if web.port == 443 else f"{name}:{web.port}"


def server(workspace: str, bind_address: str, web: Web) -> Dict[str, Any]:
    """One server for the template of nginx.conf."""
    certificate, key = certificate_paths(workspace, web)
    bind = f"[{bind_address}]" if ":" in bind_address else bind_address
    return {
        "workspace": workspace,
        "variable": workspace.replace("-", "_"),
        "listen": f"{bind}:{web.port}",
        "name": f"[{web.name}]" if ":" in web.name else web.name,
        "origin": f"https://{authority(web)}",
        "origin_pattern": re.escape(f"https://{authority(web)}"),
        "networks": list(web.networks),
        "certificate": certificate,
        "key": key,
        "passwords": f"{CONFIG_DIR}/{workspace}.htpasswd",
        "door": f"{DOOR_DIR}/{workspace}.sock",
    }


def password_files(webs: Mapping[str, Web], passwords: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """The entries for file_set that hold who may come in. A rollback must not bring back somebody taken away."""
    return [
        {
            "path": f"{CONFIG_DIR}/{name}.htpasswd",
            "content": "".join(f"{login}:{passwords[login]}\n" for login in web.users),
            "group": GROUP,
            "mode": "0640",
            "sensitive": True,
            "never_restore": True,
        }
        for name, web in sorted(webs.items())
    ]


def clashes(claims: Sequence[Tuple[str, str, Web]]) -> List[Tuple[str, str, Any, str]]:
    """Names and ports that two workspaces of a node claim: (where, field, value, why)."""
    found: List[Tuple[str, str, Any, str]] = []
    ports: Dict[int, str] = {}
    names: Dict[str, str] = {}
    for where, workspace, web in claims:
        port_of = ports.setdefault(web.port, workspace)
        name_of = names.setdefault(web.name, workspace)
        if port_of != workspace:
            found.append((where, "port", web.port, f'is where nginx serves workspace "{port_of}"'))
        if name_of != workspace:
            why = "a browser gives its cookies to every port of a name, and so one workspace's to the other"
            found.append((where, "name", web.name, f'is the name of workspace "{name_of}": {why}'))
    return found
