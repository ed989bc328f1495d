# SPDX-License-Identifier: GPL-3.0-or-later
"""The server policy: what each version understands, what comes first, and who must not be locked out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import ssh_policy, ssh_policy_refusals
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_policy import Account, Facts, Wishes
from hypothesis import given
from hypothesis import strategies as st

FACTS = Facts(
    version=(10, 0),
    kex=(*ssh_policy.KEX_CLASSICAL, "diffie-hellman-group1-sha1", *reversed(ssh_policy.KEX_POST_QUANTUM)),
    ciphers=("3des-cbc", *ssh_policy.CIPHERS),
    macs=("hmac-md5", *ssh_policy.MACS),
    key_algorithms=("ssh-dss", "ssh-rsa", *ssh_policy.USER_KEY_ALGORITHMS),
    host_keys={"ed25519": "/etc/ssh/ssh_host_ed25519_key", "ecdsa": "/etc/ssh/ssh_host_ecdsa_key"},
    addresses=("127.0.0.1", "192.0.2.7", "2001:db8::7"),
    account=Account("automation", ("automation",)),
)


def lines(wishes, facts=FACTS):
    return [line for section in ssh_policy.sections(wishes, facts) for line in section.lines]


def value(keyword, wishes=None, facts=FACTS):
    found = [line.split(" ", 1)[1] for line in lines(wishes or Wishes(), facts) if line.split()[0] == keyword]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("OpenSSH_9.2, OpenSSL 3.0.22 25 Aug 2026", (9, 2)),
        ("OpenSSH_10.0p2 Debian-7+deb13u4, OpenSSL 3.5.7", (10, 0)),
        ("unknown option -- V\nOpenSSH_8.7p1, OpenSSL 3.0.7\nusage: sshd [-46DdeiqTtV]", (8, 7)),
        ("Sun SSH", None),
    ],
)
def test_versions(text, version):
    assert ssh_policy.parse_version(text) == version


def test_post_quantum_only_and_the_fast_one_first():
    assert value("KexAlgorithms").split(",") == list(ssh_policy.KEX_POST_QUANTUM)


def test_old_clients_come_last():
    found = value("KexAlgorithms", Wishes(old_clients=True)).split(",")
    assert found == [*ssh_policy.KEX_POST_QUANTUM, *ssh_policy.KEX_CLASSICAL]


def test_a_server_without_post_quantum_keeps_a_way_in():
    facts = replace(FACTS, version=(8, 0), kex=("curve25519-sha256", "diffie-hellman-group14-sha1"))
    assert value("KexAlgorithms", facts=facts) == "curve25519-sha256"


def test_only_what_is_offered_and_never_more_than_we_want():
    for keyword, offered in (("Ciphers", FACTS.ciphers), ("MACs", FACTS.macs)):
        found = value(keyword).split(",")
        assert set(found) < set(offered)
    assert value("HostKeyAlgorithms") == "ssh-ed25519"
    assert "ssh-rsa" not in value("PubkeyAcceptedAlgorithms").split(",")


@pytest.mark.parametrize(
    ("version", "there", "missing"),
    [
        (
            (8, 0),
            {"ChallengeResponseAuthentication", "PubkeyAcceptedKeyTypes"},
            {"RequiredRSASize", "UnusedConnectionTimeout"},
        ),
        ((8, 9), {"KbdInteractiveAuthentication", "PubkeyAcceptedAlgorithms"}, {"RequiredRSASize"}),
        ((9, 2), {"RequiredRSASize", "UnusedConnectionTimeout"}, {"PerSourcePenaltyExemptList"}),
        ((9, 8), {"PerSourcePenaltyExemptList"}, {"ChallengeResponseAuthentication"}),
    ],
)
def test_keywords_by_version(version, there, missing):
    wishes = Wishes(exempt_networks=("192.0.2.0/24",))
    keywords = {line.split()[0] for line in lines(wishes, replace(FACTS, version=version))}
    assert there <= keywords
    assert not missing & keywords


def test_the_match_block_is_last():
    found = lines(Wishes(allow_groups=("admins",), exempt_networks=("192.0.2.0/24",)))
    assert [line for line in found if line.startswith("Match")] == [found[-6]]
    assert all(line.startswith("    ") for line in found[-5:])
    assert "AllowGroups admins devnode-operators" in found


def test_no_line_holds_two():
    assert not [line for line in lines(Wishes()) if "\n" in line or line != line.rstrip()]


def test_a_policy_that_fits_is_not_refused():
    assert ssh_policy_refusals.refusals(Wishes(listen_addresses=("192.0.2.7", "::")), FACTS) == []
    assert ssh_policy_refusals.refusals(Wishes(permit_root_login="prohibit-password"), FACTS) == []
    assert ssh_policy_refusals.refusals(Wishes(home_keys=False), replace(FACTS, account=None)) == []


@pytest.mark.parametrize(
    ("wishes", "account", "words"),
    [
        (Wishes(), Account("root"), ["ssh_server_permit_root_login", '"root"', "prohibit-password"]),
        (Wishes(), Account("ops", ("devnode-operators",)), ["ssh_server_operators", "removed"]),
        (Wishes(allow_groups=("admins",)), Account("automation", ("adm",)), ["ssh_server_allow_groups", "adm"]),
        (Wishes(home_keys=False), Account("automation"), ["ssh_server_home_keys", "automation"]),
        (Wishes(), Account("automation", has_usable_key=False), ["no key in ~/.ssh/authorized_keys"]),
        (
            Wishes(operators=("ops",), operator_networks=("192.0.2.0/24", "2001:db8::/32")),
            Account("ops", ("devnode-operators",), address="198.51.100.7"),
            ["ssh_server_operator_networks: 192.0.2.0/24, 2001:db8::/32", "198.51.100.7"],
        ),
    ],
)
def test_lockouts_are_refused(wishes, account, words):
    (found,) = ssh_policy_refusals.refusals(wishes, replace(FACTS, account=account))
    assert all(word in found for word in words), found


BOUND = Wishes(automation_users=("automation", "ops"), automation_networks=("192.0.2.0/24", "2001:db8::/32"))


def test_the_automation_is_bound_to_its_networks():
    found = lines(BOUND)
    assert found[-2:] == [
        "Match User automation,ops Address *,!192.0.2.0/24,!2001:db8::/32",
        "    DenyUsers *",
    ]
    # An operator's keys have networks of their own; without networks nobody is bound.
    assert "Match User automation Address *,!192.0.2.0/24,!2001:db8::/32" in lines(replace(BOUND, operators=("ops",)))
    for unbound in (replace(BOUND, automation_networks=()), replace(BOUND, operators=BOUND.automation_users)):
        assert not [line for line in lines(unbound) if "DenyUsers" in line]
        assert ssh_policy_refusals.refusals(unbound, FACTS) == []


def test_the_check_tries_the_automation_from_elsewhere():
    found = ssh_policy.check_arguments(replace(BOUND, operators=("ops",)), replace(FACTS, account=None))
    assert found == ["--user=ops", "--deny=automation@198.51.100.1"]
    everywhere = replace(BOUND, automation_networks=("0.0.0.0/0", "::/0"))
    assert ssh_policy.check_arguments(everywhere, replace(FACTS, account=None)) == []


@pytest.mark.parametrize(("address", "refused"), [("192.0.2.7", 0), ("2001:db8::7", 0), ("198.51.100.7", 1), ("", 0)])
def test_a_run_from_where_its_account_would_not_count_is_refused(address, refused):
    account = Account("automation", ("automation",), address=address)
    found = ssh_policy_refusals.refusals(BOUND, replace(FACTS, account=account))
    assert len(found) == refused
    for word in ("ssh_server_automation_networks: 192.0.2.0/24", "198.51.100.7", "devnode_controllers"):
        assert not found or word in found[0]
    # Somebody else is not asked for.
    assert ssh_policy_refusals.refusals(BOUND, replace(FACTS, account=replace(account, name="debian"))) == []


@given(st.text(), st.text())
def test_nothing_unquotable_gets_into_the_automations_block(user, network):
    wishes = Wishes(automation_users=(user,), automation_networks=(network,))
    if ssh_policy_refusals.invalid(wishes):
        return
    found = lines(wishes)[-2:]
    assert all(line.isascii() and line.isprintable() for line in found)
    assert [len(line.split()) for line in found] == [5, 2]
    assert "," not in user
    assert "*" not in user


def test_who_stays_in_is_not_refused():
    operator = Account("ops", ("devnode-operators",), has_usable_key=False)
    wishes = Wishes(operators=("ops",), home_keys=False, allow_groups=("admins",))
    assert ssh_policy_refusals.refusals(wishes, replace(FACTS, account=operator)) == []
    at_home = Wishes(operators=("ops",), operator_networks=("192.0.2.0/24",))
    assert ssh_policy_refusals.refusals(at_home, replace(FACTS, account=replace(operator, address="192.0.2.7"))) == []
    certified = Account("automation", has_usable_key=False, other_key_sources=True)
    assert ssh_policy_refusals.refusals(Wishes(home_keys=False), replace(FACTS, account=certified)) == []


def test_what_cannot_work_here_is_refused():
    wishes = Wishes(host_key_types=("ed25519", "rsa"), listen_addresses=("192.0.2.99",))
    found = ssh_policy_refusals.refusals(wishes, replace(FACTS, macs=("hmac-md5",)))
    assert [word in text for word, text in zip(("rsa", "MAC", "192.0.2.99"), found, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"port": 0}, "ssh_server_port"),
        ({"listen_addresses": ("192.0.2.1\nPort 23",)}, "ssh_server_listen_addresses[0]"),
        ({"allow_groups": ("sudo", "a b")}, "ssh_server_allow_groups[1]"),
        ({"operator_networks": ("192.0.2.1/24",)}, "ssh_server_operator_networks[0]"),
        ({"automation_networks": ("192.0.2.0",), "automation_users": ("a b",)}, "ssh_server_automation_users[0]"),
        ({"automation_networks": ("0.0.0.0/0", "*")}, "ssh_server_automation_networks[1]"),
        ({"exempt_networks": ("192.0.2.0/24,0.0.0.0/0",)}, "ssh_server_exempt_networks[0]"),
        ({"max_startups": "300:30:100"}, "ssh_server_max_startups"),
        ({"max_startups": "10"}, "ssh_server_max_startups"),
        ({"login_grace_time": 0}, "ssh_server_login_grace_time"),
        ({"unused_connection_timeout": 1}, "ssh_server_unused_connection_timeout"),
    ],
)
def test_wrong_values_are_named(changes, name):
    (found,) = ssh_policy_refusals.invalid(Wishes(**changes))
    assert found.startswith(f"{name}: ")
    assert "\n" not in found


def test_the_defaults_are_valid():
    assert ssh_policy_refusals.invalid(Wishes()) == []


DROP_IN = "/etc/ssh/sshd_config.d/00-devnode.conf"


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("Include /etc/ssh/sshd_config.d/*.conf\nPort 22\n", False),
        ('Port 22\ninclude = "sshd_config.d/*.conf"\n', False),
        ("Port 22\n", True),
        ("# Include /etc/ssh/sshd_config.d/*.conf\n", True),
        ("Include /etc/ssh/other.d/*.conf\n", True),
        ("Match User x\n  Include /etc/ssh/sshd_config.d/*.conf\n", True),
        ("", True),
    ],
)
def test_an_include_is_added_where_there_is_none(text, needed):
    found = ssh_policy.with_include(text, DROP_IN)
    assert (found is not None) is needed
    if found is not None:
        assert found.endswith(text)
        # Other files of that directory were not in effect until now.
        assert "\nInclude /etc/ssh/sshd_config.d/*-devnode*.conf\n" in found
        # It stays what it is, with whatever somebody writes below it.
        assert ssh_policy.with_include(found + "Port 22\n", DROP_IN) == found + "Port 22\n"


def test_without_include_there_is_no_policy():
    (found,) = ssh_policy_refusals.refusals(Wishes(), replace(FACTS, version=(8, 0)))
    assert "8.2" in found


def test_a_short_rsa_host_key_is_refused():
    facts = replace(FACTS, host_keys={**FACTS.host_keys, "rsa": "/etc/ssh/ssh_host_rsa_key"}, rsa_bits=2048)
    (found,) = ssh_policy_refusals.refusals(Wishes(host_key_types=("ed25519", "rsa")), facts)
    assert "2048" in found
    assert "-b 4096" in found
    assert ssh_policy_refusals.refusals(Wishes(host_key_types=("ed25519", "rsa")), replace(facts, rsa_bits=3072)) == []
    (found,) = ssh_policy_refusals.refusals(Wishes(host_key_types=("ed25519", "rsa")), replace(facts, rsa_bits=0))
    assert "cannot be read" in found


def test_options_come_with_the_version_that_has_them():
    wishes = Wishes(channel_timeouts=("direct-tcpip=12h", "session=1d"))
    assert value("ChannelTimeout", wishes) == "direct-tcpip=12h session=1d"
    assert value("PerSourceMaxStartups") is None  # sshd's default is none; role bastion has its own
    old = replace(FACTS, version=(8, 4))
    assert value("ChannelTimeout", wishes, old) is None
    assert value("ChannelTimeout") is None


def test_the_check_asks_for_the_networks_and_for_who_is_connected():
    wishes = Wishes(operators=("ops",), exempt_networks=("192.0.2.0/24", "2001:db8::5"))
    facts = replace(FACTS, account=Account("automation", address="10.0.0.1"))
    assert ssh_policy.check_arguments(wishes, facts) == [
        "--user=ops",
        "--address=192.0.2.0",
        "--address=2001:db8::5",
        "--keep=automation@10.0.0.1",
    ]


@pytest.mark.parametrize("wrong", ["direct-tcpip", "x=1;y", "session=1h\n", "=1h"])
def test_a_wrong_channel_timeout_is_refused(wrong):
    (found,) = ssh_policy_refusals.invalid(Wishes(channel_timeouts=(wrong,)))
    assert "ssh_server_channel_timeouts[0]" in found


def test_under_a_socket_unit_each_family_has_its_own():
    assert ssh_policy.socket_lines(Wishes(port=2222), True)[2:] == [
        "ListenStream=",
        "ListenStream=0.0.0.0:2222",
        "ListenStream=[::]:2222",
        "BindIPv6Only=ipv6-only",
    ]
    assert "ListenStream=[::]:22" not in ssh_policy.socket_lines(Wishes(), False)
    one = ssh_policy.socket_lines(Wishes(listen_addresses=("192.0.2.7", "2001:db8::7")), True)
    assert one[3:5] == ["ListenStream=192.0.2.7:22", "ListenStream=[2001:db8::7]:22"]


def test_host_certificates_stand_beside_the_plain_keys():
    facts = replace(FACTS, key_algorithms=(*FACTS.key_algorithms, "ssh-ed25519-cert-v01@openssh.com"))
    wanted = Wishes(host_certificates=True)
    assert value("HostKeyAlgorithms", wanted, facts) == "ssh-ed25519-cert-v01@openssh.com,ssh-ed25519"
    assert value("HostCertificate", wanted, facts) == f"{FACTS.host_keys['ed25519']}-cert.pub"
    assert value("HostCertificate") is None


def test_a_timeout_that_ends_clients_connections_is_refused_with_both_numbers():
    assert not ssh_policy_refusals.invalid(Wishes(client_persist=7199))
    (said,) = ssh_policy_refusals.invalid(Wishes(client_persist=86400))
    assert "ssh_server_unused_connection_timeout: 7200 seconds" in said
    assert "86400" in said
    assert "at least 87000" in said
    assert not ssh_policy_refusals.invalid(Wishes(client_persist=86400, unused_connection_timeout=87000))
    assert not ssh_policy_refusals.invalid(Wishes(client_persist=86400, unused_connection_timeout=87000))


@given(
    st.builds(
        Wishes,
        home_keys=st.booleans(),
        operators=st.sampled_from([(), ("ops",)]),
        host_certificates=st.booleans(),
        exempt_networks=st.sampled_from([(), ("192.0.2.0/24",)]),
        allow_groups=st.sampled_from([(), ("admins",)]),
    ),
    st.tuples(st.integers(8, 10), st.integers(2, 9)),
)
def test_operators_have_one_source_of_keys_whatever_else_is_asked(wishes, version):
    """In their Match block and nowhere else: a site's own AuthorizedKeysCommand goes on counting for its accounts."""
    found = lines(wishes, replace(FACTS, version=version))
    start = found.index("Match Group devnode-operators")
    block = [line.split() for line in found[start + 1 :]]
    assert ["AuthorizedKeysFile", "/etc/devnode/ssh/keys/%u"] in block
    for keyword in ssh_policy.OTHER_KEY_SOURCES:
        assert [keyword, "none"] in block
        assert not [line for line in found[:start] if line.split()[0] == keyword]


def test_a_directorys_account_is_bound_and_what_no_file_could_name_is_refused_only_where_it_is_bound():
    assert not ssh_policy_refusals.invalid(replace(BOUND, automation_users=("svc@corp.example", "0day_svc")))
    for name in ("CORP\\svc", "", "a b", "a,b", "!a", "a*"):
        (found,) = ssh_policy_refusals.invalid(replace(BOUND, automation_users=(name,)))
        assert "ssh_server_automation_users[0]" in found
        assert "devnode_automation_networks" in found
        assert not ssh_policy_refusals.invalid(replace(BOUND, automation_users=(name,), automation_networks=()))


def test_ansibles_own_account_that_is_not_bound_is_said():
    def said(name, wishes=BOUND):
        return ssh_policy_refusals.warnings(wishes, replace(FACTS, account=Account(name)))

    (found,) = said("root")
    assert '"root"' in found
    assert "ansible_user" in found
    assert not said("automation")
    assert not said("ops", replace(BOUND, automation_users=(), operators=("ops",)))
    assert not said("root", replace(BOUND, automation_networks=()))
    assert not ssh_policy_refusals.warnings(BOUND, replace(FACTS, account=None))


def test_it_listens_on_every_port_under_either_unit():
    wishes = Wishes(port=2222, ports_also=(22, 2222))
    assert [line for line in lines(wishes) if line.startswith("Port ")] == ["Port 2222", "Port 22"]
    assert ssh_policy.socket_lines(wishes, False)[3:5] == ["ListenStream=0.0.0.0:2222", "ListenStream=0.0.0.0:22"]
    assert ssh_policy_refusals.invalid(Wishes(ports_also=(0,)))[0].startswith("ssh_server_ports_also[0]: 0 ")


def test_a_fleet_does_not_leave_the_port_that_the_run_came_in_on():
    moved = Wishes(port=2222, keep_port=True)
    (found,) = ssh_policy_refusals.refusals(moved, replace(FACTS, came_in_on=22))
    assert found.startswith("ssh_server_port: 2222. This run came in on 22")
    assert "devnode_ssh_ports_also" in found
    for wishes, port in ((moved, 2222), (moved, 0), (replace(moved, ports_also=(22,)), 22), (Wishes(port=2222), 22)):
        assert ssh_policy_refusals.refusals(wishes, replace(FACTS, came_in_on=port)) == []
