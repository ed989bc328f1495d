# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the table in effect is the one that was meant, and whose rules are loaded along."""

from __future__ import annotations

import json

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import firewall_live

DEBIAN = """[Service]
Type=oneshot
ExecStart=/usr/sbin/nft -f /etc/nftables.conf
ExecReload=/usr/sbin/nft -f /etc/nftables.conf
ExecStop=/usr/sbin/nft flush ruleset
"""


def listing(**more):
    """As nft prints it, with what changes all the time."""
    number = more.pop("number", 1)
    rule = {"counter": {"packets": number, "bytes": number}}
    port = {"match": {"op": "==", "left": "tcp dport", "right": {"set": more.get("ports", [22, 80])}}}
    rate = {"name": "rate", "flags": more.get("flags", ["timeout", "dynamic"]), "elem": [f"192.0.2.{number}"]}
    return json.dumps(
        {
            "nftables": [
                {"metainfo": {"version": "1.0.6", "number": number}},
                {"table": {"family": "inet", "name": "devnode", "handle": number}},
                {"set": {"name": "ssh_ip", "handle": number, "elem": more.get("sources", ["192.0.2.1", "192.0.2.2"])}},
                {"set": rate},
                *[
                    {"rule": {"handle": number, "expr": [port, rule, {one: None}]}}
                    for one in more.get("do", ["accept"])
                ],
            ]
        }
    )


def test_counts_numbers_order_and_what_a_rate_remembers_do_not_matter():
    assert firewall_live.same(listing(number=1), listing(number=2))
    # As nft 1.0.6 shows the set of a rate.
    assert firewall_live.same(listing(number=1, flags=["timeout"]), listing(number=2, flags=["timeout"]))
    assert firewall_live.same(listing(), listing(sources=["192.0.2.2", "192.0.2.1"], ports=[80, 22]))


@pytest.mark.parametrize(
    "other",
    [
        {"sources": ["192.0.2.1", "192.0.2.2", "198.51.100.7"]},
        {"sources": []},
        {"ports": [22]},
        {"do": ["drop"]},
        {"do": []},
        {"do": ["accept", "accept"]},
    ],
)
def test_what_filters_otherwise_is_another_table(other):
    assert not firewall_live.same(listing(), listing(**other))


@pytest.mark.parametrize("text", ["", "Error: No such file or directory", "[]", "{}", "3"])
def test_what_cannot_be_read_is_not_the_same(text):
    assert not firewall_live.same(text, text)
    assert not firewall_live.same(listing(), text)


def test_rules_in_another_order_are_another_table():
    assert not firewall_live.same(listing(do=["accept", "drop"]), listing(do=["drop", "accept"]))


def test_how_often_it_was_loaded_again():
    assert firewall_live.times_again("# x\n# Loaded again 3 times, because\n") == 3
    assert firewall_live.times_again("table inet devnode\n") == 0
    assert firewall_live.times_again('add rule comment "# Loaded again 3 times"') == 0


def test_the_distributions_file():
    assert firewall_live.loaded_by(DEBIAN) == "/etc/nftables.conf"


@pytest.mark.parametrize(
    "unit",
    [
        "",
        DEBIAN.replace("ExecReload=/usr/sbin/nft -f /etc/nftables.conf", "ExecReload=/sbin/nft 'flush ruleset'"),
        DEBIAN.replace("ExecReload", "ExecStart"),
        DEBIAN.replace("ExecReload=/usr/sbin/nft -f /etc/nftables.conf", "ExecReload=/usr/sbin/nft -f /etc/other"),
        DEBIAN + "ExecStart=/usr/local/sbin/more\n",
        DEBIAN.replace("/etc/nftables.conf", "/etc/two words"),
        DEBIAN.replace("/etc/nftables.conf", '/etc/"; flush ruleset'),
    ],
)
def test_a_unit_that_does_something_else_is_left_as_it_is(unit):
    assert firewall_live.loaded_by(unit) == ""


def test_a_file_of_somebody_else_for_the_unit_counts_when_it_has_commands():
    assert firewall_live.loaded_by(DEBIAN, ["[Unit]\nAfter=x.service\n# ExecStart=\n"]) == "/etc/nftables.conf"
    for command in (
        "ExecStart=\nExecStart=/usr/sbin/nft -f /etc/site.nft",
        "ExecStartPost = /bin/true",
        " ExecReload=",
    ):
        assert firewall_live.loaded_by(DEBIAN, ["", f"[Service]\n{command}\n"]) == ""
