# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""file_set without guard: what a host looks like afterwards."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Hosts

SET = "/var/lib/devnode/file_set"


def file(path: str, content: str = "x\n", **more: Any) -> dict[str, Any]:
    return {"path": path, "content": content, **more}


def changed(results: dict[str, Any]) -> set[bool]:
    assert not any(result.get("failed") for result in results.values()), results
    return {result["changed"] for result in results.values()}


def failures(results: dict[str, Any]) -> list[str]:
    assert all(result.get("failed") for result in results.values()), results
    return [result["msg"] for result in results.values()]


def test_what_converge_asked_for_is_in_effect(hosts: Hosts) -> None:
    assert hosts.answer("systemctl is-active demo.service; systemctl is-enabled demo.service") == "active\nenabled"
    assert hosts.answer("cat /etc/demo/greeting.conf") == "# greeting.conf.j2\nHello Ada\nHello Grace"
    assert hosts.answer("stat -c %U:%G:%a /var/lib/demo /etc/demo/secret") == ("ada:demo-people:750\nroot:root:600")
    assert hosts.answer("sshd -T | grep -i ^maxsessions") == "maxsessions 20"
    people = "getent shadow ada relay | cut -d: -f1,2; stat -c %U:%a /home/ada; ls -d /nonexistent"
    assert hosts.answer(people) == "ada:*\nrelay:*\nada:700"


def test_many_files_in_one_round_trip(hosts: Hosts) -> None:
    files = [file(f"/etc/many/{number % 7}/{number}", f"{number}\n") for number in range(60)]
    results = hosts.put("many", *files, options=("-vvv",))
    assert changed(results) == {True}
    for host in hosts.names:
        assert hosts.output.count(f"<{host}> SSH: EXEC ssh") == 1
    assert hosts.answer("cat /etc/many/*/* | sort -n | md5sum") == hosts.on("debian12", "seq 0 59 | md5sum")
    assert hosts.answer("find /etc/many | wc -l; ls -A /etc/many/6") == "68\n13\n20\n27\n34\n41\n48\n55\n6"
    assert changed(hosts.put("many", *files)) == {False}
    # A deleted entry is a removed file; directories go with the last one.
    results = hosts.put("many", *files[:1])
    assert [len(result["removed"]) for result in results.values()] == [65, 65]
    assert hosts.answer("find /etc/many -type f") == "/etc/many/0/0"
    assert changed(hosts.put("many", state="absent")) == {True}
    assert hosts.answer(f"ls -d /etc/many {SET}/many.json 2>/dev/null") == ""


def test_check_mode_shows_and_does_nothing(hosts: Hosts) -> None:
    options = ("--check", "--diff")
    wanted = [file("/etc/checked/a", "new\n"), file("/etc/checked/s", "hush-hush-value\n", sensitive=True)]
    look = "find /etc /var/lib/devnode /run/devnode* -ls 2>/dev/null | sort | md5sum"
    before = [hosts.on(host, look) for host in hosts.names]
    results = hosts.put("checked", *wanted, options=options, activate=[{"argv": ["touch", "/etc/activated"]}])
    assert changed(results) == {True}
    for result in results.values():
        text = json.dumps(result["diff"])
        assert "new\\n" in text
        assert "mode 0644" in text
        assert "hush-hush" not in text
        assert result["changed_paths"] == ["/etc/checked", "/etc/checked/a", "/etc/checked/s"]
    assert [hosts.on(host, look) for host in hosts.names] == before


def test_secrets_are_in_no_log(hosts: Hosts) -> None:
    secret = "correct-" + "horse-battery"
    for number in (1, 2):
        wanted = file("/etc/hush", f"{secret}-{number}\n", sensitive=True, mode="0600")
        # The check prints the file; what it prints is not for the log either.
        results = hosts.put("hush", wanted, options=("--diff",), verify=[{"argv": ["cat", "/etc/hush"]}])
        assert changed(results) == {True}
        assert secret not in hosts.output
    assert hosts.answer('cat /etc/hush; journalctl --no-pager | grep -c "[c]orrect-horse"') == f"{secret}-2\n0"


def test_a_set_that_does_not_pass_changes_nothing(hosts: Hosts) -> None:
    hosts.put("refused", file("/etc/ssh/sshd_config.d/20-a.conf", "MaxAuthTries 5\n"), file("/etc/refused", "old\n"))
    # The check sees all of it at its real place: the new file, and not the one that is no longer listed.
    see = "cat /etc/refused; test ! -e /etc/ssh/sshd_config.d/20-a.conf && echo gone; /usr/sbin/sshd -t"
    results = hosts.put(
        "refused",
        file("/etc/refused", "new\n"),
        file("/etc/ssh/sshd_config.d/20-b.conf", "NoSuchOption yes\n"),
        validate=[{"argv": ["sh", "-c", see]}],
        activate=[{"argv": ["touch", "/run/activated-anyway"]}],
    )
    for text in failures(results):
        assert "nothing was changed" in text
        assert "new\ngone\n" in text
        assert "NoSuchOption" in text
    assert hosts.answer("cat /etc/refused; ls /etc/ssh/sshd_config.d") == (
        "old\n10-converge.conf\n20-a.conf\n50-cloud-init.conf"
    )
    left = "ls -d /run/activated-anyway /run/devnode-staging*; grep -c devnode /proc/1/mountinfo"
    assert hosts.answer(left) == "0"


def test_without_overlay_the_checks_see_copies(hosts: Hosts) -> None:
    """A container whose kernel stacks no overlays: the same, by other means."""
    hosts.put("copied", file("/etc/copied/a", "old\n"))
    program = '#!/bin/sh\ncase "$*" in *overlay*) exit 32;; esac\nexec /usr/bin/mount "$@"\n'
    hosts.put("no_overlay", file("/usr/local/sbin/mount", program, mode="0755"))
    see = "cat /etc/copied/b; test ! -e /etc/copied/a && echo gone; mount | grep -c overlay.*/etc; exit 1"
    results = hosts.put("copied", file("/etc/copied/b", "new\n"), validate=[{"argv": ["sh", "-c", see]}])
    for text in failures(results):
        assert text.endswith("new\ngone\n0")
    assert hosts.answer("ls /etc/copied") == "a"
    hosts.put("no_overlay", state="absent")


def test_what_others_changed_is_reported_before_it_is_replaced(hosts: Hosts) -> None:
    wanted = [file("/etc/foreign/a", "ours\n"), file("/etc/foreign/b", "ours\n"), file("/etc/foreign/seed", seed=True)]
    hosts.put("foreign", *wanted)
    hosts.everywhere("echo theirs > /etc/foreign/a; chmod 600 /etc/foreign/b; echo theirs > /etc/foreign/seed")
    for result in hosts.put("foreign", *wanted).values():
        found = {item["path"]: item["what"] for item in result["foreign"]}
        assert found == {"/etc/foreign/a": "content", "/etc/foreign/b": "mode"}
        assert len(result["warnings"]) == 2
        backup = result["backup"]
    assert hosts.answer("cat /etc/foreign/a /etc/foreign/seed; stat -c %a /etc/foreign/b") == "ours\ntheirs\n644"
    assert "theirs" in hosts.on("debian13", f"cat {backup}/old/*")
    # Somebody else's file keeps the directory; the seed is theirs now.
    hosts.everywhere("echo theirs > /etc/foreign/other")
    for result in hosts.put("foreign", state="absent").values():
        assert result["kept"] == ["/etc/foreign"]
    assert hosts.answer("ls /etc/foreign; rm -r /etc/foreign") == "other\nseed"


def test_what_a_set_took_over_is_as_before_when_it_goes(hosts: Hosts) -> None:
    hosts.everywhere("cd /etc; echo distro > taken; chown 1:2 taken; chmod 640 taken; ln -sf taken taken-link")
    names = ("/etc/taken", "/etc/taken-link")
    assert changed(hosts.put("taken", *(file(name, "ours\n") for name in names))) == {True}
    # Kept over further changes, also when they are interrupted or taken back.
    hosts.put("taken", *(file(name, "ours again\n") for name in names))
    assert failures(hosts.put("taken", state="absent", verify=[{"argv": ["false"]}]))
    assert hosts.answer("cat /etc/taken /etc/taken-link") == "ours again\nours again"
    for result in hosts.put("taken", state="absent", options=("--diff",)).values():
        assert (result["originals"], result["removed"]) == (list(names), [])
        assert "distro\n" in json.dumps(result["diff"]).replace("\\n", "\n")
    look = "cat /etc/taken; stat -c %u:%g:%a /etc/taken; readlink /etc/taken-link; rm /etc/taken*"
    assert hosts.answer(look) == "distro\n1:2:640\ntaken"
    assert hosts.answer("ls /var/lib/devnode/original") == ""


def test_two_sets_do_not_fight_over_a_file(hosts: Hosts) -> None:
    hosts.put("mine", file("/etc/contested"))
    for text in failures(hosts.put("yours", file("/etc/contested", "y"), file("relative"))):
        assert "files[0].path: '/etc/contested' belongs to the file set 'mine'" in text or "files[1].path" in text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            # Seen on the controller.
            [
                {"path": "/etc/a"},
                {"path": "/etc/b", "content": "", "src": "y"},
                {"path": "/etc/c", "template": "no-such.j2"},
                {"path": "/etc/d", "state": "directory", "content": ""},
            ],
            [
                "files[0] (/etc/a): needs exactly one of template, content, src, program; it has none",
                "files[1] (/etc/b): needs exactly one of template, content, src, program; it has content, src",
                "no-such.j2",
                "files[3] (/etc/d): needs none of template, content, src, program",
            ],
        ),
        (
            # Seen in the list itself.
            [
                file("relative"),
                file("/etc/a/../b"),
                file("/etc/new\nline"),
                file("/etc/c", mode=420),
                file("/etc/d", owner="nobody-here"),
                {"path": "/etc/e", "state": "link"},
            ],
            ["files[3].mode: 420 has to be octal and in quotes", "no user 'nobody-here'", "files[5].target"],
        ),
        (
            [file("relative"), file("/etc/a/../b"), file("/etc/new\nline"), file("/etc/c"), file("/etc/c")],
            ["'relative' is not absolute", "'/etc/b'", "control character", "'/etc/c' is listed already, as files[3]"],
        ),
        # Seen on the host.
        ([file("/var/run/a"), file("/etc")], ["'/var/run' is a link to '/run'", "'/etc' is a directory with contents"]),
    ],
)
def test_all_wrong_inputs_are_refused_together_and_in_words(
    hosts: Hosts, wrong: list[dict[str, Any]], words: list[str]
) -> None:
    (text,) = failures(hosts.play("put", {"name": "wrong", "files": wrong}, only="debian13"))
    assert [word for word in words if word not in text] == [], text
    assert "Traceback" not in hosts.output


def test_a_failing_verification_brings_the_old_files_back(hosts: Hosts) -> None:
    count = [{"argv": ["sh", "-c", "cat /etc/verified >> /run/activated"]}]
    hosts.put("verified", file("/etc/verified", "old\n"), activate=count)
    results = hosts.put(
        "verified",
        file("/etc/verified", "new\n"),
        file("/etc/verified.d/more"),
        activate=count,
        verify=[{"argv": ["sh", "-c", "echo it does not answer; exit 4"]}],
    )
    for text in failures(results):
        assert "the old files were put back" in text
        assert "ended with 4: it does not answer" in text
    assert hosts.answer("cat /etc/verified /run/activated; ls -d /etc/verified.d; rm /run/activated") == (
        "old\nold\nnew\nold"
    )
    assert changed(hosts.put("verified", file("/etc/verified", "old\n"))) == {False}


def test_a_killed_run_is_finished_by_the_next(hosts: Hosts) -> None:
    wanted = [file("/etc/killed/a", "new\n"), file("/etc/killed/b", "new\n")]
    hosts.put("killed", file("/etc/killed/a", "old\n"), file("/etc/killed/gone", "old\n"))
    slow = {"argv": ["sh", "-c", "echo began >> /run/killed; sleep 60"], "timeout": 90}
    run = hosts.start("killed", *wanted, activate=[slow])
    for host in hosts.names:
        hosts.until(lambda host=host: "began" in hosts.inside(host, "cat /run/killed"))  # type: ignore[misc]
    hosts.kill(run)
    hosts.answer("pkill -9 -x python3; pkill -9 -x sleep")
    # Every file was written, the service was never told. Now nothing differs any more, and still there is work.
    results = hosts.put("killed", *wanted, activate=[{"argv": ["sh", "-c", "echo told >> /run/killed"]}])
    assert changed(results) == {True}
    assert {result["resumed"] for result in results.values()} == {True}
    assert {str(result["foreign"]) for result in results.values()} == {"[]"}
    assert hosts.answer("cat /run/killed; cat /etc/killed/*; rm /run/killed; ls -A /etc/killed") == (
        "began\ntold\nnew\nnew\na\nb"
    )
    assert changed(hosts.put("killed", *wanted)) == {False}
