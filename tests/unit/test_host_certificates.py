# SPDX-License-Identifier: GPL-3.0-or-later
"""Host certificates: read as ssh-keygen writes them, kept while they are good, and made on the controller only."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time

import pytest
import yaml
from ansible_collections.devnode.gpu.plugins.action.host_certificates import Authority, SignError
from ansible_collections.devnode.gpu.plugins.module_utils import host_certificates as model
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.topology_plan import bastion_plan, node_plan
from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import TopologyError
from ansible_collections.devnode.gpu.plugins.module_utils.topology_view import views
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError
from hypothesis import given
from hypothesis import strategies as st
from unit.fleet import bare, key, loaded
from unit.playbook import environment

DAY = 86400


def keygen(*words):
    return subprocess.run(["ssh-keygen", "-q", *map(str, words)], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two authorities and two host keys."""
    folder = tmp_path_factory.mktemp("authority")
    for name in ("ca", "other_ca", "host"):
        keygen("-t", "ed25519", "-N", "", "-C", name, "-f", folder / name)
    keygen("-t", "rsa", "-b", "3072", "-N", "", "-f", folder / "rsa")
    keygen("-t", "ecdsa", "-N", "", "-f", folder / "ecdsa")
    return folder


def public(folder, name):
    return public_key((folder / f"{name}.pub").read_text())


@pytest.mark.parametrize("name", ["host", "rsa", "ecdsa"])
def test_it_is_read_as_ssh_keygen_wrote_it(folder, name):
    keygen("-s", folder / "ca", "-h", "-I", "x CA y", "-n", "bastion,b.example", "-V", "+90d", folder / f"{name}.pub")
    found = model.parse((folder / f"{name}-cert.pub").read_text())
    assert found.key == public(folder, name).bare
    assert found.authority == public(folder, "ca").bare
    assert (found.kind, found.identity, found.principals) == (2, "x CA y", ("bastion", "b.example"))
    assert found.valid_after <= time.time() < found.valid_before
    assert abs(found.valid_before - time.time() - 90 * DAY) < 2 * 3600


def test_the_authority_signs_and_what_it_signed_is_kept(folder):
    authority = Authority(folder / "ca")
    text = authority.sign(public(folder, "host"), ["bastion"], 90)
    given_ = (public(folder, "host"), ["bastion"], authority.public)
    now = time.time()
    assert model.need(text, *given_, now, 90) == ""
    assert model.need(text, *given_, now + 59 * DAY, 90) == ""
    assert model.need(text, *given_, now + 61 * DAY, 90) == "it ends in 28 days"
    assert model.need(text, *given_, now + 91 * DAY, 90) == "it has ended"
    assert model.need(text, *given_, now - DAY, 90) == "it does not count yet"
    assert model.need(text, *given_, now, 30) == "it lasts longer than is wanted now"


def test_what_does_not_fit_is_made_anew_with_a_reason(folder):
    authority = Authority(folder / "ca")
    host, now = public(folder, "host"), time.time()
    text = authority.sign(host, ["bastion"], 90)
    assert model.need("", host, ["bastion"], authority.public, now, 90) == "there is none"
    assert "another host key" in model.need(text, public(folder, "rsa"), ["bastion"], authority.public, now, 90)
    assert "another authority" in model.need(text, host, ["bastion"], public(folder, "other_ca"), now, 90)
    assert "it is for bastion" in model.need(text, host, ["gpu-01"], authority.public, now, 90)
    keygen("-s", folder / "ca", "-I", "ada", "-n", "bastion", folder / "host.pub")
    users = (folder / "host-cert.pub").read_text()
    assert "not for hosts" in model.need(users, host, ["bastion"], authority.public, now, 90)


@given(st.binary(max_size=200), st.sampled_from(["ssh-ed25519", "ssh-rsa", "ssh-dss", ""]))
def test_rubbish_is_refused_and_never_believed(data, kind):
    text = f"{kind}-cert-v01@openssh.com {base64.b64encode(data).decode()}"
    with pytest.raises(InvalidError):
        model.parse(text)
    assert model.need(text, public_key(key("host")), ["a"], public_key(key("ca")), 0.0, 90)


@given(st.integers(1, 400))
def test_a_cut_certificate_is_refused(folder_text, length):
    kind, blob = folder_text.split()[:2]
    data = base64.b64decode(blob)
    with pytest.raises(InvalidError):
        model.parse(f"{kind} {base64.b64encode(data[: max(0, len(data) - length)]).decode()}")


@pytest.fixture(scope="module")
def folder_text(folder):
    return Authority(folder / "ca").sign(public(folder, "host"), ["bastion"], 1)


def test_a_key_that_cannot_sign_is_named_with_what_to_do(folder, tmp_path):
    with pytest.raises(SignError, match=r"cannot be read .*Allowed: the path of a private key"):
        _dummy = Authority(tmp_path / "nowhere").public
    keygen("-t", "ed25519", "-N", "a passphrase", "-f", tmp_path / "locked")
    with pytest.raises(SignError, match="belongs in an agent"):
        Authority(tmp_path / "locked").sign(public(folder, "host"), ["bastion"], 90)
    (tmp_path / "mixed").write_text((folder / "ca").read_text())
    (tmp_path / "mixed").chmod(0o600)
    (tmp_path / "mixed.pub").write_text((folder / "other_ca.pub").read_text())
    with pytest.raises(SignError):
        Authority(tmp_path / "mixed").sign(public(folder, "host"), ["bastion"], 90)


def test_a_key_in_an_agent_signs_by_its_public_half(folder, tmp_path, monkeypatch):
    said = subprocess.run(["ssh-agent", "-s", "-a", tmp_path / "a"], check=True, capture_output=True, text=True).stdout
    pid = int(said.split("SSH_AGENT_PID=")[1].split(";")[0])
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "a"))
        subprocess.run(["ssh-add", "-q", folder / "ca"], check=True, capture_output=True)
        (tmp_path / "ca.pub").write_text((folder / "ca.pub").read_text())
        text = Authority(tmp_path / "ca.pub").sign(public(folder, "host"), ["bastion"], 90)
    finally:
        os.kill(pid, 15)
    assert model.parse(text).authority == public(folder, "ca").bare


def run_action(tmp_path, arguments):
    task = {"devnode.gpu.host_certificates": arguments, "register": "found"}
    show = {"ansible.builtin.debug": {"msg": "RESULT {{ found | to_json }}"}}
    playbook = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task, show]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(playbook))
    argv = ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")]
    more = environment(tmp_path, ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=more, cwd=tmp_path)


def test_the_action_gives_files_and_refuses_all_that_is_wrong_together(folder, tmp_path):
    wanted = {"path": "/etc/ssh/x-cert.pub", "key": public(folder, "host").bare}
    good = {"authority": str(folder / "ca"), "names": ["bastion"], "wanted": [wanted]}
    done = run_action(tmp_path, good)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout[done.stdout.index("RESULT ") + 7 :]
    found = json.JSONDecoder().raw_decode(json.loads(f'"{text[: text.index(chr(10))].rstrip(chr(34))}"'))[0]
    assert found["files"][0]["path"] == wanted["path"]
    assert model.parse(found["files"][0]["content"]).principals == ("bastion",)
    assert found["signed"] == ["/etc/ssh/x-cert.pub: there is none"]
    bad = {"authority": str(folder / "ca"), "days": 0, "names": ["a b"], "wanted": [{"path": "x", "key": "y"}]}
    said = run_action(tmp_path, bad).stdout
    for words in ("days: 0", "wanted[0].path", "wanted[0].key", "wanted[0].names[0]"):
        assert words in said, words


# --- the topology ---------------------------------------------------------------------------------------------------


def with_authority(fleet):
    fleet.update(host_ca="~/.ssh/ca", host_ca_key=key("ca"))


def test_hosts_get_the_authority_and_kits_its_public_key_by_name():
    topology = loaded(with_authority)
    assert bastion_plan(topology, "bastion")["ssh_server"]["host_ca"] == "~/.ssh/ca"
    assert node_plan(topology, "gpu-01")["ssh_server"]["host_ca"] == "~/.ssh/ca"
    found, _left = views(topology)
    ada = next(view for view in found if view["person"] == "ada")
    marked = [one for one in ada["known_hosts"] if one.get("marker")]
    assert [one["keys"] for one in marked] == [[bare("ca")]]
    # Never for a git server, and for nothing that this person does not reach.
    assert marked[0]["names"] == ["bastion", "nlp.gpu-01", "team.gpu-01", "team.gpu-02"]
    assert ["git.example.com"] in [one["names"] for one in ada["known_hosts"]]
    assert ["bastion"] in [one["names"] for one in ada["known_hosts"]]


def test_without_an_authority_nothing_is_trusted_by_one():
    assert bastion_plan(loaded(), "bastion")["ssh_server"]["host_ca"] == ""
    assert not [one for view in views(loaded())[0] for one in view["known_hosts"] if one.get("marker")]


@pytest.mark.parametrize("text", ["", "ssh-dss AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----"])
def test_an_authority_without_a_good_public_key_is_refused_by_name(text):
    with pytest.raises(TopologyError, match=r'devnode_host_ca: "/x/ca" .*Allowed: the path of a private key'):
        loaded(lambda fleet: fleet.update(host_ca="/x/ca", host_ca_key=text))
