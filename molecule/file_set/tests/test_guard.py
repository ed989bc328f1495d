# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard: whatever cuts the controller off, the host is back by itself, and says so."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conftest import EPHEMERAL, Hosts

CONF = "/etc/ssh/sshd_config.d/05-guarded.conf"
RESTART = [{"argv": ["systemctl", "restart", "ssh.service"]}]
WINDOW = {"window": 5}
OLD = "LogLevel VERBOSE\n"


def sshd(content: str, **more: Any) -> dict[str, Any]:
    return {"path": CONF, "content": content, **more}


def policy(hosts: Hosts, content: str, **more: Any) -> dict[str, Any]:
    more = {"activate": RESTART, "guard": WINDOW, **more}
    return hosts.put("guarded", sshd(content), **more)


def back_on_the_old_policy(hosts: Hosts, reason: str) -> None:
    for host in hosts.names:
        assert hosts.on(host, f"cat {CONF}") == OLD.strip()
        assert hosts.on(host, "sshd -T | grep -ix 'loglevel verbose'")
        journal = hosts.journal(host)
        assert f"file set guarded: putting the old files back: {reason}" in journal
        assert f"rolled back: {CONF}" in journal


def test_a_good_change_is_confirmed_over_a_new_connection(hosts: Hosts) -> None:
    for result in policy(hosts, OLD).values():
        assert result["changed"]
        assert result["guard"]["phase"] == "confirmed"
        assert result["rollback"] is None
    assert hosts.answer("ls /var/lib/devnode/transaction /run/devnode-guard") == (
        "/run/devnode-guard:\n\n/var/lib/devnode/transaction:"
    )
    assert hosts.answer("systemctl is-enabled devnode-guard-boot.service") == "enabled"
    # Nothing to change: nothing to guard, and one round trip.
    for result in policy(hosts, OLD).values():
        assert not result["changed"]
        assert result["guard"] is None


def test_sshd_on_a_wrong_port(hosts: Hosts) -> None:
    for result in policy(hosts, "Port 2222\n").values():
        assert result["failed"]
        assert not result["changed"]
        assert result["rollback"]["restored"] == [CONF]
        assert "put the old files back by itself (no new connection confirmed it within 5 s)" in result["msg"]
        assert "port 22" in result["msg"]
    back_on_the_old_policy(hosts, "no new connection confirmed it within 5 s")


def test_the_next_port_is_where_the_confirmation_comes_from(hosts: Hosts) -> None:
    for result in policy(hosts, "Port 2222\nPort 22\n", guard={**WINDOW, "port": 2222}).values():
        assert result["guard"]["phase"] == "confirmed"
    for result in policy(hosts, OLD, guard={**WINDOW, "port": 2222}).values():
        assert result["failed"]
        assert "Connection refused" in result["msg"]
    assert hosts.answer("sshd -T | grep -c ^port") == "2"
    for result in policy(hosts, OLD).values():
        assert result["guard"]["phase"] == "confirmed"


def test_an_sshd_that_does_not_start(hosts: Hosts) -> None:
    for result in policy(hosts, "NoSuchOption yes\n").values():
        assert result["failed"]
        assert "activate failed: `systemctl restart ssh.service` ended with 1" in result["msg"]
    back_on_the_old_policy(hosts, "activate failed")


def test_a_rule_that_drops_the_controller(hosts: Hosts) -> None:
    """Also what is connected already gets no answer any more: the run must not hang on it."""
    table = "table inet guarded_test"
    rules = f"{table}\ndelete {table}\n{table} {{\n chain in {{\n  type filter hook input priority 0;\n  %s\n }}\n}}\n"
    load = [{"argv": ["nft", "-f", "/etc/guarded.nft"]}]
    wall: dict[str, Any] = {"activate": load, "guard": WINDOW}
    good = {"path": "/etc/guarded.nft", "content": rules % "tcp dport 23 drop"}
    bad = {"path": "/etc/guarded.nft", "content": rules % "tcp dport 22 drop"}
    hosts.put("wall", good, **wall)
    for result in hosts.put("wall", bad, **wall).values():
        assert result["failed"]
        assert result["rollback"]["reason"] == "no new connection confirmed it within 5 s"
    for host in hosts.names:
        ruleset = hosts.on(host, "nft list ruleset")
        assert "dport 23 drop" in ruleset
        assert "dport 22 drop" not in ruleset
        assert "file set wall: rolled back: /etc/guarded.nft" in hosts.journal(host)
    # The first of its kind leaves nothing to load again; reactivate says what to do instead.
    hosts.put("wall", state="absent", activate=[{"argv": ["nft", "delete", *table.split()]}])
    undo = [{"argv": ["nft", "delete", *table.split()]}]
    results = hosts.put("wall", bad, reactivate=undo, **wall)
    assert all(result["rollback"]["errors"] == [] for result in results.values()), results
    assert hosts.answer("nft list tables | grep guarded; ls /etc/guarded.nft") == ""


def start_and_wait_until_applied(hosts: Hosts, window: int) -> Any:
    """A change that nobody can confirm, up to the moment in which it is in effect."""
    run = hosts.start("guarded", sshd("Port 2222\n"), activate=RESTART, guard={"window": window})
    for host in hosts.names:
        hosts.until(lambda host=host: "waiting" in hosts.inside(host, "cat /var/lib/devnode/guard/guarded/state.json"))
        assert "2222" in hosts.inside(host, "ss -Htln")
    return run


def next_run_reports(hosts: Hosts, reason: str) -> None:
    for result in policy(hosts, OLD).values():
        assert not result["changed"]
        assert reason in result["rollback"]["reason"]
        assert reason in result["warnings"][0]
    for result in policy(hosts, OLD).values():
        assert result["rollback"] is None


def test_ansible_is_killed_before_the_confirmation(hosts: Hosts) -> None:
    hosts.kill(start_and_wait_until_applied(hosts, 5))
    # At once, while the change is still there: the next run waits for the end of it.
    next_run_reports(hosts, "no new connection confirmed it within 5 s")
    back_on_the_old_policy(hosts, "no new connection confirmed it within 5 s")


def test_a_soft_reboot_before_the_confirmation(hosts: Hosts) -> None:
    """/run stays, and with it the sign that nothing was restarted; but nobody watches any more. (systemd from 254.)
    It takes this container's own mounts away, so the next test, which restarts it, has to follow."""
    run = hosts.start("guarded", sshd("Port 2222\n"), only="debian13", activate=RESTART, guard={"window": 600})
    state = "cat /var/lib/devnode/guard/guarded/state.json"
    hosts.until(lambda: "waiting" in hosts.inside("debian13", state))
    hosts.kill(run)
    hosts.soft_reboot("debian13")
    assert hosts.on("debian13", f"cat {CONF}") == OLD.strip()
    assert "the host restarted before the change was confirmed" in hosts.journal("debian13")
    (result,) = hosts.play("put", {"name": "guarded", "files": [sshd(OLD)]}, only="debian13").values()
    assert result["rollback"]["restored"] == [CONF]


def test_the_hosts_restart_before_the_confirmation(hosts: Hosts) -> None:
    hosts.kill(start_and_wait_until_applied(hosts, 600))
    for host in hosts.names:
        hosts.reboot(host)
    back_on_the_old_policy(hosts, "the host restarted before the change was confirmed")
    for host in hosts.names:
        # Before sshd started, so that there was never a moment with the unconfirmed policy.
        order = hosts.on(host, "systemctl show -P ActiveEnterTimestampMonotonic devnode-guard-boot ssh").split()
        assert int(order[0]) < int(order[1])
        assert "2222" not in hosts.on(host, "journalctl --no-pager -o cat -b -u ssh.service | tail -n 20")
    next_run_reports(hosts, "the host restarted before the change was confirmed")


def test_the_service_is_killed_and_goes_on(hosts: Hosts) -> None:
    run = start_and_wait_until_applied(hosts, 5)
    for host in hosts.names:
        hosts.inside(host, "systemctl kill -s KILL devnode-guard@guarded.service")
    hosts.kill(run)
    hosts.until(
        lambda: all(
            "rolled_back" in hosts.inside(host, "cat /var/lib/devnode/guard/guarded/state.json") for host in hosts.names
        )
    )
    back_on_the_old_policy(hosts, "no new connection confirmed it within 5 s")
    policy(hosts, OLD)


def test_removed_keys_do_not_come_back(hosts: Hosts) -> None:
    def wanted(content: str, *keys: str) -> list[dict[str, Any]]:
        listed = [{"path": f"/etc/guarded-keys/{key}", "content": f"{key}\n", "never_restore": True} for key in keys]
        return [{"path": "/etc/guarded-keys/policy", "content": content}, *listed]

    hosts.put("keys", *wanted("old\n", "ada", "leaver"))
    for result in hosts.put("keys", *wanted("new\n", "ada"), verify=[{"argv": ["false"]}], guard=WINDOW).values():
        assert result["failed"]
        assert result["rollback"]["not_restored"] == ["/etc/guarded-keys/leaver"]
    assert hosts.answer("cat /etc/guarded-keys/policy; ls /etc/guarded-keys") == "old\nada\npolicy"
    hosts.put("keys", state="absent")
    assert hosts.answer("ls -d /etc/guarded-keys") == ""


def test_a_shared_connection_to_the_bastion_proves_nothing(hosts: Hosts) -> None:
    """debian13 through debian12, whose connection is shared. The bastion stops taking new connections: the shared one
    still works, and must not be what confirms."""
    config = EPHEMERAL / "shared_config"
    config.write_text(
        f"Host debian12\n  ControlMaster auto\n  ControlPath {EPHEMERAL}/shared\n  ControlPersist 60\n"
        f"Host debian13\n  ProxyJump debian12\nMatch all\nInclude {EPHEMERAL}/ssh_config\n"
    )
    ssh = ["ssh", "-F", str(config)]
    through = ("--extra-vars", f"ansible_ssh_common_args='-F {config}'", "--extra-vars", "ansible_host=debian13")
    wanted = {"name": "behind", "files": [{"path": "/etc/behind", "content": "1\n"}], "guard": WINDOW}
    try:
        subprocess.run([*ssh, "debian13", "true"], check=True)
        result = hosts.play("put", wanted, *through, only="debian13")["debian13"]
        assert result["guard"]["phase"] == "confirmed"
        closed = "type filter hook input priority 0;\n tcp dport 22 ct state new reject"
        rules = f"table inet hop {{\n chain in {{\n {closed}\n }}\n}}"
        hosts.on("debian12", f"nft -f - <<END\n{rules}\nEND")
        subprocess.run([*ssh, "debian13", "true"], check=True)
        wanted["files"] = [{"path": "/etc/behind", "content": "2\n"}]
        with ThreadPoolExecutor() as pool:
            run = pool.submit(hosts.play, "put", wanted, *through, only="debian13")
            state = "/var/lib/devnode/guard/behind/state.json"
            hosts.until(lambda: "rolled_back" in hosts.inside("debian13", f"cat {state}"), 30)
            assert hosts.inside("debian13", "cat /etc/behind") == "1"
            hosts.inside("debian12", "nft delete table inet hop")
            result = run.result()["debian13"]
        assert result["rollback"]["reason"] == "no new connection confirmed it within 5 s"
    finally:
        hosts.inside("debian12", "nft delete table inet hop")
        subprocess.run([*ssh, "-O", "exit", "debian12"], check=False, capture_output=True)


def test_nothing_of_all_this_stays_behind(hosts: Hosts) -> None:
    # (.confirmed-NAME answers once more who was not heard.)
    places = "/var/lib/devnode/guard /var/lib/devnode/transaction /run/devnode-guard"
    assert hosts.answer(f"find {places} -type f ! -name '.confirmed-*'") == ""
    assert hosts.answer("systemctl list-units --all --plain --no-legend 'devnode-guard@*'") == ""
