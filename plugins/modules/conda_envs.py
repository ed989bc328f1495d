#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create, update and remove conda environments, all in one go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_envs
short_description: Create, update and remove the declared conda environments of a prefix
version_added: 0.1.0
description:
  - Brings the named environments of a prefix to their declaration, all in one task. It drives conda by its documented
    commands only (C(conda env create), C(conda env update --prune), C(conda env remove)), and takes pip packages away
    with base's C(pip --python).
  - What was built is noted beside each environment, with its declaration and the list of what is installed. A run in
    which nothing differs does not start conda at all.
  - An environment that is no longer declared is removed, if this module made it. Others are never touched unless
    they are declared with O(environments[].adopt) or absent.
  - An update is one transaction of conda. When the solver finds no solution, nothing is unlinked; the environment stays
    as it was, and the error is the solver's own.
options:
  prefix:
    description: Where conda is installed.
    type: path
    required: true
  channels:
    description: Channels for environments that do not list their own.
    type: list
    elements: str
    default: [conda-forge]
  anaconda_terms_accepted:
    description: Whether Anaconda's own channels may be used. They need a licence in organisations of more than 200
      people.
    type: bool
    default: false
  python:
    description: Python version for environments whose packages name none, such as V(3.11). Empty adds none.
    type: str
    default: ''
  environments:
    description: The declared environments.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name. Not a path.
        type: str
        required: true
      channels:
        description: Channels, first one first; no others are asked. Empty means O(channels).
        type: list
        elements: str
      packages:
        description: conda packages, as conda takes them.
        type: list
        elements: str
      pip:
        description: pip requirements, installed after conda's packages. Never a package that conda installs too.
        type: list
        elements: str
      python:
        description: Python version when O(environments[].packages) names none. Unset means O(python); empty adds none.
        type: str
      adopt:
        description: Whether an environment of this name that somebody else made may be taken over.
        type: bool
        default: false
      state:
        description: Whether it should be there.
        type: str
        choices: [present, absent]
        default: present
  pip_index_url:
    description: Package index for pip. Empty means pip's own.
    type: str
    default: ''
  timeout:
    description: How long one call of conda may take, in seconds.
    type: int
    default: 3600
  lock_timeout:
    description: How long to wait for another run that changes the same prefix, in seconds.
    type: int
    default: 3600
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target. It tells which
      environments would be made, updated and removed; it does not solve.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
author:
  - The devnode.gpu authors (@devnode)
"""

EXAMPLES = r"""
- name: Have the team's environments
  devnode.gpu.conda_envs:
    prefix: /opt/miniconda
    python: "3.11"
    environments:
      - name: nlp-py311
        packages: [numpy=2.1, pandas]
        pip: [rich==14.0]
"""

RETURN = r"""
steps:
  description: What was done or would be done, with the reason.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the environment.
      type: str
    action:
      description: create, recreate, update or remove.
      type: str
    reason:
      description: Why.
      type: str
conda_runs:
  description: How often conda was started.
  returned: always
  type: int
unchanged:
  description: Environments that are as declared.
  returned: always
  type: list
  elements: str
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import conda_env, conda_host
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import Environment, Found, State, Step
from ansible_collections.devnode.gpu.plugins.module_utils.conda_host import ENVIRONMENT_STATE, HostError, Ran
from ansible_collections.devnode.gpu.plugins.module_utils.conda_install import prefix_path
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show


class Worker:
    """Carries out the steps."""

    def __init__(self, module: AnsibleModule, prefix: Path, found: dict[str, Found]) -> None:
        self.prefix = prefix
        self.found = found
        self.timeout = int(module.params["timeout"])
        index = module.params["pip_index_url"]
        self.environment = {"PIP_INDEX_URL": index} if index else {}
        self.runs = 0

    def conda(self, *arguments: str) -> Ran:
        self.runs += 1
        return conda_host.run([str(self.prefix / "bin/conda"), *arguments], self.timeout, self.environment)

    def directory(self, name: str) -> Path:
        return self.prefix / "envs" / name

    def finish(self, wanted: Environment) -> None:
        directory = self.directory(wanted.name)
        state = State(wanted.digest(), wanted.spec(), conda_host.contents(directory))
        conda_host.write(directory / ENVIRONMENT_STATE, state.dump())

    def with_file(self, command: list[str], wanted: Environment) -> Ran:
        with tempfile.TemporaryDirectory(prefix="devnode-conda-") as temporary:
            file = Path(temporary) / "environment.yml"
            file.write_text(wanted.environment_file(), encoding="utf-8")
            target = ["--prefix", str(self.directory(wanted.name)), "--file", str(file)]
            return self.conda(*command, *target, "--quiet")

    def create(self, wanted: Environment) -> None:
        name, directory = wanted.name, self.directory(wanted.name)
        conda_host.note_creating(self.prefix, conda_host.creating(self.prefix) | {name})
        conda_host.remove_tree(directory)
        ran = self.with_file(["env", "create", "--yes"], wanted)
        if ran.code:
            conda_host.remove_tree(directory)
        else:
            self.finish(wanted)
        conda_host.note_creating(self.prefix, conda_host.creating(self.prefix) - {name})
        if ran.code:
            raise HostError(f"{name}: could not be created, and nothing of it is left. conda said:\n{ran.tail()}")

    def uninstall(self, name: str, packages: list[str]) -> None:
        """By base's pip, because an environment need not have (or no longer has) one of its own."""
        python = self.directory(name) / "bin/python"
        if packages and python.exists():
            base = str(self.prefix / "bin/python")
            argv = [base, "-m", "pip", "--python", str(python), "uninstall", "--yes", *packages]
            ran = conda_host.run(argv, self.timeout)
            if ran.code:
                raise HostError(f"{name}: pip could not take away {', '.join(packages)}. It said:\n{ran.tail()}")

    def put_state_back(self, name: str) -> None:
        """After an update that changed nothing."""
        path, old = self.directory(name) / ENVIRONMENT_STATE, self.found[name].state
        if old is None:
            path.unlink()
        else:
            conda_host.write(path, old.dump())

    def update(self, wanted: Environment, step: Step) -> None:
        name, directory = wanted.name, self.directory(wanted.name)
        old = self.found[name].state or State("", {})
        conda_host.write(directory / ENVIRONMENT_STATE, replace(old, pending=True).dump())
        # A package that moves from pip to conda must go first: pip would take conda's files with it afterwards.
        by_conda = {conda_env.package_key(conda_env.package_name(item)) for item in wanted.packages}
        first = [item for item in step.uninstall if conda_env.package_key(item) in by_conda]
        self.uninstall(name, first)
        ran = self.with_file(["env", "update", "--prune"], wanted)
        if ran.code:
            after = "part of the update is done; the next run goes on with it"
            if conda_host.contents(directory) == self.found[name].contents:
                self.put_state_back(name)
                after = "it stays as it was"
            raise HostError(f"{name}: could not be updated ({step.reason}); {after}. conda said:\n{ran.tail()}")
        self.uninstall(name, [item for item in step.uninstall if item not in first])
        self.finish(wanted)

    def remove(self, name: str) -> None:
        directory = self.directory(name)
        if (directory / "conda-meta/history").is_file():
            ran = self.conda("env", "remove", "--prefix", str(directory), "--yes", "--quiet")
            if ran.code:
                raise HostError(f"{name}: could not be removed. conda said:\n{ran.tail()}")
        conda_host.remove_tree(directory)
        conda_host.note_creating(self.prefix, conda_host.creating(self.prefix) - {name})

    def do(self, step: Step, declared: dict[str, Environment]) -> None:
        if step.action == "remove":
            self.remove(step.name)
        elif step.action == "update":
            self.update(declared[step.name], step)
        else:
            self.create(declared[step.name])


def refusals(steps: list[Step]) -> list[str]:
    return [
        f"{step.name}: an environment of this name is there already and {step.reason}. Bringing it to its declaration "
        "would take away what its owner put into it. Choose another name, remove it, or set adopt: true."
        for step in steps
        if step.action == "refuse"
    ]


def as_text(name: str, spec: dict[str, list[str]]) -> str:
    lists = ((key, items) for key, items in sorted(spec.items()) if items)
    return f"{name}:\n" + "".join(f"  {key}:\n" + "".join(f"    - {item}\n" for item in items) for key, items in lists)


def diff_of(steps: list[Step], declared: dict[str, Environment], found: dict[str, Found]) -> dict[str, str]:
    before, after = [], []
    for step in sorted(steps, key=lambda item: item.name):
        there = found.get(step.name)
        if there is not None:
            before.append(as_text(step.name, there.state.spec if there.state else {}))
        if step.action != "remove":
            after.append(as_text(step.name, declared[step.name].spec()) + f"  # {step.action}: {step.reason}\n")
    return {"before": "".join(before), "after": "".join(after), "before_header": "conda", "after_header": "conda"}


def work(module: AnsibleModule, prefix: Path, environments: list[Environment]) -> dict[str, Any]:
    declared = {environment.name: environment for environment in environments}
    found = conda_host.find_environments(prefix)
    steps = conda_env.plan(environments, found)
    refused = refusals(steps)
    if refused:
        raise HostError("\n".join(refused))
    worker = Worker(module, prefix, found)
    done: list[Step] = []
    errors: list[str] = []
    for step in steps if not module.check_mode else []:
        try:
            worker.do(step, declared)
            done.append(step)
        except HostError as error:
            errors.append(str(error))
    shown = steps if module.check_mode else done
    result = {
        "changed": bool(shown),
        "steps": [{"name": step.name, "action": step.action, "reason": step.reason} for step in shown],
        "unchanged": sorted(set(declared) - {step.name for step in steps}),
        "conda_runs": worker.runs,
        "diff": diff_of(shown, declared, found),
    }
    if errors:
        module.fail_json(msg="\n\n".join(errors), **result)
    return result


def main() -> None:
    environment = {
        "name": {"type": "str", "required": True},
        "channels": {"type": "list", "elements": "str"},
        "packages": {"type": "list", "elements": "str"},
        "pip": {"type": "list", "elements": "str"},
        "python": {"type": "str"},
        "adopt": {"type": "bool", "default": False},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "channels": {"type": "list", "elements": "str", "default": ["conda-forge"]},
            "anaconda_terms_accepted": {"type": "bool", "default": False},
            "python": {"type": "str", "default": ""},
            "environments": {"type": "list", "elements": "dict", "default": [], "options": environment},
            "pip_index_url": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 3600},
            "lock_timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    params = module.params
    # Options that were not given come as None; the rules know "not given" by the key's absence.
    items = [{key: value for key, value in item.items() if value is not None} for item in params["environments"]]
    environments, errors = conda_env.parse_environments(
        items,
        channels=tuple(params["channels"]),
        python=params["python"],
        anaconda_allowed=params["anaconda_terms_accepted"],
    )
    if errors:
        module.fail_json(msg="\n".join(errors))
    try:
        prefix = Path(prefix_path(params["prefix"]))
        if module.check_mode:
            result = work(module, prefix, environments)
        elif not (prefix / "bin/conda").exists():
            raise HostError(f"prefix: {prefix} has no conda in it. Install it first (role miniconda).")
        else:
            with conda_host.locked(prefix, params["lock_timeout"]):
                result = work(module, prefix, environments)
    except InvalidError as error:
        module.fail_json(msg=f"prefix: {show(params['prefix'])} {error}.")
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or params['prefix']}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
