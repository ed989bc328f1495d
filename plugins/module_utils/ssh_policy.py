# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy of an ssh server: from what is asked and what this sshd offers to the lines of its drop-in.

Pure: facts in, lines out. plugins/modules/ssh_server_policy.py gathers the facts, ssh_policy_refusals judges them.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Optional

Version = tuple[int, int]

# Post-quantum first, and the fast one before the slow one: sntrup761 costs some 80 ms of CPU per connection.
KEX_POST_QUANTUM = (
    "mlkem768x25519-sha256",
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
)
# Only for clients that know none of the above (OpenSSH before 9.0, paramiko, some IDEs' own ssh).
KEX_CLASSICAL = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group16-sha512",
)
# The client's order decides; AES-GCM is the fastest where the CPU has AES, ChaCha20 where it has not.
CIPHERS = (
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
MACS = (
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256-etm@openssh.com",
    "umac-128-etm@openssh.com",
)
# By type of host key. ECDSA is left out on purpose: a weak random number gives the key away.
HOST_KEY_ALGORITHMS = {
    "ed25519": ("ssh-ed25519",),
    "rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
HOST_CERTIFICATE_ALGORITHMS = {
    "ed25519": ("ssh-ed25519-cert-v01@openssh.com",),
    "rsa": ("rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com"),
}
# What people may log in with. ECDSA stays: some security chips know nothing else.
USER_KEY_ALGORITHMS = (
    "ssh-ed25519",
    "ssh-ed25519-cert-v01@openssh.com",
    "sk-ssh-ed25519@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256",
    "rsa-sha2-256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
)
RSA_MIN_BITS = 3072

# Where keys come from besides files: closed for people whose keys are ours, nobody else's matter. With "none" as a
# command sshd logs, for each key that it does not know, that it skips the command.
OTHER_KEY_SOURCES = (
    "AuthorizedKeysCommand",
    "AuthorizedPrincipalsCommand",
    "AuthorizedPrincipalsFile",
    "TrustedUserCAKeys",
)

# Keywords by the version that brought them; a server before it would refuse the file.
SINCE: dict[str, Version] = {
    "KbdInteractiveAuthentication": (8, 7),
    "PubkeyAcceptedAlgorithms": (8, 5),
    "ChannelTimeout": (9, 2),
    "RequiredRSASize": (9, 1),
    "UnusedConnectionTimeout": (9, 2),
    "PerSourcePenaltyExemptList": (9, 8),
}
# Addresses of documentation, one of which is in no network of a list that does not mean everybody.
NOWHERE = ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1")
# Without it the policy could not be a file of its own.
INCLUDE_SINCE: Version = (8, 2)
# Where the distribution's sshd_config includes nothing. Only files of this collection: the others of that directory
# were not in effect until now, and are not ours to switch on.
INCLUDE = """\
# Added by devnode.gpu (role ssh_server). sshd takes the first value that it finds, so the policy comes first.
Include {directory}/*-devnode*.conf

"""
# What an older server calls the same thing.
FORMERLY = {
    "KbdInteractiveAuthentication": "ChallengeResponseAuthentication",
    "PubkeyAcceptedAlgorithms": "PubkeyAcceptedKeyTypes",
}


@dataclass(frozen=True)
class Account:
    """What matters about the account that this very run is connected as."""

    name: str
    groups: tuple[str, ...] = ()
    has_usable_key: bool = True
    other_key_sources: bool = False  # AuthorizedKeysCommand or TrustedUserCAKeys are in use
    address: str = ""  # where it comes from


@dataclass(frozen=True)
class Facts:
    """What this host's sshd is and can."""

    version: Version
    kex: tuple[str, ...]
    ciphers: tuple[str, ...]
    macs: tuple[str, ...]
    key_algorithms: tuple[str, ...]
    host_keys: dict[str, str]  # type: path
    addresses: tuple[str, ...] = ()
    account: Optional[Account] = None
    rsa_bits: Optional[int] = None  # of the RSA host key; None when nobody asked, 0 when it cannot be read
    came_in_on: int = 0  # this run's connection: its port at this host; 0: not known


@dataclass(frozen=True)
class Wishes:
    """The role's variables, without their prefix."""

    port: int = 22
    ports_also: tuple[int, ...] = ()
    keep_port: bool = False  # the one that this run's connection came in on
    listen_addresses: tuple[str, ...] = ()
    host_key_types: tuple[str, ...] = ("ed25519",)
    host_certificates: bool = False
    old_clients: bool = False
    permit_root_login: str = "no"
    allow_groups: tuple[str, ...] = ()
    home_keys: bool = True
    operators: tuple[str, ...] = ()
    operators_group: str = "devnode-operators"
    operator_networks: tuple[str, ...] = ()  # empty: from everywhere
    automation_users: tuple[str, ...] = ()  # the accounts that Ansible connects as
    automation_networks: tuple[str, ...] = ()  # empty: from everywhere
    keys_directory: str = "/etc/devnode/ssh/keys"
    tcp_forwarding: str = "local"
    agent_forwarding: bool = False
    exempt_networks: tuple[str, ...] = ()
    max_startups: str = "512:30:1024"
    max_sessions: int = 64
    max_auth_tries: int = 6
    login_grace_time: int = 30
    client_alive_interval: int = 60
    unused_connection_timeout: int = 7200
    client_persist: int = 0  # seconds that clients keep a connection which nobody uses; 0: not known
    channel_timeouts: tuple[str, ...] = ()
    allowed_overrides: tuple[str, ...] = ()

    @property
    def ports(self) -> tuple[int, ...]:
        """Where sshd listens, the one that people are told of first."""
        return tuple(dict.fromkeys((self.port, *self.ports_also)))


@dataclass
class Section:
    """Lines that belong together, and why they are there."""

    why: str
    lines: list[str] = field(default_factory=list)


def parse_version(text: str) -> Optional[Version]:
    """The version in what `sshd -V` prints (an old one prints it above its usage)."""
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def choose(wanted: tuple[str, ...], offered: tuple[str, ...]) -> list[str]:
    """What is wanted and offered, in our order."""
    return [name for name in wanted if name in offered]


def key_exchange(wishes: Wishes, facts: Facts) -> list[str]:
    """Post-quantum; classical ones behind it when asked, or when this sshd has nothing else."""
    chosen = choose(KEX_POST_QUANTUM, facts.kex)
    if wishes.old_clients or not chosen:
        chosen += choose(KEX_CLASSICAL, facts.kex)
    return chosen


def _keyword(name: str, facts: Facts) -> str:
    """The name that this version knows a keyword by; empty when it does not know it at all."""
    if facts.version >= SINCE.get(name, (0, 0)):
        return name
    return FORMERLY.get(name, "")


def sections(wishes: Wishes, facts: Facts) -> list[Section]:
    """The drop-in, section by section."""
    flag = {True: "yes", False: "no"}

    def lines(*pairs: tuple[str, object]) -> list[str]:
        known = [(_keyword(name, facts), value) for name, value in pairs]
        return [f"{name} {value}" for name, value in known if name]

    listen = [("ListenAddress", address) for address in wishes.listen_addresses]
    host_keys = [("HostKey", facts.host_keys[kind]) for kind in wishes.host_key_types if kind in facts.host_keys]
    host_algorithms = [name for kind in wishes.host_key_types for name in HOST_KEY_ALGORITHMS[kind]]
    if wishes.host_certificates:
        host_keys += [("HostCertificate", certificate_path(path)) for _keyword, path in host_keys]
        signed = [name for kind in wishes.host_key_types for name in HOST_CERTIFICATE_ALGORITHMS[kind]]
        host_algorithms = signed + host_algorithms
    result = [
        Section("Where it listens.", lines(*(("Port", port) for port in wishes.ports), *listen)),
        Section(
            "Algorithms: those of this sshd that are worth using, post-quantum key exchange first.",
            lines(
                *host_keys,
                ("HostKeyAlgorithms", ",".join(choose(tuple(host_algorithms), facts.key_algorithms))),
                ("KexAlgorithms", ",".join(key_exchange(wishes, facts))),
                ("Ciphers", ",".join(choose(CIPHERS, facts.ciphers))),
                ("MACs", ",".join(choose(MACS, facts.macs))),
                ("PubkeyAcceptedAlgorithms", ",".join(choose(USER_KEY_ALGORITHMS, facts.key_algorithms))),
                ("RequiredRSASize", RSA_MIN_BITS),
            ),
        ),
        Section(
            "Keys only.",
            lines(
                ("AuthenticationMethods", "publickey"),
                ("PubkeyAuthentication", "yes"),
                ("PasswordAuthentication", "no"),
                ("KbdInteractiveAuthentication", "no"),
                ("GSSAPIAuthentication", "no"),
                ("HostbasedAuthentication", "no"),
                ("PermitEmptyPasswords", "no"),
                ("PermitRootLogin", wishes.permit_root_login),
                ("AuthorizedKeysFile", ".ssh/authorized_keys" if wishes.home_keys else "none"),
                ("PermitUserEnvironment", "no"),
            ),
        ),
        Section(
            "Forwarding: to where a connection goes (ProxyJump, ssh -L), not back.",
            lines(
                ("AllowTcpForwarding", wishes.tcp_forwarding),
                ("AllowAgentForwarding", flag[wishes.agent_forwarding]),
                ("AllowStreamLocalForwarding", "no"),
                ("X11Forwarding", "no"),
                ("PermitTunnel", "no"),
                ("GatewayPorts", "no"),
            ),
        ),
        Section(
            "Limits: wide enough for a team behind one address, with many windows each.",
            lines(
                ("MaxStartups", wishes.max_startups),
                ("MaxSessions", wishes.max_sessions),
                ("MaxAuthTries", wishes.max_auth_tries),
                ("LoginGraceTime", wishes.login_grace_time),
                ("ClientAliveInterval", wishes.client_alive_interval),
                ("ClientAliveCountMax", 3),
                ("UnusedConnectionTimeout", wishes.unused_connection_timeout),
                *([("ChannelTimeout", " ".join(wishes.channel_timeouts))] if wishes.channel_timeouts else []),
            ),
        ),
        Section("VERBOSE logs the fingerprint of the key that was used.", lines(("LogLevel", "VERBOSE"))),
    ]
    if wishes.exempt_networks:
        exempt = lines(("PerSourcePenaltyExemptList", ",".join(wishes.exempt_networks)))
        if exempt:
            result[4].lines += exempt
    if wishes.allow_groups:
        allowed = " ".join((*wishes.allow_groups, wishes.operators_group))
        result.append(Section("Nobody else.", [f"AllowGroups {allowed}"]))
    result.append(
        Section(
            "Operators: only the keys that the inventory gives them. One in a home would outlive its owner's access, "
            "would one of a cloud's agent, a directory or an authority. For everybody else those go on counting.",
            [
                f"Match Group {wishes.operators_group}",
                f"    AuthorizedKeysFile {wishes.keys_directory}/%u",
                *(f"    {keyword} none" for keyword in OTHER_KEY_SOURCES),
            ],
        )
    )
    return result + _automation(wishes)


def bound_automation(wishes: Wishes) -> list[str]:
    """Accounts that get in from the automation's networks only. An operator's keys have networks of their own."""
    return (
        [name for name in wishes.automation_users if name not in wishes.operators] if wishes.automation_networks else []
    )


def _automation(wishes: Wishes) -> list[Section]:
    users = bound_automation(wishes)
    if not users:
        return []
    elsewhere = ",".join(["*", *(f"!{network}" for network in wishes.automation_networks)])
    return [
        Section(
            "Ansible's account, whose key is root: where Ansible comes from. A try from elsewhere is logged.",
            [f"Match User {','.join(users)} Address {elsewhere}", "    DenyUsers *"],
        )
    ]


def certificate_path(host_key: str) -> str:
    """Where the certificate of a host key lies."""
    return f"{host_key}-cert.pub"


def socket_lines(wishes: Wishes, ipv6: bool) -> list[str]:
    """What makes a socket unit listen where the policy says.

    Never one socket for both families, as systemd makes it of a mere port: there sshd counts failures of IPv4 clients
    as those of ::ffff:a.b.c.d, and no exempt IPv4 network fits that (seen with OpenSSH 10.0).
    """
    everywhere = ("0.0.0.0", "::") if ipv6 else ("0.0.0.0",)  # noqa: S104
    return [
        "# Managed by devnode.gpu (role ssh_server). Under a socket unit, Port and ListenAddress do nothing.",
        "[Socket]",
        "ListenStream=",
        *(
            f"ListenStream=[{address}]:{port}" if ":" in address else f"ListenStream={address}:{port}"
            for port in wishes.ports
            for address in wishes.listen_addresses or everywhere
        ),
        "BindIPv6Only=ipv6-only",
        *(["FreeBind=yes"] if wishes.listen_addresses else []),
    ]


def with_include(text: str, drop_in: str) -> Optional[str]:
    """What sshd_config has to say so that the policy is read. None: it says so already, and not by our doing."""
    block = INCLUDE.format(directory=drop_in.rsplit("/", 1)[0])
    if text.startswith(block):
        return text
    for line in text.splitlines():
        words = line.replace("=", " ").replace('"', " ").split()
        keyword = words[0].lower() if words else ""
        if keyword == "match":
            break  # below this, an Include counts for some people only
        patterns = [word if word.startswith("/") else f"/etc/ssh/{word}" for word in words[1:]]
        if keyword == "include" and any(fnmatch.fnmatchcase(drop_in, pattern) for pattern in patterns):
            return None
    return block + text


def check_arguments(wishes: Wishes, facts: Facts) -> list[str]:
    """What sshd_check needs besides the policy's file."""
    networks = [ipaddress.ip_network(network, strict=False) for network in wishes.exempt_networks]
    account = facts.account
    return [
        *(f"--user={name}" for name in wishes.operators),
        *(f"--address={network[0]}" for network in networks[:8]),
        *([f"--keep={account.name}@{account.address}"] if account else []),
        *(f"--deny={name}@{address}" for name in bound_automation(wishes) for address in _elsewhere(wishes)),
        *(f"--allow={keyword}" for keyword in wishes.allowed_overrides),
    ]


def _elsewhere(wishes: Wishes) -> list[str]:
    """An address that no automation comes from."""
    networks = [ipaddress.ip_network(network) for network in wishes.automation_networks]
    found = (one for one in NOWHERE if not any(ipaddress.ip_address(one) in network for network in networks))
    return list(found)[:1]
