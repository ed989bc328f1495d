# SPDX-License-Identifier: GPL-3.0-or-later
"""What a project's agent can be used for on the far side, and by whom.

The project's key opens the account "git" at every sshd here. The agent holds it for one of them: the git server at port
2222, which has a host key of its own, and only from nlp.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scc import SSH, TOOL, good, run_as

SOCKET = "~/.ssh/cm/agent-corpus"
# ssh as somebody on the far side types it. That host's own known_hosts is not what this is about.
THERE = "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"


@pytest.fixture
def agent(host: Any) -> Iterator[None]:
    good(host, f"{TOOL} agent corpus")
    yield
    good(host, f"{TOOL} close --all; {TOOL} agent corpus stop")
    assert run_as(host, "ada", f"test -e {SOCKET}").rc == 1


def address(host: Any) -> str:
    return str(host.check_output("hostname -I")).split()[0]


@pytest.mark.usefixtures("agent")
def test_a_project_key_signs_for_the_git_server_and_for_nothing_else(host: Any) -> None:
    here = address(host)
    assert good(host, f"{SSH} nlp {THERE} -p 2222 git@{here} echo in").strip() == "in"
    # The same key, the same account, another sshd: it would be let in ...
    assert good(host, f"{THERE} -i ~/.ssh/id_ed25519_corpus -o IdentitiesOnly=yes git@{here} echo in").strip() == "in"
    # ... but the agent does not sign, neither there nor for a further hop.
    refused = run_as(host, "ada", f"{SSH} nlp {THERE} git@{here} echo in || exit 1")
    assert refused.rc == 1
    assert "Permission denied" in refused.stderr
    # Behind another host than the one that was named it does not sign either.
    elsewhere = run_as(
        host, "ada", f"{SSH} -A -o ForwardAgent={SOCKET} peer {THERE} -p 2222 git@{here} echo in || exit 1"
    )
    assert elsewhere.rc == 1
    assert "Permission denied" in elsewhere.stderr


@pytest.mark.usefixtures("agent")
def test_root_on_the_far_side_gets_at_no_other_key(host: Any) -> None:
    """Her own agent holds her own key and stays at home. Root there sees the project's key, limited as above."""
    own = "eval $(ssh-agent) >/dev/null; trap 'kill $SSH_AGENT_PID' EXIT; ssh-add -q ~/.ssh/id_ed25519"
    session = f"{SSH} nlp 'echo $SSH_AUTH_SOCK; sleep 30' >~/there"
    host.run(
        "rm -f /home/ada/there; systemd-run -q -p User=ada -p WorkingDirectory=/home/ada sh -c %s", f"{own}; {session}"
    )
    good(host, "until test -s ~/there; do sleep 0.3; done")
    socket = good(host, "cat ~/there").strip()
    assert socket.startswith("/"), socket
    listed = host.run("SSH_AUTH_SOCK=%s ssh-add -L", socket).stdout.splitlines()
    project = good(host, "ssh-keygen -y -f ~/.ssh/id_ed25519_corpus").split()[1]
    assert [line.split()[1] for line in listed] == [project]
    for target in (f"ada@{address(host)}", f"git@{address(host)}", f"hop@{address(host)}"):
        done = host.run(f"SSH_AUTH_SOCK={socket} {THERE} {target} true || exit 1")
        assert "Permission denied" in done.stderr, target


@pytest.mark.usefixtures("agent")
def test_hosts_without_a_project_get_no_agent(host: Any) -> None:
    own = "eval $(ssh-agent) >/dev/null; trap 'kill $SSH_AGENT_PID' EXIT; ssh-add -q ~/.ssh/id_ed25519"
    assert good(host, f"{own}; {SSH} peer 'echo ${{SSH_AUTH_SOCK:-none}}'").strip() == "none"


def test_keys_are_added_for_a_while_only(host: Any) -> None:
    own = "eval $(ssh-agent) >/dev/null; trap 'kill $SSH_AGENT_PID' EXIT"
    listed = good(host, f"{own}; {SSH} vault true; {SSH} vault true; ssh-add -l; ssh-add -L | wc -l")
    assert listed.strip().endswith("1")
    assert "addkeystoagent 14400" in good(host, "ssh -G vault")


def test_an_agent_that_is_started_late_reaches_a_connection_that_was_there_before(host: Any) -> None:
    good(host, f"{TOOL} close --all")
    before = good(host, f"{SSH} nlp 'ssh-add -l 2>&1; true'")
    assert "SHA256" not in before
    good(host, f"{TOOL} agent corpus")
    assert "SHA256" in good(host, f"{SSH} nlp ssh-add -l")
    good(host, f"{TOOL} close --all; {TOOL} agent corpus stop")
