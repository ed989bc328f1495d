# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of workspace_image: gathers the build context, which names the image, and sends it at once."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the module's documentation."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        if args.get("_context"):
            raise AnsibleActionFail("_context is internal to workspace_image.")
        context = {"Dockerfile": str(args.pop("dockerfile", ""))}
        context.update(self._folder(str(args.pop("files", "") or "")))
        authorities = str(args.pop("extra_ca", "") or "")
        if authorities:
            context["ca/devnode-extra.crt"] = authorities.strip() + "\n"
        args["_context"] = base64.b64encode(zlib.compress(json.dumps(context).encode())).decode()
        try:
            result: dict[str, Any] = self._execute_module(
                module_name="devnode.gpu.workspace_image", module_args=args, task_vars=task_vars
            )
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        result.pop("invocation", None)
        return result

    def _folder(self, name: str) -> dict[str, str]:
        """The text files of one of the role's folders."""
        if not name:
            return {}
        try:
            folder = Path(self._find_needle("files", name))
        except AnsibleError as exc:
            raise AnsibleActionFail(f"files: {exc}") from exc
        return {f"files/{path.name}": path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}
