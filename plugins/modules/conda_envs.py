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
      owner:
        description: The person in whose home it is (C(~/.conda/envs)), made with that person's rights. Empty means
          all users.
        type: str
        default: ''
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
      pip_extra_index_urls:
        description: Package indexes that pip asks beside its own.
        type: list
        elements: str
      lock:
        description: Lines of a lock file, which say all that is in it. Every package has its sha256.
        type: list
        elements: str
      imports:
        description: Modules that must be importable. Not used here.
        type: list
        elements: str
      cuda:
        description: The CUDA that its packages need, such as V(12.8). A host whose driver cannot run it is refused.
        type: str
        default: ''
      torch:
        description: The PyTorch among its packages, for the same check.
        type: str
        default: ''
      expect:
        description: Patterns of what must have been installed, such as V(pip:torch==2.8.*+cu128).
        type: list
        elements: str
      bundled:
        description: Lines of the lock file that a bundle has for it.
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
  bundle:
    description: A bundle on the host. Everything comes from it then, by the lines in O(environments[].bundled).
    type: str
    default: ''
  export:
    description: Whether RV(exports) is wanted.
    type: bool
    default: false
  export_directory:
    description: Directory on the controller into which RV(exports) are written, below the host's name. Empty writes
      nothing.
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
extends_documentation_fragment: [action_common_attributes]
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target. It tells which
      environments would be made, updated and removed; it does not solve.
    support: full
  diff_mode:
    support: full
  platform:
    platforms: posix
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
      description: create, recreate, replace, update or remove.
      type: str
    reason:
      description: Why.
      type: str
conda_runs:
  description: How often conda was started.
  returned: always
  type: int
exports:
  description: What is written back of each environment that is as declared.
  returned: when asked for
  type: dict
  contains:
    lock:
      description: The lock file.
      type: str
    environment:
      description: An environment.yml without builds and prefix.
      type: str
unchanged:
  description: Environments that are as declared.
  returned: always
  type: list
  elements: str
"""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import conda_env, conda_host, conda_places, conda_state
from ansible_collections.devnode.gpu.plugins.module_utils.conda_bundle import (
    UNPACKED,
    BundleError,
    forget_others,
    unpacked,
)
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import Environment
from ansible_collections.devnode.gpu.plugins.module_utils.conda_host import HostError
from ansible_collections.devnode.gpu.plugins.module_utils.conda_install import prefix_path
from ansible_collections.devnode.gpu.plugins.module_utils.conda_work import Options, Worker, in_place
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show


def work(module: AnsibleModule, options: Options, environments: list[Environment]) -> dict[str, Any]:
    known = conda_places.owners(options.prefix)
    places: dict[str, list[Environment]] = {"": []}
    places.update({name: [] for name in sorted(known) if conda_host.has_account(name)})
    for environment in environments:
        places.setdefault(environment.owner, []).append(environment)

    refused: list[str] = []
    gpus: dict[str, Any] = {}
    changing_any = False
    for owner, declared in sorted(places.items()):
        said = in_place(options, owner, partial(_look, declared), module.check_mode)
        refused += said["refusals"]
        changing = [item for item in declared if item.name in said["changing"]]
        changing_any = changing_any or bool(changing)
        if any(item.cuda for item in changing):
            gpus = gpus or conda_host.gpus()
            refused += [text for item in changing for text in conda_state.unfit(item, **gpus)]
    if refused:
        raise HostError("\n".join(refused))
    if not module.check_mode:
        forget_others(module.params["bundle"])
    with contextlib.ExitStack() as stack:
        if module.params["bundle"] and changing_any and not module.check_mode:
            bundle = Path(module.params["bundle"])
            try:
                stack.enter_context(unpacked(bundle, "channels/", "wheels/"))
            except BundleError as error:
                raise HostError(
                    f"bundle: {error}. No environment was changed. Copy it again, or make it again."
                ) from None
        return carry_out(module, options, places)


def carry_out(module: AnsibleModule, options: Options, places: dict[str, list[Environment]]) -> dict[str, Any]:
    known = conda_places.owners(options.prefix)
    wanted = {item.owner for declared in places.values() for item in declared if item.present} - {""}
    if not module.check_mode and wanted - known:
        conda_places.note_owners(options.prefix, known | wanted)
    result: dict[str, Any] = {"steps": [], "unchanged": [], "conda_runs": 0, "exports": {}}
    errors: list[str] = []
    texts: dict[str, list[str]] = {"before": [], "after": []}
    for owner, declared in sorted(places.items()):
        try:
            said = in_place(options, owner, partial(_work, declared, module.check_mode), module.check_mode)
        except HostError as error:  # one person's home is no reason to leave the others' undone
            errors.append(str(error))
            continue
        title = f"{owner}/" if owner else ""
        result["steps"] += [{**step, "name": title + step["name"]} for step in said["steps"]]
        result["unchanged"] += [title + name for name in said["unchanged"]]
        result["exports"].update({title + name: export for name, export in said["exports"].items()})
        result["conda_runs"] += said["runs"]
        errors += said["errors"]
        for key, text in texts.items():
            text.append(said[key])
    result["changed"] = bool(result["steps"])
    result["diff"] = {key: "".join(text) for key, text in texts.items()}
    result["diff"].update(before_header="conda", after_header="conda")
    if errors:
        module.fail_json(msg="\n\n".join(errors), **result)
    if not module.check_mode and wanted != known:
        conda_places.note_owners(options.prefix, wanted)
    return result


def _look(declared: list[Environment], worker: Worker) -> dict[str, Any]:
    steps = worker.plan(declared)
    return {
        "refusals": conda_state.refusals(steps),
        "changing": [step.name for step in steps if step.action != "remove"],
    }


def _work(declared: list[Environment], check_mode: bool, worker: Worker) -> dict[str, Any]:
    return worker.work(declared, check_mode)


def options_of(params: dict[str, Any]) -> Options:
    index = params["pip_index_url"]
    return Options(
        prefix=Path(prefix_path(params["prefix"])),
        timeout=params["timeout"],
        variables={"PIP_INDEX_URL": index} if index else {},
        pip_options=("--no-index", "--find-links", f"{UNPACKED}/wheels") if params["bundle"] else (),
        offline=bool(params["bundle"]),
        export=params["export"],
    )


def main() -> None:
    lists = ("channels", "packages", "pip", "pip_extra_index_urls", "lock", "imports")
    environment = {
        "name": {"type": "str", "required": True},
        "owner": {"type": "str", "default": ""},
        **{name: {"type": "list", "elements": "str"} for name in lists},
        "python": {"type": "str"},
        "cuda": {"type": "str", "default": ""},
        "torch": {"type": "str", "default": ""},
        "expect": {"type": "list", "elements": "str"},
        "bundled": {"type": "list", "elements": "str"},
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
            "bundle": {"type": "str", "default": ""},
            "export": {"type": "bool", "default": False},
            "export_directory": {"type": "str", "default": ""},  # the action's
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
    try:
        options = options_of(params)
    except InvalidError as error:
        errors.append(f"prefix: {show(params['prefix'])} {error}.")
    if errors:
        module.fail_json(msg="\n".join(errors))
    try:
        if module.check_mode:
            result = work(module, options, environments)
        elif not (options.prefix / "bin/conda").exists():
            raise HostError(f"prefix: {options.prefix} has no conda in it. Install it first (role miniconda).")
        else:
            with conda_host.locked(options.prefix, params["lock_timeout"]):
                result = work(module, options, environments)
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or params['prefix']}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
