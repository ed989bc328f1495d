# SPDX-License-Identifier: GPL-3.0-or-later
"""The packet filter's pieces, the rule set they make, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import jinja2
import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import firewall, firewall_live
from hypothesis import given
from hypothesis import strategies as st

TEMPLATE = Path(__file__).parents[2] / "roles/host_firewall/templates/firewall.nft.j2"
SSH = {"name": "ssh", "port": 22, "sources": ["192.0.2.0/24", "2001:db8::/32"]}
NLP = {"name": "nlp", "address": "192.0.2.11", "port": 2222, "sources": ["192.0.2.10"]}


def plan(services=(SSH,), egress=(), containers=None, interfaces=("docker0", "br-*"), resolvers=(), log_group=0):
    return firewall.make_plan(
        list(services), list(egress), containers or {}, list(interfaces), list(resolvers), log_group
    )


def render(made, template=TEMPLATE, **more):
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701
    return environment.from_string(template.read_text()).render(
        plan=asdict(made),
        address_type={"ip": "ipv4_addr", "ip6": "ipv6_addr"},
        source={"ip": "ip saddr", "ip6": "ip6 saddr & ffff:ffff:ffff:ffff::"},
        **more,
    )


def test_families_are_kept_apart_and_overlaps_merged():
    (service,) = plan([{**SSH, "sources": ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::1"]}]).services
    assert service["sources"] == {"ip": ["10.0.0.0/8"], "ip6": ["::1"]}


@pytest.mark.parametrize(
    ("text", "limit", "remember"),
    [
        ("12/minute burst 20", "12/minute burst 20 packets", "10m"),
        ("3/second", "3/second burst 5 packets", "1m"),
        ("100/hour burst 1", "100/hour burst 1 packets", "4h"),
    ],
)
def test_rates(text, limit, remember):
    assert firewall.rate(text) == {"limit": limit, "remember": remember}


def test_egress_is_a_set_of_account_address_and_port():
    egress = [
        {"uid": 2001, "name": "ada", "targets": [{"address": "192.0.2.11", "port": 22}, {"address": "::2", "port": 1}]},
        {"uid": 2002, "targets": []},
    ]
    made = plan(egress=egress)
    assert made.egress_uids == [2001, 2002]
    assert made.egress == {"ip": ["2001 . 192.0.2.11 . 22"], "ip6": ["2001 . ::2 . 1"]}


def test_connections_of_those_accounts_are_told_to_a_log_group():
    egress = [{"uid": 2001, "targets": [{"address": "192.0.2.11", "port": 22}]}]
    text = render(plan(egress=egress, log_group=5))
    assert '@egress_ip log prefix "devnode-allow" group 5 queue-threshold 1 counter accept' in text
    assert 'log prefix "devnode-deny" group 5 queue-threshold 1 counter reject' in text
    assert " log prefix" not in render(plan(egress=egress))
    with pytest.raises(firewall.FirewallError, match="host_firewall_egress_log_group: 65536"):
        plan(log_group=65536)


def test_a_host_without_containers_forwards_nothing():
    text = render(plan())
    assert "hook prerouting" not in text
    forward = text[text.index("chain forward") :]
    assert "policy drop" in forward
    assert "accept" not in forward


def test_never_a_flush_of_others():
    text = render(plan(containers={"published": [NLP]}))
    assert "flush" not in text
    assert [line for line in text.splitlines() if line.startswith("delete")] == ["delete table inet devnode"]


def test_published_ports_are_filtered_before_dnat():
    text = render(plan(containers={"published": [NLP], "outbound": False}))
    before = text[text.index("chain before_dnat") : text.index("chain forward")]
    assert "priority -110" in before
    assert "ip daddr 192.0.2.11 tcp dport 2222 ip saddr { 192.0.2.10 } counter accept" in before
    assert before.rstrip().rstrip("}").rstrip().endswith("counter drop")
    last = text[text.index("chain from_containers") :]
    assert "\t\taccept" not in last


def test_a_limited_service_limits_before_it_accepts():
    text = render(plan([{**SSH, "name": "ssh-all", "rate": "12/minute"}]))
    meter = text.index("add @ssh_all_ip_rate { ip saddr limit rate over 12/minute burst 5 packets } counter drop")
    assert meter < text.index("ip saddr @ssh_all_ip tcp dport 22 counter accept")
    assert "add @ssh_all_ip6_rate { ip6 saddr & ffff:ffff:ffff:ffff:: limit" in text


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"services": [{**SSH, "sources": []}]}, ["host_firewall_services[0].sources", "is empty", "0.0.0.0/0"]),
        ({"services": [{**SSH, "sources": ["192.0.2.1/24"]}]}, ["sources[0]", "192.0.2.0/24"]),
        ({"services": [{**SSH, "rate": "often"}]}, ["host_firewall_services[0].rate", '"often"', "burst"]),
        ({"services": [{**SSH, "rate": "1/second} accept"}]}, ["rate"]),
        ({"services": [SSH, SSH]}, ["host_firewall_services[1].name", "twice"]),
        ({"services": [{"name": "ssh"}]}, ["host_firewall_services[0]", "has no port, sources"]),
        ({"services": [{**SSH, "action": "drop"}]}, ["unknown action"]),
        ({"services": [{**SSH, "protocol": "icmp"}]}, ["protocol", "tcp, udp"]),
        ({"egress": [{"uid": 0, "targets": []}]}, ["host_firewall_egress[0].uid"]),
        ({"egress": [{"uid": 2001, "targets": [{"address": "gpu-01", "port": 22}]}]}, ["targets[0].address", "IP"]),
        ({"containers": {"published": [{**NLP, "address": "0.0.0.0/0"}]}}, ["published[0].address"]),
        ({"containers": {"outbond": True}}, ["unknown outbond"]),
        (
            {"containers": {"outbound": True}, "interfaces": ['docker0" accept']},
            ["host_firewall_container_interfaces[0]"],
        ),
        ({"resolvers": ["dns.example"]}, ["host_firewall_egress_resolvers[0]"]),
    ],
)
def test_what_is_refused(given_, words):
    with pytest.raises(firewall.FirewallError) as caught:
        plan(**given_)
    assert all(word in str(caught.value) for word in words), caught.value


def test_all_problems_are_told_at_once():
    with pytest.raises(firewall.FirewallError) as caught:
        plan([{**SSH, "port": 0, "sources": ["x"]}, {}], egress=[{"uid": "x", "targets": 3}])
    assert len(str(caught.value).splitlines()) == 5


def test_a_run_does_not_lock_itself_out():
    made = plan()
    assert firewall.refusals(made, firewall.Present("192.0.2.1", (22,)), []) == []
    assert firewall.refusals(made, firewall.Present("2001:db8::9", (22, 2222)), []) == []
    assert firewall.refusals(made, None, []) == []
    (found,) = firewall.refusals(made, firewall.Present("198.51.100.1", (22,)), [])
    assert "198.51.100.1" in found
    (found,) = firewall.refusals(made, firewall.Present("192.0.2.1", (2222,)), [])
    assert "2222/tcp" in found


def test_containers_are_not_cut_off_by_mistake():
    (found,) = firewall.refusals(plan(), None, ["docker0"])
    assert "docker0" in found
    assert firewall.refusals(plan(containers={"outbound": True}), None, ["docker0"]) == []


# What is good is among them, so that each of the others comes to be the only one that is not.
@given(
    st.just("ssh") | st.text(),
    st.sampled_from(["192.0.2.0/24", "2001:db8::/32"]) | st.text(),
    st.just("12/minute") | st.text(),
    st.sampled_from(["br-*", "docker0"]) | st.text(),
)
def test_nothing_unquotable_gets_into_the_rules(name, source, rate, interface):
    try:
        made = plan(
            [{**SSH, "name": name, "sources": [source], "rate": rate}],
            containers={"outbound": True},
            interfaces=[interface],
        )
    except firewall.FirewallError:
        return
    assert render(made).count("{") == render(made).count("}")
    assert render(made).isascii()


def test_the_hosts_own_name_servers():
    text = "# x\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver\nnameserver bad\nsearch example.org\n"
    assert firewall.name_servers(text) == ["192.0.2.53", "fe80::1"]
    made = firewall.make_plan([SSH], [], {}, [], ["host", "192.0.2.54"], 0, ["192.0.2.53", "::1"])
    assert made.resolvers == {"ip": ["192.0.2.53", "192.0.2.54"], "ip6": ["::1"]}
    with pytest.raises(firewall.FirewallError, match=r"resolv\.conf lists none"):
        firewall.make_plan([SSH], [], {}, [], ["host"], 0, [])


def test_a_name_server_at_the_metadata_address_answers_and_nothing_else_there_does():
    """Google's machines have 169.254.169.254 for both."""
    made = firewall.make_plan([SSH], [], {"outbound": True}, ["br-*"], [], 0, ["169.254.169.254", "192.0.2.53"])
    assert made.metadata_resolvers == {"ip": ["169.254.169.254"], "ip6": []}
    chain = render(made).split("chain from_containers")[1]
    name_server = "ip daddr { 169.254.169.254 } meta l4proto { tcp, udp } th dport 53 counter accept"
    assert chain.index(name_server) < chain.index(
        "ip daddr { 100.100.100.200, 169.254.0.0/16, 192.0.0.192 } counter reject"
    )
    assert "192.0.2.53" not in chain


def test_name_servers_behind_systemd_resolved_count_as_well():
    own, upstream = ["127.0.0.53"], ["169.254.169.254", "fd20:ce::254"]
    made = firewall.make_plan([SSH], [], {"outbound": True}, ["br-*"], [], 0, own, upstream)
    assert made.metadata_resolvers == {"ip": ["169.254.169.254"], "ip6": ["fd20:ce::254"]}


def test_no_name_server_is_let_through_that_is_not_the_hosts_or_when_nothing_goes_out():
    text = render(plan(containers={"outbound": True}))
    assert "dport 53" not in text
    made = firewall.make_plan([SSH], [], {"outbound": False}, ["br-*"], [], 0, ["169.254.169.254"])
    assert "dport 53" not in render(made)


def test_what_containers_may_reach_all_the_same():
    reach = [{"address": "192.0.2.11", "port": 5000}, {"address": "::5", "port": 53, "protocol": "udp"}]
    text = render(plan(containers={"reach": reach}))
    chains = text.split("chain ")
    for name in ("input", "before_dnat", "from_containers"):
        (chain,) = (part for part in chains if part.startswith(name))
        asked = chain.index("ip daddr 192.0.2.11 tcp dport 5000")
        assert asked < chain.index("reject" if name != "before_dnat" else "counter drop"), name
        assert "ip6 daddr ::5 udp dport 53" in chain


@pytest.mark.parametrize("wrong", [{"address": "a"}, {"port": 0}, {"protocol": "icmp"}, {"strange": 1}])
def test_a_wrong_exception_is_refused(wrong):
    with pytest.raises(firewall.FirewallError, match=r"host_firewall_containers\.reach\[0\]"):
        plan(containers={"reach": [{"address": "::1", "port": 1, **wrong}]})
    with pytest.raises(firewall.FirewallError, match="is not a list"):
        plan(containers={"reach": "x"})


def test_the_rules_are_loaded_after_the_guard_and_before_the_network():
    """Rules that nobody confirmed before a restart must not be loaded."""
    unit = (TEMPLATE.parent / "devnode-firewall.service.j2").read_text()
    (after,) = (line for line in unit.splitlines() if line.startswith("After="))
    (before,) = (line for line in unit.splitlines() if line.startswith("Before="))
    assert "devnode-guard-boot.service" in after
    assert {"network-pre.target", "ssh.service", "docker.service"} <= set(before.removeprefix("Before=").split())


def test_a_table_that_was_another_makes_another_file():
    made = plan()
    first = render(made)
    made.again = 3
    (line,) = set(render(made).splitlines()) - set(first.splitlines())
    assert line.startswith("# Loaded again 3 times")
    assert firewall_live.times_again(render(made)) == 3


def test_for_an_emergency_who_is_listed_reaches_what_is_listed():
    egress = [{"uid": 2001, "targets": [{"address": "192.0.2.11", "port": 22}]}]
    made = plan([{**SSH, "rate": "1/minute"}], egress, {"published": [NLP], "reach": [{"address": "::5", "port": 1}]})
    text = render(made, TEMPLATE.parent / "emergency.nft.j2", __host_firewall_rules="/etc/rules")
    assert "ip saddr { 192.0.2.0/24 } tcp dport 22 accept" in text
    assert "ip6 saddr { 2001:db8::/32 } tcp dport 22 accept" in text
    assert "meta skuid { 2001 } reject" in text
    assert text.count("policy drop") == 2
    assert "limit" not in text
    assert "2222" not in text
    assert "flush" not in text


def test_other_rules_and_ours_are_one_transaction():
    drop_in = TEMPLATE.parent / "nftables.service.j2"
    text = render(plan(), drop_in, conf="/etc/nftables.conf", __host_firewall_rules="/etc/rules")
    both = """/usr/sbin/nft 'include "/etc/nftables.conf"; include "/etc/rules"'"""
    assert f"ExecStart=\nExecStart={both}\nExecReload=\nExecReload={both}\n" in text
    text = render(plan(), drop_in, conf="", __host_firewall_rules="/etc/rules")
    assert [line for line in text.splitlines() if line.startswith("Exec")] == [
        "ExecStartPost=/usr/sbin/nft -f /etc/rules",
        "ExecReload=/usr/sbin/nft -f /etc/rules",
        "ExecStopPost=/usr/sbin/nft -f /etc/rules",
    ]
