# SPDX-License-Identifier: GPL-3.0-or-later
"""Host certificates: read as ssh-keygen writes them, kept while they are good, and made on the controller only."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

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
from unit.playbook import ROOT, environment, inventory, play
from unit.signing import refusal, run_action, sign

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


@pytest.fixture(scope="module")
def signed(folder, tmp_path_factory):
    """A certificate for `host`, made by the action."""
    [text] = sign(tmp_path_factory.mktemp("signed"), folder / "ca", [public(folder, "host").bare], ["bastion"])
    return text


def test_what_was_signed_says_what_was_wanted(folder, signed):
    found = model.parse(signed)
    assert (found.key, found.authority) == (public(folder, "host").bare, public(folder, "ca").bare)
    assert (found.kind, found.identity, found.principals) == (2, "bastion", ("bastion",))
    # Ten minutes for clocks that are slow; both ends count from the same moment.
    assert found.valid_before - found.valid_after == 90 * DAY + 600
    assert 0 <= time.time() - 600 - found.valid_after < 600
    assert signed == " ".join(signed.split()[:2]) + "\n"
    (folder / "said-cert.pub").write_text(signed)
    serial = keygen("-L", "-f", folder / "said-cert.pub").partition("Serial: ")[2].split()[0]
    assert found.valid_after <= int(serial) <= time.time()


def test_what_was_signed_is_kept_until_a_third_of_its_time_is_left(folder, signed):
    given_ = (public(folder, "host"), ["bastion"], Authority(folder / "ca").public)
    now = time.time()
    assert model.need(signed, *given_, now, 90) == ""
    assert model.need(signed, *given_, now + 59 * DAY, 90) == ""
    assert model.need(signed, *given_, now + 61 * DAY, 90) == "it ends in 28 days"
    assert model.need(signed, *given_, now + 91 * DAY, 90) == "it has ended"
    assert model.need(signed, *given_, now - DAY, 90) == "it does not count yet"
    assert model.need(signed, *given_, now, 30) == "it lasts longer than is wanted now"


def test_what_does_not_fit_is_made_anew_with_a_reason(folder, signed):
    authority, host, now = Authority(folder / "ca").public, public(folder, "host"), time.time()
    assert model.need("", host, ["bastion"], authority, now, 90) == "there is none"
    assert "another host key" in model.need(signed, public(folder, "rsa"), ["bastion"], authority, now, 90)
    assert "another authority" in model.need(signed, host, ["bastion"], public(folder, "other_ca"), now, 90)
    assert "it is for bastion" in model.need(signed, host, ["gpu-01"], authority, now, 90)
    keygen("-s", folder / "ca", "-I", "ada", "-n", "bastion", folder / "host.pub")
    users = (folder / "host-cert.pub").read_text()
    assert "not for hosts" in model.need(users, host, ["bastion"], authority, now, 90)


@given(st.binary(max_size=200), st.sampled_from(["ssh-ed25519", "ssh-rsa", "ssh-dss", ""]))
def test_rubbish_is_refused_and_never_believed(data, kind):
    text = f"{kind}-cert-v01@openssh.com {base64.b64encode(data).decode()}"
    with pytest.raises(InvalidError):
        model.parse(text)
    assert model.need(text, public_key(key("host")), ["a"], public_key(key("ca")), 0.0, 90)


@given(st.integers(1, 400))
def test_a_cut_certificate_is_refused(signed, length):
    kind, blob = signed.split()
    data = base64.b64decode(blob)
    with pytest.raises(InvalidError):
        model.parse(f"{kind} {base64.b64encode(data[: max(0, len(data) - length)]).decode()}")


def test_an_authority_that_is_not_there_is_named_with_what_to_do(tmp_path):
    with pytest.raises(SignError, match=r"cannot be read .*Allowed: the path of a private key"):
        _dummy = Authority(tmp_path / "nowhere").public


def test_nobody_is_asked_for_a_passphrase(folder, tmp_path):
    """Refused at once, in check mode as well."""
    keygen("-t", "ed25519", "-N", "a passphrase", "-f", tmp_path / "locked")
    said = refusal(tmp_path, tmp_path / "locked", public(folder, "host").bare, "--check")
    assert "incorrect passphrase" in said
    assert "belongs in an agent (ssh-add), and its .pub file here." in said


def test_a_key_with_the_public_half_of_another_is_refused(folder, tmp_path):
    (tmp_path / "mixed").write_text((folder / "ca").read_text())
    (tmp_path / "mixed").chmod(0o600)
    (tmp_path / "mixed.pub").write_text((folder / "other_ca.pub").read_text())
    said = refusal(tmp_path, tmp_path / "mixed", public(folder, "host").bare)
    assert "are two different keys." in said or "cannot sign:" in said


def test_a_key_in_an_agent_signs_by_its_public_half(folder, tmp_path):
    said = subprocess.run(["ssh-agent", "-s", "-a", tmp_path / "a"], check=True, capture_output=True, text=True).stdout
    pid = int(said.split("SSH_AGENT_PID=")[1].split(";")[0])
    agent = {"SSH_AUTH_SOCK": str(tmp_path / "a")}
    (tmp_path / "ca.pub").write_text((folder / "ca.pub").read_text())
    (tmp_path / "other_ca.pub").write_text((folder / "other_ca.pub").read_text())
    host = public(folder, "host").bare
    try:
        subprocess.run(["ssh-add", "-q", folder / "ca"], check=True, capture_output=True, env={**os.environ, **agent})
        [text] = sign(tmp_path, tmp_path / "ca.pub", [host], ["bastion"], **agent)
        # Not one that happens to be in it.
        assert "cannot sign:" in refusal(tmp_path, tmp_path / "other_ca.pub", host, **agent)
    finally:
        os.kill(pid, 15)
    assert model.parse(text).authority == public(folder, "ca").bare
    assert "cannot sign:" in refusal(tmp_path, tmp_path / "ca.pub", host, **agent)


STUCK = """
import sys, types
from pathlib import Path
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
init_plugin_loader()
from ansible_collections.devnode.gpu.plugins.plugin_utils import on_controller
loader = DataLoader()
action = types.SimpleNamespace(_task=types.SimpleNamespace(no_log=False), _loader=loader, _templar=Templar(loader))
module, args = "ansible.builtin.command", {"argv": ["sh", "-c", "echo $$ >pid; exec sleep 600"], "chdir": sys.argv[1]}
try:
    print(on_controller.run(action, module, args, Path(sys.argv[1]), 3.0))
except on_controller.StuckError as error:
    print(f"stuck: {error}")
"""


def test_what_does_not_answer_is_ended_and_leaves_nothing_running(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(tmp_path),
    )
    assert done.stdout == "stuck: no answer in 3 seconds\n", done.stdout + done.stderr
    # Where nobody collects the dead, one stays as a zombie.
    state, until = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat"), time.monotonic() + 20
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.1)


def test_the_action_gives_files_in_check_mode_as_ever(folder, tmp_path):
    wanted = {"path": "/etc/ssh/x-cert.pub", "key": public(folder, "host").bare}
    good = {"authority": str(folder / "ca"), "names": ["bastion"], "wanted": [wanted]}
    for options, extra in ((["--check", "--diff", "--become"], {}), ([], {"ANSIBLE_KEEP_REMOTE_FILES": "1"})):
        done, found = run_action(tmp_path, good, *options, TMPDIR=str(tmp_path), **extra)
        assert done.returncode == 0, done.stdout + done.stderr
        assert found["changed"] is False
        assert found["files"][0]["path"] == wanted["path"]
        assert model.parse(found["files"][0]["content"]).principals == ("bastion",)
        assert found["signed"] == ["/etc/ssh/x-cert.pub: there is none"]
        assert not list(tmp_path.glob("devnode-sign-*"))


def test_the_action_refuses_all_that_is_wrong_together(folder, tmp_path):
    bad = {"authority": str(folder / "ca"), "days": 0, "names": ["a b"], "wanted": [{"path": "x", "key": "y"}]}
    said = run_action(tmp_path, bad)[0].stdout
    for words in ("days: 0", "wanted[0].path", "wanted[0].key", "wanted[0].names[0]"):
        assert words in said, words


# What the venv's `ansible` package brings does not count then.
ALONE = {"ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "0"}


def test_without_the_collection_that_signs_the_action_says_how_to_get_it(folder, tmp_path):
    said = refusal(tmp_path, folder / "ca", public(folder, "host").bare, **ALONE)
    assert f"community.crypto, which signs, is not installed where Ansible runs: {model.INSTALL}" in said
    declared = yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"]["community.crypto"]
    assert f"'community.crypto:{declared}'" in model.INSTALL


PLAN = """
- hosts: all
  gather_facts: false
  tasks:
    - devnode.gpu.plan:
        kind: "{{ 'bastion' if inventory_hostname == 'bastion' else 'node' }}"
"""


def test_a_plan_that_names_an_authority_needs_what_signs_before_anything_is_changed(tmp_path):
    (tmp_path / "book.yml").write_text(PLAN)
    (tmp_path / "ca.pub").write_text(key("ca"))
    inventory(tmp_path)
    assert play(tmp_path, tmp_path / "book.yml", **ALONE).returncode == 0
    inventory(tmp_path, lambda variables, _children: variables.update(devnode_host_ca=f"{tmp_path}/ca"))
    assert play(tmp_path, tmp_path / "book.yml").returncode == 0
    done = play(tmp_path, tmp_path / "book.yml", **ALONE)
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("nothing was changed") >= 2, "the bastion's plan, and the node's"
    said = " ".join(done.stdout.split())
    assert f'devnode_host_ca: "{tmp_path}/ca" needs the collection community.crypto' in said
    assert f"Allowed: {model.INSTALL}" in said


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
