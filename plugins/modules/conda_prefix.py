#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install, upgrade, repair or remove a conda prefix."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_prefix
short_description: Install, upgrade, repair or remove Miniconda or Miniforge
version_added: 0.1.0
description:
  - Brings a prefix to the wanted installer's version, whatever is in it. Nothing there is installed; an older version
    is upgraded in place; a half-made or damaged one is repaired, and the result says so; an equal one is left alone.
  - What is installed is read from the prefix itself (base's package records and a marker that is written last), never
    guessed from the existence of one file. A run that changes nothing starts no program in the prefix.
  - The installer is verified by its sha256 before it runs, always.
options:
  prefix:
    description: Where conda lives. A directory of its own, not in a home and not on a noexec mount.
    type: path
    required: true
  state:
    description: Whether it should be there. V(absent) removes the prefix with the environments that
      M(devnode.gpu.conda_envs) made, and refuses while there are other ones.
    type: str
    choices: [present, absent]
    default: present
  distribution:
    description: Which installer.
    type: str
    choices: [miniconda, miniforge]
    default: miniconda
  version:
    description: Version and build of the installer, as in its file name (V(26.5.3-1)). Required for O(state=present).
    type: str
  python:
    description: Python of the base environment, as the installer's name says it (V(3.11)). Base must keep it. Empty
      for installers that do not say it (Miniforge).
    type: str
    default: ''
  url:
    description: Where the installer is. V({file}) stands for the file's name on this architecture. C(file://) means a
      file on the host. Required for O(state=present).
    type: str
  checksums:
    description: sha256 by file name.
    type: dict
    default: {}
  sha256:
    description: sha256 of the installer behind O(url), when O(checksums) does not have it.
    type: str
    default: ''
  allow_downgrade:
    description: Whether an older version may replace a newer one.
    type: bool
    default: false
  preserve:
    description: Files in the prefix that an installer may overwrite or trip over, relative to it. They are set aside
      while it runs.
    type: list
    elements: str
    default: [.condarc, conda-meta/pinned, conda-meta/frozen]
  bundle:
    description: A bundle on the host that has the installer; O(url) then says where it is while it is unpacked.
    type: str
    default: ''
  timeout:
    description: How long the download and the installer may take each, in seconds.
    type: int
    default: 1800
  lock_timeout:
    description: How long to wait for another run that changes the same prefix, in seconds.
    type: int
    default: 900
extends_documentation_fragment: [action_common_attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: posix
author:
  - The devnode.gpu authors (@devnode)
"""

EXAMPLES = r"""
- name: Have Miniconda with Python 3.11
  devnode.gpu.conda_prefix:
    prefix: /opt/miniconda
    version: 26.5.3-1
    python: "3.11"
    url: https://repo.anaconda.com/miniconda/{file}
    checksums:
      Miniconda3-py311_26.5.3-1-Linux-x86_64.sh: f1d308a450763ce617f4e4f1609521358f663b2d1c097cfcc11a1c1f09baf680
"""

RETURN = r"""
action:
  description: What was done, or would be done.
  returned: always
  type: str
  sample: upgrade
reason:
  description: Why.
  returned: always
  type: str
version:
  description: Version of conda in base.
  returned: always
  type: str
python:
  description: Minor version of base's Python.
  returned: always
  type: str
rc_files:
  description: Start-up files of interactive shells on this host from which conda's shell function can be loaded.
  returned: always
  type: list
  elements: str
usr_bin:
  description: Whether C(/usr/bin/conda) is free for a link, or that link already.
  returned: always
  type: bool
fish:
  description: Whether fish is installed.
  returned: always
  type: bool
"""

import json
import os
import platform
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import conda_bundle, conda_download, conda_host, conda_places
from ansible_collections.devnode.gpu.plugins.module_utils.conda_host import HostError
from ansible_collections.devnode.gpu.plugins.module_utils.conda_install import (
    Decision,
    Found,
    InstallerError,
    Marker,
    Wanted,
    checked,
    conda_of,
    decide,
    installer_of,
    prefix_path,
    version_key,
)

RC_FILES = ("/etc/bash.bashrc", "/etc/zsh/zshrc", "/etc/zshrc")


def check_mount(prefix: Path) -> None:
    there = prefix
    while not there.exists():
        there = there.parent
    if os.statvfs(there).f_flag & os.ST_NOEXEC:
        raise HostError(
            f"prefix: {prefix} is on a file system mounted noexec: nothing in it could run. Choose another."
        )


def set_aside(prefix: Path, names: list[str]) -> dict[str, tuple[str, int]]:
    """Take the site's own files out of the installer's way; returns them."""
    kept: dict[str, tuple[str, int]] = {}
    for name in names:
        path = prefix / name
        if path.is_file() and not path.is_symlink():
            kept[name] = (conda_host.read(path), path.stat().st_mode & 0o7777)
            path.unlink()
    return kept


def put_back(prefix: Path, kept: dict[str, tuple[str, int]]) -> None:
    for name, (text, mode) in kept.items():
        if (prefix / name).parent.is_dir():
            conda_host.write(prefix / name, text)
            (prefix / name).chmod(mode)


def verify(prefix: Path, wanted: Wanted, timeout: int) -> Found:
    """The finished prefix, or an error that says what is wrong with it."""
    found = conda_places.find_installation(prefix)
    ran = conda_host.run([str(prefix / "bin/conda"), "--version"], timeout)
    problems = list(found.missing)
    if ran.code:
        problems.append(f"working conda: {ran.tail(5)}")
    elif not ran.out.split() or version_key(ran.out.split()[-1]) != version_key(conda_of(wanted.version)):
        problems.append(f"conda {conda_of(wanted.version)} (it says: {ran.out.strip() or 'nothing'})")
    if wanted.python and found.python != wanted.python:
        problems.append(f"Python {wanted.python} (it has {found.python or 'none'})")
    if problems:
        raise HostError(
            f"{prefix}: the installer {wanted.file} ended without an error, but the prefix lacks: "
            f"{'; '.join(problems)}. Run again; if it stays so, move the prefix away."
        )
    return found


def mark(prefix: Path, wanted: Wanted, found: Found) -> None:
    marker = Marker(wanted.distribution, wanted.version, found.python, wanted.file, wanted.sha256)
    conda_host.write(prefix / conda_places.MARKER, marker.dump())


def fetch(module: AnsibleModule, url: str, wanted: Wanted, script: Path) -> None:
    """The verified installer, from a URL or out of a bundle."""
    if not module.params["bundle"]:
        conda_download.fetch(url, wanted.sha256, script, module.params["timeout"])
        return
    try:
        with conda_bundle.unpacked(Path(module.params["bundle"]), wanted.file):
            conda_download.fetch(url, wanted.sha256, script, module.params["timeout"])
    except conda_bundle.BundleError as error:
        raise HostError(f"bundle: {error}. Nothing was run. Copy it again, or make it again.") from None


def install(module: AnsibleModule, prefix: Path, wanted: Wanted, url: str, decision: Decision) -> Found:
    """Run the verified installer. On failure a fresh prefix is removed again; an old one is left for the next run."""
    script = Path(module.tmpdir) / "installer.sh"  # the installer insists on .sh
    fetch(module, url, wanted, script)
    doing = conda_host.notes(prefix, ".doing")
    fresh = decision.method in ("fresh", "clean")
    conda_host.write(doing, json.dumps({"doing": "install" if fresh else "update", "installer": wanted.file}) + "\n")
    if fresh:
        conda_host.remove_tree(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    kept = {} if fresh else set_aside(prefix, module.params["preserve"])
    if not fresh:
        (prefix / conda_places.MARKER).unlink(missing_ok=True)
        conda_host.remove_tree(prefix / "install_tmp")
    argv = ["/bin/sh", str(script), "-b", *([] if fresh else ["-u"]), "-p", str(prefix)]
    try:
        ran = conda_host.run(argv, module.params["timeout"])
    finally:
        script.unlink(missing_ok=True)
        put_back(prefix, kept)
    if ran.code:
        if fresh:
            conda_host.remove_tree(prefix)
            doing.unlink(missing_ok=True)
            after = "What it had laid down was removed again."
        else:
            after = "The prefix may be half upgraded; the next run repairs it. Environments were not touched."
        raise HostError(f"{wanted.file} ended with code {ran.code}. {after} It said:\n{ran.tail()}")
    mark(prefix, wanted, verify(prefix, wanted, module.params["timeout"]))
    doing.unlink(missing_ok=True)
    return conda_places.find_installation(prefix)


def present(module: AnsibleModule, prefix: Path) -> dict[str, Any]:
    wanted, url = installer_of(module.params, platform.machine())
    check_mount(prefix)
    before = conda_places.find_installation(prefix)
    decision = decide(wanted, before, module.params["allow_downgrade"])
    if decision.action == "refuse":
        raise HostError(f"prefix: {prefix}: {decision.reason}.")
    after = before
    if decision.action != "none" and not module.check_mode:
        if decision.action == "adopt":
            mark(prefix, wanted, verify(prefix, wanted, module.params["timeout"]))
        else:
            after = install(module, prefix, wanted, url, decision)
    if decision.note:
        module.warn(f"{prefix}: {decision.note}.")
    if decision.action == "repair":
        module.warn(f"{prefix}: {decision.reason}. {'It would be' if module.check_mode else 'It was'} repaired.")
    changed = decision.action != "none"
    return {
        "changed": changed,
        "action": decision.action,
        "reason": decision.reason,
        "version": conda_of(wanted.version) if changed else after.conda,
        "python": (wanted.python or after.python) if changed else after.python,
        "diff": {
            "before": f"{before.title()}\n" if before.exists else "",
            "after": f"{wanted.title() if changed else before.title()}\n",
            "before_header": str(prefix),
            "after_header": str(prefix),
        },
    }


def absent(module: AnsibleModule, prefix: Path) -> dict[str, Any]:
    found = conda_places.find_installation(prefix)
    if found.exists:
        if found.marker is None and not found.interrupted:
            raise HostError(
                f"prefix: {prefix}: it was not installed by this role, so it is not removed. Remove it by hand if "
                "nobody needs it."
            )
        there = conda_places.find_environments(conda_places.shared(prefix))
        strangers = [name for name, item in there.items() if item.state is None and not item.half_made]
        if strangers:
            raise HostError(
                f"prefix: {prefix}: it holds environments that were not made by this role: {', '.join(strangers)}. "
                "Their owners would lose them. Move or remove them first."
            )
        if not module.check_mode:
            for owner in sorted(filter(conda_host.has_account, conda_places.owners(prefix))):
                conda_host.as_user(owner, conda_places.forget_home)
            conda_host.remove_tree(prefix)
    if not module.check_mode:
        conda_host.forget_notes(prefix)
    return {
        "changed": found.exists,
        "action": "remove" if found.exists else "none",
        "reason": "is declared absent" if found.exists else "",
        "version": "",
        "python": "",
        "diff": {"before": f"{found.title()}\n" if found.exists else "", "after": ""},
    }


def free_for_link(path: Path, prefix: Path) -> bool:
    """Whether our link may be there: nothing is, or it is ours already. A package's own conda stays."""
    return os.readlink(path).startswith(f"{prefix}/") if path.is_symlink() else not path.exists()


def shells(prefix: Path) -> dict[str, Any]:
    return {
        "usr_bin": free_for_link(Path("/usr/bin/conda"), prefix),
        "rc_files": [path for path in RC_FILES if os.path.isfile(path)],
        "fish": os.path.isdir("/etc/fish") and any(os.path.exists(p) for p in ("/usr/bin/fish", "/bin/fish")),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "distribution": {"type": "str", "choices": ["miniconda", "miniforge"], "default": "miniconda"},
            "version": {"type": "str"},
            "python": {"type": "str", "default": ""},
            "url": {"type": "str"},
            "checksums": {"type": "dict", "default": {}},
            "sha256": {"type": "str", "default": ""},
            "bundle": {"type": "str", "default": ""},
            "allow_downgrade": {"type": "bool", "default": False},
            "preserve": {
                "type": "list",
                "elements": "str",
                "default": [".condarc", "conda-meta/pinned", "conda-meta/frozen"],
            },
            "timeout": {"type": "int", "default": 1800},
            "lock_timeout": {"type": "int", "default": 900},
        },
        required_if=[("state", "present", ("version", "url"))],
        supports_check_mode=True,
    )
    act = present if module.params["state"] == "present" else absent
    try:
        prefix = Path(checked("prefix", module.params["prefix"], prefix_path))
        if module.check_mode:
            result = act(module, prefix)
        else:
            with conda_host.locked(prefix, module.params["lock_timeout"]):
                result = act(module, prefix)
    except (HostError, InstallerError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['prefix']}: {error.strerror}")
    module.exit_json(**result, **shells(prefix))


if __name__ == "__main__":
    main()
