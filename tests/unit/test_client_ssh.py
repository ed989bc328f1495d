# SPDX-License-Identifier: GPL-3.0-or-later
"""What real ssh makes of a configuration when somebody puts anything at all into the input.

Whatever is taken: the entry that it stands in means what we meant, every other entry means what it meant before, names
that are not ours are read as without us, and not an option beside ours is set.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import client_samples as samples
import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.client_check import parse_views
from ansible_collections.devnode.gpu.plugins.module_utils.client_render import config
from ansible_collections.devnode.gpu.plugins.module_utils.client_view import ClientView, Host
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"


def examples(count: int) -> settings:
    """ssh is started some ten times for each one that is not refused."""
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=count * 10 if FULL else count, deadline=None, suppress_health_check=slow)


STRANGERS = ("github.com", "elsewhere", "gpx-1")


@pytest.fixture(scope="module")
def folder() -> Any:
    with tempfile.TemporaryDirectory(prefix="cl-") as name:
        yield Path(name)


def read(folder: Path, view: ClientView) -> dict[str, samples.Effective]:
    """What ssh reads for every name of a view, and for some that are not in it."""
    path = folder / "config"
    path.write_text(config(view))
    return {name: samples.effective(path, name) for name in (*samples.typed(view), *STRANGERS)}


def hosts(count: int) -> list[dict[str, Any]]:
    return [
        {
            "aliases": [f"host-{number}"],
            "hostname": f"10.0.0.{number + 1}",
            "user": "ada",
            "host_key_alias": "gpu-01",
            "jump": "bastion",
            "forwards": [{"name": "web", "port": 80}],
        }
        for number in range(count)
    ]


odd = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "x\nHost *\n    ProxyCommand id", "x\r\n    ProxyCommand id", "x ProxyCommand id", "* x", "host-1",
            "host-1 github.com", "!host-1", "host-?", "host-*", "*", "hos*", "github.com", '"x"', "'x'", "x#y", "%h",
            "%%", "${HOME}", "$(id)", "`id`", "~", "~/x", "~root/x", "-oProxyCommand=id", "x=y", "none", "no", "yes",
            "10.0.0.2", "bastion", "\u2028x", "x\x00", "x\t", " x", "x ", "\\", "é", "10m", "ci", "8888", "/srv/x",
        ]
    ),
    st.integers(-1, 70000),
    st.booleans(),
)  # fmt: skip
FIELDS = sorted(set(Host.__dataclass_fields__) - {"forwards", "aliases", "identity_files", "host_key_alias"})
change = st.one_of(
    st.tuples(st.sampled_from(FIELDS), odd),
    st.tuples(st.sampled_from(["aliases", "identity_files"]), st.lists(odd, min_size=1, max_size=2)),
    st.tuples(
        st.just("forwards"),
        st.lists(st.fixed_dictionaries({"name": odd, "port": odd}, optional={"host": odd, "path": odd}), max_size=2),
    ),
)


@examples(80)
@given(changes=st.lists(change, min_size=1, max_size=3), pattern=st.booleans())
def test_what_one_entry_says_concerns_no_other(folder: Path, changes: list[tuple[str, Any]], pattern: bool) -> None:
    """One entry is changed in any way. If that is taken, ssh reads the same as before for all the others."""
    before = samples.view(hosts=hosts(3))
    # Its jump is its own business, so nobody jumps through it.
    last = {**hosts(3)[2], **dict(changes)}
    if pattern:
        last = {"aliases": ["hos*"], **{name: last[name] for name in last if name not in ("aliases", "host_key_alias")}}
        raw = samples.raw(hosts=hosts(2), patterns=[last])
    else:
        raw = samples.raw(hosts=[*hosts(2), last])
    views, errors = parse_views([raw])
    if errors:
        return
    (after,) = views
    was, found = read(folder, before), read(folder, after)
    for name in {"office", "bastion", "host-0", "host-1", *STRANGERS} - set(last.get("aliases", ())):
        assert found[name] == was[name], name
    check(after, found)


@examples(25)
@given(
    values=st.lists(
        st.fixed_dictionaries(
            {"hostname": st.sampled_from(["10.0.0.1", "10.0.0.2", "gpu.example.com", "fd00::1"])},
            optional={
                "port": st.integers(1, 65535),
                "user": st.sampled_from(["ada", "grace"]),
                "identity_files": st.lists(st.sampled_from(["~/.ssh/a", "~/.ssh/b"]), unique=True),
                "multiplexing": st.sampled_from(["interactive", "ci", "high_security", "no", "90", "1h"]),
                "agent": st.just("corpus"),
                "compression": st.booleans(),
                "request_tty": st.sampled_from(["yes", "no", "force"]),
                "tmux": st.booleans(),
                "jump": st.sampled_from(["", "bastion", "office"]),
            },
        ),
        min_size=1,
        max_size=4,
    ),
    patterns=st.lists(
        st.tuples(st.sampled_from(["host-*", "hos*", "host-1*", "gpu-?", "bas*"]), st.sampled_from(["a", "b"])),
        unique_by=lambda pair: pair[0],
        max_size=3,
    ),
    platform=st.sampled_from(["linux", "macos", "windows"]),
)
def test_shared_blocks_and_patterns_change_nothing(
    folder: Path, values: list[dict[str, Any]], patterns: list[tuple[str, str]], platform: str
) -> None:
    """Whatever is moved into common blocks and whatever patterns there are, every name ends up with its own options."""
    plain = [
        {"aliases": [f"host-{number}"], "user": "ada", "host_key_alias": "gpu-01", **value}
        for number, value in enumerate(values)
    ]
    wild = [
        {
            "aliases": [alias],
            "hostname": "%h.internal",
            "user": "ada",
            "identity_files": [f"~/.ssh/{key}"],
            "forwards": [{"name": "web", "port": 80}],
        }
        for alias, key in patterns
    ]
    view = samples.view(hosts=plain, patterns=wild, platform=platform)
    check(view, read(folder, view))


def check(view: ClientView, found: dict[str, samples.Effective]) -> None:
    """Every name's options are those we meant, and beside them ssh's own."""
    for name in samples.typed(view):
        samples.compare(view, name, found[name], samples.home(), samples.effective(Path("/dev/null"), name))


def test_a_pattern_beside_thousands_of_names_that_it_fits(folder: Path) -> None:
    """All of them are taken out of it, in a way that ssh reads quickly."""
    names = [{**hosts(1)[0], "aliases": [f"host-{number}"], "forwards": []} for number in range(3000)]
    wild = {"aliases": ["hos*"], "hostname": "%h.internal", "user": "ada", "identity_files": ["~/.ssh/b"]}
    view = samples.view(hosts=names, patterns=[wild])
    (folder / "config").write_text(config(view))
    for name in ("host-0", "host-2999", "hoszzz"):
        found = samples.effective(folder / "config", name)
        samples.compare(view, name, found, samples.home(), samples.effective(Path("/dev/null"), name))
