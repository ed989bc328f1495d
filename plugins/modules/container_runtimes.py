#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_runtimes
short_description: containerd, CRI-O and Podman can give GPUs to their containers
version_added: 0.2.0
description:
  - Turns CDI on where a runtime has it off, registers the C(nvidia) runtime where that is asked for or where there is
    no CDI, and removes what stands in CDI's way. What a runtime that is no longer listed had got is taken back.
  - containerd 2 and CRI-O get a drop-in file. containerd 1 replaces the whole section of its CRI plugin by a drop-in's,
    so there the lines go into C(config.toml), each marked; other lines stay. containerd judges the result before it
    counts, and must not lose a runtime by it.
  - Docker is the matter of M(devnode.gpu.daemon_json); here it only counts for the format of CDI specifications.
author: The devnode.gpu authors (@devnode)
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Shows the files.
    support: full
  platform:
    description: Hosts with systemd.
    support: full
    platforms: linux
options:
  runtimes:
    description: V(docker), V(containerd), V(crio), V(podman).
    type: list
    elements: str
    default: []
  nvidia_runtime:
    description: Register the C(nvidia) runtime also where CDI is there.
    type: bool
    default: false
  restart:
    description:
      - When containerd and CRI-O may be restarted. Containers go on while they are, unless their unit is set up to end
        them; V(safe) then waits. V(never) leaves the restart to people.
    type: str
    choices: [safe, always, never]
    default: safe
  state_dir:
    description: Where it keeps what it has to remember, and backups.
    type: path
    default: /var/lib/devnode
"""

EXAMPLES = r"""
- name: GPUs for containerd and Podman
  devnode.gpu.container_runtimes:
    runtimes: [containerd, podman]
"""

RETURN = r"""
versions:
  description: Versions of the runtimes asked for that are on the host.
  type: dict
  returned: always
  sample: {containerd: 1.7.24, podman: 5.4.2}
features:
  description: What C(nvidia-ctk cdi generate --feature-flag) needs for these runtimes.
  type: list
  elements: str
  returned: always
pending:
  description: Restarts that wait, and why.
  type: list
  elements: str
  returned: always
notes:
  description: Limits of these runtimes here.
  type: list
  elements: str
  returned: always
backup:
  description: Where files as they were before lie.
  type: list
  elements: str
  returned: always
"""

import difflib
import json
import os
import shutil
import tempfile
from typing import Any, Dict, List, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import containerd_config as cc
from ansible_collections.devnode.gpu.plugins.module_utils import dockerd, other_runtimes, whole_file

PROGRAMS = {"docker": "dockerd", "containerd": "containerd", "crio": "crio", "podman": "podman"}
SERVICES = {"containerd": "containerd.service", "crio": "crio.service"}


class RuntimesError(ValueError):
    """The text is for people."""


class Task:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.record_path = os.path.join(self.params["state_dir"], "container_runtimes.json")
        self.record: Dict[str, Any] = self._recorded()
        self.before: Dict[str, Optional[str]] = {}
        self.after: Dict[str, Optional[str]] = {}

    def run(self) -> Dict[str, Any]:
        wanted = self.params["runtimes"]
        said = {name: self._said(name) for name in PROGRAMS if name in wanted or name in self.record["files"]}
        plan = other_runtimes.plan(wanted, said, self.params["nvidia_runtime"], self.module.check_mode)
        if plan.errors:
            raise RuntimesError("\n".join(plan.errors))
        self._containerd(plan, "containerd" in wanted, bool(said.get("containerd")))
        self._crio(plan)
        if "podman" in plan.cdi:
            for path in other_runtimes.PODMAN_HOOKS:
                self._want(path, None)
        changed = self._changed()
        backups = self._write(changed)
        restarts, pending = self._restarts(changed)
        for text in plan.notes if changed else []:
            self.module.warn(text)
        for text in pending:
            self.module.warn(text)
        return {
            "changed": bool(changed or restarts),
            "versions": {
                name: ".".join(str(part) for part in other_runtimes.version_of(said[name]))
                for name in wanted
                if said.get(name)
            },
            "features": plan.features,
            "notes": plan.notes,
            "pending": pending,
            "backup": backups,
            "diff": self._diff(changed, restarts),
        }

    def _recorded(self) -> Dict[str, Any]:
        try:
            with open(self.record_path, encoding="utf-8") as file:
                return {"files": {}, "restart": [], **json.load(file)}
        except (OSError, ValueError):
            return {"files": {}, "restart": []}

    def _said(self, name: str) -> str:
        program = dockerd.find(PROGRAMS[name])
        return str(self.module.run_command([program, "--version"])[1]) if program else ""

    def _want(self, path: str, text: Optional[str]) -> None:
        self.before[path], self.after[path] = read(path), text

    # containerd -------------------------------------------------------------------------------------------------------

    def _containerd(self, plan: other_runtimes.Plan, wanted: bool, there: bool) -> None:
        if not there or not (wanted or self.record["files"].get("containerd")):
            return
        main = read(cc.CONFIG)
        text = cc.plain(main or "")
        if not wanted:
            self._want(cc.CONFIG, main if text == main else text if text.strip() else None)
            self._want(cc.DROP_IN, None)
            if self._changed() and self.after[cc.CONFIG] is not None:
                self._effect(self.after[cc.CONFIG], None)
            return
        if text.strip() and cc.format_version(text) < 2:
            raise RuntimesError(
                f"{cc.CONFIG} has format 1, which containerd reads no more since 2.0. Nothing was changed. Write it "
                "anew with `containerd config migrate`, and run again."
            )
        cdi, runtime = plan.cdi["containerd"], plan.nvidia_runtime["containerd"]
        version = cc.format_version(text) if text.strip() else 3
        if plan.containerd == "drop_in":
            self._want(cc.CONFIG, cc.with_import(text, version))
            self._want(cc.DROP_IN, cc.drop_in(version, text, cdi, runtime))
        else:
            self._want(cc.CONFIG, cc.in_place(text, cdi, runtime))
            self._want(cc.DROP_IN, None)
        if self._changed():
            self._judge(plan)

    def _changed(self) -> List[str]:
        return [path for path in self.after if self.after[path] != self.before[path]]

    def _judge(self, plan: other_runtimes.Plan) -> None:
        before = self._effect(cc.plain(self.before[cc.CONFIG] or ""), None)  # what others have set up
        after = self._effect(self.after[cc.CONFIG], self.after[cc.DROP_IN])
        if not after.cri:
            # Docker's packages do that.
            plan.notes.append(
                "containerd's CRI plugin is switched off (disabled_plugins), and the settings for GPUs belong to that "
                "plugin, so none were made. Its other clients (Docker, nerdctl) look after GPUs themselves."
            )
            self.after = dict(self.before)
            return
        trouble = other_runtimes.trouble(before, after, plan)
        if trouble:
            raise RuntimesError(
                f"containerd {trouble} with what {cc.CONFIG} would become, so nothing was changed. Another file "
                "that it imports says otherwise: see `containerd config dump`, and put the CRI plugin's settings into "
                "one file."
            )

    def _effect(self, main: Optional[str], drop_in: Optional[str]) -> cc.Effect:
        """What containerd makes of these, together with the drop-ins of others."""
        folder = tempfile.mkdtemp(prefix="devnode-containerd-")
        try:
            live = os.path.dirname(cc.DROP_IN)
            staged = os.path.join(folder, "conf.d")
            if os.path.isdir(live):
                shutil.copytree(live, staged)
            os.makedirs(staged, exist_ok=True)
            name = os.path.join(staged, os.path.basename(cc.DROP_IN))
            if drop_in is not None:
                whole_file.rewrite(name, drop_in)
            elif os.path.exists(name):
                os.unlink(name)
            path = os.path.join(folder, "config.toml")
            whole_file.rewrite(path, (main or "version = 2\n").replace(live, staged))
            argv = [dockerd.find("containerd"), "--config", path, "config", "dump"]
            code, out, err = self.module.run_command(argv)
        finally:
            shutil.rmtree(folder)
        if code != 0:
            raise RuntimesError(
                f"containerd cannot read {cc.CONFIG}, as it is or as it would become. Nothing was changed. Correct "
                f"the file, then run again. containerd says:\n{err.strip().replace(folder, '/etc/containerd')}"
            )
        return cc.effect(out)

    # CRI-O ------------------------------------------------------------------------------------------------------------

    def _crio(self, plan: other_runtimes.Plan) -> None:
        if "crio" in plan.cdi:
            text = other_runtimes.crio_drop_in(plan.cdi["crio"], plan.nvidia_runtime["crio"])
            self._want(other_runtimes.CRIO_DROP_IN, text)
        elif self.record["files"].get("crio"):
            self._want(other_runtimes.CRIO_DROP_IN, None)

    # The host ---------------------------------------------------------------------------------------------------------

    def _write(self, changed: List[str]) -> List[str]:
        if self.module.check_mode:
            return []
        backups = []
        files = {
            "containerd": any(self.after.get(path) for path in (cc.CONFIG, cc.DROP_IN))
            and "containerd" in self.params["runtimes"],
            "crio": bool(self.after.get(other_runtimes.CRIO_DROP_IN)),
        }
        waiting = set(self.record["restart"]) | {name for name in SERVICES if self._touches(name, changed)}
        # First the record: a run that is cut off in between restarts what it had not.
        record = {"files": {name: True for name, is_ours in files.items() if is_ours}, "restart": sorted(waiting)}
        self._remember(record)
        for path in changed:
            text, was = self.after[path], self.before[path]
            if was is not None:
                folder = os.path.join(self.params["state_dir"], "backup", "container_runtimes")
                backups.append(whole_file.keep(path, folder))
            if text is None:
                os.unlink(path)
            else:
                os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
                whole_file.rewrite(path, text)
        return backups

    def _remember(self, record: Dict[str, Any]) -> None:
        if record != self.record and (record["files"] or record["restart"] or os.path.exists(self.record_path)):
            os.makedirs(self.params["state_dir"], mode=0o755, exist_ok=True)
            whole_file.rewrite(self.record_path, json.dumps(record, sort_keys=True) + "\n")
        self.record = record

    @staticmethod
    def _touches(name: str, changed: List[str]) -> bool:
        return any(path.startswith(f"/etc/{name}/") for path in changed)

    def _restarts(self, changed: List[str]) -> Tuple[List[str], List[str]]:
        """What is restarted, and what waits."""
        done, pending = [], []
        for name, service in SERVICES.items():
            if name not in self.record["restart"] and not self._touches(name, changed):
                continue
            if not dockerd.read_unit(self.module.run_command, service).active:
                self._settled(name)
                continue
            why = self._waits(service)
            if why:
                pending.append(f"{service}: a restart is needed, so that it reads its configuration, but {why}")
                continue
            done.append(service)
            if not self.module.check_mode:
                self._restart(name, service, changed)
        return done, pending

    def _waits(self, service: str) -> str:
        if self.params["restart"] == "always":
            return ""
        if self.params["restart"] == "never":
            return "restarts are left to people (restart: never)"
        mode = self.module.run_command(["systemctl", "show", service, "--property=KillMode", "--value"])[1].strip()
        return "" if mode in ("process", "none") else f"it would end containers (KillMode={mode} in its unit)"

    def _settled(self, name: str) -> None:
        if name in self.record["restart"] and not self.module.check_mode:
            self._remember({**self.record, "restart": [one for one in self.record["restart"] if one != name]})

    def _restart(self, name: str, service: str, changed: List[str]) -> None:
        code, _dummy, err = self.module.run_command(["systemctl", "restart", service])
        if code == 0:
            self._settled(name)
            return
        log = self.module.run_command(["journalctl", "-u", service, "-n", "10", "--no-pager", "-o", "cat"])[1]
        for path in changed:
            before = self.before[path]
            if before is not None:
                whole_file.rewrite(path, before)
            elif os.path.exists(path):
                os.unlink(path)
        again = self.module.run_command(["systemctl", "restart", service])[0]
        raise RuntimesError(
            f"{service} does not come up with its new configuration. The files as they were are back, and it "
            f"{'runs with them again' if again == 0 else 'does not run with them either'}. It said:\n{err}\n{log}"
        )

    def _diff(self, changed: List[str], restarts: List[str]) -> List[Dict[str, str]]:
        out = ""
        for path in changed:
            old, new = ((side[path] or "").splitlines(keepends=True) for side in (self.before, self.after))
            out += "".join(difflib.unified_diff(old, new, f"{path} (now)", path if self.after[path] else "(removed)"))
        out += "".join(f"{name} is restarted\n" for name in restarts)
        return [{"prepared": out}] if out else []


def read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise RuntimesError(f"{path} is not UTF-8 text ({error}). It was left as it is.") from error


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "runtimes": {"type": "list", "elements": "str", "default": []},
            "nvidia_runtime": {"type": "bool", "default": False},
            "restart": {"type": "str", "choices": ["safe", "always", "never"], "default": "safe"},
            "state_dir": {"type": "path", "default": "/var/lib/devnode"},
        },
        supports_check_mode=True,
    )
    try:
        result = Task(module).run()
    except RuntimesError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
