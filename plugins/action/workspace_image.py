# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of workspace_image: gathers the build context, which names the image, and sends it at once."""

from __future__ import annotations

import base64
import json
import zlib
from functools import partial
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.devnode.gpu.plugins.action import miniconda_plan
from ansible_collections.devnode.gpu.plugins.module_utils import whole_file, workspace_conda
from ansible_collections.devnode.gpu.plugins.plugin_utils.controller_lock import locked


def read_lock(path: Path | None) -> dict[str, str]:
    """Digests by image."""
    if path is None or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["images"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ValueError(f"{path} cannot be read as what this role wrote ({exc}); mend it or take it away") from exc
    return {str(name): str(digest) for name, digest in found.items()}


def add_to_lock(path: Path, digests: dict[str, str]) -> bool:
    """Record these; whether that changed anything. Hosts of a play run at the same time."""
    with locked(path.parent):
        before = read_lock(path)
        after = {**before, **digests}
        if after == before:
            return False
        whole_file.rewrite(str(path), json.dumps({"images": dict(sorted(after.items()))}, indent=2) + "\n")
    return True


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the module's documentation."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        if args.get("_context"):
            raise AnsibleActionFail("_context is internal to workspace_image.")
        context = {"Dockerfile": str(args.get("dockerfile", ""))}
        context.update(self._folder(str(args.pop("files", "") or "")))
        authorities = str(args.pop("extra_ca", "") or "")
        if authorities:
            context["ca/devnode-extra.crt"] = authorities.strip() + "\n"
        context.update(self._conda(args.pop("conda", None)))
        lock = self._lock_path(str(args.get("lock_file") or ""), task_vars or {})
        try:
            args["_locked"] = read_lock(lock)
        except ValueError as exc:
            raise AnsibleActionFail(f"lock_file: {exc}") from exc
        args["lock_file"] = str(lock or "")
        args["_context"] = base64.b64encode(zlib.compress(json.dumps(context).encode())).decode()
        try:
            result: dict[str, Any] = self._execute_module(
                module_name="devnode.gpu.workspace_image", module_args=args, task_vars=task_vars
            )
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        result.pop("invocation", None)
        if lock and not result.get("failed") and not self._task.check_mode and add_to_lock(lock, result["digests"]):
            result["actions"].append(f"record digests in {lock.name}")
            result["changed"] = True
        return result

    def _lock_path(self, given: str, variables: dict[str, Any]) -> Path | None:
        """Where the record lies; a relative path counts from the inventory."""
        return (Path(str(variables.get("inventory_dir") or ".")) / Path(given).expanduser()) if given else None

    def _conda(self, given: Any) -> dict[str, str]:
        """What Miniconda and its environment are made from, if they are asked for."""
        if not given:
            return {}
        errors: list[str] = []
        if isinstance(given, dict):
            find = partial(self._find_needle, "files")
            where, declared = f"{workspace_conda.VARIABLE}.environment", given.get("environment")
            given = {**given, "environment": miniconda_plan.with_file(find, where, declared, errors)}
        found, wrong = workspace_conda.files(given, miniconda_plan.condarc_text)
        if errors or wrong:
            raise AnsibleActionFail("\n".join(errors or wrong))
        return {f"files/conda/{name}": text for name, text in found.items()}

    def _folder(self, name: str) -> dict[str, str]:
        """The text files of one of the role's folders."""
        if not name:
            return {}
        try:
            folder = Path(self._find_needle("files", name))
        except AnsibleError as exc:
            raise AnsibleActionFail(f"files: {exc}") from exc
        return {f"files/{path.name}": path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}
