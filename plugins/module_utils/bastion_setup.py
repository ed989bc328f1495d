# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the variables of role bastion to packages, files and what has to be restarted after which change. Pure.

What is switched off is simply not in the lists: file_set then takes away what an earlier run put there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable, Optional

from ansible_collections.devnode.gpu.plugins.module_utils import totp, validators
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show

UNITS = "/etc/systemd/system"
LIBRARY = "/usr/local/lib/devnode-audit"
TLS = "/etc/devnode/bastion/tls"
RSYSLOG = "/etc/rsyslog.d/40-devnode-ship.conf"
CHRONY = "/etc/chrony/chrony.conf"
SYSCTL = "/etc/sysctl.d/60-devnode-bastion.conf"
JOURNAL = "/etc/systemd/journald.conf.d/60-devnode-bastion.conf"
RULES = "/etc/audit/rules.d/60-devnode.rules"
FORMATS = ("syslog", "json", "gelf")
# Keywords of sshd's by the OpenSSH that brought them: an older one refuses the whole file.
SETTLED = 4  # seconds: more than the RestartSec of devnode-audit and devnode-flows, and what a start takes
SINCE = {"LogVerbose": (8, 5), "PerSourceMaxStartups": (8, 5), "PerSourcePenalties": (9, 8)}

# Key, value, why it matters on a host that strangers may talk to.
SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("net.ipv4.tcp_syncookies", "1", "a flood of half-open connections does not fill the queue for everybody"),
    ("net.ipv4.tcp_max_syn_backlog", "4096", "a team that connects at once is not taken for such a flood"),
    (
        "net.ipv4.conf.all.rp_filter",
        "2",
        "no packets with a sender that no interface has a route to (2: any interface)",
    ),
    ("net.ipv4.conf.default.rp_filter", "2", "the same for interfaces that come later"),
    ("net.ipv4.conf.all.accept_redirects", "0", "a neighbour cannot send our traffic through itself"),
    ("net.ipv4.conf.default.accept_redirects", "0", "the same for interfaces that come later"),
    ("net.ipv4.conf.all.secure_redirects", "0", "nor can a listed gateway"),
    ("net.ipv6.conf.all.accept_redirects", "0", "the same for IPv6"),
    ("net.ipv6.conf.default.accept_redirects", "0", "the same for IPv6, interfaces that come later"),
    ("net.ipv4.conf.all.send_redirects", "0", "it is no router, so it tells nobody another way"),
    ("net.ipv4.conf.all.accept_source_route", "0", "a sender does not choose the way past a filter"),
    ("net.ipv6.conf.all.accept_source_route", "0", "the same for IPv6"),
    ("net.ipv4.icmp_echo_ignore_broadcasts", "1", "no amplifier of pings to a whole network"),
    ("net.ipv4.tcp_rfc1337", "1", "late packets do not end a connection that is being closed"),
    ("net.ipv4.tcp_keepalive_time", "600", "a relay whose far end vanished is noticed in minutes, not in two hours"),
    ("kernel.dmesg_restrict", "1", "kernel messages, with addresses that exploits need, are root's"),
    ("kernel.kptr_restrict", "2", "nobody sees kernel addresses"),
    ("kernel.yama.ptrace_scope", "2", "only root may look into another process: sshd's hold keys and sessions"),
    ("kernel.unprivileged_bpf_disabled", "1", "a large piece of kernel that no account here needs"),
    ("kernel.kexec_load_disabled", "1", "the running kernel cannot be replaced past the audit"),
    ("fs.suid_dumpable", "0", "no memory of privileged programs in core files"),
    ("fs.protected_hardlinks", "1", "no tricks with links to files of others"),
    ("fs.protected_symlinks", "1", "the same for symbolic links in /tmp"),
)
# The kernel takes no rule for a directory that is not there, and what reads the rules stops at the first such line.
# So each one comes with a package or a file of this role. Of two rules for one file the first counts.
SUDOERS = "/etc/sudoers.d"
WATCHED: tuple[tuple[str, str, str], ...] = (
    ("dir", "/etc/ssh", "devnode-sshd"),
    ("path", "/etc/sudoers", "devnode-sudo"),
    ("dir", SUDOERS, "devnode-sudo"),
    ("path", "/etc/nftables.conf", "devnode-firewall"),
    ("path", "/etc/devnode/firewall.nft", "devnode-firewall"),
    ("dir", "/etc/devnode", "devnode-keys"),
    ("dir", "/etc/fail2ban", "devnode-firewall"),
    ("path", "/etc/passwd", "devnode-accounts"),
    ("path", "/etc/shadow", "devnode-accounts"),
    ("path", "/etc/group", "devnode-accounts"),
    ("dir", "/etc/pam.d", "devnode-accounts"),
    ("dir", "/etc/audit", "devnode-audit"),
    ("dir", "/etc/systemd/system", "devnode-units"),
)


class BastionError(ValueError):
    """Every problem of the variables, one a line."""


def keywords(package: str) -> list[str]:
    """Those of SINCE that the sshd of a package version knows. All, where the version says nothing."""
    found = re.match(r"(?:[0-9]+:)?([0-9]+)\.([0-9]+)", package)
    version = (int(found[1]), int(found[2])) if found else (99, 0)
    return sorted(keyword for keyword, since in SINCE.items() if version >= since)


class _Taken:
    """The checked variables; problems are collected."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.found: list[str] = []

    def take(self, name: str, check: Callable[[Any], Any]) -> Any:
        return self.check(f"bastion_{name}", self.given[name], check)

    def check(self, where: str, value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            return check(value)
        except InvalidError as error:
            self.found.append(f"{where}: {show(value)} {error}")
            return None


def _within(low: int, high: int) -> Callable[[Any], int]:
    return lambda value: validators.integer(value, low, high)


def _banner(value: Any) -> str:
    text = str(value)
    if any(not (letter.isprintable() or letter == "\n") for letter in text) or len(text) > 4000:
        raise InvalidError("is not a text to show", "up to 4000 printable characters and line ends")
    return text.strip("\n") + "\n" if text.strip() else ""


def _disk(value: Any) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,4}[mg]", str(value)):
        raise InvalidError("is not a size", "a number with m or g, such as 500m or 2g")
    return str(value)


def _journal_size(value: Any) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,4}[MG]", str(value)):
        raise InvalidError("is not a size", "a number with M or G, such as 500M or 4G")
    return str(value)


def _group(value: Any) -> str:
    return validators.login(value) if value else ""


def _controller_file(value: Any) -> str:
    if not isinstance(value, str) or not value or any(not letter.isprintable() for letter in value):
        raise InvalidError("is not a file on the controller", "a path")
    return value


def _settings(taken: _Taken) -> list[dict[str, str]]:
    """The table, with the inventory's changes. Null leaves a setting alone."""
    changes = taken.given["sysctl"]
    if not isinstance(changes, Mapping):
        taken.found.append(f"bastion_sysctl: {show(changes)} is not a mapping of settings to values")
        return []
    for key, value in changes.items():
        if not re.fullmatch(r"[a-z0-9_]+([./][A-Za-z0-9_*-]+)+", str(key)):
            taken.found.append(
                f"bastion_sysctl: {show(key)} is not the name of a setting. Allowed: such as net.ipv4.ip_forward"
            )
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 \t_.,-]*|-[0-9]+", str(value)):
            taken.found.append(
                f"bastion_sysctl[{key}]: {show(value)} is not a setting's value. Allowed: a word or numbers"
            )
    table = {key: (value, why) for key, value, why in SETTINGS}
    table.update({str(key): (value, "from the inventory (bastion_sysctl)") for key, value in changes.items()})
    return [{"key": key, "value": str(value), "why": why} for key, (value, why) in table.items() if value is not None]


def _server(taken: _Taken) -> Optional[dict[str, Any]]:
    """Where the log goes; None for nowhere."""
    given = taken.given["log_server"]
    if not given:
        return None
    where = "bastion_log_server"
    needed, known = {"host", "ca"}, {"host", "port", "name", "format", "ca", "certificate", "key", "queue"}
    if not isinstance(given, Mapping) or needed - set(given) or set(given) - known:
        taken.found.append(
            f"{where}: {show(given)} needs host and ca (the CA that signed the server's certificate). "
            f"Allowed: {', '.join(sorted(known))}"
        )
        return None
    if bool(given.get("certificate")) != bool(given.get("key")):
        taken.found.append(f"{where}: certificate and key belong together, one of them is missing")
    files = {
        part: taken.check(f"{where}.{part}", given[part], _controller_file)
        for part in ("ca", "certificate", "key")
        if given.get(part)
    }
    return {
        "host": taken.check(f"{where}.host", given["host"], validators.host),
        "port": taken.check(f"{where}.port", given.get("port") or 6514, validators.port),
        "name": taken.check(f"{where}.name", given.get("name") or given["host"], validators.host),
        "format": taken.check(
            f"{where}.format", given.get("format") or "syslog", lambda value: validators.choice(value, FORMATS)
        ),
        "queue": taken.check(f"{where}.queue", given.get("queue") or "1g", _disk),
        "files": files,
        "tls": {part: f"{TLS}/{part}.pem" for part in files},
    }


def _codes(taken: _Taken, passing: bool) -> tuple[list[str], list[str]]:
    """Who is asked for a one-time code: of those who pass through, and of those who have a shell."""
    given = taken.given
    relayed = [str(person.get("name")) for person in given["relay_users"] if isinstance(person, Mapping)]
    asked, problems = totp.operators(given["totp_operators"], relayed, str(given["account"] or ""))
    names = relayed if passing else []
    taken.found += problems
    taken.found += totp.bad_secrets([*names, *asked], given["totp_secrets"]) if passing or asked else []
    return names, asked


def _pam(text: str) -> dict[str, Any]:
    """The distribution's file, and everybody's: only our lines come and go."""
    return {"path": totp.PAM, "content": text, "shared": True}


def _restart(unit: str) -> list[str]:
    """Restart a unit that is there; after a rollback it may be gone."""
    path = f"{UNITS}/{unit}"
    return ["/bin/sh", "-c", f"if test -e {path}; then systemctl restart {unit}; else systemctl stop {unit} || :; fi"]


def _runs(*units: str) -> list[dict[str, Any]]:
    """Services that have to run, whoever stopped them. Not those that a container cannot run: chrony, auditd."""
    return [
        {
            "argv": ["systemctl", "is-active", unit],
            "always": True,
            "repair": ["systemctl", "restart", unit],
            "settle": SETTLED,
        }
        for unit in units
    ]


def _unit(name: str, template: str) -> list[dict[str, Any]]:
    return [
        {"path": f"{UNITS}/{name}", "template": template},
        {"path": f"{UNITS}/multi-user.target.wants/{name}", "state": "link", "target": f"{UNITS}/{name}"},
    ]


def _audit(sources: str) -> list[dict[str, Any]]:
    return [
        *[
            {"path": f"{LIBRARY}/{name}", "src": f"{sources}/{name}"}
            for name in ("audit_join.py", "audit_recorder.py", "audit_show.py", "audit_words.py")
        ],
        {"path": "/usr/local/sbin/devnode-audit", "template": "devnode-audit.j2", "mode": "0755"},
        {"path": "/var/log/devnode", "state": "directory", "group": "adm", "mode": "0750"},
        {"path": "/etc/devnode/bastion/ulogd.conf", "template": "ulogd.conf.j2"},
        {"path": "/etc/logrotate.d/devnode-audit", "template": "logrotate.j2"},
        *_unit("devnode-flows.service", "devnode-flows.service.j2"),
        *_unit("devnode-audit.service", "devnode-audit.service.j2"),
    ]


def _shipping(server: Mapping[str, Any]) -> list[dict[str, Any]]:
    certificates = [
        {
            "path": f"{TLS}/{part}.pem",
            "src": source,
            "mode": "0600" if part == "key" else "0644",
            "sensitive": part == "key",
        }
        for part, source in server["files"].items()
    ]
    return [*certificates, {"path": RSYSLOG, "template": "ship.conf.j2", "mode": "0640"}]


def setup(
    given: Mapping[str, Any],
    sources: str = "",
    pam: str = "",
    group_name: str = "devnode-relay",
    openssh: str = "",
) -> dict[str, Any]:
    """Everything but people: packages, files with the templates' variables, activation.

    `given` are the role's variables without their prefix; `sources` is where the audit's programs are; `pam` is what
    sshd's PAM file says now, of which codes for the members of `group_name` become a part; `openssh` is the
    version of its package.
    BastionError names every problem.
    """
    taken = _Taken(given)
    flags = {
        name: bool(taken.take(name, validators.boolean))
        for name in ("audit", "auditd", "security_upgrades", "time_sync", "totp")
    }
    group = taken.take("audit_log_group", _within(1, 65535))
    days = taken.take("audit_keep_days", _within(1, 3650))
    per_source = taken.take("waiting_per_source", _within(1, 100000))
    banner = taken.take("banner", _banner)
    journal_size = taken.take("journal_size", _journal_size)
    settings = _settings(taken)
    server = _server(taken)
    times = given["time_servers"]
    if not isinstance(times, list):
        taken.found.append(f"bastion_time_servers: {show(times)} is not a list")
    else:
        times = [
            taken.check(f"bastion_time_servers[{index}]", value, validators.host) for index, value in enumerate(times)
        ]
    passing, asked = _codes(taken, flags["totp"])
    asked_group = taken.take("totp_operators_group", _group)
    if taken.found:
        raise BastionError("\n".join(taken.found))

    packages = ["openssh-server", "fail2ban", "python3-systemd", "nftables"]
    files: list[dict[str, Any]] = [{"path": JOURNAL, "template": "journald.conf.j2"}]
    if flags["totp"] or asked:
        packages.append(totp.PACKAGE)
        files += totp.files([*passing, *asked], given["totp_secrets"], asked)
        if pam:
            files.append(_pam(totp.pam(pam, group_name, flags["totp"], bool(asked))))
    elif totp.BEGIN in pam:
        files.append(_pam(totp.pam_without(pam)))
    before, after = totp.checks(flags["totp"], asked)
    if banner:
        files.append({"path": "/etc/devnode/bastion/banner", "content": banner})
    if settings:
        files.append({"path": SYSCTL, "template": "sysctl.conf.j2"})
    if flags["audit"]:
        packages += ["ulogd2", "ulogd2-json", "logrotate"]
        files += _audit(sources)
    if server:
        packages += ["rsyslog", "rsyslog-gnutls"]
        files += _shipping(server)
    if flags["auditd"]:
        packages.append("auditd")
        # For the sake of its folder, which a bastion without package sudo has not; one that is there stays as it is.
        # sudo reads no file with a dot in its name.
        files.append({"path": f"{SUDOERS}/.devnode", "content": "# auditd's rules need this folder.\n", "mode": "0440"})
        files.append({"path": RULES, "template": "audit.rules.j2", "mode": "0640"})
    if flags["security_upgrades"]:
        packages.append("unattended-upgrades")
        files.append({"path": "/etc/apt/apt.conf.d/52devnode-bastion", "template": "upgrades.conf.j2"})
    if flags["time_sync"]:
        packages.append("chrony")
        if times:
            files.append({"path": CHRONY, "template": "chrony.conf.j2"})
    return {
        "packages": packages,
        "files": files,
        "activate": [
            {
                "argv": [totp.PROGRAM, totp.WANTED, totp.STATE],
                "when_changed": [f"{totp.WANTED}/*", totp.PROGRAM],
                # What asks for codes is there again when sshd starts, and has to have them.
                "at_boot": True,
            },
            {"argv": ["systemctl", "daemon-reload"], "when_changed": [f"{UNITS}/*"]},
            # It keeps what others write to it meanwhile.
            {"argv": ["systemctl", "restart", "systemd-journald.service"], "when_changed": [JOURNAL]},
            {
                "argv": _restart("devnode-flows.service"),
                "when_changed": [f"{UNITS}/devnode-flows.service", "/etc/devnode/bastion/ulogd.conf"],
            },
            {
                "argv": _restart("devnode-audit.service"),
                "when_changed": [f"{UNITS}/devnode-audit.service", f"{LIBRARY}/*"],
            },
            {"argv": ["/usr/lib/systemd/systemd-sysctl", SYSCTL], "when_changed": [SYSCTL]},
            {"argv": ["systemctl", "try-restart", "rsyslog.service"], "when_changed": [RSYSLOG, f"{TLS}/*"]},
            {"argv": ["systemctl", "try-restart", "chrony.service"], "when_changed": [CHRONY]},
            {
                "argv": ["/bin/sh", "-c", "systemctl -q is-active auditd || exit 0; exec augenrules --load"],
                "when_changed": [RULES],
            },
        ],
        "validate": before,
        "verify": after
        + _runs(
            "fail2ban.service",
            *(("devnode-flows.service", "devnode-audit.service") if flags["audit"] else ()),
            *(("rsyslog.service",) if server else ()),
        ),
        "variables": {
            "settings": settings,
            "watched": [{"kind": kind, "path": path, "key": key} for kind, path, key in WATCHED],
            "server": server or {},
            "times": times,
            "banner": bool(banner),
            "group": group,
            "per_source": per_source,
            "journal_size": journal_size,
            "keywords": keywords(openssh),
            "days": days,
            "audit": flags["audit"],
            "totp": flags["totp"],
            "totp_operators": ",".join(asked),
            "totp_operators_group": asked_group if asked else "",
            "library": LIBRARY,
        },
    }
