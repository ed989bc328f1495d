# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module of another collection, run on the controller in the middle of a host's task.

As whoever runs Ansible, with this Python, and with nothing of the task's host: neither its connection and become, nor
its environment and variables. In check mode as well, so only for what writes into a folder of the caller's.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import action_loader, connection_loader, module_loader


class StuckError(RuntimeError):
    """The module did not come to an end in the time that it had."""


def installed(module: str) -> bool:
    """Whether a module is there, by its full name."""
    return bool(module_loader.find_plugin_with_context(module).resolved)


def run(action: ActionBase, module: str, args: dict[str, Any], folder: Path, patience: float) -> dict[str, Any]:
    """What the module returns. What it leaves behind is in `folder`; it has `patience` seconds."""
    task = Task()
    task.action, task.args, task.no_log = module, args, action._task.no_log
    task.check_mode = task.diff = False  # or else as the command line has it
    context = PlayContext()
    connection = connection_loader.get("ansible.builtin.local", context)
    connection.set_option("pipelining", True)
    connection._shell.tmpdir = str(folder)

    def execute(command: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """As the connection does, but with an end, and without a terminal: nobody is asked for anything."""
        del sudoable  # there is no become
        with subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder), "SSH_ASKPASS_REQUIRE": "never"},
        ) as process:
            try:
                out, err = process.communicate(in_data, timeout=patience)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
                raise StuckError(f"no answer in {patience:g} seconds") from error
            return process.returncode, out, err

    connection.exec_command = execute
    normal = action_loader.get(
        "ansible.builtin.normal",
        task=task,
        connection=connection,
        play_context=context,
        loader=action._loader,
        templar=action._templar,
        shared_loader_obj=None,
    )
    found: dict[str, Any] = normal.run(task_vars={"ansible_python_interpreter": shlex.quote(sys.executable)})
    return found
