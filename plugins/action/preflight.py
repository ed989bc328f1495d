# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at a host before anything else; see `ansible-doc -t module devnode.gpu.preflight`."""

from __future__ import annotations

import shlex
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.module_utils import preflight

PYTHONS = ["python3", "/usr/libexec/platform-python"]


class ActionModule(ActionBase):  # type: ignore[misc]
    """The probe in one round trip, without Python; then, on a fresh host, the module; then the facts."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _checks, args = self.validate_argument_spec(
            argument_spec={
                "families": {
                    "type": "list",
                    "elements": "str",
                    "default": list(preflight.FAMILIES),
                    "choices": list(preflight.FAMILIES),
                },
                "gather_subset": {"type": "list", "elements": "str", "default": []},
                "skip": {"type": "list", "elements": "str", "default": [], "choices": list(preflight.CHECKS)},
                "wait": {"type": "int", "default": 300},
                "clock": {"type": "int", "default": preflight.CLOCK_SECONDS},
            }
        )
        variables = task_vars or {}
        host = variables.get("inventory_hostname", "this host")
        started = time.time()
        # Not by sudo: whether that works is one of the questions.
        answer = self._low_level_execute_command(
            f"/bin/sh -c {shlex.quote(preflight.probe(self._pythons(variables)))}", sudoable=False
        )
        seen = preflight.read(answer["stdout"])
        if seen is None:
            said = (answer["stderr"].strip() or answer["stdout"].strip() or "it printed nothing").splitlines()[-1]
            return _refused(
                host,
                [
                    f"shell: no plain command can be run by ssh: {said}. Ansible needs an account whose login shell "
                    "runs commands. Look what it answers: ssh HOST true. Or connect with another one (ansible_user)."
                ],
            )
        half = (time.time() - started) / 2
        skip, clock = tuple(args["skip"]), args["clock"]
        found = preflight.problems(seen, started + half, self._become(), skip, args["families"], half, clock)
        fresh = "known" not in seen.facts
        result: dict[str, Any] = {"changed": False, "fresh": fresh}
        result["warnings"] = preflight.warnings(seen, started + half, skip, half, clock)
        if fresh and not found:
            looked = self._execute_module("devnode.gpu.preflight", module_args=args, task_vars=task_vars)
            if "problems" not in looked:
                return {**looked, "failed": True}
            found = looked["problems"]
            result["warnings"] += looked.get("warnings", [])
        if found:
            return _refused(host, found)
        if args["gather_subset"]:
            facts = self._execute_module(
                "ansible.builtin.setup", module_args={"gather_subset": args["gather_subset"]}, task_vars=task_vars
            )
            if facts.get("failed"):
                return {**facts, "failed": True}
            result["ansible_facts"] = facts.get("ansible_facts", {})
        return result

    def _pythons(self, variables: dict[str, Any]) -> list[str]:
        chosen = str(self._templar.template(variables.get("ansible_python_interpreter", "")))
        return [shlex.quote(chosen)] if chosen.startswith("/") else PYTHONS

    def _become(self) -> str:
        """ "sudo" when it will be used, and there is no password for it."""
        plugin = self._connection.become
        if plugin is None or plugin.get_option("become_pass"):
            return ""
        return str(plugin.name).rsplit(".", 1)[-1]


def _refused(host: str, found: list[str]) -> dict[str, Any]:
    lines = "\n".join(f"- {one}" for one in found)
    return {
        "failed": True,
        "changed": False,
        "msg": f"{host} cannot be used as it is, and nothing was changed:\n{lines}",
    }
