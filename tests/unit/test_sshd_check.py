# SPDX-License-Identifier: GPL-3.0-or-later
"""The checker that roles install: which file and line keeps a policy from being in effect."""

from __future__ import annotations

import pathlib
import stat

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import sshd_check, sshd_command, sshd_compare, sshd_files
from hypothesis import given
from hypothesis import strategies as st

POLICY = "/etc/ssh/sshd_config.d/00-devnode.conf"


@pytest.fixture
def tree(tmp_path):
    def write(files):
        for path, text in files.items():
            place = tmp_path / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return str(tmp_path)

    return write


def test_reads_in_sshds_order(tree):
    root = tree(
        {
            "/etc/ssh/sshd_config": "Port 2022 # old\nInclude sshd_config.d/*.conf\nX11Forwarding=yes\n#Port 1\n",
            POLICY: "Port 22\nMatch Group ops\n  MaxSessions 3\n",
            "/etc/ssh/sshd_config.d/50-cloud.conf": 'PasswordAuthentication "yes"\n',
        }
    )
    found = sshd_files.read_settings("/etc/ssh/sshd_config", root=root)
    assert [(item.path.rsplit("/", 1)[1], item.line, item.keyword, item.value, item.match) for item in found] == [
        ("sshd_config", 1, "port", "2022", ""),
        ("00-devnode.conf", 1, "port", "22", ""),
        ("00-devnode.conf", 3, "maxsessions", "3", "Group ops"),
        # a Match block ends with its file
        ("50-cloud.conf", 1, "passwordauthentication", '"yes"', ""),
        ("sshd_config", 3, "x11forwarding", "yes", ""),
    ]


def test_blames_what_can_win():
    policy = [sshd_files.Setting(POLICY, 2, "port", "22"), sshd_files.Setting(POLICY, 3, "maxsessions", "64")]
    before = sshd_files.Setting("/etc/ssh/a", 1, "maxsessions", "1")
    after = sshd_files.Setting("/etc/ssh/b", 1, "maxsessions", "2")
    adds = sshd_files.Setting("/etc/ssh/b", 2, "port", "23")
    match = sshd_files.Setting("/etc/ssh/b", 3, "maxsessions", "3", "User x")
    assert sshd_compare.blamable([before, *policy, after, adds, match], POLICY) == [before, adds, match]


def test_differences_in_words():
    asked = [
        sshd_files.Setting(POLICY, 1, "port", "22"),
        sshd_files.Setting(POLICY, 2, "passwordauthentication", "no"),
        sshd_files.Setting(POLICY, 3, "permitrootlogin", "prohibit-password"),
        sshd_files.Setting(POLICY, 4, "listenaddress", "::1"),
    ]
    effective = sshd_compare.parse_effective(
        "port 22\nport 2022\npasswordauthentication YES\npermitrootlogin without-password\nlistenaddress [::1]:22\n"
    )
    blame = [sshd_files.Setting("/etc/ssh/sshd_config", 7, "port", "2022")]
    found = sshd_compare.differences(asked, effective, blame)
    assert found == [
        ("port is '22 2022'", "asked: '22'. /etc/ssh/sshd_config:7 says 2022."),
        ("passwordauthentication is 'yes'", "asked: 'no'. Nothing says why."),
    ]


def test_each_address_is_listened_on_with_each_port():
    asked = [sshd_files.Setting(POLICY, at, "port", port) for at, port in ((1, "2022"), (2, "22"))]
    asked.append(sshd_files.Setting(POLICY, 3, "listenaddress", "192.0.2.7"))
    text = "port 2022\nport 22\nlistenaddress 192.0.2.7:2022\nlistenaddress 192.0.2.7:22\n"
    assert sshd_compare.differences(asked, sshd_compare.parse_effective(text), []) == []
    less = sshd_compare.parse_effective(text.replace("listenaddress 192.0.2.7:22\n", ""))
    assert len(sshd_compare.differences(asked, less, [])) == 1


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("KbdInteractiveAuthentication", "ChallengeResponseAuthentication"),
        ("PubkeyAcceptedAlgorithms", "PubkeyAcceptedKeyTypes"),
    ],
)
def test_old_names_are_the_same_thing(new, old):
    assert sshd_files.canonical(new) == sshd_files.canonical(old)


UNIT = "/usr/lib/systemd/system/ssh.service"
DEBIAN = (
    "[Service]\nEnvironmentFile=-/etc/default/ssh\nExecStartPre=/sbin/sshd -t\nExecStart=/sbin/sshd -D $SSHD_OPTS\n"
)


def started(root, proc="/nowhere"):
    """The options, and the settings as (where, keyword, value), of every way in which sshd is or will be started."""
    return [
        (list(one.options), [(item.where, item.keyword, item.value) for item in one.settings])
        for one in sshd_command.command_lines(root, proc)
    ]


def test_options_of_the_unit_come_with_their_line(tree):
    root = tree({UNIT: DEBIAN, "/etc/default/ssh": '# Options\nSSHD_OPTS="-4 -o PermitRootLogin=yes -oPort=23"\n'})
    ((options, settings),) = started(root)
    assert options == ["-4", "-o", "PermitRootLogin=yes", "-o", "Port=23"]
    assert settings == [("/etc/default/ssh:2", "permitrootlogin", "yes"), ("/etc/default/ssh:2", "port", "23")]


def test_a_drop_in_of_the_unit_is_the_command_line(tree):
    """As EC2 Instance Connect has it."""
    command = (
        "/usr/sbin/sshd -D \\\n"
        '  -o "AuthorizedKeysCommand /usr/share/eic %%u %%f" -o AuthorizedKeysCommandUser=eic -p 2022 $SSHD_OPTS'
    )
    drop_in = "/usr/lib/systemd/system/ssh.service.d/ec2.conf"
    root = tree({UNIT: DEBIAN, drop_in: f"[Service]\n# Theirs.\nExecStart=\nExecStart={command}\n"})
    ((options, settings),) = started(root)
    assert options[:2] == ["-o", "AuthorizedKeysCommand /usr/share/eic %u %f"]
    assert settings == [
        (f"{drop_in}:4", "authorizedkeyscommand", "/usr/share/eic %u %f"),
        (f"{drop_in}:4", "authorizedkeyscommanduser", "eic"),
        (f"{drop_in}:4", "port", "2022"),
    ]
    # The same name in /etc counts instead, and the last name of all has the last word.
    tree({"/etc/systemd/system/ssh.service.d/ec2.conf": "[Service]\n"})
    assert started(root) == [([], [])]
    last = "[Service]\nEnvironment=X=no\nExecStart=\nExecStart=-/s -oUseDNS=${X}\n"
    tree({"/etc/systemd/system/sshd.service.d/z.conf": last})
    assert started(root)[0][1] == [("/etc/systemd/system/sshd.service.d/z.conf:4", "usedns", "no")]


def test_another_configuration_is_the_one_that_is_read(tree):
    root = tree({UNIT: "[Service]\nExecStart=/usr/sbin/sshd -D -f /etc/other\n"})
    assert [one.config for one in sshd_command.command_lines(root, "/nowhere")] == ["/etc/other"]


def test_without_a_unit_there_is_no_command_line(tree):
    assert started(tree({})) == [([], [])]


def test_the_sshd_that_runs_may_have_been_started_with_something_else(tree):
    def process(number, unit, title, space="pid:[1]"):
        tree({f"/proc/{number}/cgroup": f"0::/system.slice/{unit}\n", f"/proc/{number}/cmdline": title})
        (place / str(number) / "ns").mkdir(parents=True, exist_ok=True)
        (place / str(number) / "ns/pid").symlink_to(space)

    root = tree({UNIT: DEBIAN, "/proc/self/x": ""})
    place = pathlib.Path(root) / "proc"
    (place / "self/ns").mkdir()
    (place / "self/ns/pid").symlink_to("pid:[1]")
    process(
        7, "ssh.service", "sshd: /usr/sbin/sshd -o UseDNS=yes [listener] 0 of 10-100 startups", "pid:[2]"
    )  # a container's
    process(8, "docker-1.scope", "sshd: /usr/sbin/sshd -o UseDNS=yes [listener] 0 of 10-100 startups")
    process(9, "ssh.service", "sshd: ada [priv]\0")
    assert started(root, str(place)) == [([], [])]
    process(10, "ssh.service", "sshd: /sbin/sshd -D [listener] 0 of 10-100 startups\0")
    assert started(root, str(place)) == [([], [])]  # as the unit says
    (place / "10/cmdline").write_text(
        "sshd: /usr/sbin/sshd -D -o AuthorizedKeysCommand /x %u -oPort=23 [listener] 0 of"
    )
    assert started(root, str(place)) == [
        ([], []),
        (
            ["-o", "AuthorizedKeysCommand /x %u", "-o", "Port=23"],
            [(f"{place}/10/cmdline:1", "authorizedkeyscommand", "/x %u"), (f"{place}/10/cmdline:1", "port", "23")],
        ),
    ]


@given(st.lists(st.text(min_size=1), max_size=6))
def test_whatever_a_unit_says_it_is_read_without_an_error(words):
    sshd_command.understood([sshd_command.Word(text, "/unit", 1) for text in ["/usr/sbin/sshd", *words]])


LOCKDOWN = [
    sshd_files.Setting(POLICY, 10, "maxsessions", "0", "Group relay"),
    sshd_files.Setting(POLICY, 11, "permittty", "no", "Group relay"),
]
MEMBERS = {"ada": ["relay"], "grace": ["relay", "staff"]}


def asked_because_of(match, keyword="maxsessions", value="10"):
    block = sshd_files.Setting("/etc/ssh/sshd_config.d/00-aaa.conf", 2, keyword, value, match)
    return sshd_compare.lookalikes(LOCKDOWN, [block], MEMBERS)


@pytest.mark.parametrize(
    ("match", "pairs"),
    [
        ("User grace", {("grace", "192.0.2.1"), ("grace", "2001:db8::1")}),
        ("user=grace", {("grace", "192.0.2.1"), ("grace", "2001:db8::1")}),
        ("User gr*,!grace", set()),
        ("User backup", set()),
        ("Group staff Address 10.1.2.3", {("grace", "10.1.2.3")}),
        ('Address "10.0.0.0/8" User a?a', {("ada", "10.0.0.0"), ("ada", "10.255.255.255")}),
        ("Group rel* Address 10.1.*,!10.1.1.0/24", {("ada", "10.1.1.1"), ("grace", "10.1.1.1")}),
        ("Address 2001:db8:*", {("ada", "2001:db8::1"), ("grace", "2001:db8::1")}),
        ("invalid-user", set()),
    ],
)
def test_whom_another_files_block_may_be_for(match, pairs):
    assert (set(asked_because_of(match)[0]), asked_because_of(match)[1]) == (pairs, [])


@pytest.mark.parametrize("match", ["LocalPort 2222", "User ada Host *.example.org", "RDomain x", "canonical"])
def test_a_block_that_cannot_be_tried_out_is_named(match):
    pairs, (said,) = asked_because_of(match)
    assert pairs == []
    assert f"/etc/ssh/sshd_config.d/00-aaa.conf:2 (inside Match {match}) sets maxsessions 10" in said


def test_a_block_that_changes_nothing_of_the_policy_is_nobodys_trouble():
    assert asked_because_of("LocalPort 2222", value="0") == ([], [])
    assert asked_because_of("LocalPort 2222", keyword="loglevel", value="DEBUG") == ([], [])


@given(st.text(), st.text(max_size=5))
def test_every_match_line_is_tried_out_or_named(match, value):
    """It never passes in silence: whoever cannot be asked for is told of, unless it is for nobody of the group."""
    pairs, unclear = asked_because_of(match, value=value)
    block = sshd_compare.criteria(match)
    if block is None and match and match.lower() != "invalid-user" and sshd_files.plain(value) != "0":
        assert unclear
    for _user, address in pairs:
        assert address


def test_match_blocks_of_others_are_told_unless_allowed():
    asked = [sshd_files.Setting(POLICY, 1, "passwordauthentication", "no")]
    other = [sshd_files.Setting("/etc/ssh/x.conf", 2, "passwordauthentication", "yes", "User backup")]
    (found,) = sshd_compare.loosened(asked, other, frozenset())
    assert "/etc/ssh/x.conf:2 (inside Match User backup)" in found
    assert sshd_compare.loosened(asked, other, frozenset({"passwordauthentication"})) == []
    same = [sshd_files.Setting("/etc/ssh/x.conf", 2, "passwordauthentication", '"NO"', "User backup")]
    assert sshd_compare.loosened(asked, same, frozenset()) == []


def test_a_policy_that_is_not_included():
    (found,) = sshd_files.not_read(POLICY, {}, "/etc/ssh/sshd_config")
    assert "Include /etc/ssh/sshd_config.d/*.conf" in found


@pytest.mark.parametrize(("config", "read"), [("Include {0}\n", True), ("Match User x\n  Include {0}\n", False)])
def test_a_policy_that_is_included_for_some_only_is_not_in_effect(tree, config, read):
    root = tree({"/etc/ssh/sshd_config": config.format(POLICY), POLICY: "Match Group ops\n  MaxSessions 3\n"})
    files = {}
    sshd_files.read_settings("/etc/ssh/sshd_config", root=root, files=files)
    assert (sshd_files.not_read(POLICY, files, "/etc/ssh/sshd_config") == []) is read


def test_more_than_sshd_can_hand_on_is_refused(tree):
    targets = " ".join(f"10.0.0.{number % 250}:{number}" for number in range(14000))
    lines = f"Match User a\n  PermitOpen {targets}\n"
    root = tree({"/etc/ssh/sshd_config": f"Include {POLICY}\n", POLICY: lines})
    files = {}
    sshd_files.read_settings("/etc/ssh/sshd_config", root=root, files=files)
    (found,) = sshd_files.too_large(files)
    assert POLICY in found
    assert "200 are allowed" in found
    files[POLICY] = sshd_files.Source(200 * 1024 - 100, "")
    assert sshd_files.too_large(files) == []


@pytest.mark.parametrize(
    ("effective", "keyword"),
    [
        ({}, ""),
        ({"allowusers": ["grace", "ops"]}, "allowusers"),
        ({"allowusers": ["grace", "a?a"]}, ""),
        ({"allowusers": ["ada@10.0.0.0/8"]}, ""),
        ({"allowusers": ["ada@192.0.2.*"]}, "allowusers"),
        ({"allowusers": ["ada@*.example.org"]}, ""),  # depends on a name: not ours to say
        ({"denyusers": ["ad*"]}, "denyusers"),
        ({"denyusers": ["ada@192.0.2.0/24"]}, ""),
        ({"allowgroups": ["wheel"]}, "allowgroups"),
        ({"allowgroups": ["wheel", "staff"]}, ""),
        ({"denygroups": ["sta*"], "allowusers": ["ada"]}, "denygroups"),
        ({"allowgroups": ["staff@corp.example"]}, "allowgroups"),
        ({"allowgroups": ["admins@corp.example"]}, ""),
    ],
)
def test_who_is_shut_out_by_lists_of_users(effective, keyword):
    assert sshd_compare.shut_out("Ada", "10.1.2.3", ["ada", "staff", "Admins@corp.example"], effective) == keyword


def test_without_an_address_only_what_is_certain_counts():
    assert sshd_compare.shut_out("ada", "", [], {"allowusers": ["ada@10.0.0.1"]}) == ""
    assert sshd_compare.shut_out("ada", "", [], {"denyusers": ["ada@10.0.0.1"]}) == ""


def test_the_whole_program(tmp_path, monkeypatch, capsys):
    policy, main = tmp_path / "00-devnode.conf", tmp_path / "sshd_config"
    policy.write_text("PasswordAuthentication no\nMaxSessions 64\n")
    main.write_text(f"PasswordAuthentication yes\nInclude {policy}\n")
    sshd = tmp_path / "sshd"
    sshd.write_text("#!/bin/sh\necho passwordauthentication yes\necho maxsessions 64\n")
    sshd.chmod(sshd.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sshd_files, "SSHD_CONFIG", str(main))
    monkeypatch.setattr(sshd_command, "UNITS", ())
    monkeypatch.setattr(sshd_check.os, "makedirs", lambda *_args, **_more: None)
    assert sshd_check.main([str(policy), "--sshd", str(sshd)]) == 1
    told = capsys.readouterr().err
    assert told == (f"passwordauthentication is 'yes' for nobody, root, asked: 'no'. {main}:1 says yes.\n")
    sshd.write_text("#!/bin/sh\necho passwordauthentication no\necho maxsessions 64\n")
    main.write_text(f"Include {policy}\nPasswordAuthentication yes\n")
    assert sshd_check.main([str(policy), "--sshd", str(sshd)]) == 0
    # For one address only, and with somebody shut out.
    sshd.write_text(
        '#!/bin/sh\ncase "$*" in *addr=192.0.2.9*) word=yes;; *) word=no;; esac\n'
        "echo passwordauthentication $word\necho maxsessions 64\necho allowusers ops\n"
    )
    arguments = [str(policy), "--sshd", str(sshd), "--address=192.0.2.9", "--keep=root@192.0.2.9"]
    main.write_text(f"Include {policy}\nAllowUsers ops\n")
    assert sshd_check.main(arguments) == 1
    told = capsys.readouterr().err
    assert "is 'yes' for nobody from 192.0.2.9, root from 192.0.2.9, asked: 'no'." in told
    assert f"root could not log in from 192.0.2.9 any more, because of allowusers: {main}:2 says ops" in told
    # Who must not get in from somewhere, and does.
    deny = [str(policy), "--sshd", str(sshd), "--deny=root@192.0.2.9"]
    sshd.write_text(
        '#!/bin/sh\ncase "$*" in *addr=192.0.2.9*) echo denyusers root;; esac\n'
        "echo passwordauthentication no; echo maxsessions 64\n"
    )
    main.write_text(f"Include {policy}\n")
    assert sshd_check.main(deny) == 0
    sshd.write_text("#!/bin/sh\necho passwordauthentication no; echo maxsessions 64\n")
    assert sshd_check.main(deny) == 1
    assert "root could log in from 192.0.2.9, where its keys must not count" in capsys.readouterr().err
    sshd.write_text("#!/bin/sh\necho line 3: bad >&2; exit 255\n")
    assert sshd_check.main([str(policy), "--sshd", str(sshd)]) == 1
    assert "refuses its configuration: line 3: bad" in capsys.readouterr().err


def test_the_lockdown_is_read_back_for_whom_another_file_means(tmp_path, monkeypatch, capsys):
    """Not for the first member only: 00-aaa.conf lets grace have sessions, and ada from somewhere a terminal."""
    policy, main, hole = tmp_path / "01-devnode.conf", tmp_path / "sshd_config", tmp_path / "00-aaa.conf"
    policy.write_text("Match Group relay\n  MaxSessions 0\n  PermitTTY no\n")
    hole.write_text(
        "Match User grace\n  MaxSessions 10\nMatch User ada Address 10.0.0.0/8\n  PermitTTY yes\n"
        "Match User backup\n  MaxSessions 3\n"
    )
    main.write_text(f"Include {hole}\nInclude {policy}\n")
    sshd = tmp_path / "sshd"
    sshd.write_text(
        '#!/bin/sh\nsessions=0; tty=no\ncase "$*" in *user=grace*) sessions=10;; esac\n'
        'case "$*" in *user=ada*addr=10.*) tty=yes;; esac\necho maxsessions $sessions; echo permittty $tty\n'
    )
    sshd.chmod(sshd.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sshd_files, "SSHD_CONFIG", str(main))
    monkeypatch.setattr(sshd_command, "UNITS", ())
    monkeypatch.setattr(sshd_check.os, "makedirs", lambda *_args, **_more: None)
    monkeypatch.setattr(sshd_check, "members_of", lambda group: ["ada", "grace"] if group == "relay" else [])
    monkeypatch.setattr(sshd_check, "groups_of", lambda _user: ["relay"])
    assert sshd_check.main([str(policy), "--sshd", str(sshd)]) == 1
    told = capsys.readouterr().err
    assert f"maxsessions is '10' for grace, asked: '0'. {hole}:2 (inside Match User grace) says 10" in told
    assert "permittty is 'yes' for ada from 10.0.0.0, asked: 'no'" in told
    # Behind the policy such a block has no effect on its members.
    main.write_text(f"Include {policy}\nInclude {hole}\n")
    sshd.write_text("#!/bin/sh\necho maxsessions 0; echo permittty no\n")
    assert sshd_check.main([str(policy), "--sshd", str(sshd)]) == 0


def test_a_block_for_people_by_name_is_read_back_for_each_of_them(tmp_path, monkeypatch, capsys):
    """Another file takes the code from one of them; and one of them may have no account yet."""
    policy, main, hole = tmp_path / "02-devnode.conf", tmp_path / "sshd_config", tmp_path / "00-aaa.conf"
    policy.write_text("Match User ops,ops2,late\n  AuthenticationMethods publickey,keyboard-interactive:pam\n")
    hole.write_text("Match User ops2\n  AuthenticationMethods publickey\n")
    main.write_text(f"Include {hole}\nInclude {policy}\n")
    sshd = tmp_path / "sshd"
    sshd.write_text(
        "#!/bin/sh\nword=publickey,keyboard-interactive:pam\n"
        'case "$*" in *user=ops2*) word=publickey;; esac\necho authenticationmethods $word\n'
    )
    sshd.chmod(sshd.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sshd_files, "SSHD_CONFIG", str(main))
    monkeypatch.setattr(sshd_command, "UNITS", ())
    monkeypatch.setattr(sshd_check.os, "makedirs", lambda *_args, **_more: None)
    monkeypatch.setattr(sshd_check, "_exists", lambda user: user in ("ops", "ops2"))
    monkeypatch.setattr(sshd_check, "groups_of", lambda _user: ["devnode-operators"])
    assert sshd_check.main([str(policy), "--sshd", str(sshd)]) == 1
    told = capsys.readouterr().err
    assert (
        f"authenticationmethods is 'publickey' for ops2, asked: 'publickey,keyboard-interactive:pam'. {hole}:2" in told
    )
    main.write_text(f"Include {policy}\n")
    sshd.write_text("#!/bin/sh\necho authenticationmethods publickey,keyboard-interactive:pam\n")
    assert sshd_check.main([str(policy), "--sshd", str(sshd)]) == 0
    assert sshd_check.main([str(policy), "--sshd", str(sshd), "--there"]) == 1
    assert f"{policy} is for late, who has no account on this host" in capsys.readouterr().err


def test_of_a_value_with_several_parts_those_that_are_asked_for_count():
    asked = [sshd_files.Setting("/policy", 1, "persourcepenalties", "authfail:1", "")]
    printed = "persourcepenalties crash:90 authfail:{} noauth:1 max:600\n"
    assert sshd_compare.differences(asked, sshd_compare.parse_effective(printed.format(1)), []) == []
    assert len(sshd_compare.differences(asked, sshd_compare.parse_effective(printed.format(5)), [])) == 1
