# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role ssh_client_config: from views to the files that file_set puts somewhere.

What they work with is imported when they are called: see access.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleFilterError

if TYPE_CHECKING:
    from ansible_collections.devnode.gpu.plugins.module_utils.client_render import KitFile
    from ansible_collections.devnode.gpu.plugins.module_utils.client_view import ClientView

File = dict[str, Any]


def _parsed(views: Any) -> list[ClientView]:
    from ansible_collections.devnode.gpu.plugins.module_utils.client_check import parse_views

    parsed, wrong = parse_views(views)
    if wrong:
        raise AnsibleFilterError("The client views cannot be used:\n" + "\n".join(wrong))
    return parsed


def _file(directory: str, found: KitFile, **owner: Any) -> File:
    text = {"src": found.asset} if found.asset else {"content": found.content}
    return {"path": f"{directory}/{found.name}", "mode": found.mode, **text, **owner}


def _directory(path: str, **owner: Any) -> File:
    return {"path": path, "state": "directory", "mode": "0700", **owner}


def home_files(views: Any, homes: dict[str, Any]) -> list[File]:
    """The files that lie in the homes of people on a managed machine. `homes`: account -> {home, uid, gid}."""
    from ansible_collections.devnode.gpu.plugins.module_utils.client_render import installed

    files: list[File] = []
    for view in _homed(views, homes):
        home = homes[view.login]
        # An account that a task of this check run would have made has no number yet.
        owner = {"owner": view.login, "group": home["gid"] if home["gid"] >= 0 else view.login}
        place = view.base_dir.replace("~", home["home"], 1)
        files.append(_directory(place, **owner))
        files.append(_directory(view.sockets.replace("~", home["home"], 1), **owner))
        files.extend(_file(place, found, **owner) for found in installed(view))
    return files


def home_checks(views: Any, homes: dict[str, Any]) -> list[dict[str, Any]]:
    """Commands by which the machine's own ssh reads what we wrote, one for each person and with that person's rights:
    the files are theirs, and `Match exec` runs programs. An account that is not there yet cannot be asked."""
    checks = []
    for view in _homed(views, homes):
        home = homes[view.login]
        if home["uid"] >= 0:
            config = view.base_dir.replace("~", home["home"], 1) + "/config"
            checks.append({"argv": ["ssh", "-G", "-F", config, "devnode"], "user": view.login})
    return checks


def accounts(views: Any) -> list[dict[str, str]]:
    """The accounts on a managed machine that the views are meant for, and what their configuration includes."""
    return [{"name": view.login, "include": f"{view.base_dir}/config"} for view in _parsed(views)]


def errors(views: Any) -> list[str]:
    """Everything that is wrong with the views, one sentence each."""
    from ansible_collections.devnode.gpu.plugins.module_utils.client_check import parse_views

    return parse_views(views)[1]


def _homed(views: Any, homes: dict[str, Any]) -> list[ClientView]:
    """The views with the homes that they really get: only now is the length of the sockets' paths known."""
    known = [replace(view, home=homes[view.login]["home"]) for view in _parsed(views) if view.login in homes]
    foreign = [view.person for view in known if not view.base_dir.startswith("~/") or not view.sockets.startswith("~/")]
    if foreign:
        raise AnsibleFilterError(
            f"The views of {', '.join(foreign)} have a base_dir or control_dir outside of the home. Only what lies "
            'below it is installed there: begin both with "~/", or write a kit (ssh_client_config_kits_dir).'
        )
    return _parsed([view.to_dict() for view in known])


class FilterModule:
    """The filters by their names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "ssh_client_accounts": accounts,
            "ssh_client_home_checks": home_checks,
            "ssh_client_home_files": home_files,
            "ssh_client_errors": errors,
        }
