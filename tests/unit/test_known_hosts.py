# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of host keys: foreign lines stay, ours follow the inventory, no key changes by itself."""

from __future__ import annotations

import base64
import subprocess

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import known_hosts
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from hypothesis import given
from hypothesis import strategies as st
from unit.fleet import bare, key

_POINT = b"\4" + bytes(64)
_BLOB = b"\0\0\0\x13ecdsa-sha2-nistp256\0\0\0\x08nistp256\0\0\0\x41" + _POINT
OTHER_TYPE = f"ecdsa-sha2-nistp256 {base64.b64encode(_BLOB).decode()}"
FOREIGN = f"""# written by hand
bastion,203.0.113.10 {bare("bastion")}

@cert-authority *.example.com {bare("ca")}
|1|c2FsdA==|aGFzaA== {bare("hashed")}
"""


def _keys(*names):
    return [public_key(key(name)) for name in names]


def _merge(text, scope, entries, **options):
    return known_hosts.merge(known_hosts.parse(text), scope, entries, **options).text()


def test_foreign_lines_stay():
    text = _merge(FOREIGN, "workspaces@gpu-01", {"nlp.gpu-01": _keys("nlp")})
    assert text == FOREIGN + f"nlp.gpu-01 {bare('nlp')} devnode:workspaces@gpu-01\n"
    assert _merge(text, "workspaces@gpu-01", {}) == FOREIGN


def test_ssh_keygen_reads_it(tmp_path):
    path = tmp_path / "known_hosts"
    path.write_text(_merge(FOREIGN, "enrolled", {"gpu-01": _keys("gpu-01")}))
    command = ["ssh-keygen", "-F", "gpu-01", "-f", path]
    assert bare("gpu-01") in subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def test_each_scope_prunes_its_own():
    text = _merge("", "workspaces@a", {"x.a": _keys("x"), "y.a": _keys("y")})
    text = _merge(text, "workspaces@b", {"z.b": _keys("z")})
    assert [line.split()[0] for line in text.splitlines()] == ["x.a", "y.a", "z.b"]
    text = _merge(text, "workspaces@a", {"y.a": _keys("y")})
    assert [line.split()[0] for line in text.splitlines()] == ["y.a", "z.b"]
    assert _merge(text, "enrolled", {"host": _keys("h")}, prune=False).count("\n") == 3


def test_a_changed_key_is_refused_unless_asked_for():
    text = _merge("", "enrolled", {"gpu-01": _keys("old")})
    with pytest.raises(known_hosts.ChangedKeyError) as caught:
        _merge(text, "enrolled", {"gpu-01": _keys("new")})
    ((alias, old, new),) = caught.value.changed
    assert (alias, old, new) == ("gpu-01", _keys("old")[0].fingerprint, _keys("new")[0].fingerprint)
    assert bare("new") in _merge(text, "enrolled", {"gpu-01": _keys("new")}, replace=["gpu-01"])


def test_a_foreign_line_is_never_replaced():
    assert _merge(FOREIGN, "enrolled", {"bastion": _keys("bastion")}) == FOREIGN
    with pytest.raises(known_hosts.ChangedKeyError):
        _merge(FOREIGN, "enrolled", {"bastion": _keys("other")}, replace=["bastion"])


def test_a_rotation_in_two_steps():
    text = _merge("", "enrolled", {"gpu-01": _keys("old")})
    text = _merge(text, "enrolled", {"gpu-01": _keys("old", "new")})
    text = _merge(text, "enrolled", {"gpu-01": _keys("new")})
    assert known_hosts.parse(text).keys == {"gpu-01": tuple(public_key(bare(name)) for name in ["new"])}


def test_damaged_lines_are_reported_and_kept():
    record = known_hosts.parse("gpu-01 ssh-ed25519 AAAA\n")
    assert record.errors == [(1, "is cut short")]
    assert record.text() == "gpu-01 ssh-ed25519 AAAA\n"


NAMES = st.sampled_from(["a.n", "b.n", "c.n"])
SCOPES = st.sampled_from(["enrolled", "workspaces@n"])
ENTRIES = st.dictionaries(NAMES, st.lists(st.sampled_from("kl"), min_size=1, max_size=2, unique=True), max_size=3)


@given(st.text(max_size=60), st.lists(st.tuples(SCOPES, ENTRIES), max_size=4))
def test_any_sequence_of_runs(foreign, runs):
    """Foreign lines stay in front, whatever they are; the last word of a scope holds; a second run changes nothing."""
    text = foreign if foreign.endswith("\n") or not foreign else foreign + "\n"
    kept = [str(line) for line in known_hosts.parse(text).foreign]
    for scope, entries in runs:
        keys = {alias: _keys(*names) for alias, names in entries.items()}
        text = _merge(text, scope, keys, replace=list(keys))
        assert _merge(text, scope, keys) == text
        assert set(entries) <= set(known_hosts.parse(text).keys)
    assert known_hosts.parse(text).foreign == kept


def test_a_rotation_takes_lines_of_others_over_and_keeps_other_types():
    other_type = public_key(OTHER_TYPE).bare
    text = f"bastion,203.0.113.10 {bare('one')}\nbastion {other_type}\nother {bare('other')}\n"
    both = known_hosts.rotate(known_hosts.parse(text), "enrolled", {"bastion": _keys("one", "two")}).text()
    assert sorted(both.splitlines()) == sorted(
        [
            f"203.0.113.10 {bare('one')}",
            f"bastion {bare('one')} devnode:enrolled",
            f"bastion {bare('two')} devnode:enrolled",
            f"bastion {other_type} devnode:enrolled",
            f"other {bare('other')}",
        ]
    )
    one = known_hosts.rotate(known_hosts.parse(both), "enrolled", {"bastion": _keys("two")}).text()
    assert bare("two") in one
    assert f"bastion {bare('one')}" not in one
    assert other_type in one


@pytest.mark.parametrize("text", ["", f"bastion {bare('three')}\n"])
def test_a_rotation_never_brings_a_key_that_nothing_on_record_vouches_for(text):
    with pytest.raises(known_hosts.ChangedKeyError):
        known_hosts.rotate(known_hosts.parse(text), "enrolled", {"bastion": _keys("one", "two")})
