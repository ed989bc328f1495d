# SPDX-License-Identifier: GPL-3.0-or-later
"""One-time codes: whose secret is good, what PAM asks of whom, and the files that it keeps used codes in."""

from __future__ import annotations

import os
import re

import pytest
import yaml
from ansible_collections.devnode.gpu.plugins.module_utils import bastion_setup, totp, totp_state
from ansible_collections.devnode.gpu.plugins.module_utils.topology_plan import bastion_plan
from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import TopologyError
from ansible_collections.devnode.gpu.plugins.module_utils.topology_view import views
from doc_blocks import ROOT
from hypothesis import given
from hypothesis import strategies as st
from unit.fleet import loaded
from unit.test_bastion_setup import DEFAULTS, render

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"  # noqa: S105
OTHER = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
ADA = {"name": "ada", "uid": 2001, "keys": [], "targets": []}
DEBIAN = "# PAM\n\n@include common-auth\naccount required pam_nologin.so\n"


def made(**changes):
    return bastion_setup.setup({**DEFAULTS, "relay_users": [ADA], **changes}, "/collection", pam=DEBIAN)


def test_off_by_default_and_then_nothing_of_it_is_there():
    plan = made()
    assert totp.PACKAGE not in plan["packages"]
    assert not [file for file in plan["files"] if file["path"].startswith(("/etc/pam.d", totp.WANTED))]
    text = render("01-devnode-bastion.conf.j2", plan)
    assert "KbdInteractiveAuthentication no" in text
    assert "AuthenticationMethods publickey\n" in text


def test_pam_and_sshd_are_switched_on_together():
    plan = made(totp=True, totp_secrets={"ada": SECRET, "left": "x"})
    files = {file["path"]: file for file in plan["files"]}
    assert totp.PACKAGE in plan["packages"]
    assert files[f"{totp.WANTED}/ada"] == {
        "path": f"{totp.WANTED}/ada",
        "content": f"{SECRET}\n",
        "mode": "0600",
        "sensitive": True,  # and a rollback gives it back, as it does what asks for it
    }
    assert f"{totp.WANTED}/left" not in files
    assert files[totp.PAM]["content"].endswith(DEBIAN)
    text = render("01-devnode-bastion.conf.j2", plan)
    assert "AuthenticationMethods publickey,keyboard-interactive:pam\n" in text
    assert "KbdInteractiveAuthentication yes" in text
    assert "PasswordAuthentication no" in text


ASKED = {"totp_operators": ["ops", "ops2"], "totp_secrets": {"ops": SECRET, "ops2": OTHER, "ada": OTHER}}


def asked(**changes):
    return made(**{**ASKED, **changes})


def test_who_has_a_shell_is_asked_by_name_and_nobody_else():
    plan = asked()
    files = {file["path"]: file for file in plan["files"]}
    assert totp.PACKAGE in plan["packages"]
    assert {path for path in files if path.startswith(totp.WANTED + "/")} == {
        f"{totp.WANTED}/ops",
        f"{totp.WANTED}/ops2",
    }
    assert files[f"{totp.WANTED}/ops"]["sensitive"] is True
    assert files[totp.OPERATORS]["content"] == "ops\nops2\n"
    text = render("02-devnode-codes.conf.j2", plan)
    assert text.startswith("# Managed by devnode.gpu (role bastion)")
    assert "\nMatch User ops,ops2\n    AuthenticationMethods publickey,keyboard-interactive:pam\n" in text
    assert "    PasswordAuthentication no\n" in text
    relayed = render("01-devnode-bastion.conf.j2", plan)
    assert "\nUsePAM yes\n" in relayed
    assert "AuthenticationMethods publickey\n" in relayed  # ada is asked for nothing
    # Read back before and in every run; that they are there at all, after a change.
    assert plan["validate"] == [{"argv": [totp.CHECK, totp.POLICY]}]
    bring = [totp.PROGRAM, totp.WANTED, totp.STATE]
    assert plan["verify"][:3] == [
        {"argv": [totp.CHECK, totp.POLICY], "always": True},
        {"argv": [totp.CHECK, totp.POLICY, "--there"]},
        {"argv": [*bring, "--check"], "always": True, "repair": bring},
    ]
    assert made(totp=True, totp_secrets={"ada": SECRET})["verify"][:1] == plan["verify"][2:3]
    assert totp.PROGRAM not in str(made()["verify"])


def test_who_is_in_the_group_and_not_in_the_list_yet_does_not_come_in_by_a_key_alone():
    def blocks(**changes):
        text = render("02-devnode-codes.conf.j2", asked(**changes))
        return {part.partition("\n")[0]: part.partition("\n")[2].split("\n\n")[0] for part in text.split("Match ")[1:]}

    both = blocks(totp_operators_group="devnode-operators")
    assert list(both) == ["User ops,ops2", "Group devnode-operators"]
    assert both["User ops,ops2"].strip() == both["Group devnode-operators"].strip()
    assert list(blocks()) == ["User ops,ops2"]
    with pytest.raises(bastion_setup.BastionError, match="bastion_totp_operators_group"):
        asked(totp_operators_group="two groups")
    group = yaml.safe_load((ROOT / "roles/ssh_server/vars/main.yml").read_text())["__ssh_server_operators_group"]
    planned = bastion_plan(loaded(lambda fleet: fleet.update(totp_operators=True)), "bastion")["bastion"]
    assert planned["totp_operators_group"] == group
    assert bastion_plan(loaded(), "bastion")["bastion"]["totp_operators_group"] == ""


def test_only_our_lines_come_and_go_in_the_pam_file():
    theirs = "account required pam_access.so\n"
    plan = bastion_setup.setup({**DEFAULTS}, "/collection", pam=totp.pam(DEBIAN, "devnode-relay") + theirs)
    [file] = [file for file in plan["files"] if file["path"] == totp.PAM]
    assert file == {"path": totp.PAM, "content": DEBIAN + theirs, "shared": True}
    assert totp.PAM not in [one["path"] for one in bastion_setup.setup({**DEFAULTS}, "/c", pam=DEBIAN)["files"]]


@pytest.mark.parametrize("on", [True, False])
def test_a_mistyped_code_counts_towards_no_ban_where_codes_are_asked(on):
    """It is said twice each time; names that do not exist count all the same."""
    text = render("fail2ban.local.j2", asked() if on else made())
    patterns = [line.partition("^")[2] for line in text.splitlines() if "^[^:]*" in line]
    assert len(patterns) == (3 if on else 1)
    head = "bastion sshd[12]: "
    person = [
        "error: PAM: Authentication failure for ada from 192.0.2.7",
        "Failed keyboard-interactive/pam for ada from 192.0.2.7 port 4022 ssh2",
    ]
    stranger = [line.replace("ada", "invalid user ada") for line in person] + [
        person[0].replace("ada", "illegal user ada")
    ]
    password = ["Failed password for ada from 192.0.2.7 port 4022 ssh2"]
    ignored = [any(re.match(pattern, head + line) for pattern in patterns) for line in person + stranger + password]
    assert ignored == [on, on] + [False] * 4


def test_both_kinds_of_people_are_asked_when_both_are_meant():
    plan = asked(totp=True)
    secrets = {file["path"].rpartition("/")[2] for file in plan["files"] if file["path"].startswith(totp.WANTED + "/")}
    assert secrets == {"ada", "ops", "ops2"}
    assert "keyboard-interactive:pam" in render("01-devnode-bastion.conf.j2", plan)


def test_nobody_with_a_shell_is_asked_by_default():
    for plan in (made(), made(totp=True, totp_secrets={"ada": SECRET})):
        assert not [file for file in plan["files"] if file["path"] in (totp.POLICY, totp.OPERATORS)]
        assert plan["validate"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"totp_operators": ["olga"]}, "bastion_totp_secrets: has no secret for olga"),
        ({"totp_operators": ["olga"], "totp_secrets": {"olga": "short"}}, r"bastion_totp_secrets\[olga\]"),
        ({"account": "ops2"}, r'bastion_totp_operators\[1\]: "ops2" is the account that Ansible connects as'),
        ({"totp_operators": ["ada"]}, r'bastion_totp_operators\[0\]: "ada" is in bastion_relay_users'),
        ({"totp_operators": ["a,b"]}, r'bastion_totp_operators\[0\]: "a,b" is not a POSIX login'),
        ({"totp_operators": ["*"]}, "is not a POSIX login"),
        ({"totp_operators": ["ops\nMatch all"]}, "is not a POSIX login"),
        ({"totp_operators": "ops"}, "bastion_totp_operators: .* is not a list"),
    ],
)
def test_a_wrong_list_of_operators_is_refused(changes, words):
    with pytest.raises(bastion_setup.BastionError, match=words):
        asked(**changes)


def stack(lines, *, member, listed, broken=False):
    """What PAM does with these lines for somebody: whether the last one, which asks, is reached."""
    results = {"pam_succeed_if.so": not member, "pam_listfile.so": not listed}
    at = 0
    while at < len(lines) - 1:
        _auth, control, module = re.fullmatch(r"(auth) \[(.*)\] (\S+) .*", lines[at]).groups()
        actions = dict(word.split("=") for word in control.split())
        good = results[module] and not broken
        action = actions["success"] if good else actions["default"]
        at += 1 if action == "ignore" else 1 + int(action)
    assert at in (len(lines) - 1, len(lines))
    return at == len(lines) - 1


@pytest.mark.parametrize("passing", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_pam_asks_those_who_are_meant(passing, listed):
    if not passing and not listed:
        return
    lines = totp.pam("", "devnode-relay", passing, listed).splitlines()[1:-1]
    assert "pam_google_authenticator.so" in lines[-1]
    for member in (True, False):
        for named in (True, False):
            reached = stack(lines, member=member, listed=named)
            assert reached == ((passing and member) or (listed and named)), (lines, member, named)
    assert stack(lines, member=False, listed=False, broken=True), "what goes wrong leads to the question"


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({}, "has no secret for ada"),
        ([], "is not a mapping"),
        ({"ada": "SHORT"}, "is not a secret in base32"),
        ({"ada": SECRET.lower()}, "is not a secret in base32"),
        ({"ada": f"{SECRET}="}, "is not a secret in base32"),
        ({"ada": f"{SECRET}\nDISALLOW"}, "is not a secret in base32"),
        ({"ada": SECRET[:-1] + "1"}, "is not a secret in base32"),
        ({"ada": None}, "is not a secret in base32"),
    ],
)
def test_a_bad_secret_is_refused_by_name_and_never_shown(secrets, words):
    with pytest.raises(bastion_setup.BastionError, match="bastion_totp_secrets") as caught:
        made(totp=True, totp_secrets=secrets)
    assert words in str(caught.value)
    for value in secrets.values() if isinstance(secrets, dict) else ():
        assert not value or value not in str(caught.value)


@given(st.text(alphabet="# @include common-auth\naccount required pam_unix.so\n", max_size=200))
def test_the_pam_file_keeps_what_was_there_however_often_it_is_made(text):
    once = totp.pam(text, "devnode-relay")
    assert once.endswith(text)
    assert totp.pam(once, "devnode-relay") == once
    assert once.splitlines()[1].startswith("auth [success=1 default=ignore] pam_succeed_if.so")


def listed(folder):
    return {path.name: path.read_text().splitlines()[0] for path in folder.iterdir()}


def test_used_codes_stay_known_until_the_secret_changes(tmp_path):
    wanted, state = tmp_path / "wanted", tmp_path / "state"
    wanted.mkdir()
    (wanted / "ada").write_text(f"{SECRET}\n")
    (wanted / "grace").write_text(f"{OTHER}\n")
    assert totp_state.bring(str(wanted), str(state)) == ["ada", "grace"]
    assert state.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in state.iterdir())
    assert "DISALLOW_REUSE" in (state / "ada").read_text()
    used = (state / "ada").read_text().replace("DISALLOW_REUSE", "DISALLOW_REUSE 58000000")
    (state / "ada").write_text(used)  # as PAM does
    assert totp_state.bring(str(wanted), str(state)) == []
    assert (state / "ada").read_text() == used
    (wanted / "ada").write_text(f"{OTHER}\n")
    (wanted / "grace").unlink()
    assert totp_state.main([str(wanted), str(state)]) == 0
    assert listed(state) == {"ada": OTHER}
    assert "58000000" not in (state / "ada").read_text()
    os.remove(wanted / "ada")
    wanted.rmdir()
    assert totp_state.bring(str(wanted), str(state)) == ["ada"]
    assert totp_state.main([]) == 2


def test_other_limits_than_ours_are_put_right_and_used_codes_stay_used(tmp_path):
    """As an earlier version of this program, or somebody's hand, has left them."""
    wanted, state = tmp_path / "wanted", tmp_path / "state"
    places = [str(wanted), str(state)]
    wanted.mkdir()
    (wanted / "ada").write_text(f"{SECRET}\n")
    assert totp_state.main(places) == 0
    good = (state / "ada").read_text()
    assert '" RATE_LIMIT 20 3600\n' in good
    # What PAM adds is no difference.
    tried = good.replace("3600", "3600 1700000000 1700000009").replace("REUSE", "REUSE 58000000 58000001")
    (state / "ada").write_text(tried)
    assert totp_state.main([*places, "--check"]) == 0
    for other in (
        tried.replace("RATE_LIMIT 20 3600", "RATE_LIMIT 3 30"),
        tried.replace("WINDOW_SIZE 3", "WINDOW_SIZE 17"),
        tried.replace('" TOTP_AUTH\n', ""),
    ):
        (state / "ada").write_text(other)
        assert totp_state.main([*places, "--check"]) == 1
        assert totp_state.bring(*places) == ["ada"]
        assert (state / "ada").read_text() == good.replace("REUSE", "REUSE 58000000 58000001")


def test_what_pam_lost_is_noticed_and_put_right(tmp_path, capsys):
    places = [str(tmp_path / "wanted"), str(tmp_path / "state")]
    assert totp_state.main([*places, "--check"]) == 0
    os.mkdir(places[0])
    for name, secret in (("ada", SECRET), ("grace", OTHER)):
        (tmp_path / "wanted" / name).write_text(f"{secret}\n")
    assert totp_state.main(places) == 0
    assert totp_state.main([*places, "--check"]) == 0
    (tmp_path / "state" / "ada").unlink()
    (tmp_path / "state" / "grace").write_text(f"{SECRET}\n")
    (tmp_path / "state" / "left").write_text(f"{SECRET}\n")
    assert totp_state.main([*places, "--check"]) == 1
    said = capsys.readouterr().err
    assert "ada, grace, left" in said
    assert SECRET not in said
    assert totp_state.main(places) == 0
    assert totp_state.main([*places, "--check"]) == 0


def test_operators_are_asked_when_the_inventory_says_so_and_their_kits_answer():
    topology = loaded(lambda fleet: fleet.update(totp_operators=True))
    assert bastion_plan(topology, "bastion")["bastion"]["totp_operators"] == ["olga"]
    assert bastion_plan(topology, "bastion")["bastion"]["totp"] is False
    jumps = {view["person"]: view["jumps"][0].get("code", False) for view in views(topology)[0]}
    assert jumps == {"ada": False, "grace": False, "olga": True}
    assert bastion_plan(loaded(), "bastion")["bastion"]["totp_operators"] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda fleet: fleet.update(controllers=[]),
            "would be root from everywhere. Allowed: with devnode_controllers",
        ),
        (lambda fleet: fleet.update(automation_networks=[]), "devnode_totp_operators: true asks operators for more"),
        (
            lambda fleet: fleet.update(connects_as=("automation", "olga")),
            r'devnode_users\[0\].operator: "olga" is the account that Ansible connects as',
        ),
        (lambda fleet: fleet.update(totp_operators="perhaps"), 'devnode_totp_operators: "perhaps"'),
    ],
)
def test_codes_for_operators_never_shut_ansible_out_nor_leave_it_unbound(change, words):
    def both(fleet):
        fleet.update(totp_operators=True)
        change(fleet)

    with pytest.raises(TopologyError, match=words):
        loaded(both)


def test_an_operator_who_left_or_whom_ansible_never_was_is_no_problem():
    def change(fleet):
        fleet.update(totp_operators=True, connects_as=("automation", "olga", "ada"))
        fleet["users"][0]["state"] = "absent"

    assert bastion_plan(loaded(change), "bastion")["bastion"]["totp_operators"] == []
    loaded(lambda fleet: fleet.update(connects_as=("olga",)))  # asked for nothing, so it can be Ansible's, too


def test_kits_of_people_answer_the_question_and_those_of_operators_are_not_asked():
    topology = loaded(lambda fleet: fleet.update(totp=True))
    assert bastion_plan(topology, "bastion")["bastion"]["totp"] is True
    jumps = {view["person"]: view["jumps"][0].get("code", False) for view in views(topology)[0]}
    assert jumps == {"ada": True, "grace": True, "olga": False}
    assert not any(jump.get("code") for view in views(loaded())[0] for jump in view["jumps"])
