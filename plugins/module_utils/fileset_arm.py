# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Handing a change to the guard: its program and units on this host, and the start of one guarded change."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import run_command
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import (
    BASE,
    FileSetError,
    sha256,
    write_atomic,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_guard import (
    PROGRAM,
    RUN,
    recover,
    save_guard,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_states import inspect, same
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_transaction import Transaction

BOOT_UNIT = "/etc/systemd/system/devnode-guard-boot.service"
WATCH_UNIT = "/etc/systemd/system/devnode-guard@.service"

BOOT_UNIT_TEXT = """\
# Installed by the Ansible collection devnode.gpu (file_set, guard). It does nothing unless a change that could
# cut off the operator was still unconfirmed when the host went down: then it puts the old files back, before the
# network, the firewall and sshd start.
[Unit]
Description=Put back unconfirmed devnode.gpu changes
DefaultDependencies=no
RequiresMountsFor={base} /usr/local /etc
After=local-fs.target
Before=sysinit.target network-pre.target nftables.service firewalld.service
Before=ssh.service ssh.socket sshd.service sshd.socket shutdown.target
Conflicts=shutdown.target
ConditionPathExistsGlob={base}/guard/*/state.json

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program} boot
SyslogIdentifier=devnode-guard
TimeoutStartSec=120

[Install]
WantedBy=sysinit.target
"""

WATCH_UNIT_TEXT = """\
# Installed by the Ansible collection devnode.gpu (file_set, guard). Makes one guarded change and takes it back when
# no new connection confirms it in time. Its state is on disk, so that it can be killed and go on.
[Unit]
Description=Guarded change of the file set %i
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={program} run %i
SyslogIdentifier=devnode-guard
Restart=on-failure
RestartSec=500ms
OOMScoreAdjust=-900
TimeoutStopSec=10
KillMode=mixed
"""


def arm(transaction: Transaction, program: bytes, window: int) -> Dict[str, Any]:
    """Hand the change to the host. It begins when this run has let go of the lock."""
    if not os.path.isdir("/run/systemd/system"):
        transaction.discard()
        raise FileSetError(
            "guard: this host does not run systemd, which has to take the change back when nobody confirms it. "
            "Nothing was changed."
        )
    _install(program)
    name, identity = transaction.name, transaction.data["id"]
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    write_atomic(os.path.join(RUN, name), identity.encode(), 0o600)
    save_guard({"name": name, "id": identity, "phase": "armed", "window": window})
    outcome = run_command({"argv": ["systemctl", "restart", "--no-block", f"devnode-guard@{name}.service"]})
    if outcome["rc"] != 0:
        recover(name, "the service could not be started")
        raise FileSetError(f"guard: the service could not be started, so nothing was changed: {outcome['output']}")
    return {"phase": "armed", "id": identity, "window": window}


def _install(program: bytes) -> None:
    """The program and its units. They stay, so that this happens once."""
    python = next((p for p in ("/usr/bin/python3", "/usr/libexec/platform-python") if os.path.exists(p)), "")
    units = {"base": BASE, "program": PROGRAM}
    files = {
        PROGRAM: (f"#!{python or shutil.which('python3')} -I\n".encode() + program, 0o755),
        BOOT_UNIT: (BOOT_UNIT_TEXT.format(**units).encode(), 0o644),
        WATCH_UNIT: (WATCH_UNIT_TEXT.format(**units).encode(), 0o644),
    }
    boot_unit = os.path.basename(BOOT_UNIT)
    enabled = os.path.join(os.path.dirname(BOOT_UNIT), "sysinit.target.wants", boot_unit)
    stale = []
    for path, (data, mode) in files.items():
        live = inspect(os.path.realpath(path))
        if not same(live, {"type": "file", "mode": mode, "uid": 0, "gid": 0, "sha256": sha256(data)}):
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            write_atomic(path, data, mode)
            stale.append(path)
    if not stale and os.path.islink(enabled):
        return
    # Started now, while nothing is armed, so that only a restart of the host starts it with something to do.
    for argv in (["daemon-reload"], ["enable", boot_unit], ["start", boot_unit]):
        outcome = run_command({"argv": ["systemctl", *argv]})
        if outcome["rc"] != 0:
            raise FileSetError(
                f"guard: `systemctl {' '.join(argv)}` failed, so nothing was changed: {outcome['output']}"
            )
