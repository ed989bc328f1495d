# SPDX-License-Identifier: GPL-3.0-or-later
"""Role ssh_server on a host whose sshd_config includes nothing, and how it is taken away again."""

from __future__ import annotations

from scenario_hosts import play, root, ssh

HOST = "debian12"
MAIN = "/etc/ssh/sshd_config"


def on_host(script):
    return root(HOST, script)


def ok(*arguments):
    done = play("--limit", HOST, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_an_include_one_is_added_and_goes_again():
    # An image of somebody's own, whose sshd_config is one file.
    on_host(f"cp -p {MAIN} /root/main; sed -i '/^Include/d' {MAIN}; chmod 600 {MAIN}; cp -p {MAIN} /root/own")
    assert "+Include /etc/ssh/sshd_config.d/*-devnode*.conf" in ok("--diff")
    # What others put there was not in effect before, and is not now.
    on_host("printf 'MaxSessions 7\\n' > /etc/ssh/sshd_config.d/60-others.conf")
    text = on_host(f"sshd -T; stat -c 'mode %a' {MAIN}")
    for line in ("passwordauthentication no", "maxsessions 64", "logingracetime 30", "mode 600"):
        assert f"\n{line}\n" in text, line
    # Somebody goes on working with the rest of the file: that is theirs.
    on_host(f"echo 'PrintMotd no' >> {MAIN}")
    assert "changed=0" in ok()
    ok("-e", "ssh_server_state=absent")
    assert on_host(f"cmp {MAIN} /root/own; rm /etc/ssh/sshd_config.d/60-others.conf") == ""
    left = on_host("ls /etc/ssh/sshd_config.d /etc/sudoers.d /usr/local/sbin /etc; getent passwd ops || :")
    assert "devnode" not in left
    assert "ops" not in left
    assert ssh(HOST, "true").returncode == 0
    # And on with the others' tests.
    on_host(f"mv /root/main {MAIN}; rm /root/own")
    ok()
    assert "devnode" not in on_host(f"cat {MAIN}")
