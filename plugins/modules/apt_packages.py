#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_packages
short_description: Debian packages at the versions that were asked for, held, without touching anything else
version_added: 0.1.0
description:
  - Installs packages, at an exact version or one that fits a pattern, and holds them if asked. A run that has nothing
    to do asks dpkg only, which takes a tenth of a second.
  - Never removes a package to make room for another one. Repairs an interrupted dpkg first. Waits for other package
    managers (C(unattended-upgrades) right after boot). Keeps configuration files that somebody changed.
  - Works in check mode on a host that has no package lists yet, or whose new repository only exists in check mode.
author: The devnode.gpu authors (@devnode)
attributes:
  check_mode:
    description: Says what would be installed. Which version of a package that no list knows yet stays open.
    support: full
  diff_mode:
    description: Lists packages and versions.
    support: full
  platform:
    description: Debian and Ubuntu.
    support: full
    platforms: debian
options:
  names:
    description: The packages, as C(name) or C(name=version); the version may be a pattern (V(docker-ce=5:28.5.2-*)).
    type: list
    elements: str
    default: []
  files:
    description: Packages in files on the host, instead of O(names).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file.
        type: path
        required: true
      sha256:
        description: Its checksum.
        type: str
        required: true
  hold:
    description: Hold them, so that neither C(apt upgrade) nor unattended-upgrades moves them.
    type: bool
    default: false
  hold_parts:
    description:
      - Patterns for package names (V(libnvidia-*)). Installed packages that fit and have the same upstream version
        as the first of
        O(names) are held, too.
    type: list
    elements: str
    default: []
  instead_of:
    description:
      - Patterns for the names of packages that O(names) take the place of. Those that are installed, and not in
        O(names), are
        purged first, as long as no other package needs them.
    type: list
    elements: str
    default: []
  services:
    description: V(leave) keeps maintainer scripts from starting or restarting services.
    type: str
    choices: [start, leave]
    default: start
  refresh:
    description: The package lists are out of date, because a source was changed just now.
    type: bool
    default: false
  recommends:
    description: Install what the packages recommend, too.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: An engine at one version, not started before it is configured
  devnode.gpu.apt_packages:
    names: ["docker-ce=5:28.5.2-*", "docker-ce-cli=5:28.5.2-*", containerd.io]
    hold: true
    services: leave
"""

RETURN = r"""
installed:
  description: What was installed (in check mode, would be), with the version where it is known.
  type: dict
  returned: always
  sample: {docker.io: 26.1.5+dfsg1-9+b9}
removed:
  description: What was purged because of O(instead_of).
  type: list
  elements: str
  returned: always
held:
  description: What was put on hold now.
  type: list
  elements: str
  returned: always
repaired:
  description: Whether an interrupted dpkg was found and brought to an end.
  type: bool
  returned: always
"""

import contextlib
import hashlib
import os
import time
from typing import Any, Dict, Iterator, List, Set

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import apt_packages as ap

LISTS = "/var/lib/apt/lists"
POLICY = "/usr/sbin/policy-rc.d"
FRESH = 3600  # seconds that package lists count as fresh
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "NEEDRESTART_SUSPEND": "1"}
APT_GET = ["apt-get", "--quiet", "--yes", "--option", "DPkg::Lock::Timeout=300"]


class Task:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.files: Dict[str, str] = {}  # package name: path

    def run(self) -> Dict[str, Any]:
        wanted = self._from_files() if self.params["files"] else ap.parse_wanted(self.params["names"])
        before = self._status(wanted)
        todo = ap.to_install(wanted, before)
        result: Dict[str, Any] = {"installed": {}, "held": [], "removed": [], "repaired": False}
        if todo:
            result["repaired"] = self._repair()
        if self.params["instead_of"]:
            result["removed"] = self._remove_others(wanted)
        if todo:
            result["installed"] = self._install(todo)
        coming = {one.name for one in todo}
        result["held"] = sorted(
            {
                one.name
                for one in wanted
                if self.params["hold"] and (one.name in coming or (one.name in before and not before[one.name].held))
            }
            | self._parts_to_hold(wanted)
        )
        if result["held"] and not self.module.check_mode:
            self._command(["apt-mark", "hold", *result["held"]])
        result["changed"] = bool(todo or result["held"] or result["removed"])
        gone = "".join(f"{name}\n" for name in result["removed"])
        result["diff"] = {
            "before": self._lines({one.name: before[one.name].version for one in todo if one.name in before}, [])
            + gone,
            "after": self._lines(result["installed"], result["held"]),
        }
        return result

    @staticmethod
    def _lines(versions: Dict[str, str], held: List[str]) -> str:
        lines = [f"{name} {version}" for name, version in sorted(versions.items())] + [f"{name}: held" for name in held]
        return "".join(f"{line}\n" for line in lines)

    def _command(self, argv: List[str], trouble: str = "") -> str:
        code, out, err = self.module.run_command(argv, environ_update=QUIET)
        if code != 0:
            raise ap.PackageError(f"{trouble or ' '.join(argv[:2])} failed on this host:\n{(err or out).strip()}")
        return str(out)

    def _status(self, wanted: List[ap.Wanted]) -> Dict[str, ap.Installed]:
        form = "${Package}\t${db:Status-Abbrev}\t${Version}\n"
        argv = ["dpkg-query", "--show", "--showformat", form, *[one.name for one in wanted]]
        return ap.parse_status(self.module.run_command(argv)[1])

    def _remove_others(self, wanted: List[ap.Wanted]) -> List[str]:
        names = {one.name for one in wanted}
        found = self._status([ap.Wanted(pattern) for pattern in self.params["instead_of"]])
        others = sorted(set(found) - names)
        if others and not self.module.check_mode:
            self._command(["dpkg", "--purge", *others], f"Removing {' '.join(others)}")
        return others

    def _parts_to_hold(self, wanted: List[ap.Wanted]) -> Set[str]:
        """In check mode, of what is installed already."""
        if not self.params["hold_parts"]:
            return set()
        main = self._status(wanted[:1]).get(wanted[0].name)
        parts = self._status([ap.Wanted(pattern) for pattern in self.params["hold_parts"]])
        return ap.parts_to_hold(main.version, parts) if main else set()

    def _from_files(self) -> List[ap.Wanted]:
        out, errors = [], []
        for file in self.params["files"]:
            path = file["path"]
            try:
                with open(path, "rb") as content:
                    found = hashlib.sha256(content.read()).hexdigest()
            except OSError as error:
                errors.append(f"files: {path} cannot be read on this host ({error.strerror}).")
                continue
            if found != file["sha256"].lower():
                errors.append(
                    f"files: {path} has the checksum {found}, not {file['sha256']}. It is not what was meant."
                )
                continue
            name, version = self._command(["dpkg-deb", "--showformat=${Package}\t${Version}", "--show", path]).split(
                "\t"
            )
            self.files[name] = path
            out.append(ap.Wanted(name, version.strip()))
        if errors:
            raise ap.PackageError("\n".join(errors))
        return out

    def _repair(self) -> bool:
        interrupted = bool(self.module.run_command(["dpkg", "--audit"])[1].strip()) or bool(
            [name for name in os.listdir("/var/lib/dpkg/updates") if name.isdigit()]
        )
        if interrupted and not self.module.check_mode:
            with self._services():
                self.module.run_command(["dpkg", "--configure", "-a", "--force-confold"], environ_update=QUIET)
        return interrupted

    def _install(self, todo: List[ap.Wanted]) -> Dict[str, str]:
        if self.files:
            versions = {one.name: one.version for one in todo}
            arguments = [self.files[one.name] for one in todo]
        else:
            known = self._known(todo)
            lacking = ap.missing(todo, known)
            if lacking and self.module.check_mode:
                # No list knows them yet: on a fresh host, or because the repository would only come now.
                return {one.name: ap.choose(one, known.get(one.name, [])) or "(not in a list yet)" for one in todo}
            if lacking:
                raise ap.PackageError(
                    "\n".join(lacking)
                    + "\nNothing was installed. Correct the version, or the repository that it comes from."
                )
            versions = {one.name: str(ap.choose(one, known[one.name])) for one in todo}
            arguments = [f"{name}={version}" for name, version in versions.items()]
        if not self.module.check_mode:
            options = ["--no-remove", "--allow-downgrades", "--allow-change-held-packages"]
            options += ["--option", "Dpkg::Options::=--force-confdef", "--option", "Dpkg::Options::=--force-confold"]
            options += [] if self.params["recommends"] else ["--no-install-recommends"]
            with self._services(), self._parts_free():
                self._run_install([*options, *arguments], " ".join(arguments))
        return versions

    def _run_install(self, arguments: List[str], what: str) -> None:
        code, out, err = self.module.run_command([*APT_GET, "install", *arguments], environ_update=QUIET)
        if code == 0:
            return
        rest = [word for word in arguments if word != "--no-remove"]
        _code, simulated, _err = self.module.run_command(
            [*APT_GET, "--simulate", "install", *rest], environ_update=QUIET
        )
        raise ap.PackageError(ap.why_not_installed(what, ap.removals(simulated), (err or out).strip()))

    @contextlib.contextmanager
    def _parts_free(self) -> Iterator[None]:
        """apt moves a held package only when it is named, and the parts come as dependencies."""
        patterns = [ap.Wanted(pattern) for pattern in self.params["hold_parts"]]
        held = sorted(name for name, one in self._status(patterns).items() if one.held) if patterns else []
        if not held:
            yield
            return
        self._command(["apt-mark", "unhold", *held])
        try:
            yield
        finally:
            # Also what the installation left alone: it may be somebody else's hold.
            self._command(["apt-mark", "hold", *sorted(set(held) & set(self._status(patterns)))])

    def _known(self, todo: List[ap.Wanted]) -> Dict[str, List[str]]:
        known = self._madison(todo)
        if self.module.check_mode or (not self.params["refresh"] and self._fresh() and not ap.missing(todo, known)):
            return known
        code, out, err = self.module.run_command([*APT_GET, "update"], environ_update=QUIET)
        known = self._madison(todo)
        if code != 0 and ap.missing(todo, known):
            raise ap.PackageError(f"apt-get update failed on this host:\n{(err or out).strip()}")
        return known

    def _madison(self, todo: List[ap.Wanted]) -> Dict[str, List[str]]:
        return ap.parse_madison(self.module.run_command(["apt-cache", "madison", *[one.name for one in todo]])[1])

    @staticmethod
    def _fresh() -> bool:
        try:
            times = [
                entry.stat().st_mtime for entry in os.scandir(LISTS) if entry.name.endswith(("Packages", "Release"))
            ]
        except OSError:
            return False
        # apt sets a list's time to the server's; the folder's own tells when the last one came.
        return bool(times) and time.time() - os.stat(LISTS).st_mtime < FRESH

    @contextlib.contextmanager
    def _services(self) -> Iterator[None]:
        """Maintainer scripts ask policy-rc.d before they touch a service; 101 means no."""
        if self.params["services"] == "start":
            yield
            return
        aside = f"{POLICY}.devnode"
        was_there = self._put_policy(aside)
        try:
            yield
        finally:
            if was_there:
                os.replace(aside, POLICY)
            else:
                os.unlink(POLICY)

    @staticmethod
    def _put_policy(aside: str) -> bool:
        # One left behind by a run that was cut off is ours as well, and must not count as the host's.
        if os.path.exists(aside):
            os.replace(aside, POLICY)
        was_there = os.path.exists(POLICY)
        if was_there:
            with open(POLICY, encoding="utf-8", errors="replace") as file:
                was_there = "devnode.gpu" not in file.read()
        if was_there:
            os.replace(POLICY, aside)
        with open(POLICY, "w", encoding="utf-8") as file:
            file.write(
                "#!/bin/sh\n# For the time of one installation by devnode.gpu: services are left alone.\nexit 101\n"
            )
        os.chmod(POLICY, 0o755)  # noqa: S103 - a script that dpkg runs
        return was_there


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "sha256": {"type": "str", "required": True},
                },
            },
            "hold": {"type": "bool", "default": False},
            "hold_parts": {"type": "list", "elements": "str", "default": []},
            "instead_of": {"type": "list", "elements": "str", "default": []},
            "services": {"type": "str", "choices": ["start", "leave"], "default": "start"},
            "refresh": {"type": "bool", "default": False},
            "recommends": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if bool(module.params["names"]) == bool(module.params["files"]):
        module.fail_json(msg="names, files: give exactly one of them.")
    if not os.path.exists("/usr/bin/dpkg-query"):
        module.fail_json(
            msg="This host has no dpkg, so it is neither Debian nor Ubuntu. Where RPMs are supported at all (role "
            "nvidia_container_toolkit), the play has to gather facts first, so that the role knows the system."
        )
    try:
        result = Task(module).run()
    except ap.PackageError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
