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
import re
import shutil
import signal
import tempfile
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import daemon_json as dj
from ansible_collections.devnode.gpu.plugins.module_utils import dockerd

VALIDATES_SINCE = (23, 0)
CDI_BY_ITSELF_SINCE = (28, 3)
BACKUPS_KEPT = 10


class Engine:
    """The engine on this host, as far as this task needs it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.socket: str = module.params["socket"]
        self.program = dockerd.find("dockerd")
        self.unit = self.read_unit()
        self.version = self._version()

    def run(self, argv: List[str]) -> "tuple[int, str, str]":
        return self.module.run_command(argv, handle_exceptions=False)  # type: ignore[no-any-return]

    def read_unit(self) -> dockerd.Unit:
        try:
            return dockerd.read_unit(self.run, self.module.params["service"])
        except OSError:
            return dockerd.Unit(self.module.params["service"])

    def _version(self) -> str:
        if self.program:
            found = re.search(r"version ([^\s,]+)", self.run([self.program, "--version"])[1])
            return found.group(1) if found else ""
        package = self.module.params["package"]
        if package and dockerd.find("apt-cache"):
            found = re.search(r"Candidate: (?:\d+:)?([^\s-]+)", self.run(["apt-cache", "policy", package])[1])
            return found.group(1) if found and found.group(1) != "(none)" else ""
        return ""

    def validate(self, path: str) -> str:
        """What dockerd says against a file; empty when nothing, or when this version cannot tell."""
        if not self.program or dj.version_of(self.version) < VALIDATES_SINCE:
            return ""
        argv = [self.program, "--validate", "--config-file", path]
        code, out, err = self.run(argv + without_config_file(self.unit.argv()))
        return "" if code == 0 else (err or out).strip()

    def state(self, loaded: Optional[Mapping[str, Any]]) -> Optional[dj.Running]:
        if not self.unit.active:
            return None
        info = dockerd.ask(self.socket, "/info")
        containers = dockerd.running_containers(self.socket)
        labels = self.module.params["labels"]
        return dj.Running(
            loaded=loaded,
            live_restore=bool((info or {}).get("LiveRestoreEnabled")),
            version=(info or {}).get("ServerVersion", ""),
            containers=tuple(dockerd.container_names(containers or [], labels)),
            gpu_processes=tuple(dockerd.gpu_processes(self.run)),
            answers=info is not None and containers is not None,
        )

    def do(self, verb: str) -> str:
        """Start or restart it; what went wrong, or empty."""
        # systemd counts starts (three a minute for Docker's unit) and refuses the next one. That is meant for an engine
        # that crashes over and over; on a change that is wanted it would leave the host without its engine.
        self.run(["systemctl", "reset-failed", self.unit.name])
        code, _dummy, err = self.run(["systemctl", verb, self.unit.name])
        self.unit = self.read_unit()
        if code == 0 and self.unit.active and self._answers():
            return ""
        log = self.run(["journalctl", "--unit", self.unit.name, "--lines", "15", "--no-pager", "--output", "cat"])[1]
        return f"{err.strip()}\n{log.strip()}".strip()

    def reload(self) -> None:
        os.kill(int(self.unit.properties["MainPID"]), signal.SIGHUP)

    def wait_live_restore(self) -> bool:
        for _dummy in range(50):
            if (dockerd.ask(self.socket, "/info") or {}).get("LiveRestoreEnabled"):
                return True
            time.sleep(0.1)
        return False

    def _answers(self) -> bool:
        for _dummy in range(100):
            if dockerd.ask(self.socket, "/version", timeout=5) is not None:
                return True
            time.sleep(0.1)
        return False


def without_config_file(argv: Sequence[str]) -> List[str]:
    out: List[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config-file":
            next(words, None)
        elif not word.startswith("--config-file="):
            out.append(word)
    return out


class Record:
    """What we remember about one file: who owns which key, and what the running engine has read."""

    def __init__(self, state_dir: str, path: str) -> None:
        self.path = os.path.join(state_dir, "daemon_json", path.strip("/").replace("/", "-"))
        self.data: Dict[str, Any] = {}
        try:
            with open(self.path, encoding="utf-8") as file:
                self.data = json.load(file)
        except FileNotFoundError:
            pass

    def loaded(
        self, unit: dockerd.Unit, current: Mapping[str, Any], modified: Optional[float]
    ) -> Optional[Mapping[str, Any]]:
        """The configuration that the running engine has read, as far as one can know."""
        known = self.data.get("loaded", {})
        if known and known.get("invocation") == unit.invocation:
            return known["config"]  # type: ignore[no-any-return]
        started = unit.started()
        if modified is None:
            return current
        return current if started is not None and modified <= started + 1 else None

    def write(self) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        write_file(self.path, json.dumps(self.data, indent=1, sort_keys=True) + "\n", 0o600)


def write_file(path: str, text: str, mode: int, like: Optional[os.stat_result] = None) -> None:
    """Whole or not at all, also when the power goes."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".devnode-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, like.st_mode & 0o7777 if like else mode)
        if like:
            os.chown(temporary, like.st_uid, like.st_gid)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def backup(state_dir: str, path: str) -> str:
    folder = os.path.join(state_dir, "backup", "daemon_json")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    name = path.strip("/").replace("/", "-")
    kept = os.path.join(folder, f"{name}.{time.strftime('%Y%m%dT%H%M%S')}")
    shutil.copy2(path, kept)
    old = sorted(entry for entry in os.listdir(folder) if entry.startswith(name + "."))
    for entry in old[:-BACKUPS_KEPT]:
        os.unlink(os.path.join(folder, entry))
    return kept


class Task:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.path = os.path.realpath(self.params["path"])
        self.engine = Engine(module)
        self.record = Record(self.params["state_dir"], self.params["path"])
        self.text, self.stat = self._read()
        self.result: Dict[str, Any] = {"changed": False, "pending": [], "action": "none"}

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
        extra, notes = dj.for_version(self.params["versioned"], dj.version_of(self.engine.version))
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
        step = dj.next_step(outcome.document, running, self.engine.version, self.params["restart"])
        if not self.engine.unit.exists and not self.module.check_mode:
            step = dj.Step("none")  # nothing to start here: the file waits for an engine
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
        step: dj.Step,
        enable: bool,
    ) -> None:
        before = json.dumps(self.record.data, sort_keys=True)
        if differs and self.stat:
            self.result["backup"] = backup(self.params["state_dir"], self.path)
        # First the record: a run that is cut off between the two still knows what is ours and what the engine has read.
        self.record.data.update(outcome.ownership.to_json())
        if self.engine.unit.active and loaded is not None:
            self._remember(loaded)
        if json.dumps(self.record.data, sort_keys=True) != before:
            self.record.write()
        if differs:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            write_file(self.path, text, 0o644, self.stat)
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
            write_file(self.path, self.text, 0o644, self.stat)
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
        found = dj.clashes(document, self.engine.unit.argv())
        if found:
            pairs = ", ".join(f"{key} ({flag})" for key, flag in sorted(found.items()))
            raise dj.DaemonJsonError(
                f"{pairs}: given both in {self.path} and as a flag of {self.engine.unit.name}, and dockerd refuses to "
                "start with both. Nothing was changed. Take the flag out of the unit "
                f"({self.engine.unit.files}), or do not set the key."
            )

    @staticmethod
    def _refuse_limits(settings: Mapping[str, Any]) -> None:
        found = dj.limit_troubles(settings, dockerd.read_limit_ceilings())
        if found:
            raise dj.DaemonJsonError(
                "\n".join(found) + "\nEvery container without limits of its own would fail to start. Nothing was "
                "changed. Ask for at most "
                "that (docker_engine_default_ulimits), or have whoever runs this machine raise its limit."
            )

    def _refuse_overlaps(self, document: Mapping[str, Any], current: Mapping[str, Any]) -> None:
        if not self.params["check_routes"]:
            return
        networks = dj.own_networks(document)
        peer = dockerd.connection_peer()
        if not networks:
            if self.engine.unit.active:
                return  # it has chosen already, and this connection stands
            networks = {"dockerd's own choice": frozenset(dj.own_networks({"bip": dj.BUILT_IN_POOLS[0]})["bip"])}
        elif self.engine.unit.active and networks == dj.own_networks(current):
            return
        found = dj.overlaps(networks, dockerd.routes(self.engine.run), [peer] if peer else [])
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
        version = dj.version_of(self.engine.version)
        return version >= (25, 0) and (version >= CDI_BY_ITSELF_SINCE if given is None else bool(given))

    def _diff(self, text: str, step: dj.Step, enable: bool) -> List[Dict[str, str]]:
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
