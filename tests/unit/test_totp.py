# SPDX-License-Identifier: GPL-3.0-or-later
"""One-time codes: whose secret is good, what PAM asks of whom, and the files that it keeps used codes in."""

from __future__ import annotations

import os

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import bastion_setup, totp, totp_state
from ansible_collections.devnode.gpu.plugins.module_utils.topology_plan import bastion_plan
from ansible_collections.devnode.gpu.plugins.module_utils.topology_view import views
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
        "sensitive": True,
        "never_restore": True,
    }
    assert f"{totp.WANTED}/left" not in files
    assert files[totp.PAM]["content"].endswith(DEBIAN)
    text = render("01-devnode-bastion.conf.j2", plan)
    assert "AuthenticationMethods publickey,keyboard-interactive:pam\n" in text
    assert "KbdInteractiveAuthentication yes" in text
    assert "PasswordAuthentication no" in text


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


def test_kits_of_people_answer_the_question_and_those_of_operators_are_not_asked():
    topology = loaded(lambda fleet: fleet.update(totp=True))
    assert bastion_plan(topology, "bastion")["bastion"]["totp"] is True
    jumps = {view["person"]: view["jumps"][0].get("code", False) for view in views(topology)[0]}
    assert jumps == {"ada": True, "grace": True, "olga": False}
    assert not any(jump.get("code") for view in views(loaded())[0] for jump in view["jumps"])
