# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module conda_envs, and writes what it gives back; see `ansible-doc -t module devnode.gpu.conda_envs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.module_utils import whole_file

ENDINGS = {"lock": ".lock", "environment": ".yml"}


class ActionModule(ActionBase):  # type: ignore[misc]
    """One round trip to the host; the controller's files afterwards."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        directory = str(arguments.pop("export_directory", None) or "")
        if directory:
            arguments["export"] = True
        result.update(self._execute_module("devnode.gpu.conda_envs", module_args=arguments, task_vars=variables))
        if directory:
            folder = Path(self._loader.path_dwim(directory)) / str(variables["inventory_hostname"]).replace("/", "_")
            try:
                self._write(folder, result)
            except OSError as error:
                why = f"{error.filename or folder}: could not be written on the controller: {error.strerror}."
                result.update(failed=True, msg="\n\n".join(filter(None, [result.get("msg"), why])))
        return result

    def _write(self, folder: Path, result: dict[str, Any]) -> None:
        written: list[str] = []
        diffs = [result["diff"]] if result.get("diff") else []
        for title, texts in sorted((result.get("exports") or {}).items()):
            for kind, ending in ENDINGS.items():
                path = folder / f"{title}{ending}"
                before = path.read_text(encoding="utf-8") if path.is_file() else ""
                if before == texts[kind]:
                    continue
                written.append(str(path))
                diffs.append(
                    {"before": before, "after": texts[kind], "before_header": str(path), "after_header": str(path)}
                )
                if not self._task.check_mode:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    whole_file.write(str(path), texts[kind])
        if written:
            result.update(changed=True, written=written, diff=diffs)
