# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the roles ssh_server and bastion; they only call module_utils/access.py and bastion_setup.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.devnode.gpu.plugins.module_utils import access, bastion_setup, relay_certificates


def _told(work: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def run(people: Any, **options: Any) -> dict[str, Any]:
        try:
            return work(people, **options)
        except (access.AccessError, bastion_setup.BastionError) as error:
            raise AnsibleFilterError(str(error)) from error

    return run


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name → function."""
        return {
            "operators": _told(access.operators),
            "relays": _told(relay_certificates.relays),
            "bastion_setup": _told(bastion_setup.setup),
        }
