# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of host keys: who knows the authority goes on logging in when a workspace has another key."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from typing import Any

from pytorch_sshd_lab import EPHEMERAL, converge, known_hosts, session, ssh_words, wait_until

PEOPLE = {"nlp": "ada", "vision": "grace", "team": "ada"}
STATE = "/var/lib/devnode/workspaces"
KEY = "host_keys/ssh_host_ed25519_key"


def authority(name: str = "host_ca") -> str:
    """The line of a kit that names every workspace, and one that is none of ours."""
    names = ",".join(f"{workspace}.debian13" for workspace in (*PEOPLE, "elsewhere"))
    return f"@cert-authority {names} {(EPHEMERAL / 'people' / f'{name}.pub').read_text()}"


def login(workspace: str, kit: str, alias: str = "") -> subprocess.CompletedProcess[str]:
    """Strict, with nothing but these lines of known_hosts."""
    known = EPHEMERAL / "certificates_known_hosts"
    known.write_text(kit)
    words = [*ssh_words(workspace, PEOPLE[workspace], known=known, alias=alias), "true"]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def enters(workspace: str, kit: str) -> bool:
    """Without a word about host keys."""
    done = login(workspace, kit)
    return (done.returncode, done.stderr) == (0, "")


def refused(workspace: str, kit: str, alias: str = "") -> bool:
    """By the client, because of the host key."""
    return "Host key verification failed" in login(workspace, kit, alias).stderr


def running(host: Any) -> dict[str, str]:
    """The containers by name."""
    lines = host.check_output("docker ps --no-trunc --format '{{.Names}} {{.ID}}'").splitlines()
    return dict(line.split() for line in lines)


def days_left(host: Any, workspace: str) -> int:
    end = host.check_output(f"ssh-keygen -Lf {STATE}/{workspace}/{KEY}-cert.pub | sed -n 's/.*Valid:.* to //p'")
    return int(host.check_output(f"echo $(( ($(date -d '{end}' +%s) - $(date +%s)) / 86400 ))"))


def test_who_knows_the_authority_gets_in_and_only_under_the_workspaces_name(host: Any) -> None:
    for workspace in PEOPLE:
        assert enters(workspace, authority()), workspace
    assert refused("nlp", authority(), alias="vision.debian13")
    assert refused("nlp", authority(), alias="elsewhere.debian13")
    assert refused("nlp", authority("other_ca"))
    # The authority itself stays on the controller.
    assert host.run(f"ls -R {STATE} /etc/devnode | grep host_ca").rc != 0


def test_a_certificate_is_not_served_for_another_key(host: Any) -> None:
    """Somebody changed the key by hand: the certificate that is there does not vouch for it."""
    host.check_output(f"cp -a {STATE}/team/host_keys /root/kept && rm {STATE}/team/{KEY}")
    host.check_output(f"ssh-keygen -q -t ed25519 -N '' -f {STATE}/team/{KEY}")
    plain = f"team.debian13 {host.check_output(f'cat {STATE}/team/{KEY}.pub')}\n"
    reload = "docker kill --signal=HUP devnode-team"
    try:
        host.check_output(reload)
        wait_until("team's sshd has its other key", lambda: enters("team", plain), 20)
        assert refused("team", authority())
    finally:
        host.check_output(f"cp -a /root/kept/* {STATE}/team/host_keys/ && rm -r /root/kept && {reload}")
    wait_until("team's sshd has its own key again", lambda: enters("team", authority()), 20)


def test_switched_off_they_go_and_no_session_ends(host: Any) -> None:
    with session("team", "ada", "sleep 306") as ada:
        wait_until("ada is in", lambda: "sleep 306" in host.check_output("docker top devnode-team"))
        code, out, changed = converge(pytorch_sshd_host_ca="")
        assert (code, changed) == (0, 1), out
        assert host.run(f"ls {STATE}/*/host_keys/*-cert.pub").rc != 0
        wait_until("the certificate is gone", lambda: refused("team", authority()), 20)
        assert enters("team", known_hosts().read_text())
        assert ada.poll() is None


def test_kits_of_before_go_on_after_a_rebuild_and_nobodys_session_ends(host: Any) -> None:
    """Switched on again. nlp: as on a machine that was made anew. team: its keys are lost while it runs.

    vision: its certificate ends soon, and its container is of an image that knows of no certificates.
    """
    old, before = known_hosts().read_text(), running(host)
    short = EPHEMERAL / "people" / "short.pub"
    short.write_text(host.check_output(f"cat {STATE}/vision/{KEY}.pub"))
    words = ["-s", str(EPHEMERAL / "people" / "host_ca"), "-h", "-I", "x", "-n", "vision.debian13", "-V", "-1d:+20d"]
    subprocess.run(["ssh-keygen", "-q", *words, str(short)], check=True)
    text = short.with_name("short-cert.pub").read_text().strip()
    host.check_output(f"echo '{text}' > {STATE}/vision/{KEY}-cert.pub")
    assert days_left(host, "vision") < 21
    program = "/usr/local/lib/devnode/devnode_sshd.py"
    host.check_output(f"docker exec devnode-vision sed -i.kept 's/ssh_host_[*]-cert.pub/nothing/' {program}")
    with ExitStack() as sessions:
        stay = [sessions.enter_context(session(name, PEOPLE[name], "sleep 305")) for name in ("team", "vision")]
        for name in ("team", "vision"):
            wait_until("they are in", lambda name=name: "sleep 305" in host.check_output(f"docker top devnode-{name}"))
        host.check_output(f"rm {STATE}/team/host_keys/*; systemctl disable --now devnode-workspace@nlp.service")
        host.check_output(f"docker rm --force devnode-nlp; docker network rm devnode-nlp; rm -r {STATE}/nlp")
        code, out, _ = converge()
        assert code == 0, out
        for workspace in ("nlp", "team"):
            for kit in (authority() + old, authority()):
                wait_until(f"{workspace} is in", lambda name=workspace, kit=kit: enters(name, kit), 20)
            # It is another key: a kit without the authority has to be changed.
            assert refused(workspace, old)
        assert days_left(host, "vision") > 88
        assert (enters("vision", old), refused("vision", authority())) == (True, True)
        host.check_output(f"docker exec devnode-vision mv {program}.kept {program}")
        host.check_output("docker exec devnode-vision /usr/local/sbin/devnode-workspace apply")
        wait_until("vision has it, too", lambda: enters("vision", authority()), 20)
        assert [one.poll() for one in stay] == [None, None]
    after = running(host)
    assert {name for name in before if before[name] != after.get(name)} == {"devnode-nlp"}
