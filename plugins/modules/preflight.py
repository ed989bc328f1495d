#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Whether a host is one that the rest can work on, and its facts
version_added: 0.2.0
author: The devnode.gpu authors (@devnode)
description:
  - Looks at a host before anything else does, by plain C(sh). A host without Python, with a sudo that asks, a wrong
    clock, a full disk, another distribution or without systemd is refused in words, with what to do; all at once.
  - On a host that this collection has not been on yet, waits for other package managers, and tries the way to the
    package sources.
  - Returns facts like M(ansible.builtin.setup), so that it takes the place of a play's C(gather_facts).
options:
  families:
    description:
      - The distributions that will do. V(debian) is Debian and Ubuntu, V(redhat) is RHEL and its relatives.
      - C(site.yml) asks for V(debian) on GPU nodes, where it installs the container engine by apt.
    type: list
    elements: str
    choices: [debian, redhat]
    default: [debian, redhat]
  gather_subset:
    description: Facts to return, as for M(ansible.builtin.setup). None when empty.
    type: list
    elements: str
    default: []
  skip:
    description:
      - Checks to leave out. What they look at may then fail later, in the words of whatever fails.
      - V(sources) is for hosts that get all packages from files.
    type: list
    elements: str
    choices: [distribution, systemd, python, sudo, clock, disk, lock, sources]
    default: []
  wait:
    description: Seconds to wait for another package manager on a fresh host. Cloud images upgrade themselves at first.
    type: int
    default: 300
  clock:
    description:
      - Seconds by which the host's clock may differ from the controller's. Package lists and certificates bear some
        minutes.
      - C(site.yml) asks for 25 on bastions that ask for one-time codes, each of which counts for half a minute before
        and after its own. Where codes are asked for already, more than this is a warning, up to 300 seconds.
    type: int
    default: 300
attributes:
  check_mode:
    description: Does the same; nothing is changed in any mode.
    support: full
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
notes:
  - The way to package sources is tried for apt only.
"""

EXAMPLES = r"""
- name: See that this host will do, and learn what it is
  devnode.gpu.preflight:
    gather_subset: ["!all", "!min", distribution]
"""

RETURN = r"""
ansible_facts:
  description: The facts that O(gather_subset) asks for.
  returned: success
  type: dict
fresh:
  description: Whether this collection has put nothing on the host yet.
  returned: success
  type: bool
"""

import errno
import fcntl
import os
import shlex
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Dict, List, Optional, Set, Tuple
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import preflight
from ansible_collections.devnode.gpu.plugins.module_utils.preflight import Source

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
CONNECT_SECONDS = 8
PORTS = {"http": 80, "https": 443}


def holder(path: str) -> Optional[int]:
    """The process that has this file locked, 0 when the kernel does not tell, None when nobody has. Takes no lock."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _whence, _start, _length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:
        return None
    finally:
        os.close(file)
    return None if kind == fcntl.F_UNLCK else max(0, pid)


def program(pid: int) -> str:
    """Its command line's first words."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [word.decode("utf-8", "replace") for word in file.read().split(b"\0") if word]
    except OSError:
        return ""
    return " ".join(shlex.quote(word) for word in words[:3])


def wait_for_locks(paths: Tuple[str, ...], seconds: int) -> str:
    """What is still locked in the end, as a problem."""
    end = time.monotonic() + seconds
    while True:
        held = [(path, pid) for path, pid in ((path, holder(path)) for path in paths) if pid is not None]
        if not held:
            return ""
        if time.monotonic() >= end:
            path, pid = held[0]
            return preflight.lock_problem(path, pid, program(pid), seconds)
        time.sleep(min(2.0, max(0.1, end - time.monotonic())))


def parse_uris(text: str) -> Set[str]:
    """What apt would fetch: a quoted URI at the beginning of each line. Printing them fetches nothing."""
    return {line[1:].partition("'")[0] for line in text.splitlines() if line.startswith("'")}


def parse_proxies(text: str) -> Dict[str, str]:
    """By scheme, out of what apt-config dump prints; also those for one host only, as scheme::host."""
    found = {}
    for line in text.splitlines():
        name, _space, value = line.partition(" ")
        parts = name.lower().split("::")
        if parts[:1] == ["acquire"] and len(parts) in (3, 4) and parts[2] == "proxy":
            found["::".join([parts[1], *parts[3:]])] = value.strip().rstrip(";").strip('"')
    return found


def ways(uris: Set[str], proxies: Dict[str, str]) -> List[Tuple[str, int, bool]]:
    """Where apt connects for these URIs: host, port, and whether that is a proxy. Files are passed over."""
    found = set()
    for uri in uris:
        parts = urlsplit(uri)
        if parts.scheme not in PORTS or not parts.hostname:
            continue
        proxy = proxies.get(f"{parts.scheme}::{parts.hostname}", proxies.get(parts.scheme, ""))
        if not proxy and parts.scheme == "https":
            proxy = proxies.get("http", "")
        if proxy and proxy.upper() != "DIRECT":
            through = urlsplit(proxy if "//" in proxy else f"//{proxy}")
            if through.hostname:
                found.add((through.hostname, through.port or PORTS.get(through.scheme, 80), True))
                continue
        found.add((parts.hostname, parts.port or PORTS[parts.scheme], False))
    return sorted(found)


def connect(way: Tuple[str, int, bool]) -> Source:
    """Try it; an answer of any kind will do."""
    host, port, proxy = way
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            error = ""
    except socket.gaierror:
        error = "the name is not known here"
    except socket.timeout:
        error = "no answer"
    except OSError as problem:
        error = (problem.strerror or str(problem)).lower() if problem.errno != errno.EHOSTUNREACH else "no route"
    return Source(host, port, proxy, error)


def sources(module: AnsibleModule) -> List[Source]:
    """Every source of apt, tried at once."""
    uris = parse_uris(module.run_command(["apt-get", "update", "--print-uris"])[1])
    proxies = parse_proxies(module.run_command(["apt-config", "dump"])[1])
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(connect, ways(uris, proxies)))


def main() -> None:
    """The part that needs Python and root. The action plugin has looked at the rest, and calls this on fresh hosts."""
    module = AnsibleModule(
        argument_spec={
            "families": {
                "type": "list",
                "elements": "str",
                "default": ["debian", "redhat"],
                "choices": ["debian", "redhat"],
            },
            "gather_subset": {"type": "list", "elements": "str", "default": []},
            "skip": {"type": "list", "elements": "str", "default": [], "choices": list(preflight.CHECKS)},
            "wait": {"type": "int", "default": 300},
            # The action has looked at it.
            "clock": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    skip = module.params["skip"]
    locked = "" if "lock" in skip else wait_for_locks(LOCKS, module.params["wait"])
    unreachable, warning = "", ""
    if "sources" not in skip and module.get_bin_path("apt-get"):
        unreachable, warning = preflight.sources_problem(sources(module))
    if warning:
        module.warn(warning)
    module.exit_json(changed=False, problems=[one for one in (locked, unreachable) if one])


if __name__ == "__main__":
    main()
