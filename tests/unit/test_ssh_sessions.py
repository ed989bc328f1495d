# SPDX-License-Identifier: GPL-3.0-or-later
"""Which open sessions end when keys or targets are taken away, and which stay."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from ansible_collections.devnode.gpu.plugins.module_utils import access, relay_certificates, ssh_sessions
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_sessions import EVERYTHING, Person, Session
from hypothesis import given
from hypothesis import strategies as st
from unit.fleet import key

ADA, GRACE = key("ada"), key("grace")
A, B = public_key(ADA).fingerprint, public_key(GRACE).fingerprint
NODE, OTHER = "10.0.0.11:2201", "10.0.0.12:2201"
ONE = Session("ada", 100, 101, started=1000.0)

names = st.sampled_from([A, B, "SHA256:c"])
places = st.frozensets(st.sampled_from([NODE, OTHER, "h:1"]))
some_rights = st.dictionaries(names, places)


def test_rights_are_read_from_what_the_role_writes():
    person = {"name": "ada", "uid": 2001, "keys": [ADA], "targets": [{"host": "10.0.0.11", "port": 2201}]}
    file = access.relays([person])["files"][0]
    assert ssh_sessions.rights(file["content"]) == {A: frozenset({NODE})}
    file = access.relays([{**person, "targets": []}])["files"][0]
    assert ssh_sessions.rights(file["content"]) == {A: frozenset()}
    (file,) = access.operators([{"name": "ops", "uid": 3000, "keys": [ADA, GRACE]}])["files"]
    assert ssh_sessions.rights(file["content"]) == dict.fromkeys((A, B), frozenset({EVERYTHING}))


def test_a_key_on_two_lines_surely_gives_only_what_both_give():
    text = f'restrict,port-forwarding,permitopen="{NODE}" {ADA}\nrestrict,port-forwarding,permitopen="{OTHER}" {ADA}\n'
    assert ssh_sessions.rights(text) == {A: frozenset()}


def test_a_comment_is_no_key_and_an_option_may_hold_anything():
    assert ssh_sessions.rights(f"# {ADA}\n\nnonsense\n") == {}
    assert ssh_sessions.rights(f'command="echo restrict, port-forwarding" {ADA}') == {A: frozenset({EVERYTHING})}


def test_who_keeps_everything_stays():
    person = Person({A: frozenset({NODE})}, {A: frozenset({NODE})}, changed=2000.0)
    assert ssh_sessions.reason(ONE, (A, A), person) == ""
    assert ssh_sessions.reason(ONE, ("", ""), person) == ""
    more = Person({A: frozenset({NODE, OTHER})}, {A: frozenset({NODE})}, changed=2000.0)
    assert ssh_sessions.reason(ONE, (A, A), more) == ""


def test_who_loses_something_goes_with_a_reason():
    person = Person({B: frozenset({NODE})}, {A: frozenset({NODE}), B: frozenset({NODE, OTHER})}, changed=2000.0)
    assert ssh_sessions.reason(ONE, (A, A), person) == f"its key {A} was removed"
    assert ssh_sessions.reason(ONE, (B, B), person) == f"its key {B} may no longer reach {OTHER}"
    assert "nobody can tell its key" in ssh_sessions.reason(ONE, ("", ""), person)


def test_what_is_not_known_counts_as_lost():
    never_seen = Person({A: frozenset({NODE})}, None, changed=2000.0)
    assert ssh_sessions.reason(ONE, (A, A), never_seen) != ""
    assert ssh_sessions.reason(ONE, ("", ""), never_seen) != ""
    operator = Person({A: frozenset({EVERYTHING})}, None, changed=2000.0)
    assert ssh_sessions.reason(ONE, (A, A), operator) == ""


def test_a_login_after_the_change_stays_whatever_was_before():
    later = Session("ada", 100, 101, started=2100.0)
    assert ssh_sessions.reason(later, ("", ""), Person({}, None, changed=2000.0)) == ""


@given(some_rights, some_rights, names)
def test_a_session_stays_only_if_its_key_still_gives_all_that_it_gave(before, now, fingerprint):
    why = ssh_sessions.reason(ONE, (fingerprint, fingerprint), Person(now, before, changed=2000.0))
    kept = fingerprint in now and fingerprint in before and before[fingerprint] <= now[fingerprint]
    assert (why == "") == kept


@given(some_rights, some_rights)
def test_nobody_goes_when_nothing_is_taken_away(before, more):
    now = {one: before.get(one, frozenset()) | more.get(one, frozenset()) for one in {*before, *more}}
    person = Person(now, before, changed=2000.0)
    assert all(ssh_sessions.reason(ONE, (one, one), person) == "" for one in [*before, ""])


def entry(pid=100, when=1000.5, user="ada", fingerprint=A, rest=""):
    message = f"Accepted publickey for {user} from 203.0.113.9 port 5123 ssh2: ED25519 {fingerprint}{rest}"
    return {"_PID": str(pid), "__REALTIME_TIMESTAMP": str(int(when * 1e6)), "MESSAGE": message}


def test_the_log_names_the_key_of_a_process():
    assert ssh_sessions.fingerprints([entry()], [ONE]) == {100: (A, A)}
    certificate = entry(rest=" ID ada CA ED25519 SHA256:no (serial 3) CA ED25519 SHA256:ca")
    assert ssh_sessions.fingerprints([certificate], [ONE]) == {100: (A, "SHA256:ca")}


def test_what_the_log_says_of_others_does_not_count():
    odd = [{"MESSAGE": "x"}, {**entry(), "MESSAGE": None}, {**entry(), "_PID": "none"}]
    assert ssh_sessions.fingerprints([entry(pid=7), entry(user="grace"), entry(when=10.0), *odd], [ONE]) == {}
    # A session's text can hold anything, but it does not begin a line of sshd's.
    forged = {**entry(), "MESSAGE": f"debug: {entry()['MESSAGE']}"}
    assert ssh_sessions.fingerprints([forged], [ONE]) == {}


def process(number, parent, uid, name, started=1.0):
    return ssh_sessions._Process(number, parent, uid, name, started)


def test_a_session_is_sshds_process_of_a_person_below_one_of_roots():
    processes = [
        process(1, 0, 0, "systemd"),
        process(10, 1, 0, "sshd"),
        process(20, 10, 0, "sshd-session", 5.0),
        process(21, 20, 2001, "sshd-session", 6.0),
        process(22, 21, 2001, "sh"),
        process(23, 22, 2001, "sleep"),
        process(30, 1, 2001, "sshd"),  # somebody's own program of that name
        process(31, 22, 2001, "sshd"),
        process(40, 10, 0, "sshd"),
        process(41, 40, 2002, "sshd"),  # not asked for
    ]
    found = ssh_sessions.find_sessions({one.number: one for one in processes}, {2001: "ada"})
    assert found == [Session("ada", 20, 21, 5.0, (22, 23, 31))]


def test_this_test_finds_itself():
    mine = ssh_sessions._processes()[os.getpid()]
    assert mine.parent == os.getppid()
    assert abs(mine.started - time.time()) < 3600 * 24
    assert mine.uid == os.getuid()


def test_state_is_remembered_and_people_who_are_gone_are_still_looked_at(tmp_path):
    keys, state = tmp_path / "keys", tmp_path / "state" / "x.json"
    keys.mkdir()
    (keys / "ada").write_text(f"restrict {ADA}\n")
    (keys / "grace").write_text(f"restrict {GRACE}\n")
    first = ssh_sessions.people_of(str(keys), str(state))
    assert first["ada"].before is None
    ssh_sessions._save(str(state), first)
    (keys / "grace").unlink()
    second = ssh_sessions.people_of(str(keys), str(state))
    assert second["ada"].before == second["ada"].now == {A: frozenset()}
    assert second["grace"].now == {}
    assert second["grace"].before == {B: frozenset()}
    state.write_text("[1]")
    assert ssh_sessions.people_of(str(keys), str(state))["ada"].before is None


def test_a_run_without_sessions_only_remembers(tmp_path, capsys):
    keys, state = tmp_path / "keys", tmp_path / "x.json"
    keys.mkdir()
    (keys / "nobody-of-that-name").write_text(f"restrict {ADA}\n")
    assert ssh_sessions.main([str(keys), str(state)]) == 0
    assert capsys.readouterr().out == ""
    assert A in state.read_text()


def put(found):
    for file in found["files"]:
        if "content" in file:
            Path(file["path"]).parent.mkdir(exist_ok=True)
            Path(file["path"]).write_text(file["content"])


def test_a_certificate_gives_what_stands_beside_its_principal(tmp_path):
    person = {"name": "ada", "uid": 2001, "keys": [ADA], "targets": [{"host": "10.0.0.11", "port": 2201}]}
    put(relay_certificates.relays([person], directory=f"{tmp_path}/keys", authorities=[GRACE]))
    (ada,) = ssh_sessions.people_of(f"{tmp_path}/keys", f"{tmp_path}/state").values()
    assert ada.now == {A: frozenset({NODE}), B: frozenset({NODE})}
    assert ssh_sessions.reason(ONE, ("SHA256:x", B), replace(ada, before=ada.now)) == ""
    assert "SHA256:ca was removed" in ssh_sessions.reason(ONE, ("SHA256:x", "SHA256:ca"), ada)


def test_a_revoked_key_ends_what_it_opened_and_an_authority_all_that_it_signed(tmp_path):
    person = {"name": "ada", "uid": 2001, "keys": [ADA], "targets": []}
    given = {"directory": f"{tmp_path}/keys", "authorities": [GRACE], "revoked": [GRACE]}
    put(relay_certificates.relays([person], **given))
    (ada,) = ssh_sessions.people_of(f"{tmp_path}/keys", f"{tmp_path}/state").values()
    assert ada.now == {A: frozenset()}
    before = replace(ada, before={A: frozenset(), B: frozenset()})
    assert "was removed" in ssh_sessions.reason(ONE, ("SHA256:x", B), before)
    assert ssh_sessions.reason(ONE, (A, A), before) == ""
    assert "was revoked" in ssh_sessions.reason(ONE, (A, B), replace(before, revoked=frozenset({A})))


def test_an_authority_that_went_is_a_change_though_its_file_has_no_time(tmp_path):
    person = {"name": "ada", "uid": 2001, "keys": [ADA], "targets": []}
    put(relay_certificates.relays([person], directory=f"{tmp_path}/keys", authorities=[GRACE]))
    for path in (*tmp_path.glob("*"), *tmp_path.glob("*/*"), tmp_path):
        os.utime(path, (1000, 1000))
    (ada,) = ssh_sessions.people_of(f"{tmp_path}/keys", f"{tmp_path}/state").values()
    assert ada.changed == 1000
    opened = replace(ONE, started=1500.0)
    before = ada.now
    (tmp_path / "user_ca").unlink()
    (ada,) = ssh_sessions.people_of(f"{tmp_path}/keys", f"{tmp_path}/state").values()
    assert "was removed" in ssh_sessions.reason(opened, ("SHA256:x", B), replace(ada, before=before))


def test_with_a_code_asked_for_as_well_the_key_is_in_the_line_before():
    key = {"_PID": "100", "__REALTIME_TIMESTAMP": "1000500000"}
    said = [
        {**key, "MESSAGE": f"Partial publickey for ada from 192.0.2.9 port 4000 ssh2: ED25519 {A}"},
        {**key, "MESSAGE": "Accepted keyboard-interactive/pam for ada from 192.0.2.9 port 4000 ssh2"},
    ]
    assert ssh_sessions.fingerprints(said, [ONE]) == {100: (A, A)}
