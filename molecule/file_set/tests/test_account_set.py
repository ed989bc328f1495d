# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""account_set: who is on a host afterwards."""

from __future__ import annotations

from typing import Any

from conftest import Hosts

NOLOGIN = "/usr/sbin/nologin"


def person(name: str, uid: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "uid": uid, "group": "crowd", **more}


def accounts(hosts: Hosts, *people: dict[str, Any], options: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    wanted = {"name": "crowd", "groups": [{"name": "crowd"}], "accounts": list(people), **more}
    return hosts.play("accounts", wanted, *options)


def test_a_crowd_comes_and_goes(hosts: Hosts) -> None:
    crowd = [person(f"p{n}", 4000 + n, home="/nonexistent", create_home=False, **{"shell": NOLOGIN}) for n in range(15)]
    checked = accounts(hosts, *crowd, options=("--check", "--diff"))
    assert {len(result["created"]) for result in checked.values()} == {15}
    assert hosts.answer("getent passwd p0") == ""
    accounts(hosts, *crowd)
    assert hosts.answer("getent shadow | grep -c '^p[0-9]*:[*]:'") == "15"
    assert {result["changed"] for result in accounts(hosts, *crowd).values()} == {False}
    hosts.everywhere("usermod -aG sudo -s /bin/bash p1; userdel p2")
    for result in accounts(hosts, *crowd).values():
        assert (result["created"], result["updated"]) == (["p2"], ["p1"])
    assert hosts.answer("id -nG p1; getent passwd p1 | cut -d: -f7") == "crowd\n/usr/sbin/nologin"
    for result in accounts(hosts, *crowd[:1]).values():
        assert len(result["removed"]) == 14
    assert hosts.answer("getent passwd | grep -c '^p[0-9]'") == "1"
    accounts(hosts, groups=[])
    assert hosts.answer("getent passwd p0; getent group crowd; ls /var/lib/devnode/account_set") == ("converge.json")


def test_a_leaver_is_out_at_once(hosts: Hosts) -> None:
    accounts(hosts, person("eve", 4500))
    # Two processes on the host, and one with her number in a container-like place of its own.
    eve = "setpriv --reuid 4500 --regid 100 --clear-groups"
    hosts.everywhere(
        f"for stubborn in : 'trap : TERM'; do setsid {eve} sh -c \"$stubborn; while sleep 0.1; do :; done\" "
        f">/dev/null 2>&1 </dev/null & done; setsid unshare --pid --fork {eve} sleep 600 "
        f">/dev/null 2>&1 </dev/null & sleep 0.5"
    )
    assert hosts.answer("pgrep -c -u 4500 sh") == "2"
    for result in accounts(hosts).values():
        assert result["removed"] == ["eve"]
        assert result["ended"] >= 2
        assert result["kept_homes"] == ["/home/eve"]
    left = "getent passwd eve; pgrep -u 4500 -x sh; pgrep -c -u 4500 -x sleep; ls -d /home/eve"
    assert hosts.answer(left) == "1\n/home/eve"
    hosts.answer("pkill -9 -u 4500; rm -r /home/eve")


def test_somebody_elses_account_is_refused(hosts: Hosts) -> None:
    clashes = [person("automation", 4600), person("dave", 2001)]
    for result in accounts(hosts, *clashes, person("root2", 0), person("ada", 2001)).values():
        assert result["failed"]
        assert "accounts[2].uid: 0 (root2) belongs to the system" in result["msg"]
        assert "accounts[3].uid: 2001 has been given to accounts[1] already" in result["msg"]
    for result in accounts(hosts, *clashes, person("fred", 4601)).values():
        assert "'automation' exists on this host with uid 1000" in result["msg"]
        assert "2001 (dave) belongs to 'ada'" in result["msg"]
    assert hosts.answer("getent passwd dave fred; id -u automation") == "1000"
