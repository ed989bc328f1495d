#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack what hosts without a network need for conda and its environments."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_bundle
short_description: Pack installer, packages and wheels for hosts without a network
version_added: 0.1.0
description:
  - Packs one tar file with the installer, every package and every wheel of the declared environments, their lock files
    and the checksums of all that. The environments must be built on this host already (M(devnode.gpu.conda_envs)).
  - Every file is verified against its sha256 before it is packed. The same contents give the same file.
options:
  prefix:
    description: Where conda is installed.
    type: path
    required: true
  dest:
    description: The file to write.
    type: path
    required: true
  distribution:
    description: Which installer.
    type: str
    choices: [miniconda, miniforge]
    default: miniconda
  version:
    description: Version and build as in the installer's name.
    type: str
    required: true
  python:
    description: Python of the installer's base, as in its name.
    type: str
    default: ''
  url:
    description: URL of the installer. C({file}) stands for its name on this host's architecture.
    type: str
    required: true
  checksums:
    description: Known installers, file name to sha256.
    type: dict
    default: {}
  sha256:
    description: sha256 of the installer, when O(checksums) does not have it.
    type: str
    default: ''
  environments:
    description: The environments, as M(devnode.gpu.conda_envs) takes them.
    type: list
    elements: dict
    default: []
  anaconda_terms_accepted:
    description: Whether packages of Anaconda's own channels may be packed. Their terms restrict passing them on.
    type: bool
    default: false
  pip_index_url:
    description: Package index for pip. Empty means pip's own.
    type: str
    default: ''
  timeout:
    description: How long one download may take, in seconds.
    type: int
    default: 3600
  lock_timeout:
    description: How long to wait for another run that changes the same prefix, in seconds.
    type: int
    default: 3600
extends_documentation_fragment: [action_common_attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: posix
author:
  - The devnode.gpu authors (@devnode)
"""

EXAMPLES = r"""
- name: Pack a bundle (the role's bundle.yml does this, and fetches the file)
  devnode.gpu.conda_bundle:
    prefix: /opt/miniconda
    dest: /var/cache/devnode/miniconda/bundle.tar
    version: 26.5.3-1
    python: "3.11"
    url: https://repo.anaconda.com/miniconda/{file}
    sha256: f1d308a450763ce617f4e4f1609521358f663b2d1c097cfcc11a1c1f09baf680
    environments:
      - name: nlp-py311
        packages: [numpy=2.1, pandas]
"""

RETURN = r"""
environments:
  description: What is in it.
  returned: always
  type: list
  elements: str
"""

import json
import platform
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import (
    conda_bundle,
    conda_download,
    conda_env,
    conda_host,
    conda_lock,
)
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import Environment
from ansible_collections.devnode.gpu.plugins.module_utils.conda_host import HostError
from ansible_collections.devnode.gpu.plugins.module_utils.conda_install import InstallerError, installer_of, prefix_path
from ansible_collections.devnode.gpu.plugins.module_utils.conda_places import ENVIRONMENT_STATE
from ansible_collections.devnode.gpu.plugins.module_utils.conda_state import State
from ansible_collections.devnode.gpu.plugins.module_utils.conda_work import Options, Worker, in_place
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError


def look(wanted: Environment, worker: Worker) -> dict[str, Any]:
    """What a finished environment consists of."""
    directory = worker.directory(wanted.name)
    state = State.load(conda_host.read(directory / ENVIRONMENT_STATE))
    if state is None or state.pending or state.digest != wanted.digest():
        raise HostError(
            f"{wanted.title}: is not on this host as it is declared. Run the role here first, then make the bundle."
        )
    lock = worker.exported(wanted)["lock"]
    parsed = conda_lock.parse(lock.splitlines())
    records = [json.loads(conda_host.read(directory / f"conda-meta/{item.stem}.json")) for item in parsed.packages]
    return {"lock": lock, "records": records, "wheels": worker.wheels(wanted) if parsed.pip else ""}


def add_wheels(source: Path, lock: conda_lock.Lock, folder: Path) -> None:
    """Take the wheels over from where pip put them. A person may have written there: the sha256 decides."""
    known = {item.sha256 for item in lock.pip}
    folder.mkdir(exist_ok=True)
    for wheel in sorted(source.iterdir()):
        if wheel.is_symlink() or not wheel.name.endswith(".whl"):
            raise HostError(f"{wheel.name}: is no wheel")
        shutil.copyfile(wheel, folder / wheel.name, follow_symlinks=False)
        if conda_bundle.sha256_of(folder / wheel.name) not in known:
            raise HostError(f"{wheel.name}: has another sha256 than the lock file says")


def add(wanted: Environment, options: Options, folder: Path, records: dict[str, Any]) -> str:
    """Put an environment's packages and wheels into the folder. Returns its lock file."""
    said = in_place(options, wanted.owner, partial(look, wanted))
    lock = conda_lock.parse(said["lock"].splitlines())
    for name, package in conda_bundle.files_of(lock).items():
        target = folder / name
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        cached = options.prefix / "pkgs" / package.file
        if cached.is_file() and conda_bundle.sha256_of(cached) == package.sha256:
            shutil.copyfile(cached, target)
        else:
            conda_download.fetch(package.url, package.sha256, target, options.timeout)
    for record in said["records"]:
        package = next(
            item for item in lock.packages if item.stem == f"{record['name']}-{record['version']}-{record['build']}"
        )
        entry = {**record, "fn": package.file, "subdir": package.subdir, "sha256": package.sha256}
        records.setdefault(f"channels/{package.channel}/{package.subdir}", {})[package.file] = entry
    if said["wheels"]:
        try:
            add_wheels(Path(said["wheels"]), lock, folder / "wheels")
        finally:
            conda_host.remove_tree(Path(said["wheels"]))
    return str(said["lock"])


def make(module: AnsibleModule, environments: list[Environment]) -> None:
    params = module.params
    options = Options(
        prefix=Path(prefix_path(params["prefix"])),
        timeout=params["timeout"],
        variables={"PIP_INDEX_URL": params["pip_index_url"]} if params["pip_index_url"] else {},
    )
    wanted, url = installer_of(params, platform.machine())
    dest = Path(params["dest"])
    dest.parent.mkdir(parents=True, exist_ok=True)
    with (
        conda_host.locked(options.prefix, params["lock_timeout"]),
        tempfile.TemporaryDirectory(dir=dest.parent) as name,
    ):
        folder = Path(name)
        records: dict[str, Any] = {}
        locks: dict[str, dict[str, str]] = {}
        for environment in environments:
            lock = add(environment, options, folder, records)
            locks[environment.title] = {"digest": environment.digest(), "lock": lock}
        for place, entries in records.items():
            text = conda_bundle.repodata(place.rpartition("/")[2], list(entries.values()))
            (folder / place / "repodata.json").write_text(text, encoding="utf-8")
        for channel in folder.glob("channels/*"):
            (channel / "noarch").mkdir(exist_ok=True)
            if not (channel / "noarch/repodata.json").exists():
                (channel / "noarch/repodata.json").write_text(conda_bundle.repodata("noarch", []), encoding="utf-8")
        conda_download.fetch(url, wanted.sha256, folder / wanted.file, options.timeout)
        arch = conda_lock.PLATFORMS.get(platform.machine(), "")
        about = conda_bundle.About(wanted.distribution, wanted.version, wanted.file, arch, locks)
        conda_bundle.pack(folder, about, dest)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "distribution": {"type": "str", "choices": ["miniconda", "miniforge"], "default": "miniconda"},
            "version": {"type": "str", "required": True},
            "python": {"type": "str", "default": ""},
            "url": {"type": "str", "required": True},
            "checksums": {"type": "dict", "default": {}},
            "sha256": {"type": "str", "default": ""},
            "environments": {"type": "list", "elements": "dict", "default": []},
            "anaconda_terms_accepted": {"type": "bool", "default": False},
            "pip_index_url": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 3600},
            "lock_timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    environments, errors = conda_env.parse_environments(
        module.params["environments"], anaconda_allowed=module.params["anaconda_terms_accepted"]
    )
    if errors:
        module.fail_json(msg="\n".join(errors))
    present = [item for item in environments if item.present]
    if not module.check_mode:
        try:
            make(module, present)
        except InvalidError as error:
            module.fail_json(msg=f"prefix: {error}")
        except (HostError, InstallerError) as error:
            module.fail_json(msg=str(error))
        except OSError as error:
            module.fail_json(msg=f"{error.filename or module.params['dest']}: {error.strerror}")
    module.exit_json(changed=True, environments=[item.title for item in present])


if __name__ == "__main__":
    main()
