# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there of an account on a host."""

from __future__ import annotations

import os

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import accounts_host


@pytest.fixture
def host(tmp_path):
    for directory in ("var/spool/cron/crontabs", "var/spool/cron/atjobs", "var/lib/systemd/linger"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


def found(host, name, uid):
    return [path.removeprefix(f"{host}/") for path in accounts_host.scheduled_for(name, uid, str(host))]


def test_what_would_start_for_an_account_is_found(host):
    (host / "var/spool/cron/crontabs/ada").write_text("* * * * * true\n")
    (host / "var/spool/cron/crontabs/grace").write_text("* * * * * true\n")
    (host / "var/lib/systemd/linger/ada").write_text("")
    (host / "var/spool/cron/atjobs/a0000101c3a1b2").write_text("true\n")
    jobs = ["var/spool/cron/atjobs/a0000101c3a1b2"]
    by_name = ["var/spool/cron/crontabs/ada", "var/lib/systemd/linger/ada"]
    assert found(host, "ada", os.getuid()) == by_name + jobs
    assert found(host, "ada", os.getuid() + 1) == by_name
    assert found(host, "eve", os.getuid() + 1) == []


def test_what_is_no_file_stays(host):
    (host / "var/spool/cron/crontabs/ada").symlink_to("/etc/passwd")
    (host / "var/spool/cron/ada").mkdir()
    assert found(host, "ada", os.getuid()) == []


def test_a_host_without_any_of_it(tmp_path):
    assert accounts_host.scheduled_for("ada", 2001, str(tmp_path)) == []
