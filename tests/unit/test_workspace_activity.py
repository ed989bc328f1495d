# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who works in a container, and when nobody minds."""

from __future__ import annotations

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import (
    workspace_activity,
)
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError


def test_a_leavers_processes_do_not_count_and_roots_do() -> None:
    logins = {0: "root", 33: "www-data", 2001: "ada", 2002: "grace"}
    assert workspace_activity.who_left(logins, ["ada"]) == {2002}
    assert workspace_activity.who_left(logins, None) == set()
    assert workspace_activity.who_left(logins, []) == {2001, 2002}


def test_busy_is_what_people_do() -> None:
    top = """UID PID STARTED COMMAND
0 1 Sun Nov 22 03:17:12 2026 /usr/bin/tini -- /usr/local/sbin/devnode-workspace run
101 30 Sun Nov 22 03:17:12 2026 sshd-session: [net]
2001 32 Sun Nov 22 03:17:12 2026 /opt/jupyter/bin/python /opt/jupyter/bin/jupyter-lab --ServerApp.port=8888
2001 43 Sun Nov 22 14:02:12 2026 python3 train.py --epochs 90
2002 44 Sun Nov 22 14:02:13 2026 sshd-session: grace@pts/0
"""
    found = workspace_activity.busy(workspace_activity.parse_top(top), {2001: "ada", 2002: "grace"})
    assert found == [
        "ada: python3 train.py --epochs 90 (since 14:02:12)",
        "grace: sshd-session: grace@pts/0 (since 14:02:13)",
    ]


@pytest.mark.parametrize(
    ("command", "idle"),
    [
        ("/opt/jupyter/bin/jupyter-lab --ServerApp.port=8888", True),
        ("/opt/jupyter/bin/python3.12 /opt/jupyter/bin/jupyter-lab", True),
        ("python3 /usr/local/bin/devnode-jupyter serve", True),
        ("python3 /home/ada/jupyter-lab/train.py", False),
        ("python3 train.py /opt/jupyter/bin/jupyter-lab", False),
        ("vim /usr/local/bin/devnode-jupyter", False),
        ("/home/ada/opt/jupyter/bin/jupyter-lab", False),
        ("python3", False),
        ("/opt/jupyter/bin/python -m ipykernel_launcher -f /home/ada/jupyter-lab.json", False),
    ],
)
def test_only_the_jupyter_server_itself_is_idle(command: str, idle: bool) -> None:
    assert (
        bool(workspace_activity.busy([workspace_activity.Process(2001, "14:02:12", command)], {2001: "ada"}))
        is not idle
    )


def test_root_at_work_counts_but_what_is_always_there_does_not() -> None:
    programs = (
        "/usr/bin/tini -- /usr/local/sbin/devnode-workspace run",
        "python3 /usr/local/sbin/devnode-workspace run",
        "sshd: /usr/sbin/sshd -D -e -f /run/devnode/sshd_config [listener] 0 of 100-200 startups",
        "sshd-session: ada [priv]",
        "/usr/lib/openssh/sshd-session -D -R",
        "[sshd-auth] <defunct>",
        "/usr/sbin/cron -f",
        "/usr/sbin/CRON -f",
    )
    assert (
        workspace_activity.busy([workspace_activity.Process(0, "14:02:12", command) for command in programs], {}) == []
    )
    assert workspace_activity.busy([workspace_activity.Process(0, "14:02:12", "apt-get install vim")], {}) == [
        "root: apt-get install vim (since 14:02:12)"
    ]


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [("02:00-05:00", (120, 299), (119, 300)), ("22:30-01:00", (1350, 0, 59), (60, 1349)), ("", (), (0, 720))],
)
def test_window(window: str, inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    assert all(workspace_activity.in_window(window, minute) for minute in inside)
    assert not any(workspace_activity.in_window(window, minute) for minute in outside)


@pytest.mark.parametrize("window", ["2-5", "02:00", "25:00-03:00", "02:00-05:00 "])
def test_window_refused(window: str) -> None:
    with pytest.raises(InvalidError):
        workspace_activity.in_window(window, 0)
