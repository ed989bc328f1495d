# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways of working beside plain ssh: tmux, mosh, and connections that are there before the first command."""

from __future__ import annotations

from typing import Any

from scc import SSH, TOOL, full_run, good, run_as

# A terminal for programs that want one.
ON_A_TERMINAL = "TERM=xterm LC_ALL=C.UTF-8 script -qec"


@full_run
def test_the_tmux_name_attaches_and_what_runs_there_outlives_the_line(host: Any) -> None:
    # A connection that is there: of two that start at once, only one could be the shared one.
    good(host, f"{TOOL} close --all; tmux kill-server 2>/dev/null; {SSH} nlp true")
    unit = "systemd-run -q -p User=ada -p WorkingDirectory=/home/ada"
    host.check_output(f"{unit} -E TERM=xterm sh -c %s", "script -qec 'ssh -o BatchMode=yes nlp-tmux' /dev/null")
    sessions = f"timeout 20 sh -c 'until {SSH} nlp tmux ls 2>/dev/null | {{}}; do sleep 0.3; done'"
    good(host, sessions.format('grep -q "main:.*attached"'))
    good(host, f"{TOOL} close nlp")
    good(host, sessions.format("grep main: | grep -qv attached"))
    # The plain name is none of this: copies go through it.
    good(host, f"echo x >f && scp -q -o BatchMode=yes f nlp:by-scp && {SSH} nlp tmux kill-server")


@full_run
def test_mosh_where_a_way_for_udp_was_declared(host: Any) -> None:
    good(host, f"{SSH} peer rm -f by-mosh")
    # The keys wait for a prompt, as a person would.
    typed = "(sleep 2; echo 'hostname >by-mosh'; sleep 1; echo exit; sleep 2)"
    good(host, f"{typed} | {ON_A_TERMINAL} 'stty rows 24 cols 80; {TOOL} mosh peer' /dev/null")
    assert good(host, f"{SSH} peer 'cat by-mosh && rm by-mosh'").strip() != host.check_output("hostname")
    refused = run_as(host, "ada", f"{TOOL} mosh nlp")
    assert refused.rc == 1
    assert 'mosh does not reach "nlp"; there are: peer' in refused.stderr


def test_the_way_in_is_open_before_the_first_command(host: Any) -> None:
    good(host, f"{TOOL} close --all")
    assert "bastion: open" in good(host, f"{TOOL} warm")
    assert good(host, TOOL).split()[:2] == ["bastion", "open"]
    good(host, f"{TOOL} close --all")


@full_run
def test_prewarm_is_a_unit_of_the_persons_own_and_goes_again(host: Any) -> None:
    host.check_output("loginctl enable-linger ada")
    try:
        user = f"export XDG_RUNTIME_DIR=/run/user/{host.user('ada').uid};"
        good(host, f"{user} until systemctl --user show -p Version >/dev/null 2>&1; do sleep 0.3; done")
        assert "prewarm: on" in good(host, f"{user} {TOOL} prewarm on")
        assert ["bastion", "open"] in [line.split()[:2] for line in good(host, TOOL).splitlines()]
        # As at the next login.
        good(host, f"{TOOL} close --all; {user} systemctl --user restart devnode-prewarm.service")
        assert ["bastion", "open"] in [line.split()[:2] for line in good(host, TOOL).splitlines()]
        good(host, f"{user} {TOOL} prewarm off")
        assert run_as(host, "ada", "ls .config/systemd/user/devnode-prewarm.service").rc != 0
        assert good(host, TOOL) == "no open connection\n"
    finally:
        host.run("loginctl disable-linger ada")
