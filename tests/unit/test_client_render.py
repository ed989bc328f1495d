# SPDX-License-Identifier: GPL-3.0-or-later
"""What is rendered: golden files, what ssh reads in them, and that no input can break out of its place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import client_samples as samples
import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.client_check import parse_views
from ansible_collections.devnode.gpu.plugins.module_utils.client_options import TMUX, all_options, local_ports
from ansible_collections.devnode.gpu.plugins.module_utils.client_render import (
    NAMES_PER_BLOCK,
    config,
    installed,
    kit,
    known_hosts,
)
from ansible_collections.devnode.gpu.plugins.module_utils.version import GENERATOR
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GOLDEN = Path(__file__).parent / "golden" / "client"
ROOT = Path(__file__).resolve().parents[2]

# Every keyword that may stand in a configuration of ours, and since when ssh knows it.
KEYWORDS = {
    "HostName": (2, 0), "HostKeyAlias": (2, 0), "Port": (2, 0), "User": (2, 0), "ProxyJump": (7, 3),
    "ProxyCommand": (2, 0), "Compression": (2, 0), "UserKnownHostsFile": (2, 0), "GlobalKnownHostsFile": (2, 0),
    "StrictHostKeyChecking": (2, 0), "UpdateHostKeys": (6, 8), "CheckHostIP": (2, 0), "IdentityFile": (2, 0),
    "IdentitiesOnly": (3, 9), "PreferredAuthentications": (2, 0), "AddKeysToAgent": (7, 2), "ForwardAgent": (2, 0),
    "ControlMaster": (3, 9), "ControlPath": (3, 9), "ControlPersist": (5, 6), "ServerAliveInterval": (3, 8),
    "ServerAliveCountMax": (3, 8), "ConnectTimeout": (3, 7), "KexAlgorithms": (5, 7), "Ciphers": (2, 0),
    "LocalForward": (2, 0), "RequestTTY": (5, 9), "RemoteCommand": (7, 6),
}  # fmt: skip


@pytest.mark.parametrize("name", samples.VARIANTS)
def test_golden_files(name: str) -> None:
    """The text itself. After a change on purpose: DEVNODE_GOLDEN=write, and read the difference."""
    view = samples.view(**samples.VARIANTS[name])
    for found in installed(view, "devnode.gpu X.Y.Z"):
        if found.asset:
            continue
        path = GOLDEN / name / found.name
        if os.environ.get("DEVNODE_GOLDEN") == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found.content)
        assert found.content == path.read_text()


@pytest.mark.parametrize(
    ("declared", "asked"),
    [
        ({}, False),
        ({"openssh": "8.4"}, False),
        ({"openssh": "8.5"}, True),
        ({"openssh": "8.9", "platform": "macos"}, True),
        ({"openssh": "8.9", "fast_algorithms": False}, True),
        ({"openssh": "8.9", "platform": "windows"}, False),
        ({"openssh": "9.0"}, False),
    ],
)
def test_an_ssh_that_offers_what_we_ask_for_only_when_told_is_told(declared: dict[str, Any], asked: bool) -> None:
    text = config(samples.view(**declared))
    assert ("KexAlgorithms ^sntrup761x25519-sha512@openssh.com" in text) == asked
    assert "KexAlgorithms" not in text or asked


@pytest.mark.parametrize("name", samples.VARIANTS)
def test_ssh_reads_what_we_mean(name: str, tmp_path: Path) -> None:
    """Every option of every alias, as ssh -G gives it back."""
    view = samples.view(**samples.VARIANTS[name])
    if "mlkem" in config(view) and samples.ssh_version() < (9, 9):
        pytest.skip(f"for OpenSSH {view.openssh}; here is {samples.ssh_version()}. The role's scenario has 10.0.")
    path, bare = tmp_path / "config", Path("/dev/null")
    names = samples.typed(view)
    path.write_text(config(view))
    for name in names:
        samples.compare(view, name, samples.effective(path, name), samples.home(), samples.effective(bare, name))
    # What a person may have below our Include must not show through.
    path.write_text(config(view) + samples.HOSTILE)
    for name in names:
        samples.compare(view, name, samples.effective(path, name), samples.home())


def test_others_are_left_alone(tmp_path: Path) -> None:
    path, empty = tmp_path / "config", tmp_path / "empty"
    path.write_text(config(samples.view()))
    empty.write_text("")
    for other in ("github.com", "gp-1", "nlp.example.com", "xnlp", "bastio"):
        assert samples.effective(path, other) == samples.effective(empty, other), other


def test_the_more_exact_name_wins_over_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(config(samples.view()))
    assert samples.effective(path, "gpu-01")["hostname"] == ["10.20.0.11"]
    assert samples.effective(path, "gpu-07")["hostname"] == ["gpu-07.internal"]
    assert samples.effective(path, "gpu-07")["proxyjump"] == ["bastion"]


def test_aliases_with_another_agent_or_key_never_share_a_connection() -> None:
    first = {"aliases": ["one"], "hostname": "10.0.0.1", "user": "ada", "host_key_alias": "gpu-01"}
    others: list[dict[str, Any]] = [
        {"agent": "corpus"},
        {"identity_files": ["~/.ssh/other"]},
        {"jump": "bastion"},
        {"compression": True},
        # Another key at the same place: who shared the connection would not look at it.
        {"host_key_alias": "bastion"},
    ]
    for change in others:
        view = samples.view(hosts=[first, {**first, "aliases": ["two"], **change}], patterns=[])
        options = all_options(view, {})
        paths = [options[id(host)]["ControlPath"] for host in view.hosts]
        assert paths[0] != paths[1], change
    view = samples.view(hosts=[first, {**first, "aliases": ["two"]}], patterns=[])
    options = all_options(view, {})
    assert len({options[id(host)]["ControlPath"] for host in view.hosts}) == 1


def test_no_sharing_and_no_foreign_agent_where_it_cannot_be() -> None:
    windows = samples.view(platform="windows")
    assert "ControlMaster no" in config(windows)
    assert "auto" not in config(windows)
    for view in (windows, samples.view(openssh="8.0")):
        assert "agent-corpus" not in config(view)
    assert [found.name for found in kit(windows)] == ["config", "known_hosts", "README.md", "install.ps1"]


def test_local_ports_are_stable_and_never_collide() -> None:
    few = samples.view()
    extra = [
        {
            "aliases": [f"more-{number}"],
            "hostname": "10.20.0.13",
            "port": 3000 + number,
            "user": "ada",
            "host_key_alias": "gpu-01",
            "forwards": [{"name": "jupyter", "port": 8888}, {"name": "tensorboard", "port": 6006}],
        }
        for number in range(100)
    ]
    many = samples.view(hosts=extra + samples.raw()["hosts"])
    ports = local_ports(many)
    assert len(set(ports.values())) == len(ports) == 203
    assert local_ports(few).items() <= ports.items()
    assert ports[("vision", "jupyter")] == 18888
    assert local_ports(many) == local_ports(samples.view(hosts=list(reversed(extra + samples.raw()["hosts"]))))


def test_known_hosts_is_one_that_ssh_keygen_reads(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(known_hosts(samples.view()))
    for name in ("bastion", "nlp.gpu-01"):
        done = subprocess.run(["ssh-keygen", "-F", name, "-f", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done
    assert "10.20.0.11" not in path.read_text()


def test_only_keywords_that_the_client_knows() -> None:
    for changes in samples.VARIANTS.values():
        view = samples.view(**changes)
        for line in config(view).splitlines():
            if line.startswith("    ") and not line.startswith("    #"):
                assert KEYWORDS[line.split()[0]] <= view.version, line


def test_version_is_the_collections() -> None:
    text = (ROOT / "galaxy.yml").read_text()
    parts = dict(re.findall(r"^(namespace|name|version): (\S+)$", text, re.MULTILINE))
    assert f"{parts['namespace']}.{parts['name']} {parts['version']}" == GENERATOR


def test_every_asset_is_there() -> None:
    for changes in samples.VARIANTS.values():
        for found in kit(samples.view(**changes)):
            assert not found.asset or (ROOT / "roles/ssh_client_config/files" / found.asset).is_file()


# ---- no input can add a line or change what others get ------------------------------------------------------------

NASTY = [*"\n\r\x00\u2028\x85\"'\\%# *!-=é;\t", "$(id)", "`id`"]
plain = st.text("abc09.-", max_size=6)
text = st.one_of(
    st.text(max_size=20),
    plain,
    st.builds("{}{}{}".format, plain, st.sampled_from(NASTY), plain),
    st.sampled_from(["nlp\nHost *", "x\n    ProxyCommand id", "-oProxyCommand=id", "~/../x", "/a/../b", "a,b", "a *"]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a view a text stands."""
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in places(part, (*path, key))]
    if isinstance(value, list):
        return [found for index, part in enumerate(value) for found in places(part, (*path, index))]
    return [path]


def replaced(path: tuple[Any, ...], new: Any) -> dict[str, Any]:
    """VIEW with one value replaced."""
    more = {"control_dir": "~/.ssh/s", "home": "/home/ada", "account": "ada", "openssh": "9.2", "multiplexing": "10m"}
    result = samples.raw(**more, add_keys_to_agent="1h")
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = new
    return result


PLACES = places(replaced(("person",), "ada"))


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(PLACES), new=text)
def test_no_input_can_break_out_of_its_place(path: tuple[Any, ...], new: str) -> None:
    views, errors = parse_views([replaced(path, new)])
    if errors:
        assert all("\n" not in error for error in errors)
        return
    view = views[0]
    aliases = {alias for host in view.entries for alias in host.aliases}
    lines = config(view).split("\n")
    before = config(samples.view()).split("\n")
    for line in lines:
        assert line.isprintable()
        if line.startswith("Host "):
            assert set(line.split(" ")[1:]) <= aliases
        elif line.strip() and not line.lstrip().startswith("#"):
            assert re.fullmatch(r"    ([A-Za-z]+) [^\"'\\`$#]+", line), line
            assert line.split()[0] in KEYWORDS
    # Blocks may be shared differently; names, hosts and forwards are as many as before.
    for word in ("HostName", "LocalForward", "HostKeyAlias"):
        assert count(lines, word) == count(before, word)
    assert all(re.fullmatch(r"#.*|(@\S+ )?\S+ \S+ \S+", line) for line in known_hosts(view).splitlines())


def count(lines: list[str], word: str) -> int:
    return sum(line.startswith(f"    {word} ") for line in lines)


host_values = st.fixed_dictionaries(
    {
        "hostname": st.sampled_from(["10.0.0.1", "10.0.0.2", "gpu.example.com", "fd00::1"]),
        "user": st.sampled_from(["ada", "grace"]),
        "host_key_alias": st.sampled_from(["gpu-01", "bastion"]),
    },
    optional={
        "port": st.integers(1, 65535),
        "kind": st.sampled_from(["host", "workspace"]),
        "identity_files": st.lists(st.sampled_from(["~/.ssh/a", "/k/b"]), unique=True),
        "multiplexing": st.sampled_from(["interactive", "ci", "high_security", "no", "90", "1h"]),
        "agent": st.just("corpus"),
        "compression": st.booleans(),
        "own_agent": st.booleans(),
        "request_tty": st.sampled_from(["yes", "no", "force"]),
        "tmux": st.booleans(),
        "jump": st.sampled_from(["", "bastion", "office"]),
        "forwards": st.lists(
            st.fixed_dictionaries({"name": st.just("web"), "port": st.integers(1, 65535)}), max_size=1
        ),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hosts=st.lists(host_values, max_size=6), platform=st.sampled_from(["linux", "macos", "windows"]))
def test_sharing_options_changes_nothing_for_any_host(hosts: list[dict[str, Any]], platform: str) -> None:
    """Whatever moves into common blocks, each alias ends up with its own options: read as ssh reads them."""
    named = [{**host, "aliases": [f"host-{index}"]} for index, host in enumerate(hosts)]
    for host in named:
        host["own_agent"] = host.get("own_agent", False) and "agent" not in host
    view = samples.view(hosts=named, patterns=[], platform=platform, identities_outside_home=True)
    options = all_options(view, local_ports(view))
    for host in view.entries:
        meant = options[id(host)]
        assert resolve(config(view), host.aliases[0]) == meant
        if host.tmux:
            assert resolve(config(view), host.tmux_alias) == {**meant, **TMUX}
    assert resolve(config(view), "github.com") == {}


def resolve(content: str, alias: str) -> dict[str, tuple[str, ...]]:
    """ssh_config's rule for plain names: the first value wins, and repeatable options add up."""
    options: dict[str, tuple[str, ...]] = {}
    active = True
    for line in content.splitlines():
        word, _, value = line.strip().replace("ProxyCommand none", "ProxyJump none").partition(" ")
        if word.startswith("#") or not word:
            continue
        if word == "Host":
            active = alias in value.split(" ")
        elif active and word in ("IdentityFile", "LocalForward"):
            options[word] = (*options.get(word, ()), value)
        elif active:
            options.setdefault(word, (value,))
    return options


def test_a_large_view() -> None:
    """No absolute time is asserted; this keeps the big case alive and its text in bounds."""
    hosts = [
        {
            "aliases": [f"ws-{number}"],
            "hostname": f"10.1.{number // 250}.{number % 250}",
            "user": "ada",
            "jump": "bastion",
            "host_key_alias": f"ws-{number}",
        }
        for number in range(1000)
    ]
    known = [{"names": [f"ws-{number}"], "keys": [samples.key(1)]} for number in range(1000)]
    view = samples.view(hosts=hosts, known_hosts=samples.raw()["known_hosts"] + known, patterns=[])
    lines = config(view).split("\n")
    assert len(lines) < 1000 * 5 + 12 * 40
    assert max(len(line.split()) for line in lines if line.startswith("Host ")) == NAMES_PER_BLOCK + 1
    assert resolve("\n".join(lines), "ws-999")["UserKnownHostsFile"] == ("~/.ssh/devnode/known_hosts",)


def test_shell_files_parse() -> None:
    for name in ("devnode-ssh", "install.sh"):
        path = ROOT / "roles/ssh_client_config/files" / name
        for shell in ("dash", "bash", "busybox"):
            if shutil.which(shell):
                argv = [shell, "sh", "-n", str(path)] if shell == "busybox" else [shell, "-n", str(path)]
                assert subprocess.run(argv, capture_output=True).returncode == 0
