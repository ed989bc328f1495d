#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_server_policy
short_description: Work out an ssh server policy that fits this host's sshd
version_added: 0.1.0
description:
  - Asks the host's sshd for its version and algorithms, and returns the lines of a policy that it understands.
  - Refuses a policy that cannot work on this host or that would lock out the account which Ansible is connected as.
  - Changes nothing.
author: The devnode.gpu authors (@devnode)
options:
  state:
    description: V(absent) gives what is needed to take the policy away again.
    type: str
    choices: [present, absent]
    default: present
  drop_in:
    description: Where the policy's file lies.
    type: path
    default: /etc/ssh/sshd_config.d/00-devnode.conf
  port:
    description: Port to listen on.
    type: int
    default: 22
  ports_also:
    description: Further ports.
    type: list
    elements: int
    default: []
  keep_port:
    description: Refuse ports without the one that this connection came in on.
    type: bool
    default: false
  listen_addresses:
    description: Addresses to listen on. All when empty.
    type: list
    elements: str
    default: []
  host_key_types:
    description: Host keys to use.
    type: list
    elements: str
    choices: [ed25519, rsa]
    default: [ed25519]
  host_certificates:
    description: Whether the host keys get certificates.
    type: bool
    default: false
  old_clients:
    description: Allow key exchange without post-quantum algorithms.
    type: bool
    default: false
  permit_root_login:
    description: Whether root may log in.
    type: str
    choices: ["no", prohibit-password, forced-commands-only]
    default: "no"
  allow_groups:
    description: Members of these groups, and operators, may log in; everybody when empty.
    type: list
    elements: str
    default: []
  home_keys:
    description: Whether C(~/.ssh/authorized_keys) counts for accounts that are not operators.
    type: bool
    default: true
  operators:
    description: Names of the operators.
    type: list
    elements: str
    default: []
  operator_networks:
    description: Networks that their keys count from; everywhere when empty.
    type: list
    elements: str
    default: []
  automation_users:
    description: Accounts that Ansible connects as.
    type: list
    elements: str
    default: []
  automation_networks:
    description: Networks that these accounts get in from; everywhere when empty.
    type: list
    elements: str
    default: []
  operators_group:
    description: Their group.
    type: str
    default: devnode-operators
  keys_directory:
    description: Where their keys lie, one file each.
    type: path
    default: /etc/devnode/ssh/keys
  tcp_forwarding:
    description: AllowTcpForwarding.
    type: str
    choices: ["no", local, "yes"]
    default: local
  agent_forwarding:
    description: AllowAgentForwarding.
    type: bool
    default: false
  exempt_networks:
    description: Networks whose addresses are never penalised.
    type: list
    elements: str
    default: []
  max_startups:
    description: MaxStartups.
    type: str
    default: "512:30:1024"
  max_sessions:
    description: MaxSessions.
    type: int
    default: 64
  max_auth_tries:
    description: MaxAuthTries.
    type: int
    default: 6
  login_grace_time:
    description: LoginGraceTime in seconds.
    type: int
    default: 30
  client_alive_interval:
    description: ClientAliveInterval in seconds.
    type: int
    default: 60
  unused_connection_timeout:
    description: UnusedConnectionTimeout in seconds.
    type: int
    default: 7200
  client_persist:
    description:
      - Seconds for which clients keep a connection that nobody uses. O(unused_connection_timeout) has to be more.
    type: int
    default: 0
  channel_timeouts:
    description: ChannelTimeout, such as C(direct-tcpip=12h).
    type: list
    elements: str
    default: []
  allowed_overrides:
    description: Keywords that Match blocks of other files may set.
    type: list
    elements: str
    default: []
  tolerate_missing:
    description: Without sshd on the host, answer with RV(missing) alone instead of failing.
    type: bool
    default: false
    version_added: 0.2.0
attributes:
  check_mode:
    description: Runs in check mode as ever, since it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: What this sshd can do
  devnode.gpu.ssh_server_policy:
    port: 22
    operators: [ops]
  register: policy
"""

RETURN = r"""
missing:
  description:
    - Packages that the policy needs and whose program is not on the host. With C(openssh-server) among them, and
      O(tolerate_missing), there is no other value.
  returned: success
  type: list
  elements: str
  sample: [sudo]
sections:
  description: The policy. Each section has C(why) and C(lines).
  returned: success
  type: list
  elements: dict
files:
  description:
    - Files for file_set beside the policy. What makes ssh.socket listen where the policy says, where it is in use.
    - An C(sshd_config) with one more line, where it does not include the policy.
  returned: success
  type: list
  elements: dict
activate:
  description: Commands for file_set that put a changed policy in effect.
  returned: success
  type: list
  elements: dict
check_arguments:
  description: Arguments for the checker that the role installs, besides the policy's file.
  returned: success
  type: list
  elements: str
next_port:
  description: The port that the next connection has to use, when the policy changes it; otherwise 0.
  returned: success
  type: int
host_keys:
  description:
    - With O(host_certificates), the host keys in use. Each has C(key) (the public key), C(path) (where its certificate
      belongs) and C(certificate) (the one that is there, or nothing).
  returned: success
  type: list
  elements: dict
version:
  description: The server's version.
  returned: success
  type: str
"""

import glob
import json
import os
import pwd
import re
import stat
from dataclasses import asdict
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import (
    session,
    ssh_policy,
    ssh_policy_refusals,
    sshd_check,
    sshd_command,
    sshd_files,
    whole_file,
)
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

SSHD = "/usr/sbin/sshd"
# What a policy needs, by the program that says that it is there. Of the same name on Debian's and Red Hat's families.
PACKAGES = {SSHD: "openssh-server", "/usr/sbin/visudo": "sudo"}
# systemd does not start a socket whose service runs, and while the socket is there every connection starts the service.
# So both stop, together. A socket that does not come up all the same would leave a host that nobody gets in to: then
# sshd listens by itself.
SOCKET_AGAIN = """
for pause in 0.2 1 2; do
  systemctl stop "$1" "$2"
  systemctl start "$1" && exit
  sleep $pause
done
exec systemctl start "$2"
"""


class Host:
    """The host, asked through programs that change nothing."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def run(self, *argv: str) -> str:
        """What a command prints, on whichever channel."""
        _code, out, err = self.module.run_command(list(argv))
        return f"{out}\n{err}"

    def lines(self, *argv: str) -> tuple[str, ...]:
        """The lines a command prints, or none when it fails."""
        if not self.module.get_bin_path(argv[0]):
            return ()
        code, out, _err = self.module.run_command(list(argv))
        return tuple(out.split()) if code == 0 else ()

    def effective(self) -> dict[str, str]:
        """The configuration in effect now."""
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        found, _failure = sshd_check.ask(SSHD, list(sshd_command.command_lines()[0].options), "root", "127.0.0.1")
        return {keyword: values[-1] for keyword, values in found.items()}

    def addresses(self) -> tuple[str, ...]:
        """This host's own addresses."""
        code, out, _err = self.module.run_command(["ip", "-json", "address"])
        try:
            links = json.loads(out) if code == 0 else []
        except ValueError:
            links = []
        return tuple(info["local"] for link in links for info in link.get("addr_info", []) if "local" in info)

    def socket_unit(self) -> str:
        """The socket unit that listens for sshd, if one does."""
        units = "ssh.socket", "sshd.socket"
        states = self.run("systemctl", "is-active", *units).split()
        return units[states.index("active")] if "active" in states[: len(units)] else ""

    def service_unit(self) -> str:
        """ssh.service on Debian's family, sshd.service elsewhere."""
        known = "/lib/systemd/system/ssh.service", "/usr/lib/systemd/system/ssh.service"
        return "ssh.service" if any(os.path.exists(path) for path in known) else "sshd.service"


def _usable_key(home: str) -> bool:
    for name in ("authorized_keys", "authorized_keys2"):
        lines = whole_file.text(os.path.join(home, ".ssh", name)).splitlines()
        if any(_is_usable(line) for line in lines):
            return True
    return False


def _is_usable(line: str) -> bool:
    # Options may stand in front: the key begins at its type.
    found = re.search(r"(?:^|\s)((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+\s+[A-Za-z0-9+/]+={0,2})", line)
    if line.lstrip().startswith("#") or not found:
        return False
    try:
        public_key(found.group(1))
    except InvalidError:
        return False
    return True


def _account(effective: dict[str, str]) -> Optional[ssh_policy.Account]:
    connected = session.current()
    if connected is None:
        return None
    try:
        entry = pwd.getpwnam(connected.user)
    except KeyError:
        return None
    others = ("authorizedkeyscommand", "trustedusercakeys")
    return ssh_policy.Account(
        name=entry.pw_name,
        groups=tuple(sorted(set(sshd_check.groups_of(entry.pw_name)))),
        has_usable_key=_usable_key(entry.pw_dir),
        address=connected.client,
        other_key_sources=any(effective.get(name, "none") != "none" for name in others),
    )


def _host_keys() -> dict[str, str]:
    found = {}
    for path in glob.glob("/etc/ssh/ssh_host_*_key"):
        kind = os.path.basename(path)[len("ssh_host_") : -len("_key")]
        found[kind] = path
    return found


def _keys_to_sign(wishes: ssh_policy.Wishes, facts: ssh_policy.Facts) -> list[dict[str, str]]:
    if not wishes.host_certificates:
        return []
    found = []
    for path in (facts.host_keys[kind] for kind in wishes.host_key_types if kind in facts.host_keys):
        certificate = ssh_policy.certificate_path(path)
        key = " ".join(whole_file.text(f"{path}.pub").split()[:2])
        found.append({"path": certificate, "key": key, "certificate": whole_file.text(certificate)})
    return found


def _bits(host: Host, key: str) -> int:
    words = host.lines("ssh-keygen", "-l", "-f", key)
    return int(words[0]) if words and words[0].isdigit() else 0


def gather(host: Host, host_key_types: tuple[str, ...]) -> ssh_policy.Facts:
    """Everything that the policy depends on."""
    version = ssh_policy.parse_version(host.run(SSHD, "-V"))
    if version is None:
        host.module.fail_json(msg=f"{SSHD} does not say its version. Is openssh-server installed?")
        raise AssertionError  # fail_json does not come back
    effective = host.effective()

    def offered(query: str, keyword: str) -> tuple[str, ...]:
        return host.lines("ssh", "-Q", query) or tuple(effective.get(keyword, "").split(","))

    host_keys, connected = _host_keys(), session.current()
    return ssh_policy.Facts(
        version=version,
        kex=offered("kex", "kexalgorithms"),
        ciphers=offered("cipher", "ciphers"),
        macs=offered("mac", "macs"),
        # "sig" knows rsa-sha2-*, "key" knows certificates; old clients know no "HostKeyAlgorithms".
        key_algorithms=host.lines("ssh", "-Q", "HostKeyAlgorithms")
        or (*host.lines("ssh", "-Q", "key"), *host.lines("ssh", "-Q", "sig"))
        or tuple(effective.get("hostkeyalgorithms", "").split(",")),
        host_keys=host_keys,
        rsa_bits=_bits(host, host_keys["rsa"]) if "rsa" in host_key_types and "rsa" in host_keys else None,
        addresses=host.addresses(),
        account=_account(effective),
        came_in_on=connected.server_port if connected else 0,
    )


def _socket_files(unit: str, wishes: ssh_policy.Wishes) -> list[dict[str, Any]]:
    if not unit:
        return []
    lines = ssh_policy.socket_lines(wishes, os.path.exists("/proc/net/if_inet6"))
    # zz-: behind the drop-in that Ubuntu's generator makes.
    return [{"path": f"/etc/systemd/system/{unit}.d/zz-devnode.conf", "content": "\n".join(lines) + "\n"}]


def _config_files(module: AnsibleModule, drop_in: str) -> list[dict[str, Any]]:
    """sshd_config, where it does not include the policy by itself."""
    try:
        with open(sshd_files.SSHD_CONFIG, encoding="utf-8") as handle:
            content = ssh_policy.with_include(handle.read(), drop_in)
            info = os.fstat(handle.fileno())
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{sshd_files.SSHD_CONFIG} cannot be read ({error}). Reinstall openssh-server's own.")
        raise AssertionError from error  # fail_json does not come back
    if content is None:
        return []
    mode = f"0{stat.S_IMODE(info.st_mode):o}"
    owner = {"owner": str(info.st_uid), "group": str(info.st_gid), "mode": mode}
    return [{"path": sshd_files.SSHD_CONFIG, "content": content, **owner}]


def _activate(socket: str, service: str) -> list[dict[str, Any]]:
    config = ["/etc/ssh/sshd_config.d/*", sshd_files.SSHD_CONFIG, "/etc/ssh/*-cert.pub"]
    # systemd gives up on what ended too often. After a policy that did this to sshd, the old one has to start all the
    # same, and at once. (A pattern: a unit that systemd has not loaded is no error then.)
    again = {"argv": ["systemctl", "reset-failed", service.replace(".service", "[.@]*service")], "when_changed": config}
    if not socket:
        # Not try-…: when a new policy has ended sshd, the old one has to start it again.
        return [again, {"argv": ["systemctl", "reload-or-restart", service], "when_changed": config}]
    # Sessions stay: the unit kills only the listener (KillMode=process). The next connection starts it again, with the
    # new configuration.
    units = [f"/etc/systemd/system/{socket}.d/*"]
    return [
        {"argv": ["systemctl", "daemon-reload"], "when_changed": units},
        {**again, "when_changed": units + config},
        {"argv": ["/bin/sh", "-c", SOCKET_AGAIN, "sh", socket, service], "when_changed": units + config},
    ]


def _next_port(ports: list[int]) -> int:
    # Not simply the policy's port: the controller may come through a gateway that maps another one to it.
    connected = session.current()
    return ports[0] if connected and connected.server_port not in ports else 0


def _ports_without(drop_in: str) -> list[int]:
    """Where sshd listens when the policy is gone."""
    settings = sshd_files.read_settings(sshd_files.SSHD_CONFIG)
    words = [item.value for item in settings if item.keyword == "port" and item.path != drop_in and not item.match]
    return [int(word) for word in words if word.isdigit()] or [22]


def main() -> None:
    """Gather, decide, answer."""
    strings: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "drop_in": {"type": "path", "default": "/etc/ssh/sshd_config.d/00-devnode.conf"},
            "port": {"type": "int", "default": 22},
            "ports_also": {"type": "list", "elements": "int", "default": []},
            "keep_port": {"type": "bool", "default": False},
            "listen_addresses": strings,
            "host_key_types": {
                "type": "list",
                "elements": "str",
                "choices": ["ed25519", "rsa"],
                "default": ["ed25519"],
                "no_log": False,
            },
            "host_certificates": {"type": "bool", "default": False},
            "old_clients": {"type": "bool", "default": False},
            "permit_root_login": {
                "type": "str",
                "choices": ["no", "prohibit-password", "forced-commands-only"],
                "default": "no",
            },
            "allow_groups": strings,
            "home_keys": {"type": "bool", "default": True, "no_log": False},
            "operators": strings,
            "operator_networks": strings,
            "automation_users": strings,
            "automation_networks": strings,
            "operators_group": {"type": "str", "default": "devnode-operators"},
            "keys_directory": {"type": "path", "default": "/etc/devnode/ssh/keys", "no_log": False},
            "tcp_forwarding": {"type": "str", "choices": ["no", "local", "yes"], "default": "local"},
            "agent_forwarding": {"type": "bool", "default": False},
            "exempt_networks": strings,
            "max_startups": {"type": "str", "default": "512:30:1024"},
            "max_sessions": {"type": "int", "default": 64},
            "max_auth_tries": {"type": "int", "default": 6},
            "login_grace_time": {"type": "int", "default": 30},
            "client_alive_interval": {"type": "int", "default": 60},
            "unused_connection_timeout": {"type": "int", "default": 7200},
            "client_persist": {"type": "int", "default": 0},
            "channel_timeouts": strings,
            "allowed_overrides": strings,
            "tolerate_missing": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="This needs root on the host, to ask sshd for its configuration. Set become: true.")
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in module.params.items()
    }
    state, drop_in = given.pop("state"), given.pop("drop_in")
    tolerate_missing = given.pop("tolerate_missing")
    if state == "absent":
        given["operators"] = given["automation_users"] = ()
        given["keep_port"] = False
    wishes = ssh_policy.Wishes(**given)
    problems = ssh_policy_refusals.invalid(wishes)
    if problems:
        module.fail_json(msg="\n".join(problems))
    missing = [package for program, package in PACKAGES.items() if not os.path.exists(program)]
    if not os.path.exists(SSHD):
        if tolerate_missing:
            module.exit_json(changed=False, missing=missing)
        module.fail_json(
            msg=f"{SSHD} is not on this host, so nobody can tell which policy it understands. It comes with the "
            "package openssh-server; a dry run installs nothing."
        )
    host = Host(module)
    facts = gather(host, wishes.host_key_types)
    problems = ssh_policy_refusals.refusals(wishes, facts)
    if problems:
        module.fail_json(msg="\n".join(problems))
    for words in ssh_policy_refusals.warnings(wishes, facts):
        module.warn(words)
    socket = host.socket_unit()
    ports = list(wishes.ports) if state == "present" else _ports_without(drop_in)
    module.exit_json(
        changed=False,
        missing=missing,
        sections=[asdict(section) for section in ssh_policy.sections(wishes, facts)],
        files=_socket_files(socket, wishes) + _config_files(module, drop_in),
        activate=_activate(socket, host.service_unit()),
        check_arguments=ssh_policy.check_arguments(wishes, facts),
        next_port=_next_port(ports),
        host_keys=_keys_to_sign(wishes, facts),
        version=".".join(str(number) for number in facts.version),
    )


if __name__ == "__main__":
    main()
