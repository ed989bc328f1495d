# SPDX-License-Identifier: GPL-3.0-or-later
"""The checker that roles install: which file and line keeps a policy from being in effect."""

from __future__ import annotations

import stat

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import sshd_check

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
    found = sshd_check.read_settings("/etc/ssh/sshd_config", root=root)
    assert [(item.path.rsplit("/", 1)[1], item.line, item.keyword, item.value, item.match) for item in found] == [
        ("sshd_config", 1, "port", "2022", ""),
        ("00-devnode.conf", 1, "port", "22", ""),
        ("00-devnode.conf", 3, "maxsessions", "3", "Group ops"),
        # a Match block ends with its file
        ("50-cloud.conf", 1, "passwordauthentication", '"yes"', ""),
        ("sshd_config", 3, "x11forwarding", "yes", ""),
    ]


def test_blames_what_can_win():
    policy = [sshd_check.Setting(POLICY, 2, "port", "22"), sshd_check.Setting(POLICY, 3, "maxsessions", "64")]
    before = sshd_check.Setting("/etc/ssh/a", 1, "maxsessions", "1")
    after = sshd_check.Setting("/etc/ssh/b", 1, "maxsessions", "2")
    adds = sshd_check.Setting("/etc/ssh/b", 2, "port", "23")
    match = sshd_check.Setting("/etc/ssh/b", 3, "maxsessions", "3", "User x")
    assert sshd_check.blamable([before, *policy, after, adds, match], POLICY) == [before, adds, match]


def test_differences_in_words():
    asked = [
        sshd_check.Setting(POLICY, 1, "port", "22"),
        sshd_check.Setting(POLICY, 2, "passwordauthentication", "no"),
        sshd_check.Setting(POLICY, 3, "permitrootlogin", "prohibit-password"),
        sshd_check.Setting(POLICY, 4, "listenaddress", "::1"),
    ]
    effective = sshd_check.parse_effective(
        "port 22\nport 2022\npasswordauthentication YES\npermitrootlogin without-password\nlistenaddress [::1]:22\n"
    )
    blame = [sshd_check.Setting("/etc/ssh/sshd_config", 7, "port", "2022")]
    found = sshd_check.differences(asked, effective, blame)
    assert found == [
        ("port is '22 2022'", "asked: '22'. /etc/ssh/sshd_config:7 says 2022."),
        ("passwordauthentication is 'yes'", "asked: 'no'. Nothing says why."),
    ]


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("KbdInteractiveAuthentication", "ChallengeResponseAuthentication"),
        ("PubkeyAcceptedAlgorithms", "PubkeyAcceptedKeyTypes"),
    ],
)
def test_old_names_are_the_same_thing(new, old):
    assert sshd_check.canonical(new) == sshd_check.canonical(old)


def test_options_of_the_unit_come_with_their_line(tree):
    root = tree({"/etc/default/ssh": '# Options\nSSHD_OPTS="-4 -o PermitRootLogin=yes -oPort=23"\n'})
    words, settings = sshd_check.command_line(root)
    assert words == ["-4", "-o", "PermitRootLogin=yes", "-oPort=23"]
    assert [(item.where, item.keyword, item.value) for item in settings] == [
        ("/etc/default/ssh:2", "permitrootlogin", "yes"),
        ("/etc/default/ssh:2", "port", "23"),
    ]


def test_match_blocks_of_others_are_told_unless_allowed():
    asked = [sshd_check.Setting(POLICY, 1, "passwordauthentication", "no")]
    other = [sshd_check.Setting("/etc/ssh/x.conf", 2, "passwordauthentication", "yes", "User backup")]
    (found,) = sshd_check.loosened(asked, other, frozenset())
    assert "/etc/ssh/x.conf:2 (inside Match User backup)" in found
    assert sshd_check.loosened(asked, other, frozenset({"passwordauthentication"})) == []


def test_a_policy_that_is_not_included():
    (found,) = sshd_check.not_read(POLICY, {}, "/etc/ssh/sshd_config")
    assert "Include /etc/ssh/sshd_config.d/*.conf" in found


@pytest.mark.parametrize(("config", "read"), [("Include {0}\n", True), ("Match User x\n  Include {0}\n", False)])
def test_a_policy_that_is_included_for_some_only_is_not_in_effect(tree, config, read):
    root = tree({"/etc/ssh/sshd_config": config.format(POLICY), POLICY: "Match Group ops\n  MaxSessions 3\n"})
    files = {}
    sshd_check.read_settings("/etc/ssh/sshd_config", root=root, files=files)
    assert (sshd_check.not_read(POLICY, files, "/etc/ssh/sshd_config") == []) is read


def test_more_than_sshd_can_hand_on_is_refused(tree):
    targets = " ".join(f"10.0.0.{number % 250}:{number}" for number in range(14000))
    lines = f"Match User a\n  PermitOpen {targets}\n"
    root = tree({"/etc/ssh/sshd_config": f"Include {POLICY}\n", POLICY: lines})
    files = {}
    sshd_check.read_settings("/etc/ssh/sshd_config", root=root, files=files)
    (found,) = sshd_check.too_large(files)
    assert POLICY in found
    assert "200 are allowed" in found
    files[POLICY] = sshd_check.Source(200 * 1024 - 100, "")
    assert sshd_check.too_large(files) == []


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
    ],
)
def test_who_is_shut_out_by_lists_of_users(effective, keyword):
    assert sshd_check.shut_out("Ada", "10.1.2.3", ["ada", "staff"], effective) == keyword


def test_without_an_address_only_what_is_certain_counts():
    assert sshd_check.shut_out("ada", "", [], {"allowusers": ["ada@10.0.0.1"]}) == ""
    assert sshd_check.shut_out("ada", "", [], {"denyusers": ["ada@10.0.0.1"]}) == ""


def test_the_whole_program(tmp_path, monkeypatch, capsys):
    policy, main = tmp_path / "00-devnode.conf", tmp_path / "sshd_config"
    policy.write_text("PasswordAuthentication no\nMaxSessions 64\n")
    main.write_text(f"PasswordAuthentication yes\nInclude {policy}\n")
    sshd = tmp_path / "sshd"
    sshd.write_text("#!/bin/sh\necho passwordauthentication yes\necho maxsessions 64\n")
    sshd.chmod(sshd.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sshd_check, "SSHD_CONFIG", str(main))
    monkeypatch.setattr(sshd_check, "OPTION_FILES", {})
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
    sshd.write_text("#!/bin/sh\necho line 3: bad >&2; exit 255\n")
    assert sshd_check.main([str(policy), "--sshd", str(sshd)]) == 1
    assert "refuses its configuration: line 3: bad" in capsys.readouterr().err
