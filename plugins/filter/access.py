# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the roles ssh_server and bastion; they only call module_utils/access.py and its neighbours.

For one filter Ansible loads all files here, in each task on each host, and keeps nothing compiled. So here, and in the
other files, a filter imports what it works with when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError


def _operators(people: Any, **options: Any) -> dict[str, Any]:
    from ansible_collections.devnode.gpu.plugins.module_utils import access

    try:
        return access.operators(people, **options)
    except access.AccessError as error:
        raise AnsibleFilterError(str(error)) from error


def _relays(people: Any, **options: Any) -> dict[str, Any]:
    from ansible_collections.devnode.gpu.plugins.module_utils import access, relay_certificates

    try:
        return relay_certificates.relays(people, **options)
    except access.AccessError as error:
        raise AnsibleFilterError(str(error)) from error


def _bastion_setup(given: Any, **options: Any) -> dict[str, Any]:
    from ansible_collections.devnode.gpu.plugins.module_utils import bastion_setup

    try:
        return bastion_setup.setup(given, **options)
    except bastion_setup.BastionError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name → function."""
        return {"operators": _operators, "relays": _relays, "bastion_setup": _bastion_setup}
