#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: account_set
short_description: Put a set of accounts on a host in one step, and own it
version_added: 0.1.0
description:
  - Describes accounts that belong together (a role's, usually) as one set, and makes the host have exactly these.
    One task and one round trip, however many people there are.
  - The set is B(owned). A manifest on the host remembers which accounts and groups the set made. What is no longer
    listed is removed at the next run, with its crontab and its jobs of at, its sessions and processes ended first.
    Accounts that were there before are never removed.
  - Accounts have the password C(*). No password fits it, and sshd does not take the account for locked.
  - Processes in containers are not ended, even where they have the number of an account that is removed.
options:
  name:
    description:
      - Name of the set, unique on the host. The manifest is C(/var/lib/devnode/account_set/NAME.json).
      - Lower-case letters, digits, C(_), C(.) and C(-); it begins with a letter or a digit.
    type: str
    required: true
  groups:
    description:
      - Groups to make. One that exists already is used as it is, and not owned.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the group.
        type: str
        required: true
      gid:
        description:
          - Its number. The next free one when left out.
        type: int
      system:
        description:
          - Take a number from the system's range.
        type: bool
        default: false
  accounts:
    description:
      - The accounts. A name that exists with another uid and was not made by this set is refused, as is a uid that
        belongs to another account, or to the system.
      - An account that exists with this uid and was not made by this set is refused when its shell, its home or its
        main group would change. One that has them already keeps its password and its other groups, and is not
        removed later.
      - The account that the run is logged in as is never changed or removed; that is refused.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Login name.
        type: str
        required: true
      uid:
        description:
          - Its number, 1000 or more.
        type: int
        required: true
      group:
        description:
          - Main group. A group of its own, named like the account, when left out.
        type: str
        default: ""
      groups:
        description:
          - All other groups that it is in.
        type: list
        elements: str
        default: []
      shell:
        description:
          - Login shell.
        type: str
        default: /bin/bash
      home:
        description:
          - Home directory. C(/home/NAME) when left out.
        type: str
        default: ""
      create_home:
        description:
          - Make the home directory, for its owner alone, with the files of C(/etc/skel).
        type: bool
        default: true
      comment:
        description:
          - Full name or the like.
        type: str
        default: ""
  remove_home:
    description:
      - Remove the homes that this set made together with their accounts. Otherwise they are kept, and named in
        RV(kept_homes).
    type: bool
    default: false
attributes:
  check_mode:
    description: Nothing is changed; the difference is shown.
    support: full
  diff_mode:
    description: Shows each account that differs as one line before and after.
    support: full
author:
  - The devnode.gpu authors (@devnode)
seealso:
  - module: devnode.gpu.file_set
"""

EXAMPLES = r"""
- name: Have an account for everybody who may pass through
  devnode.gpu.account_set:
    name: bastion_relay
    groups:
      - name: devnode-relay
    accounts:
      - name: ada
        uid: 2001
        group: devnode-relay
        shell: /usr/sbin/nologin
        home: /nonexistent
        create_home: false

- name: Take them all away again
  devnode.gpu.account_set:
    name: bastion_relay
"""

RETURN = r"""
created:
  description: Accounts that were made (or would be, in check mode).
  returned: always
  type: list
  elements: str
updated:
  description: Accounts that were adjusted.
  returned: always
  type: list
  elements: str
removed:
  description: Accounts that were removed.
  returned: always
  type: list
  elements: str
released:
  description: Accounts that are no longer listed but were not made by this set, and so stayed as they are.
  returned: always
  type: list
  elements: str
ended:
  description: Number of processes of removed accounts that were ended.
  returned: always
  type: int
unscheduled:
  description: Crontabs, jobs of at, and marks that keep units running (linger) of removed accounts. They were removed.
  returned: always
  type: list
  elements: str
kept_homes:
  description: Home directories of removed accounts that are still there.
  returned: always
  type: list
  elements: str
"""

import contextlib
import os
import pwd
import shutil
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import session
from ansible_collections.devnode.gpu.plugins.module_utils.accounts_host import end_processes, read_live, scheduled_for
from ansible_collections.devnode.gpu.plugins.module_utils.accounts_plan import (
    Account,
    AccountPlan,
    Step,
    check_wanted,
    make_account_plan,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import run_command
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import FileSetError, locked
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_manifest import (
    SET_NAME,
    load_manifest,
    owned_by_others,
    save_manifest,
)

KIND = "account_set"
ARGUMENTS: Dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "groups": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "gid": {"type": "int"},
            "system": {"type": "bool", "default": False},
        },
    },
    "accounts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "uid": {"type": "int", "required": True},
            "group": {"type": "str", "default": ""},
            "groups": {"type": "list", "elements": "str", "default": []},
            "shell": {"type": "str", "default": "/bin/bash"},
            "home": {"type": "str", "default": ""},
            "create_home": {"type": "bool", "default": True},
            "comment": {"type": "str", "default": ""},
        },
    },
    "remove_home": {"type": "bool", "default": False},
}


class RefusedError(Exception):
    """The input or the host does not allow it; the text says why."""


class AccountSet:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: Dict[str, Any] = module.params
        self.name: str = self.params["name"]
        self.result: Dict[str, Any] = {
            "changed": False,
            "created": [],
            "updated": [],
            "removed": [],
            "released": [],
            "ended": 0,
            "unscheduled": [],
            "kept_homes": [],
        }

    def wanted(self) -> List[Account]:
        accounts = [
            Account(
                name=item["name"],
                uid=item["uid"],
                group=item["group"] or item["name"],
                groups=tuple(dict.fromkeys(item["groups"])),
                shell=item["shell"],
                home=item["home"] or f"/home/{item['name']}",
                comment=item["comment"],
                create_home=item["create_home"],
            )
            for item in self.params["accounts"]
        ]
        errors = check_wanted(accounts, self.params["groups"])
        if not SET_NAME.fullmatch(self.name):
            errors.insert(0, f"name: {self.name!r} has to match {SET_NAME.pattern}; it becomes a file name.")
        self._refuse(errors)
        return accounts

    def _refuse(self, errors: List[str]) -> None:
        if errors:
            head = f"account_set {self.name!r} cannot be put on this host, and nothing was changed:"
            raise RefusedError("\n".join([head, *errors]))

    def run(self) -> None:
        accounts = self.wanted()
        if self.module.check_mode:
            self._run(accounts)
        else:
            with locked():
                self._run(accounts)

    def _run(self, accounts: List[Account]) -> None:
        manifest = load_manifest(self.name, KIND)
        live = read_live()
        connected = session.current()
        plan = make_account_plan(
            accounts,
            self.params["groups"],
            manifest,
            live,
            owned_by_others(self.name, KIND),
            self.params["remove_home"],
            self.module.check_mode,
            connected.user if connected else "",
        )
        self._refuse(plan.errors)
        for text in plan.warnings:
            self.module.warn(text)
        homes = self._missing_homes(accounts, plan)
        self.result.update(
            changed=bool(plan.steps or homes),
            created=plan.names("create"),
            removed=plan.names("remove"),
            updated=sorted({*plan.names("update"), *homes}),
            released=plan.released,
        )
        if self.module._diff:
            self.result["diff"] = {
                "before_header": f"accounts of {self.name}",
                "after_header": f"accounts of {self.name}",
                "before": "".join(line + "\n" for line in plan.before),
                "after": "".join(line + "\n" for line in plan.after),
            }
        if self.module.check_mode:
            return
        after = {"version": 1, "name": self.name, "entries": plan.entries, "groups": plan.groups}
        if plan.steps or homes:
            # First what is going to be ours, so that an interruption leaves nothing that belongs to nobody.
            both = {key: {**manifest.get(key, {}), **dict(after[key])} for key in ("entries", "groups")}  # type: ignore[call-overload]
            save_manifest({**after, **both}, KIND)
            self._do(plan)
            for name in homes:
                self._make_home(name)
        if plan.steps or homes or any(after[key] != manifest.get(key, {}) for key in ("entries", "groups")):
            save_manifest(after, KIND)

    def _missing_homes(self, accounts: List[Account], plan: AccountPlan) -> List[str]:
        """Homes of accounts that exist, whose making was interrupted or that somebody removed."""
        created = set(plan.names("create"))
        return [a.name for a in accounts if a.create_home and a.name not in created and not os.path.isdir(a.home)]

    def _do(self, plan: AccountPlan) -> None:
        self._end([step for step in plan.steps if step.uid >= 0 and step.kind in ("remove", "update")])
        for step in plan.steps:
            if step.kind == "ungroup" and step.name not in read_live().gids:
                continue  # userdel took it along
            self._command(step)
            if step.kind == "create" and step.home and not os.path.isdir(step.home):
                self._make_home(step.name)
            if step.kind == "remove" and step.home and os.path.isdir(step.home):
                self.result["kept_homes"].append(step.home)

    def _end(self, steps: List[Step]) -> None:
        """Nobody new gets in, then everybody who is in goes."""
        if not steps:
            return
        for step in steps:
            if step.kind == "remove":
                run_command({"argv": ["usermod", "-e", "1", step.name]})
                self._unschedule(step)
        self.result["ended"] = end_processes({step.uid for step in steps})

    def _unschedule(self, step: Step) -> None:
        """Otherwise it would go on for whoever gets the login or the number next."""
        for path in scheduled_for(step.name, step.uid):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self.result["unscheduled"].append(path)

    def _command(self, step: Step) -> None:
        outcome = run_command({"argv": step.argv})
        if step.kind == "remove" and outcome["rc"] == 8:  # in use: something was started in the meantime
            end_processes({step.uid})
            outcome = run_command({"argv": ["userdel", "-f", *step.argv[1:]]})
        if step.kind == "remove" and outcome["rc"] == 12:  # the home could not be removed; the account is gone
            self.module.warn(f"the account {step.name!r} is gone, but not its home: {outcome['output']}")
        elif outcome["rc"] != 0:
            raise RefusedError(
                f"account_set {self.name!r} stopped half-way on this host: `{' '.join(step.argv)}` ended with "
                f"{outcome['rc']}: {outcome['output']}. What is done is remembered; correct the cause and run again."
            )

    @staticmethod
    def _make_home(name: str) -> None:
        account = pwd.getpwnam(name)
        building = account.pw_dir.rstrip("/") + ".devnode-new"
        shutil.rmtree(building, ignore_errors=True)
        os.makedirs(os.path.dirname(account.pw_dir), mode=0o755, exist_ok=True)
        if os.path.isdir("/etc/skel"):
            shutil.copytree("/etc/skel", building, symlinks=True)
        else:
            os.mkdir(building)
        for directory, directories, files in os.walk(building):
            for entry in [*directories, *files]:
                os.chown(os.path.join(directory, entry), account.pw_uid, account.pw_gid, follow_symlinks=False)
        os.chown(building, account.pw_uid, account.pw_gid)
        os.chmod(building, 0o700)
        os.rename(building, account.pw_dir)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    run = AccountSet(module)
    try:
        run.run()
    except (RefusedError, FileSetError) as error:
        run.result.pop("changed", None)
        module.fail_json(msg=str(error), **run.result)
    module.exit_json(**run.result)


if __name__ == "__main__":
    main()
