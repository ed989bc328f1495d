# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the roles for GPU hosts; documented in the .yml files beside this one.

What they work with is imported when they are called: see access.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def docker_engine_plan(inputs: Mapping[str, Any], distribution: str = "", major: str = "") -> dict[str, Any]:
    from ansible_collections.devnode.gpu.plugins.module_utils.engine_inputs import engine_plan

    return engine_plan(_mapping(inputs, "docker_engine_plan"), distribution, str(major))


def nvidia_container_toolkit_plan(inputs: Mapping[str, Any]) -> dict[str, Any]:
    from ansible_collections.devnode.gpu.plugins.module_utils.engine_inputs import toolkit_plan

    return toolkit_plan(_mapping(inputs, "nvidia_container_toolkit_plan"))


def nvidia_driver_plan(inputs: Mapping[str, Any], host: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    from ansible_collections.devnode.gpu.plugins.module_utils import driver_plan

    names = "nvidia_driver_plan"
    return driver_plan.plan(_mapping(inputs, names), _mapping(host, names), _mapping(found, names))


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise AnsibleFilterError(f"devnode.gpu.{name} expects a mapping, not {type(value).__name__}.")
    return value


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "docker_engine_plan": docker_engine_plan,
            "nvidia_driver_plan": nvidia_driver_plan,
            "nvidia_container_toolkit_plan": nvidia_container_toolkit_plan,
        }
