# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the variables of the role miniconda mean; see `ansible-doc -t module devnode.gpu.miniconda_plan`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.module_utils import conda_bundle, conda_settings
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

ARGUMENTS: dict[str, dict[str, Any]] = {
    "prefix": {"type": "raw", "required": True},
    "distribution": {"type": "str", "choices": ["miniconda", "miniforge"], "default": "miniconda"},
    "version": {"type": "raw", "required": True},
    "python": {"type": "raw", "default": "3.11"},
    "installer_url": {"type": "raw", "default": ""},
    "installer_src": {"type": "raw", "default": ""},
    "installer_sha256": {"type": "raw", "default": ""},
    "checksums": {"type": "dict", "default": {}},
    "mirror": {"type": "raw", "default": "upstream"},
    "mirrors": {"type": "dict", "required": True},
    "channels": {"type": "raw", "default": ["conda-forge"]},
    "anaconda_terms_accepted": {"type": "bool", "default": False},
    "pip_index_url": {"type": "raw", "default": ""},
    "condarc": {"type": "dict", "default": {}},
    "condarc_final": {"type": "list", "elements": "raw", "default": []},
    "proxies": {"type": "dict", "default": {}},
    "ca_bundle": {"type": "raw", "default": ""},
    "environments": {"type": "raw", "default": []},
    "environment_python": {"type": "raw", "default": ""},
    "bundle": {"type": "str", "default": ""},
}


def condarc_text(settings: dict[str, Any], final: list[str]) -> str:
    """conda's configuration. A setting that users cannot override has its mark at the end of its first line."""
    lines: list[str] = []
    plain = json.loads(json.dumps(settings, default=str))  # Ansible's own kinds of text are none to a YAML library
    for key, value in sorted(plain.items()):
        first, *rest = yaml.safe_dump({key: value}, indent=2, width=200, default_flow_style=False).splitlines()
        lines += [f"{first}  #!final" if key in final else first, *rest]
    return "\n".join(lines)


def with_file(find: Callable[[str], str], where: str, item: Any, errors: list[str]) -> Any:
    """A declaration with the contents of its environment.yml or lock file."""
    key = next((key for key in ("lock", "file") if isinstance(item, dict) and item.get(key)), "")
    if not key:
        return item
    try:
        with open(find(item[key]), encoding="utf-8") as file:
            text = file.read()
        if key == "lock":
            return {**item, "lock": text.splitlines()}
        return conda_settings.from_file(item, yaml.safe_load(text))
    except InvalidError as error:
        why = f"{error.why}." + (f" Allowed: {error.allowed}." if error.allowed else "")
    except AnsibleError:
        why = "was not found on the controller. Give a path, or a file below files/ of the playbook."
    except (OSError, UnicodeDecodeError) as error:
        why = f"could not be read: {error}."
    except yaml.YAMLError as error:
        why = f"is not YAML: {error}"
    errors.append(f"{where}.{key}: {show(item[key])} {why}")
    # Something harmless in its place, so that the other declarations are checked as well.
    return {**{key: item[key] for key in ("name", "project") if key in item}, "packages": ["python"]}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller only; needs no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _checks, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        errors: list[str] = []
        if isinstance(arguments["environments"], list):
            find = partial(self._find_needle, "files")
            arguments["environments"] = [
                with_file(find, f"miniconda_environments[{index}]", item, errors)
                for index, item in enumerate(arguments["environments"])
            ]
        if arguments["bundle"]:
            arguments.update(self._bundle(arguments["bundle"], errors))
        plan = conda_settings.plan_of(conda_settings.Settings(**arguments))
        errors += plan.errors
        if errors:
            return {"failed": True, "changed": False, "msg": "\n".join(errors)}
        return {
            "changed": False,
            "installer_url": plan.installer_url,
            "installer_sha256": plan.installer_sha256,
            "copies": plan.copies,
            "bundle": plan.bundle,
            "channels": plan.channels,
            "condarc": condarc_text(plan.condarc, plan.final),
            "variables": plan.variables,
            "checks": plan.checks,
            "pip_index_url": plan.pip_index_url,
            "environments": plan.environments,
        }

    def _bundle(self, bundle: str, errors: list[str]) -> dict[str, Any]:
        try:
            path = self._find_needle("files", bundle)
            about, short = conda_bundle.read_about(path)
        except AnsibleError:
            errors.append(
                f"miniconda_bundle: {show(bundle)} was not found on the controller. Make it with the role's bundle.yml."
            )
            return {"bundle": ""}
        except conda_bundle.BundleError as error:
            errors.append(f"miniconda_bundle: {show(bundle)} {error}. Make it again with the role's bundle.yml.")
            return {"bundle": ""}
        return {"bundle": path, "bundle_about": about, "bundle_id": short}
