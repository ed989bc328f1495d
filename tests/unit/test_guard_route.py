# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection that confirms a change must be new on every hop. Asked of the real ssh."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import guard_route

SHARED = """\
Host *
  ControlMaster auto
  ControlPath {path}/%C
  ControlPersist 10m
Host target
  HostName 192.0.2.1
  ProxyJump jump
Host jump
  HostName 192.0.2.2
Host by-command
  ProxyCommand ssh -q jump -W %h:%p
"""


class Connection:
    """As much of Ansible's ssh plugin as the route uses."""

    ansible_name = "ansible.builtin.ssh"

    def __init__(self, host: str, **options: Any) -> None:
        self.options: dict[str, Any] = {
            "host": host,
            "port": None,
            "timeout": 10,
            "reconnection_retries": 3,
            "ssh_executable": "ssh",
            "ssh_args": "-C -o ControlMaster=auto -o ControlPersist=60s",
            "ssh_common_args": "",
            "ssh_extra_args": "",
            **options,
        }

    def get_option(self, name: str) -> Any:
        return self.options[name]

    def set_option(self, name: str, value: Any) -> None:
        assert name in self.options
        self.options[name] = value

    def command(self) -> list[str]:
        """In the order in which the plugin puts them."""
        words = ["ssh", *shlex.split(self.options["ssh_args"])]
        if self.options["port"]:
            words += ["-o", f"Port={self.options['port']}"]
        return [*words, *shlex.split(self.options["ssh_common_args"]), *shlex.split(self.options["ssh_extra_args"])]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config with space"
    path.write_text(SHARED.format(path=tmp_path))
    return str(path)


def effective(connection: Connection) -> dict[str, str]:
    words = [*connection.command(), "-G", connection.options["host"]]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_nothing_is_shared_and_afterwards_all_is_as_before(config: str) -> None:
    connection = Connection("jump", ssh_common_args=f"-F {shlex.quote(config)}")
    before = dict(connection.options)
    assert effective(connection)["controlmaster"] == "auto"
    route = guard_route.new_route(connection, {"host": "", "port": 0})
    with route.new():
        seen = effective(connection)
        assert seen["controlmaster"] in ("no", "false")
        assert seen.get("controlpath", "none") == "none"
        assert seen["hostname"] == "192.0.2.2"
        assert connection.options["reconnection_retries"] == 0
    assert connection.options == before
    route.close()
    assert not Path(route.directory).exists()


def test_the_next_address_and_port_are_used_only_for_the_new_way(config: str) -> None:
    connection = Connection("jump", port=22, ssh_common_args=f"-F {shlex.quote(config)}")
    route = guard_route.new_route(connection, {"host": "192.0.2.9", "port": 2222})
    with route.new():
        assert (connection.options["host"], connection.options["port"]) == ("192.0.2.9", 2222)
        assert effective(connection)["port"] == "2222"
    with route.old():
        assert (connection.options["host"], connection.options["port"]) == ("jump", 22)
        assert effective(connection)["controlmaster"] in ("no", "false")
    route.close()


def test_the_hop_of_a_proxy_jump_shares_nothing(config: str) -> None:
    connection = Connection("target", ssh_common_args=f"-F {shlex.quote(config)}")
    route = guard_route.new_route(connection, {})
    with route.new():
        words = [*connection.command(), "-v", "-o", "BatchMode=yes", "-o", "ConnectTimeout=1", "target", "true"]
        log = subprocess.run(words, capture_output=True, text=True, check=False).stderr
        own = f"-F {route.directory}/config"
        (line,) = [text for text in log.splitlines() if "ProxyCommand from ProxyJump" in text]
        assert own in line.replace("'", "").replace('"', "")
        hop = subprocess.run(["ssh", *own.split(), "-G", "jump"], capture_output=True, text=True, check=True).stdout
        assert "controlpath " not in hop
        assert "controlmaster false" in hop
    route.close()


def test_the_hop_of_a_proxy_command_shares_nothing(config: str) -> None:
    connection = Connection("by-command", ssh_common_args=f"-F {shlex.quote(config)}")
    route = guard_route.new_route(connection, {})
    with route.new():
        proxy = effective(connection)["proxycommand"]
        assert proxy.startswith("ssh -F ")
        assert "-o ControlPath=none" in proxy
        assert proxy.endswith(" -q jump -W %h:%p")
    route.close()


def test_a_proxy_command_of_the_inventory_shares_nothing() -> None:
    connection = Connection("192.0.2.1", ssh_common_args="-o ProxyCommand='ssh -i \"/k e/y\" -W %h:%p jump'")
    route = guard_route.new_route(connection, {})
    with route.new():
        proxy = effective(connection)["proxycommand"]
        assert "-o ControlPath=none" in proxy
        assert proxy.endswith(' -i "/k e/y" -W %h:%p jump')
    route.close()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("nc %h %p", "nc %h %p"),
        ("sshuttle x", "sshuttle x"),
        ("ssh -W %h:%p b", "ssh -F /c {0} -W %h:%p b"),
        ("exec /usr/bin/ssh -W %h:%p b", "exec /usr/bin/ssh -F /c {0} -W %h:%p b"),
        ("ssh -F /own -W %h:%p b", "ssh {0} -F /own -W %h:%p b"),
    ],
)
def test_only_ssh_gets_options(command: str, expected: str) -> None:
    options = " ".join(guard_route.NO_SHARING)
    assert guard_route.unshared_proxy(command, "/c") == expected.format(options)


@pytest.mark.parametrize(
    ("words", "rest", "config"),
    [
        (["-C", "-F", "/x", "-S", "/s", "-M"], ["-C"], "/x"),
        (["-F/x", "-S/s", "-o", "User=a"], ["-o", "User=a"], "/x"),
        (["-o", "ControlPath=/x"], ["-o", "ControlPath=/x"], None),
    ],
)
def test_arguments_that_would_share_are_taken_out(words: list[str], rest: list[str], config: str | None) -> None:
    assert guard_route.split_config(words) == (rest, config)


def test_other_connections_are_opened_anew() -> None:
    class Other:
        ansible_name = "community.docker.docker"
        resets = 0

        def reset(self) -> None:
            self.resets += 1

    connection = Other()
    route = guard_route.new_route(connection, {})
    with route.new():
        assert connection.resets == 1
    route.close()
