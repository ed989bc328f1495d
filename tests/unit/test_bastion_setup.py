# SPDX-License-Identifier: GPL-3.0-or-later
"""Role bastion's files and restarts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
import yaml
from ansible_collections.devnode.gpu.plugins.module_utils import bastion_setup

ROLE = Path(__file__).parents[2] / "roles/bastion"
NAMES = {
    "audit", "audit_log_group", "audit_keep_days", "log_server", "auditd", "security_upgrades", "time_sync",
    "time_servers", "banner", "sysctl", "waiting_per_source", "relay_users", "totp", "totp_secrets", "journal_size",
    "totp_operators", "totp_operators_group",
}  # fmt: skip
DEFAULTS = {
    name.removeprefix("bastion_"): value
    for name, value in yaml.safe_load((ROLE / "defaults/main.yml").read_text()).items()
    if name.removeprefix("bastion_") in NAMES
} | {"account": ""}
SERVER = {"host": "logs.example.org", "ca": "ca.pem", "certificate": "b.pem", "key": "b.key"}


def made(**changes):
    return bastion_setup.setup({**DEFAULTS, **changes}, "/collection")


def render(name, plan):
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    fail2ban = {name: value for name, value in defaults.items() if name.startswith("bastion_fail2ban")}
    return environment.from_string((ROLE / "templates" / name).read_text()).render(
        **fail2ban,
        setup=plan["variables"],
        __bastion_group="devnode-relay",
        __bastion_keys="/keys",
        __bastion_check="/check",
        __bastion_drop_in="/drop-in",
        bastion_user_ca_keys=[],
        __bastion_revoked="/revoked",
    )


def test_every_template_is_there_and_renders():
    plan = made(log_server=SERVER, time_servers=["192.0.2.1"], banner="hello")
    for file in plan["files"]:
        if "template" in file:
            assert "Managed by devnode.gpu (role bastion)" in render(file["template"], plan)


def test_what_is_switched_off_is_not_there():
    plan = made(audit=False, auditd=False, security_upgrades=False, time_sync=False, sysctl=dict.fromkeys(
        (key for key, _value, _why in bastion_setup.SETTINGS), None
    ))  # fmt: skip
    assert plan["packages"] == ["openssh-server", "fail2ban", "python3-systemd", "nftables"]
    assert [file["path"] for file in plan["files"]] == [bastion_setup.JOURNAL]
    assert "LogVerbose" not in render("01-devnode-bastion.conf.j2", plan)


@pytest.mark.parametrize(
    ("package", "known"),
    [
        ("1:8.2p1-4ubuntu0.11", []),
        ("8.7p1", ["LogVerbose", "PerSourceMaxStartups"]),
        ("1:9.2p1-2+deb12u10", ["LogVerbose", "PerSourceMaxStartups"]),
        ("1:10.0p1-7+deb13u4", ["LogVerbose", "PerSourceMaxStartups", "PerSourcePenalties"]),
        ("", ["LogVerbose", "PerSourceMaxStartups", "PerSourcePenalties"]),
    ],
)
def test_sshd_is_told_what_it_knows(package, known):
    text = render("01-devnode-bastion.conf.j2", bastion_setup.setup(DEFAULTS, "/collection", openssh=package))
    assert [word for word in bastion_setup.SINCE if f"\n{word} " in text] == known


def test_the_key_of_the_log_shipping_is_kept_secret():
    files = {file["path"]: file for file in made(log_server=SERVER)["files"]}
    assert files[f"{bastion_setup.TLS}/key.pem"]["sensitive"] is True
    assert files[f"{bastion_setup.TLS}/key.pem"]["mode"] == "0600"


@pytest.mark.parametrize(
    ("format_", "words"),
    [("syslog", 'TCP_Framing="octet-counted"'), ("json", '{\\"time\\":'), ("gelf", 'TCP_FrameDelimiter="0"')],
)
def test_formats(format_, words):
    text = render("ship.conf.j2", made(log_server={**SERVER, "format": format_}))
    assert words in text
    assert 'StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="logs.example.org"' in text
    assert 'action.resumeRetryCount="-1"' in text
    assert 'queue.type="Disk"' in text
    assert 'queue.checkpointInterval="1" queue.syncQueueFiles="on"' in text


def test_nobody_can_have_lines_dropped_by_making_others():
    plan = made(journal_size="500M")
    text = render("journald.conf.j2", plan)
    assert {"RateLimitIntervalSec=0", "RateLimitBurst=0", "SystemMaxUse=500M"} <= set(text.splitlines())
    (restart,) = (one for one in plan["activate"] if bastion_setup.JOURNAL in one["when_changed"])
    assert restart["argv"][-1] == "systemd-journald.service"


def test_the_inventory_changes_settings():
    text = render("sysctl.conf.j2", made(sysctl={"net.ipv4.conf.all.rp_filter": 1, "kernel.kptr_restrict": None}))
    assert "net.ipv4.conf.all.rp_filter = 1\n" in text
    assert "kptr_restrict" not in text


def test_every_setting_has_its_reason():
    assert all(len(why) > 10 for _key, _value, why in bastion_setup.SETTINGS)
    assert len({key for key, _value, _why in bastion_setup.SETTINGS}) == len(bastion_setup.SETTINGS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audit_keep_days": 0}, "bastion_audit_keep_days: 0 is out of range. Allowed: a whole number from 1 to 3650"),
        ({"audit_log_group": 0}, "bastion_audit_log_group: 0"),
        ({"audit": "perhaps"}, 'bastion_audit: "perhaps"'),
        ({"banner": "a\x1b[31m"}, "bastion_banner"),
        ({"time_servers": ["a b"]}, 'bastion_time_servers[0]: "a b"'),
        ({"time_servers": ["a\nserver b"]}, "bastion_time_servers[0]"),
        ({"log_server": {"host": "a"}}, "bastion_log_server: "),
        ({"log_server": {**SERVER, "hots": 1}}, "bastion_log_server: "),
        ({"log_server": {**SERVER, "host": 'a" b'}}, "bastion_log_server.host"),
        ({"log_server": {**SERVER, "format": "xml"}}, "bastion_log_server.format"),
        ({"log_server": {**SERVER, "queue": "lots"}}, 'bastion_log_server.queue: "lots" is not a size'),
        ({"log_server": {"host": "a", "ca": "b", "key": "c"}}, "certificate and key belong together"),
        ({"journal_size": "all"}, 'bastion_journal_size: "all" is not a size'),
        ({"journal_size": "4g"}, "bastion_journal_size"),
        ({"sysctl": {"net.ipv4.x": "1\nkernel.y = 2"}}, "bastion_sysctl[net.ipv4.x]"),
        ({"sysctl": {"rm -rf": "1"}}, "bastion_sysctl: "),
        ({"sysctl": []}, "bastion_sysctl: "),
    ],
)
def test_what_is_refused(changes, words):
    with pytest.raises(bastion_setup.BastionError) as error:
        made(**changes)
    assert words in str(error.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(bastion_setup.BastionError) as error:
        made(audit_keep_days=0, banner="\x07", time_servers=["-x"])
    assert len(str(error.value).splitlines()) == 3


def test_every_directory_that_the_kernel_watches_is_there_without_any_operator():
    """One that is not ends the reading of the rules, and with it the run."""
    by_package = {"/etc/ssh": "openssh-server", "/etc/pam.d": "openssh-server", "/etc/fail2ban": "fail2ban",
                  "/etc/audit": "auditd", "/etc/systemd/system": "openssh-server"}  # fmt: skip
    plan = made()
    # The role's list of revoked keys is always written (relay_certificates.relays).
    ours = {str(Path(file["path"]).parent) for file in plan["files"]} | {"/etc/devnode"}
    for one in plan["variables"]["watched"]:
        folder = one["path"] if one["kind"] == "dir" else str(Path(one["path"]).parent)
        assert folder in ours or by_package.get(folder) in plan["packages"] or folder == "/etc", one


def test_what_the_firewall_has_is_told_apart_from_keys():
    """Of two rules for one file the kernel takes the first."""
    paths = [one["path"] for one in made()["variables"]["watched"]]
    assert paths.index("/etc/devnode/firewall.nft") < paths.index("/etc/devnode")


def test_a_ban_ends_nothing_that_is_open():
    text = render("fail2ban.local.j2", made())
    assert [line.count("ct state new reject") for line in text.splitlines() if line.startswith("banaction")] == [1, 1]
