# SPDX-License-Identifier: GPL-3.0-or-later
"""What people do with it: editors, copies, git, loops over hosts, chains of jumps."""

from __future__ import annotations

from typing import Any

from scc import SSH, TOOL, accepted, good, other

# An editor's remote extension: a shell without a terminal, its commands on standard input, and a SOCKS port beside it.
EDITOR = r"""
import socket, subprocess, sys
port = 28111
ssh = subprocess.Popen(["ssh", "-T", "-D", str(port), "-o", "ConnectTimeout=15", "-o", "BatchMode=yes", "nlp", "bash"],
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
ssh.stdin.write("echo ready: $0 $(hostname)\n")
print(ssh.stdout.readline().strip())
def get(size):
    data = b""
    while len(data) < size:
        part = proxy.recv(size - len(data))
        assert part, data
        data += part
    return data
proxy = socket.create_connection(("127.0.0.1", port))
proxy.sendall(b"\5\1\0")
assert get(2) == b"\5\0"
proxy.sendall(b"\5\1\0\1\x7f\0\0\1" + (2222).to_bytes(2, "big"))
assert get(10)[1] == 0
print(get(8).decode())
proxy.close()
ssh.stdin.write("echo still here\n")
print(ssh.stdout.readline().strip())
ssh.stdin.close()
print("ended with", ssh.wait(20))
"""


def test_an_editors_way_with_ssh(host: Any) -> None:
    good(host, f"{TOOL} close --all")
    host.run("printf %%s %s >/tmp/editor.py", EDITOR)
    lines = good(host, "python3 /tmp/editor.py").splitlines()
    assert lines == [f"ready: bash {host.check_output('hostname')}", "SSH-2.0-", "still here", "ended with 0"]


def test_copies_and_git_go_through_the_same_connection(host: Any) -> None:
    good(host, f"{TOOL} close --all; rm -rf tree back f by-* work repo.git; {SSH} nlp true")
    before = accepted(host)
    good(host, "mkdir -p tree/deep && echo one >tree/deep/f && echo two >f")
    good(host, "scp -q f nlp:by-scp && echo 'put f by-sftp' | sftp -q -b - nlp && cmp f by-scp && cmp f by-sftp")
    good(host, "rsync -a tree/ nlp:by-rsync && rsync -a nlp:by-rsync/ back && diff -r tree back")
    good(host, f"{SSH} nlp git init -q --bare repo.git && git clone -q nlp:repo.git work 2>/dev/null")
    commit = "git -c user.name=a -c user.email=a@example.com commit -q -m first"
    good(host, f"cd work && cp ../f . && git add f && {commit} && git push -q origin HEAD:main && git fetch -q")
    assert good(host, f"{SSH} nlp git -C repo.git show main:f").strip() == "two"
    assert accepted(host) == before
    good(host, f"{TOOL} close --all")


def test_a_loop_over_all_hosts_logs_in_once_at_each(host: Any) -> None:
    """Counted by the journals of both hosts: nlp is here, peer and the bastion are there."""
    there = other(host)
    good(host, f"{TOOL} close --all")
    before = [accepted(host), accepted(there), accepted(there, "hop")]
    loop = f"for i in 1 2 3; do for h in nlp peer; do {SSH} -n $h hostname || exit; done; done"
    assert len(set(good(host, loop).split())) == 2
    assert [accepted(host), accepted(there), accepted(there, "hop")] == [count + 1 for count in before]
    listed = [line.split()[:2] for line in good(host, TOOL).splitlines()]
    assert listed == [["bastion", "open"], ["nlp", "open"], ["peer", "open"]]
    good(host, f"{TOOL} close --all")


def test_a_chain_of_jumps_each_with_its_own_key(host: Any) -> None:
    """far: through the bastion (account hop, key of its own) and way (account ada) to the other host."""
    good(host, f"{TOOL} close --all")
    theirs = good(host, f"{SSH} bastion hostname").strip()
    before = accepted(host)
    assert good(host, f"{SSH} far hostname").strip() == theirs != host.check_output("hostname")
    assert accepted(host) == before + 1
    assert [line.split()[0] for line in good(host, TOOL).splitlines()] == ["bastion", "way", "far"]
    good(host, f"{TOOL} close --all")
