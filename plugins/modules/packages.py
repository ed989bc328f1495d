#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Have distribution packages installed, whatever their version
version_added: 0.1.0
description:
  - Asks the package database what is missing, and calls apt-get or dnf only then, with fresh package lists.
  - Unlike M(ansible.builtin.apt), check mode also works on a fresh machine whose package lists are empty, and a run
    with nothing to do costs a few milliseconds. Where a version matters, M(ansible.builtin.apt) is the right tool.
author: The devnode.gpu authors (@devnode)
options:
  name:
    description: The packages.
    type: list
    elements: str
    required: true
  dormant:
    description: >-
      Units that missing packages bring and that nobody asked for: they neither start with the installation nor at boot.
      Those of packages that are there already are left as they are.
    type: list
    elements: str
    default: []
  lock_timeout:
    description: How many seconds to wait for another package manager to finish.
    type: int
    default: 120
attributes:
  check_mode:
    description: Says what would be installed.
    support: full
  diff_mode:
    description: Shows the packages before and after.
    support: full
notes:
  - The path for dnf is not tested in the project's lab, which has Debian hosts.
"""

EXAMPLES = r"""
- name: Packages
  devnode.gpu.packages:
    name: [nftables]
"""

RETURN = r"""
missing:
  description: What was missing before.
  returned: success
  type: list
  elements: str
versions:
  description: What is installed now, by package. Not those that check mode would install.
  returned: success
  type: dict
  sample: {nftables: 1.1.3-1}
"""

from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule


def parse_dpkg(text: str) -> dict[str, str]:
    """Installed packages with their versions in what dpkg-query prints, one "name status version" a line."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: row[2] for row in rows if len(row) > 2 and row[1].endswith("i")}


def parse_rpm(text: str) -> str:
    """The version that rpm prints of the last package that it names."""
    lines = text.split()
    return lines[-1] if lines else ""


def _installed(module: AnsibleModule, names: list[str]) -> dict[str, str]:
    dpkg = module.get_bin_path("dpkg-query")
    if dpkg:
        _code, out, _err = module.run_command([dpkg, "-W", "-f", "${Package} ${db:Status-Abbrev} ${Version}\n", *names])
        return parse_dpkg(out)
    rpm = module.get_bin_path("rpm", required=True)
    ask = [rpm, "-q", "--qf", "%{VERSION}\n", "--whatprovides"]
    said = {name: module.run_command([*ask, name]) for name in names}
    return {name: parse_rpm(out) for name, (code, out, _err) in said.items() if code == 0}


def _commands(module: AnsibleModule, missing: list[str]) -> list[list[str]]:
    apt = module.get_bin_path("apt-get")
    if apt:
        base = [apt, "-q", "-y", "-o", f"DPkg::Lock::Timeout={module.params['lock_timeout']}"]
        keep = ["-o", "Dpkg::Options::=--force-confold", "--no-install-recommends"]
        return [[*base, "update"], [*base, *keep, "install", *missing]]
    return [[module.get_bin_path("dnf", required=True), "-q", "-y", "install", *missing]]


def _fail(module: AnsibleModule, missing: list[str], argv: list[str], output: str) -> NoReturn:
    tail = "\n".join(output.strip().splitlines()[-8:])
    module.fail_json(
        msg=f"The packages {', '.join(missing)} could not be installed: `{' '.join(argv)}` failed.\n{tail}\n"
        "Check the host's package sources and its way to them (proxy, mirror, DNS)."
    )
    raise AssertionError  # fail_json does not come back


def main() -> None:
    """Look, install what is missing."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "list", "elements": "str", "required": True},
            "dormant": {"type": "list", "elements": "str", "default": []},
            "lock_timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    names: list[str] = module.params["name"]
    have = _installed(module, names)
    missing = [name for name in names if name not in have]
    result: dict[str, Any] = {
        "changed": bool(missing),
        "missing": missing,
        "versions": have,
        "diff": {
            "before_header": "packages",
            "after_header": "packages",
            "before": "".join(f"{name}\n" for name in sorted(have)),
            "after": "".join(f"{name}\n" for name in sorted({*have, *names})),
        },
    }
    if missing and not module.check_mode:
        module.run_command_environ_update = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        # A run that is interrupted here leaves them masked: asleep all the same.
        dormant: list[str] = module.params["dormant"]
        if dormant:
            module.run_command(["systemctl", "mask", *dormant], check_rc=True)
        for argv in _commands(module, missing):
            code, out, err = module.run_command(argv)
            if code:
                _fail(module, missing, argv, f"{out}\n{err}")
        if dormant:
            module.run_command(["systemctl", "unmask", *dormant], check_rc=True)
            module.run_command(["systemctl", "disable", *dormant], check_rc=True)
        result["versions"] = _installed(module, names)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
