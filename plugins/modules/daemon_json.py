#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_json
short_description: Merge settings into a container engine's daemon.json, and make the engine use them
version_added: 0.1.0
description:
  - Puts an owner's settings into C(daemon.json). Keys of others stay, at every depth. A key that the owner set before
    and no longer declares goes back to what stood there before it. Several owners (roles) can share the file.
  - A file that is not valid JSON is reported and left. A key that is also a flag of the unit's C(dockerd) is found and
    named, since the engine would not start with both. C(dockerd --validate) checks the result where it exists (23 and
    newer).
  - The networks that the file gives to the engine are compared with this host's routes and with the address that this
    run comes from, before anything is written.
  - Then the engine gets to that configuration without ending anybody's work. What it takes over at SIGHUP is reloaded.
    A restart happens only when something changed that needs one, and only if nothing runs or live-restore keeps the
    running containers; else it waits, and RV(pending) says why and for whom. A restart that waits is not forgotten,
    the next run looks again.
author: The devnode.gpu authors (@devnode)
attributes:
  check_mode:
    description: Says what would change, in the file and for the engine.
    support: full
  diff_mode:
    description: Shows the file, and what happens to the engine.
    support: full
  platform:
    description: Hosts with systemd.
    support: full
    platforms: linux
options:
  owner:
    description: Who declares these settings. Names the part of the record that is theirs.
    type: str
    required: true
  settings:
    description: What the owner wants in the file. Null, empty text, empty lists and empty objects mean "not set".
    type: dict
    default: {}
  versioned:
    description: More settings, for engines of some versions only.
    type: list
    elements: dict
    default: []
    suboptions:
      since:
        description: The first version of the engine that these are for.
        type: str
      before:
        description: The first version of the engine that these are no longer for.
        type: str
      settings:
        description: Like O(settings).
        type: dict
        default: {}
      note:
        description: What people must know where these apply; returned, and warned of when the file changes.
        type: str
  path:
    description: The file.
    type: path
    default: /etc/docker/daemon.json
  service:
    description: The engine's unit.
    type: str
    default: docker.service
  socket:
    description: Where the engine answers.
    type: path
    default: /var/run/docker.sock
  restart:
    description: V(safe) restarts only where no work ends, V(always) at once, V(never) leaves it to people.
    type: str
    choices: [safe, always, never]
    default: safe
  labels:
    description: Labels that tell people whose container one is; shown beside its name.
    type: list
    elements: str
    default: [devnode.workspace, devnode.job]
  package:
    description: The package that is about to bring the engine. Only used in check mode on a host that has no engine
      yet, to learn which version it will be.
    type: str
    default: ""
  engine:
    description: Whether an engine has to be on the host already, or is about to come (V(expected), for check mode).
    type: str
    choices: [expected, required]
    default: expected
  check_routes:
    description: Whether the engine's networks are compared with the host's routes.
    type: bool
    default: true
  state_dir:
    description: Where the record and the backups are kept.
    type: path
    default: /var/lib/devnode
"""

EXAMPLES = r"""
- name: Keep containers through engine restarts, and rotate their logs
  devnode.gpu.daemon_json:
    owner: docker_engine
    settings:
      live-restore: true
      log-driver: json-file
      log-opts: {max-size: 50m, max-file: "3"}
    versioned:
      - {since: "25.0", settings: {features: {cdi: true}}}

- name: Take everything away again that this owner had set
  devnode.gpu.daemon_json:
    owner: docker_engine
"""

RETURN = r"""
action:
  description: What was done to the engine (in check mode, would be).
  type: str
  returned: always
  sample: reload
pending:
  description: What still has to happen, and why it did not.
  type: list
  elements: str
  returned: always
  sample: ["docker.service: a restart is needed (changed: bip), live-restore is off, and it would end: container nlp"]
notes:
  description: The notes of the versioned settings that apply.
  type: list
  elements: str
  returned: always
foreign:
  description: Keys of ours that somebody else had changed since our last run; set again.
  type: list
  elements: str
  returned: always
version:
  description: The installed engine's version; in check mode without one, the version that would come.
  type: str
  returned: always
cdi:
  description: Whether the file turns CDI on, or the engine has it on by itself (28.3 and newer).
  type: bool
  returned: always
backup:
  description: Where the file as it was before lies.
  type: str
  returned: when the file changed
"""

import difflib
import json
import os
import tempfile
from typing import Any, Dict, List, Mapping, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import daemon_json as dj
from ansible_collections.devnode.gpu.plugins.module_utils import daemon_refusals as refusals
from ansible_collections.devnode.gpu.plugins.module_utils import dockerd, whole_file
from ansible_collections.devnode.gpu.plugins.module_utils.daemon_change import Step, for_version, next_step, version_of
from ansible_collections.devnode.gpu.plugins.module_utils.daemon_host import Engine, Record

CDI_BY_ITSELF_SINCE = (28, 3)


class Task:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.path = os.path.realpath(self.params["path"])
        self.engine = Engine(self._run_command, module.params)
        self.record = Record(self.params["state_dir"], self.params["path"])
        self.text, self.stat = self._read()
        self.result: Dict[str, Any] = {"changed": False, "pending": [], "action": "none"}

    def _run_command(self, argv: List[str]) -> "tuple[int, str, str]":
        return self.module.run_command(argv, handle_exceptions=False)  # type: ignore[no-any-return]

    def _read(self) -> "tuple[str, Optional[os.stat_result]]":
        try:
            with open(self.path, encoding="utf-8") as file:
                return file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            return "", None
        except UnicodeDecodeError as error:
            raise dj.DaemonJsonError(f"{self.path} is not UTF-8 text ({error}). It was left as it is.") from error

    def run(self) -> None:
        if self.params["engine"] == "required" and not self.engine.program:
            raise dj.DaemonJsonError(
                "There is no dockerd on this host, but its engine was said to be there. Install one, or let the "
                "role do it (docker_engine_source: distro or docker)."
            )
        current = dj.parse(self.text, self.path)
        extra, notes = for_version(self.params["versioned"], version_of(self.engine.version))
        wanted = dj.merged(self.params["settings"], extra)
        ownership = dj.Ownership.from_json(self.record.data)
        outcome = dj.merge(current, ownership, self.params["owner"], wanted)
        differs = dj.changed_keys(current, outcome.document) != []
        self._refuse_clashes(outcome.document)
        self._refuse_limits(wanted)
        if differs or self.engine.unit.active is False:
            self._refuse_overlaps(outcome.document, current)
        text = dj.render(outcome.document, self.text) if differs else self.text
        if differs:
            self._refuse_invalid(text)

        loaded = self.record.loaded(self.engine.unit, current, self.stat.st_mtime if self.stat else None)
        running = self.engine.state(loaded)
        step = next_step(outcome.document, running, self.engine.version, self.params["restart"])
        if not self.engine.unit.exists and not self.module.check_mode:
            step = Step("none")  # nothing to start here: the file waits for an engine
        enable = self.engine.unit.exists and not self.engine.unit.enabled
        self.result.update(
            changed=differs or enable or step.action in ("start", "reload", "restart"),
            action=step.action,
            foreign=outcome.foreign,
            notes=notes,
            version=self.engine.version,
            cdi=self._cdi(outcome.document),
            diff=self._diff(text, step, enable),
        )
        if differs:
            for note in notes:
                self.module.warn(note)
        for key in outcome.foreign:
            self.module.warn(f"{self.path}: somebody else had changed {key}; it is set again.")
        if not self.module.check_mode:
            self._apply(text, differs, outcome, loaded, step, enable)
        if step.action == "defer":
            self._pending(step.why)

    def _apply(
        self,
        text: str,
        differs: bool,
        outcome: dj.Merge,
        loaded: Optional[Mapping[str, Any]],
        step: Step,
        enable: bool,
    ) -> None:
        before = json.dumps(self.record.data, sort_keys=True)
        if differs and self.stat:
            self.result["backup"] = whole_file.keep(
                self.path, os.path.join(self.params["state_dir"], "backup", "daemon_json")
            )
        # First the record: a run that is cut off between the two still knows what is ours and what the engine has read.
        self.record.data.update(outcome.ownership.to_json())
        if self.engine.unit.active and loaded is not None:
            self._remember(loaded)
        if json.dumps(self.record.data, sort_keys=True) != before:
            self.record.write()
        if differs:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            whole_file.rewrite(self.path, text)
        if enable:
            self.engine.run(["systemctl", "enable", self.engine.unit.name])
        if step.action not in ("start", "reload", "restart"):
            return
        if step.action == "reload" or step.reload_first:
            self.engine.reload()
        if step.reload_first and not self.engine.wait_live_restore():
            self.result["action"] = "defer"
            self._pending(f"a restart is needed ({step.why}), but the engine did not take live-restore over at SIGHUP")
            return
        if step.action in ("start", "restart"):
            trouble = self.engine.do(step.action)
            if trouble:
                self._put_back(step.action, trouble, before)
        self._remember(outcome.document)
        self.record.write()

    def _remember(self, config: Mapping[str, Any]) -> None:
        self.record.data["loaded"] = {"invocation": self.engine.unit.invocation, "config": config}

    def _put_back(self, verb: str, trouble: str, record: str) -> None:
        """The engine does not come up with the new file: the old one again."""
        if self.stat:
            whole_file.rewrite(self.path, self.text)
        elif os.path.exists(self.path):
            os.unlink(self.path)
        self.record.data = json.loads(record)
        self.record.write()
        again = self.engine.do("restart")
        self.module.fail_json(
            msg=f"{self.engine.unit.name} did not {verb} with the new {self.path}. The file as it was is back, and "
            f"the engine {'runs with it again' if not again else 'does not run with it either'}. It said:\n{trouble}",
            **{**self.result, "changed": False},
        )

    def _pending(self, why: str) -> None:
        self.result["pending"] = [f"{self.engine.unit.name}: {why}"]
        self.module.warn(self.result["pending"][0])

    def _refuse_clashes(self, document: Mapping[str, Any]) -> None:
        found = refusals.clashes(document, self.engine.unit.argv())
        if found:
            pairs = ", ".join(f"{key} ({flag})" for key, flag in sorted(found.items()))
            raise dj.DaemonJsonError(
                f"{pairs}: given both in {self.path} and as a flag of {self.engine.unit.name}, and dockerd refuses to "
                "start with both. Nothing was changed. Take the flag out of the unit "
                f"({self.engine.unit.files}), or do not set the key."
            )

    @staticmethod
    def _refuse_limits(settings: Mapping[str, Any]) -> None:
        found = refusals.limit_troubles(settings, dockerd.read_limit_ceilings())
        if found:
            raise dj.DaemonJsonError(
                "\n".join(found) + "\nEvery container without limits of its own would fail to start. Nothing was "
                "changed. Ask for at most "
                "that (docker_engine_default_ulimits), or have whoever runs this machine raise its limit."
            )

    def _refuse_overlaps(self, document: Mapping[str, Any], current: Mapping[str, Any]) -> None:
        if not self.params["check_routes"]:
            return
        networks = refusals.own_networks(document)
        peer = dockerd.connection_peer()
        if not networks:
            if self.engine.unit.active:
                return  # it has chosen already, and this connection stands
            networks = {
                "dockerd's own choice": frozenset(refusals.own_networks({"bip": refusals.BUILT_IN_POOLS[0]})["bip"])
            }
        elif self.engine.unit.active and networks == refusals.own_networks(current):
            return
        found = refusals.overlaps(networks, dockerd.routes(self.engine.run), [peer] if peer else [])
        if found:
            raise dj.DaemonJsonError(
                "The engine's networks would take addresses in use, and this host could drop off the network:\n"
                + "\n".join(f"  {one}" for one in found)
                + "\nNothing was changed. Give it free ranges: bip for its first bridge, "
                "default-address-pools for the others."
            )

    def _refuse_invalid(self, text: str) -> None:
        handle, path = tempfile.mkstemp(prefix="devnode-daemon-", suffix=".json")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            trouble = self.engine.validate(path)
        finally:
            os.unlink(path)
        if trouble:
            raise dj.DaemonJsonError(
                f"dockerd --validate does not accept what {self.path} would become, so it was left as it is. It says:\n"
                + trouble.replace(path, self.path)
            )

    def _cdi(self, document: Mapping[str, Any]) -> bool:
        given = (document.get("features") or {}).get("cdi")
        version = version_of(self.engine.version)
        return version >= (25, 0) and (version >= CDI_BY_ITSELF_SINCE if given is None else bool(given))

    def _diff(self, text: str, step: Step, enable: bool) -> List[Dict[str, str]]:
        prepared = "".join(
            difflib.unified_diff(
                self.text.splitlines(keepends=True), text.splitlines(keepends=True), f"{self.path} (now)", self.path
            )
        )
        words = {
            "start": "is started",
            "reload": "reads its configuration again (SIGHUP; nothing is restarted)",
            "restart": "is restarted" + (", after live-restore was turned on by SIGHUP" if step.reload_first else ""),
            "defer": "is left as it is",
        }
        lines = [f"{self.engine.unit.name} is enabled\n"] if enable else []
        if step.action in words:
            lines.append(f"{self.engine.unit.name} {words[step.action]}: {step.why}\n")
        if step.action == "defer" and text == self.text:
            lines = []
        whole = prepared + "".join(lines)
        return [{"prepared": whole}] if whole else []


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "str", "required": True},
            "settings": {"type": "dict", "default": {}},
            "versioned": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "since": {"type": "str"},
                    "before": {"type": "str"},
                    "settings": {"type": "dict", "default": {}},
                    "note": {"type": "str"},
                },
            },
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "service": {"type": "str", "default": "docker.service"},
            "socket": {"type": "path", "default": "/var/run/docker.sock"},
            "restart": {"type": "str", "choices": ["safe", "always", "never"], "default": "safe"},
            "labels": {"type": "list", "elements": "str", "default": ["devnode.workspace", "devnode.job"]},
            "package": {"type": "str", "default": ""},
            "engine": {"type": "str", "choices": ["expected", "required"], "default": "expected"},
            "check_routes": {"type": "bool", "default": True},
            "state_dir": {"type": "path", "default": "/var/lib/devnode"},
        },
        supports_check_mode=True,
    )
    try:
        task = Task(module)
        task.run()
    except dj.DaemonJsonError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**task.result)


if __name__ == "__main__":
    main()
