# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of file_set: render the files, send them in one round trip, and confirm a guarded change over a
connection that is really new."""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import generate_ansible_template_vars, trust_as_template
from ansible.utils.display import Display
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import secrets_of
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_guard import PROGRAM
from ansible_collections.devnode.gpu.plugins.module_utils.guard_route import new_route
from ansible_collections.devnode.gpu.plugins.plugin_utils.guard_program import guard_program
from ansible_collections.devnode.gpu.plugins.plugin_utils.host_program import host_program

display = Display()

SOURCES = ("template", "content", "src", "program")
# How long the commands of a change may keep it from being applied before the controller stops asking.
APPLY_ALLOWANCE = 60.0


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the module's documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        self._secrets: list[str] = []
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        if "rendered" in args:
            raise AnsibleActionFail("rendered: is made from files; it cannot be given in a task.")
        guard = args.get("guard") or None
        # Before the host is asked for anything: a route that cannot be built is known now.
        route = new_route(self._connection, guard) if guard and not self._task.check_mode else None
        try:
            args["files"], payload = self._render(args.get("files") or [], task_vars)
            if route:
                payload["guard_program"] = base64.b64encode(guard_program()).decode("ascii")
            packed = zlib.compress(json.dumps(payload).encode("utf-8"))
            args["rendered"] = base64.b64encode(packed).decode("ascii")
            result: dict[str, Any] = self._execute_module(
                module_name="devnode.gpu.file_set", module_args=args, task_vars=task_vars
            )
            result.pop("invocation", None)
            if route and not result.get("failed") and result.get("guard"):
                self._confirm(result, route)
            return result
        finally:
            if route:
                route.close()
            self._remove_tmp_path(self._connection._shell.tmpdir)

    # --- rendering ------------------------------------------------------------------------------------------

    def _render(self, files: Any, task_vars: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The list without contents, and the contents by index. Every mistake is reported together."""
        if not isinstance(files, list):
            raise AnsibleActionFail(f"files: has to be a list, not {type(files).__name__}.")
        errors: list[str] = []
        plain: list[Any] = []
        contents: dict[str, str] = {}
        for index, item in enumerate(files):
            if not isinstance(item, dict):
                errors.append(f"files[{index}]: has to be a dictionary, not {item!r}.")
                continue
            given = [key for key in SOURCES if item.get(key) is not None]
            wanted = 1 if item.get("state", "file") == "file" else 0
            if len(given) != wanted:
                what = "exactly one of" if wanted else "none of"
                errors.append(
                    f"files[{index}] ({item.get('path', 'no path')}): needs {what} {', '.join(SOURCES)}; "
                    f"it has {', '.join(given) or 'none'}."
                )
                continue
            if given:
                try:
                    data = self._contents(given[0], item, task_vars)
                    contents[str(index)] = base64.b64encode(data).decode("ascii")
                    if item.get("sensitive"):
                        self._secrets += secrets_of(data)
                except (AnsibleError, OSError, TypeError, ValueError) as error:
                    errors.append(f"files[{index}] ({item.get('path', 'no path')}): {error}")
            plain.append({key: value for key, value in item.items() if key not in (*SOURCES, "vars")})
        if errors:
            name = self._task.args.get("name")
            raise AnsibleActionFail("\n".join([f"file_set {name!r} cannot be made from these files:", *errors]))
        return plain, {"contents": contents}

    def _contents(self, kind: str, item: dict[str, Any], task_vars: dict[str, Any]) -> bytes:
        if kind == "content":
            content = item["content"]
            if not isinstance(content, str):
                raise AnsibleActionFail(f"content: has to be a text, not {type(content).__name__}.")
            return content.encode("utf-8", "surrogateescape")
        if kind == "program":
            return host_program(str(item["program"]))
        if kind == "src":
            found = self._find_needle("files", item["src"])
            real = self._loader.get_real_file(found, decrypt=True)
            try:
                return Path(real).read_bytes()
            finally:
                self._loader.cleanup_tmp_file(real)
        return self._template(item, task_vars)

    def _template(self, item: dict[str, Any], task_vars: dict[str, Any]) -> bytes:
        """As ansible.builtin.template does it."""
        source = self._find_needle("templates", item["template"])
        real = self._loader.get_real_file(source, decrypt=True)
        try:
            text = Path(real).read_text(encoding="utf-8")
        finally:
            self._loader.cleanup_tmp_file(real)
        search: list[str] = []
        for path in [*task_vars.get("ansible_search_path", []), self._loader._basedir, os.path.dirname(source)]:
            search += [os.path.join(path, "templates"), path]
        variables = {
            **task_vars,
            **generate_ansible_template_vars(item["template"], source, item.get("path")),
            **(item.get("vars") or {}),
        }
        if "ansible_managed" in task_vars:
            variables["ansible_managed"] = task_vars["ansible_managed"]
        templar = self._templar.copy_with_new_env(searchpath=search, available_variables=variables)
        overrides = {"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"}
        rendered = templar.template(trust_as_template(text), escape_backslashes=False, overrides=overrides)
        return ("" if rendered is None else str(rendered)).encode("utf-8", "surrogateescape")

    # --- guard ----------------------------------------------------------------------------------------------

    def _confirm(self, result: dict[str, Any], route: Any) -> None:
        """Come back over a new connection and say so; otherwise the host takes the change back by itself."""
        name, identity, window = self._task.args["name"], result["guard"]["id"], result["guard"]["window"]
        started = time.monotonic()
        give_up = started + window + APPLY_ALLOWANCE
        attempts = 0
        problem = ""
        controller = os.getppid()

        def ask(way: Any, arguments: list[str]) -> tuple[dict[str, Any] | None, str]:
            # An answer can take long, so this is looked at before each question.
            if os.getppid() != controller:
                # ansible was killed; this worker is what is left of it. Nobody would be told: let the host roll back.
                os._exit(1)
            return self._ask(way, arguments)

        while time.monotonic() < give_up:
            attempts += 1
            # What the new address does not answer any more after the time, the old one may.
            ways = [route.new] if time.monotonic() - started <= window else [route.new, route.old]
            for way in ways:
                state, error = ask(way, ["await", name, identity, "2"])
                problem = error or problem
                if state and state["phase"] == "waiting" and way is route.new:
                    # Only now is the change known to be in effect: the connection that confirms is opened after it.
                    state, error = ask(way, ["confirm", name, state["nonce"]])
                    problem = error or problem
                if state and state["phase"] == "confirmed":
                    result["guard"] = {
                        "phase": "confirmed",
                        "attempts": attempts,
                        "seconds": round(time.monotonic() - started, 2),
                    }
                    return
                if state and state["phase"] in ("rolled_back", "none"):
                    self._taken_back(result, state, problem)
                    ask(way, ["seen", name, identity])
                    return
            time.sleep(0.3)
        result.update(
            failed=True,
            msg=f"the change of {name!r} was made, but the host could not be reached over a new connection since "
            f"({problem or 'no answer'}). It puts the old files back by itself {window} s after the change, also after "
            f"a restart. The next run says what happened; so does `journalctl -t devnode-guard` on the host.",
        )

    def _taken_back(self, result: dict[str, Any], state: dict[str, Any], problem: str) -> None:
        name = state["name"]
        result.update(guard={"phase": state["phase"]}, backup=None)
        if state["phase"] == "none":
            result.update(
                failed=True,
                msg=f"the guard of {name!r} is gone from the host: somebody else ended it. "
                f"Run again to see how the host stands.",
            )
            return
        keys = ("reason", "time", "restored", "not_restored", "errors")
        result["rollback"] = {key: state.get(key) for key in keys}
        lines = [f"the change of {name!r} was not kept: the host put the old files back by itself ({state['reason']})."]
        command = state.get("command")
        if command and command.get("output"):
            lines.append(f"`{' '.join(command['argv'])}` said: {command['output']}")
        elif problem:
            lines.append(f"The new connection failed with: {problem}")
        if state.get("errors"):
            lines.append("Not everything could be put back; look after these by hand:")
            lines += state["errors"]
        lines.append("Correct what was asked for and run again. On the host: journalctl -t devnode-guard.")
        text = "\n".join(lines)
        for secret in self._secrets:
            text = text.replace(secret, "********")
        result.update(failed=True, changed=False, msg=text)

    def _ask(self, way: Any, arguments: list[str]) -> tuple[dict[str, Any] | None, str]:
        """Run the guard's program on the host over a connection of its own: its answer, or why there is none."""
        shell = self._connection._shell
        command = " ".join([PROGRAM, *(shell.quote(word) for word in arguments)])
        # With pipelining modules come without a terminal; ask the same way.
        data = b"\n" if self._is_pipelining_enabled("new") else None
        try:
            with way():
                answer = self._low_level_execute_command(command, in_data=data)
        except AnsibleError as error:
            return None, str(error).strip().splitlines()[-1] if str(error).strip() else "no connection"
        for line in answer["stdout"].splitlines():
            if line.startswith("devnode-guard: {"):
                return json.loads(line.split(" ", 1)[1]), ""
        text = (answer["stderr"] or answer["stdout"]).strip()
        display.vvv(f"guard: no answer: {text}")
        return None, text.splitlines()[-1] if text else f"exit {answer['rc']}"
