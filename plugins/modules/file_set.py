#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Put a set of files on a host in one step, own it, and take it back when it cuts you off
version_added: 0.1.0
description:
  - Describes all the files that belong together (a role's, usually) as one set, and makes the host have exactly that
    set.
    Contents are rendered on the controller and compared, checked, backed up and written in one round trip.
  - The set is B(owned). A manifest on the host remembers what the set put there. What is no longer listed is removed at
    the next run; directories only when nothing of somebody else is left in them.
  - A file that was there before the set, and that the set replaced, is kept, and put back when the set no longer lists
    it (not with O(files[].never_restore)).
  - A file that somebody else changed since the last run is reported in RV(foreign), and as a warning, before it is
    replaced.
  - O(validate) commands see the new files at their real paths, in a mount namespace of their own, while the live files
    are still untouched. If one fails, nothing has happened.
  - Each file is replaced in one step. The whole change is written to disk first, so that a run that was interrupted
    anywhere is finished by the next one, including its O(activate) commands.
  - If an O(activate) or O(verify) command fails, the old files are put back and activated again.
  - With O(guard), for what can cut off the operator (sshd, the firewall, the network), the host itself takes the
    change back
    unless a B(new) connection of the controller confirms it in time.
options:
  name:
    description:
      - Name of the set, unique on the host. The manifest is C(/var/lib/devnode/file_set/NAME.json).
      - Lower-case letters, digits, C(_), C(.) and C(-); it begins with a letter or a digit.
    type: str
    required: true
  state:
    description:
      - V(absent) removes everything that the set owns, as if O(files) were empty.
    type: str
    choices: [present, absent]
    default: present
  files:
    description:
      - What the set consists of. Missing parent directories are made (root, 0755) and owned as well.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Absolute path in its plain form. Its directories must be real ones, not links, so that what is listed is
            what is
            written.
        type: str
        required: true
      state:
        description:
          - V(file) needs exactly one of O(files[].template), O(files[].content), O(files[].src) and O(files[].program).
          - V(directory) is a directory with this owner and mode; what is in it is not looked at.
          - V(link) is a symbolic link to O(files[].target).
          - V(absent) removes a file or link, whoever made it, and a directory if it is empty.
        type: str
        choices: [file, directory, link, absent]
        default: file
      template:
        description:
          - Template on the controller, searched for like the one of M(ansible.builtin.template), for example in the
            role's
            C(templates/). Rendered with the task's variables, C(trim_blocks) on.
        type: str
      content:
        description:
          - The contents themselves.
        type: str
      src:
        description:
          - File on the controller, searched for like the one of M(ansible.builtin.copy). It may be binary, and may be
            encrypted with Ansible Vault.
        type: str
      program:
        description:
          - A program of this collection that is made of several modules, by name. It becomes one file, a zip archive
            behind a first line, which the host's C(/usr/bin/python3) runs.
        type: str
        choices: [sshd_check]
      vars:
        description:
          - More variables for O(files[].template).
        type: dict
        default: {}
      target:
        description:
          - What a link points to.
        type: str
      owner:
        description:
          - Name or number of the owner.
        type: str
        default: root
      group:
        description:
          - Name or number of the group.
        type: str
        default: root
      mode:
        description:
          - Permissions in octal and in quotes, such as C("0640").
          - C("0644") for files and C("0755") for directories when left out.
        type: raw
      sensitive:
        description:
          - The contents are never shown, neither in a diff nor in a log.
        type: bool
        default: false
      seed:
        description:
          - Make the file when it is missing. Never change it afterwards, and never remove it.
        type: bool
        default: false
      shared:
        description:
          - Others write to this file as well, and O(files[].content) is what it says now with a part of this set's in
            it. When it is no longer listed it stays as it is then, so list it once more without that part.
        type: bool
        default: false
      never_restore:
        description:
          - A rollback leaves this path as the new set has it. For keys and people, which must not come back because
            something else went wrong.
        type: bool
        default: false
  validate:
    description:
      - Commands that must all succeed before anything is changed. They see the new files in place.
      - In check mode they run too. A program that is not on the host yet is then passed over with a warning.
    type: list
    elements: dict
    default: []
    suboptions:
      argv:
        description:
          - Program and arguments. There is no shell.
        type: list
        elements: str
        required: true
      timeout:
        description:
          - Seconds after which the command counts as failed.
        type: int
        default: 60
      user:
        description:
          - The account with whose rights the command runs, without privileges and without other groups. For files that
            belong to a person, who could otherwise make root run something.
        type: str
  activate:
    description:
      - Commands that make the change effective, in this order, after all files are written. They run if something
        changed, or
        if an earlier run was interrupted before it had run them. They are run again after the old files were put back.
    type: list
    elements: dict
    default: []
    suboptions:
      argv:
        description:
          - Program and arguments. There is no shell.
        type: list
        elements: str
        required: true
      when_changed:
        description:
          - Shell patterns of paths (C(*) matches C(/) too). The command runs only if one of the changed paths matches
            one.
        type: list
        elements: str
        default: []
      at_boot:
        description:
          - Run it also when the host takes the change back while it starts. Services are not up then, and start from
            the old files; so this is for what makes something of the old files that a service reads.
        type: bool
        default: false
      timeout:
        description:
          - Seconds after which the command counts as failed.
        type: int
        default: 60
  reactivate:
    description:
      - Commands that make the old files effective again after they were put back, if O(activate) would not do that, for
        example because a file is gone that was not there before. O(activate) when left out.
      - They do not run when the host takes the change back while it starts, as services then start from the old files;
        but for those with C(at_boot).
    type: list
    elements: dict
    suboptions:
      argv:
        description:
          - Program and arguments. There is no shell.
        type: list
        elements: str
        required: true
      when_changed:
        description:
          - Shell patterns of paths, as for O(activate).
        type: list
        elements: str
        default: []
      at_boot:
        description:
          - As for O(activate).
        type: bool
        default: false
      timeout:
        description:
          - Seconds after which the command counts as failed.
        type: int
        default: 60
  verify:
    description:
      - Commands that must succeed after activation. If one does not, the old files are put back and activated.
    type: list
    elements: dict
    default: []
    suboptions:
      argv:
        description:
          - Program and arguments. There is no shell.
        type: list
        elements: str
        required: true
      always:
        description:
          - Run it also when there is nothing to change, and in check mode. Files may be as they should and have no
            effect all the same, because of something else on the host. The command has to look, and change nothing.
          - If it does not succeed then, the task fails and says what the command said. Nothing is put back, because
            nothing was changed.
          - In check mode with something to change, O(validate) says whether the new files do.
        type: bool
        default: false
      repair:
        description:
          - Program and arguments that put it right when the command does not succeed, such as the start of a service
            that somebody has stopped. Then the command has to succeed.
          - With O(verify[].always), the task has changed something if this ran; in check mode it would.
        type: list
        elements: str
      settle:
        description:
          - Seconds for which the command has to go on succeeding after a change or a repair. Without one nothing waits.
          - For a service that is started again when it dies, more than the time from one start to the next
            (C(RestartSec)).
        type: int
        default: 0
      timeout:
        description:
          - Seconds after which the command counts as failed.
        type: int
        default: 60
  backup:
    description:
      - Keep what was replaced in C(/var/lib/devnode/backup/NAME/), the last 10 changes, readable by root only.
    type: bool
    default: true
  guard:
    description:
      - The host makes the change by itself, as a service, and takes it back unless it is confirmed. The controller
        confirms
        over a new connection, opened after the change, with no shared connection on any hop.
      - It holds when the controller is killed, when the network is gone, and when the host restarts in between.
      - Needs systemd on the host. Nothing of it runs when nothing changes.
      - After a restart of the host the old files are back before services start. A unit of the set that starts before
        C(sysinit.target) has to say C(After=devnode-guard-boot.service).
      - The outcome is in the host's journal (C(journalctl -t devnode-guard)), and the next run reports it in
        RV(rollback).
    type: dict
    suboptions:
      window:
        description:
          - Seconds the host waits for the confirmation.
        type: int
        default: 60
      host:
        description:
          - Address of the next connection, if the change alters it.
        type: str
        default: ""
      port:
        description:
          - Port of the next connection, if the change alters it. 0 means that it stays the same.
        type: int
        default: 0
  rendered:
    description:
      - The contents as the action plugin rendered and packed them. Set by it; not for use in a task.
    type: str
attributes:
  check_mode:
    description: Nothing is changed; the difference is shown, and O(validate) runs on the new files in their own
      namespace.
    support: full
  diff_mode:
    description: Shows contents, owners and modes before and after. Not the contents of sensitive or binary files.
    support: full
author:
  - The devnode.gpu authors (@devnode)
seealso:
  - module: devnode.gpu.account_set
  - module: ansible.builtin.template
"""

EXAMPLES = r"""
- name: Put the sshd policy in place
  devnode.gpu.file_set:
    name: ssh_server
    files:
      - path: /etc/ssh/sshd_config.d/00-devnode.conf
        template: 00-devnode.conf.j2
      - path: /etc/devnode/ssh/keys/ada
        content: "{{ keys_of_ada }}"
        never_restore: true
    validate:
      - argv: [/usr/sbin/sshd, -t]
    activate:
      - argv: [systemctl, reload, ssh.service]
    verify:
      - argv: [systemctl, is-active, ssh.service]
    guard:
      window: 60

- name: A unit with its programme, cleaned up when no longer listed
  devnode.gpu.file_set:
    name: gpu_report
    files:
      - path: /usr/local/libexec/gpu-report
        src: gpu-report
        mode: "0755"
      - path: /etc/systemd/system/gpu-report.service
        template: gpu-report.service.j2
      - path: /etc/systemd/system/multi-user.target.wants/gpu-report.service
        state: link
        target: /etc/systemd/system/gpu-report.service
    activate:
      - argv: [systemctl, daemon-reload]
        when_changed: ["/etc/systemd/system/*"]
      - argv: [systemctl, restart, gpu-report.service]

- name: Take everything away again
  devnode.gpu.file_set:
    name: gpu_report
    state: absent
    activate:
      - argv: [systemctl, daemon-reload]
"""

RETURN = r"""
changed_paths:
  description: Paths that were created, replaced or removed (or would be, in check mode).
  returned: always
  type: list
  elements: str
removed:
  description: Those of RV(changed_paths) that are gone.
  returned: always
  type: list
  elements: str
originals:
  description: Those of RV(changed_paths) that the set gives up, and that are again as they were before the set.
  returned: always
  type: list
  elements: str
kept:
  description: Directories of the set that are no longer listed but hold somebody else's files, and so stayed.
  returned: always
  type: list
  elements: str
foreign:
  description: Files of the set that somebody else had changed since the last run, and that were replaced.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The path.
      type: str
      returned: always
    what:
      description: What had been changed, for example V(content) or V(mode, owner).
      type: str
      returned: always
  sample: [{path: /etc/example.conf, what: content}]
rollback:
  description: What the guard of an earlier run did, if it put old files back and nobody has been told yet; otherwise
    null.
  returned: always
  type: dict
  contains:
    reason:
      description: Why the old files were put back.
      type: str
      returned: always
    time:
      description: When, by the host's clock.
      type: str
      returned: always
    restored:
      description: Paths that were put back.
      type: list
      elements: str
      returned: always
    not_restored:
      description: Paths that were left alone because of O(files[].never_restore).
      type: list
      elements: str
      returned: always
    errors:
      description: What did not work while putting them back.
      type: list
      elements: str
      returned: always
resumed:
  description: Whether this run finished a change that an earlier one had left half done.
  returned: always
  type: bool
backup:
  description: Directory on the host with what was replaced, or null.
  returned: always
  type: str
repaired:
  description: Commands of O(verify) that did not succeed although there was nothing to change, and were put right.
  returned: always
  type: list
  elements: str
commands:
  description: The activate and verify commands that ran, with exit code and output. Not with O(guard), where the host
    runs them.
  returned: always
  type: list
  elements: dict
  contains:
    argv:
      description: The command.
      type: list
      elements: str
      returned: always
    rc:
      description: Its exit code.
      type: int
      returned: always
    output:
      description: What it printed.
      type: str
      returned: always
    seconds:
      description: How long it took.
      type: float
      returned: always
guard:
  description: How a guarded change was confirmed. Null when none was needed.
  returned: always
  type: dict
  contains:
    phase:
      description: V(confirmed) when the new connection came; V(rolled_back) when the host took the change back.
      type: str
      returned: always
    attempts:
      description: How many connections were tried.
      type: int
      returned: when confirmed
    seconds:
      description: Time from the change to the confirmation.
      type: float
      returned: when confirmed
"""

import os
import shutil
import time
from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import fileset_guard as guard
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_arm import arm
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import (
    COMMAND_ENV,
    run_command,
    verified,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_diff import difference
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import (
    BASE,
    FileSetError,
    locked,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_input import Reader, Wanted
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_manifest import (
    load_manifest,
    owned_by_others,
    read_original,
    save_manifest,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_plan import Plan, make_plan
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_prepare import (
    known_states,
    owned_with,
    prepare,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_stage import Stage, StageError
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_states import inspect
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_transaction import Transaction

GUARD_WAIT = 120.0

_COMMAND: Dict[str, Any] = {
    "argv": {"type": "list", "elements": "str", "required": True},
    "timeout": {"type": "int", "default": 60},
}
_ACTIVATION: Dict[str, Any] = {
    **_COMMAND,
    "when_changed": {"type": "list", "elements": "str", "default": []},
    "at_boot": {"type": "bool", "default": False},
}
ARGUMENTS: Dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
            "template": {"type": "str"},
            "content": {"type": "str"},
            "src": {"type": "str"},
            "program": {"type": "str", "choices": ["sshd_check"]},
            "vars": {"type": "dict", "default": {}},
            "target": {"type": "str"},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "raw"},
            "sensitive": {"type": "bool", "default": False},
            "seed": {"type": "bool", "default": False},
            "shared": {"type": "bool", "default": False},
            "never_restore": {"type": "bool", "default": False},
        },
    },
    "validate": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**_COMMAND, "user": {"type": "str"}},
    },
    "activate": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": _ACTIVATION,
    },
    "reactivate": {
        "type": "list",
        "elements": "dict",
        "options": _ACTIVATION,
    },
    "verify": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            **_COMMAND,
            "always": {"type": "bool", "default": False},
            "repair": {"type": "list", "elements": "str"},
            "settle": {"type": "int", "default": 0},
        },
    },
    "backup": {"type": "bool", "default": True},
    "guard": {
        "type": "dict",
        "options": {
            "window": {"type": "int", "default": 60},
            "host": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 0},
        },
    },
    # Contents by index, packed. Never shown.
    "rendered": {"type": "str", "no_log": True},
}


class FileSet:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: Dict[str, Any] = module.params
        self.name: str = self.params["name"]
        self.check: bool = module.check_mode
        self.wanted = Wanted()
        self.result: Dict[str, Any] = {
            "changed": False,
            "changed_paths": [],
            "removed": [],
            "originals": [],
            "kept": [],
            "foreign": [],
            "rollback": None,
            "resumed": False,
            "backup": None,
            "commands": [],
            "repaired": [],
            "guard": None,
        }

    def run(self) -> None:
        reader = Reader(self.params, self.check, self.module.warn, self.module.no_log_values.update)
        self.wanted = reader.read(owned_by_others)
        if self.check:
            self._run_once()
            return
        end = time.monotonic() + GUARD_WAIT + (self.params["guard"] or {"window": 60})["window"]
        while True:
            with locked():
                blocker = self._run_once()
                if blocker is None:
                    return
                if not guard.watched(blocker["name"]):
                    # Nobody watches it any more, and the lock says that nobody is about to.
                    guard.recover(blocker["name"], "the service that watched the change was gone")
                    continue
            if time.monotonic() >= end:
                raise FileSetError(
                    f"the file set {blocker['name']!r} is being changed under guard on this host and is not confirmed "
                    f"yet; two guarded changes at once could not be told apart. Nothing was changed. See "
                    f"`{guard.PROGRAM} status` and `journalctl -t devnode-guard` there, then run again."
                )
            time.sleep(0.2)

    def _run_once(self) -> Optional[Dict[str, Any]]:
        """Do it, or return the guard that has to end first."""
        armed = guard.armed()
        own = next((state for state in armed if state["name"] == self.name), None)
        if own and not self.check:
            return own
        if own:
            self.module.warn(f"the file set {self.name!r} is being changed under guard right now; this may be wrong.")
        self._report_rollback()
        manifest = load_manifest(self.name)
        earlier = None if own else Transaction.load(self.name)
        if earlier and not earlier.touched_live_files:
            if not self.check:
                earlier.discard()
            earlier = None
        owned = owned_with(manifest, earlier)
        plan = make_plan(self.wanted.states, owned, inspect, known_states(earlier))
        if plan.errors:
            raise FileSetError("\n".join([f"file_set {self.name!r} cannot be put on this host:", *plan.errors]))
        self._read_originals(plan, owned)
        self._report(plan, resumed=earlier is not None)
        if not plan.changes and earlier is None:
            if not self.check and plan.entries != manifest["entries"]:
                save_manifest(plan.manifest(self.name))
            self._look_again()
            return None
        if armed and not self.check:
            return armed[0]
        self._validate(plan)
        if self.check:
            return None
        transaction = prepare(plan, self.wanted.contents, self.params, manifest, earlier)
        if self.params["guard"]:
            self.result["guard"] = arm(transaction, self.wanted.guard_program, self.params["guard"]["window"])
            self.result["backup"] = transaction.data["backup"]
        else:
            self._apply(transaction)
        return None

    def _warn(self, text: str) -> None:
        """With the host's name: Ansible shows a text once, even if many hosts say the same."""
        self.module.warn(f"{os.uname().nodename}: {text}")

    def _read_originals(self, plan: Plan, owned: Dict[str, Any]) -> None:
        """What comes back because the set gives a path up."""
        for change in plan.changes:
            if not change.original or change.after["type"] != "file":
                continue
            data = read_original(self.name, owned[change.path]["original"])
            if data is None:
                self.module.warn(
                    f"{change.path}: what was there before {self.name!r} is no longer in {BASE}/original; the "
                    f"file {'would be' if self.check else 'is'} removed."
                )
                change.original, change.after = False, {"path": change.path, "type": "absent"}
            else:
                self.wanted.contents[change.path] = data

    def _report_rollback(self) -> None:
        state = guard.guard_state(self.name)
        if state is None or state["phase"] != "rolled_back":
            return
        keys = ("reason", "time", "restored", "not_restored", "errors")
        self.result["rollback"] = {key: state.get(key) for key in keys}
        self._warn(
            f"the host put the old files of {self.name!r} back at {state['time']}: {state['reason']}. "
            f"See `journalctl -t devnode-guard` there."
        )
        if not self.check:
            guard.clear_guard(self.name)

    def _report(self, plan: Plan, resumed: bool) -> None:
        self.result.update(
            changed=bool(plan.changes) or resumed,
            changed_paths=plan.changed_paths,
            removed=plan.removed,
            originals=plan.originals,
            kept=plan.kept,
            foreign=plan.foreign,
            resumed=resumed,
        )
        for item in plan.foreign:
            self._warn(
                f"{item['path']} was changed by somebody else ({item['what']}) since the last run; "
                f"it {'would be' if self.check else 'is'} replaced."
            )
        if resumed:
            self._warn(f"an earlier run was interrupted while it changed {self.name!r}; this one finishes it.")
        if self.module._diff:
            diffs = []
            for change in plan.changes:
                diffs += difference(change, self.wanted.contents.get(change.path))
            self.result["diff"] = diffs

    def _validate(self, plan: Plan) -> None:
        commands = list(self.params["validate"])
        if self.check:
            made = {change.path for change in plan.changes if change.after["type"] != "absent"}
            for command in list(commands):
                program = command["argv"][0]
                if program not in made and not shutil.which(program, path=COMMAND_ENV["PATH"]):
                    self.module.warn(f"{program} is not on this host yet: that check of {self.name!r} was passed over.")
                    commands.remove(command)
        if not commands:
            return
        with Stage([(change.after, self.wanted.contents.get(change.path)) for change in plan.changes]) as stage:
            stage.prepare()
            outcomes = [stage.run(command) for command in commands]
        bad = [outcome for outcome in outcomes if outcome["rc"] != 0]
        if bad:
            text = "\n".join(f"`{' '.join(o['argv'])}` ended with {o['rc']}: {o['output']}" for o in bad)
            raise FileSetError(
                f"the new files of {self.name!r} did not pass their check, so nothing was changed on this host.\n{text}"
            )

    def _look_again(self) -> None:
        """The files are as they should be. What else has to be so may not be: somebody undid it in another place."""
        if self.params["state"] == "absent":
            return
        bad = []
        for command in (one for one in self.params["verify"] if one["always"]):
            outcome = run_command(command) if self.check else verified(command)
            repaired = bool(self.check and outcome["rc"] and command["repair"]) or "repaired" in outcome
            self.result["commands"].append(outcome)
            if repaired:
                self._report_repair(command)
            if outcome["rc"] and not (self.check and repaired):
                bad.append(outcome)
        if bad:
            text = "\n".join(f"`{' '.join(o['argv'])}` ended with {o['rc']}: {o['output']}" for o in bad)
            raise FileSetError(
                f"the files of {self.name!r} are as they should be, and nothing was to be changed; but something else "
                f"on this host keeps them from being in effect.\n{text}"
            )

    def _report_repair(self, command: Dict[str, Any]) -> None:
        looked, repair = " ".join(command["argv"]), " ".join(command["repair"])
        self._warn(f"`{looked}` did not succeed; `{repair}` {'would put' if self.check else 'put'} that right.")
        self.result["changed"] = True
        self.result["repaired"].append(looked)
        if self.module._diff:
            text = {"before": f"`{looked}` does not succeed\n", "after": f"`{looked}` succeeds, after `{repair}`\n"}
            header = {"before_header": self.name, "after_header": self.name}
            self.result["diff"] = [*self.result.get("diff", []), {**header, **text}]

    def _apply(self, transaction: Transaction) -> None:
        bad = transaction.apply()
        if bad:
            report = transaction.rollback()
            self.result["changed"] = False
            self.result["rollback_errors"] = report["errors"]
            raise FileSetError(_failure_text(self.name, bad, report))
        self.result["commands"] = transaction.data.get("outcomes", [])
        self.result["backup"] = transaction.finish()
        self.result["kept"] = sorted(set(self.result["kept"]) | set(transaction.data.get("kept", [])))


def _failure_text(name: str, bad: Dict[str, Any], report: Dict[str, Any]) -> str:
    if "command" in bad:
        command = bad["command"]
        why = f"`{' '.join(command['argv'])}` ({bad['reason']}) ended with {command['rc']}: {command['output']}"
    else:
        why = bad["msg"]
    text = f"the change of {name!r} did not work, so the old files were put back.\n{why}"
    if report["errors"]:
        text += "\nNot everything could be put back; look after these by hand:\n" + "\n".join(report["errors"])
    return text


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    run = FileSet(module)
    try:
        run.run()
    except (FileSetError, StageError) as error:
        run.result.pop("changed", None)
        module.fail_json(msg=str(error), **run.result)
    module.exit_json(**run.result)


if __name__ == "__main__":
    main()
