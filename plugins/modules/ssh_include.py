#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module ssh_include."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ssh_include
short_description: Put one Include line at the top of people's ssh configuration
version_added: "0.1.0"
description:
  - Sees to it that the first line of C(~/.ssh/config) that says anything includes a file of ours, for several accounts
    at once. ssh takes the first value that it finds, so a V(Host *) above it would win.
  - The rest of the file stays as it is, to the byte. It is replaced atomically, with the rights of the account, so
    that a link in a home cannot lead anywhere else. What it held before is kept under
    C(/var/lib/devnode/backup/ssh_include/).
  - A file that is a link or read-only is managed in another way and is left alone. The error says which line to add.
  - Whom the module has served is remembered in C(/var/lib/devnode/ssh_include/). An account that is no longer listed
    loses the line at the next run.
options:
  name:
    description: Name of this set of accounts, unique on the host.
    type: str
    required: true
  accounts:
    description: Accounts on this host whose configuration is meant.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Login.
        type: str
        required: true
      include:
        description: What to include, below the home, as ssh reads it.
        type: str
        default: ~/.ssh/devnode/config
  state:
    description:
      - V(absent) takes the line out again, from all accounts of this set. A file that only this module made goes with
        it.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Shows our line only, never the person's own settings.
    support: full
author:
  - The devnode.gpu authors (@devnode)
"""

EXAMPLES = r"""
- name: Include our file in two people's configuration
  devnode.gpu.ssh_include:
    name: fleet
    accounts:
      - name: ada
      - name: grace
        include: ~/.ssh/fleet/config

- name: Take it out again, from everybody's
  devnode.gpu.ssh_include:
    name: fleet
    state: absent
"""

RETURN = r"""
changed_accounts:
  description: Whose configuration changed.
  type: list
  elements: str
  returned: always
homes:
  description: Home, uid and gid of every account.
  type: dict
  returned: always
  sample: {ada: {home: /home/ada, uid: 2001, gid: 2001}}
"""

import json
import os
import re
import traceback
from dataclasses import dataclass
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import ssh_include, whole_file

BACKUPS = "/var/lib/devnode/backup/ssh_include"
RECORDS = "/var/lib/devnode/ssh_include"


@dataclass
class Job:
    """One account whose configuration is to be brought into a state."""

    entry: Any
    include: str
    present: bool


def as_owner(job: Job, write: bool) -> ssh_include.Outcome:
    """Edit one config in a child process that has given up all rights but those of the account."""
    entry = job.entry
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as report:
            try:
                os.initgroups(entry.pw_name, entry.pw_gid)
                os.setgid(entry.pw_gid)
                os.setuid(entry.pw_uid)
                os.umask(0o077)
                ssh_include.check_ours(entry.pw_dir, job.include, entry.pw_uid)
                outcome = ssh_include.edit(entry.pw_dir, job.include, job.present, write)
            except ssh_include.RefusedError as error:
                by_hand = not isinstance(error, ssh_include.UnsafeError)
                outcome = ssh_include.Outcome(account="", refused=str(error), by_hand=by_hand)
            except OSError as error:
                outcome = ssh_include.Outcome(account="", refused=f"{error.strerror} ({error.filename})")
            except Exception:
                outcome = ssh_include.Outcome(account="", refused=traceback.format_exc(limit=-1).splitlines()[-1])
            json.dump(vars(outcome), report)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as report:
        text = report.read()
    os.waitpid(child, 0)
    outcome = ssh_include.Outcome(**json.loads(text))
    outcome.account, outcome.home, outcome.uid, outcome.gid = entry.pw_name, entry.pw_dir, entry.pw_uid, entry.pw_gid
    outcome.path = os.path.join(entry.pw_dir, ".ssh", "config")
    return outcome


def keep(account: str, text: str) -> None:
    """Keep what a config held before, for root's eyes only."""
    directory = os.path.join(BACKUPS, account)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    name = os.path.join(directory, whole_file.stamp())
    with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", errors="surrogateescape") as target:
        target.write(text)
    whole_file.drop_oldest(name)


def former(path: str) -> Dict[str, str]:
    """Whom the last run served: account -> include."""
    try:
        with open(path) as source:
            return {str(account): str(include) for account, include in json.load(source).items()}
    except FileNotFoundError:
        return {}


def remember(path: str, served: Dict[str, str]) -> None:
    """Note whom this run served."""
    if not served:
        if os.path.exists(path):
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        json.dump(served, target, sort_keys=True)
    os.replace(path + ".new", path)


def refusal(job: Job, outcome: ssh_include.Outcome) -> str:
    """Why a config is left alone, and what its owner can do."""
    what = "Put this line at its very top" if job.present else "Take this line out of it"
    advice = f" {what} yourself: Include {job.include}" if outcome.by_hand else ""
    return f"{outcome.path}: {outcome.refused}. It is left alone.{advice}"


def shown(job: Job, outcome: ssh_include.Outcome) -> Dict[str, str]:
    """The difference: our line, and nothing of what the person wrote."""
    line = f"Include {job.include}\n"
    before, after = ("", line) if job.present else (line, "")
    return {"before_header": outcome.path, "after_header": outcome.path, "before": before, "after": after}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "accounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "include": {"type": "str", "default": "~/.ssh/devnode/config"},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="It edits other people's files, so it has to run as root: set become: true.")
    name: str = module.params["name"]
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        module.fail_json(msg=f'name: "{name}" is no plain name. Allowed: a-z 0-9 _ . - after a letter or digit.')
    record = os.path.join(RECORDS, name + ".json")
    before = former(record)
    given = {account["name"]: account["include"] for account in module.params["accounts"]}
    served = given if module.params["state"] == "present" else {}
    homes: Dict[str, Dict[str, Any]] = {}
    jobs: List[Job] = []
    errors: List[str] = []
    changed: List[str] = []
    for account, include in {**before, **given}.items():
        present = account in served
        entry = ssh_include.find(account)
        if not include.startswith("~/.ssh/"):
            errors.append(f'accounts: the include of {account}, "{include}", does not lie below ~/.ssh/.')
        elif entry is not None:
            homes[account] = {"home": entry.pw_dir, "uid": entry.pw_uid, "gid": entry.pw_gid}
            if before.get(account, include) != include:
                jobs.append(Job(entry, before[account], False))
            jobs.append(Job(entry, include, present))
        elif module.check_mode and present:
            # Another task would have made the account before.
            homes[account] = {"home": f"/home/{account}", "uid": -1, "gid": -1}
            changed.append(account)
        elif present:
            errors.append(f'accounts: there is no account "{account}" on this host. Make it first, or leave it out.')
    if errors:
        module.fail_json(msg="\n".join(errors))

    # First a look at all of them, so that a refusal comes before any change.
    looks = [(job, as_owner(job, write=False)) for job in jobs]
    errors = [refusal(job, outcome) for job, outcome in looks if outcome.refused]
    if errors:
        module.fail_json(msg="\n".join(errors))
    todo = [(job, outcome) for job, outcome in looks if outcome.changed]
    changed.extend(outcome.account for _dummy, outcome in todo)
    diff = [shown(job, outcome) for job, outcome in todo]
    if not module.check_mode:
        if before != served:
            remember(record, {**before, **served})
        for job, outcome in todo:
            if outcome.backup:
                keep(outcome.account, outcome.backup)
            done = as_owner(job, write=True)
            if done.refused:
                errors.append(refusal(job, done))
        if errors:
            module.fail_json(msg="\n".join(errors))
        if before != served:
            remember(record, served)
    module.exit_json(changed=bool(changed), changed_accounts=sorted(set(changed)), homes=homes, diff=diff)


if __name__ == "__main__":
    main()
