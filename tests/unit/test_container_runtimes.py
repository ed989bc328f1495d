# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd, CRI-O and Podman: what their configuration becomes, and that it can be taken back to the letter.

What containerd itself makes of these texts is shown with real ones in molecule/nvidia_container_toolkit.
"""

from __future__ import annotations

import tomllib

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import containerd_config as cc
from ansible_collections.devnode.gpu.plugins.module_utils import dockerd, gpu_host, other_runtimes
from hypothesis import given
from hypothesis import strategies as st

DEBIAN = """version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"""
OWN_RUNTIME = """version = 2
# imports = ["/nowhere"]
imports = [
  "/etc/containerd/registries/*.toml",  # ours
]
[plugins."io.containerd.grpc.v1.cri"]
  enable_cdi = false
  sandbox_image = "pause:1"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
"""
V3 = "version = 3\n\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = ['/usr/lib/cni']\n"
TEXTS = ["", "version = 2\n", DEBIAN, OWN_RUNTIME, V3, 'imports = ["/etc/containerd/conf.d/*.toml"]\nversion = 2\n']
texts = st.one_of(
    st.sampled_from(TEXTS),
    st.lists(st.sampled_from([*OWN_RUNTIME.splitlines(), *V3.splitlines(), "", "# words", "[grpc]"])).map(
        lambda lines: "".join(f"{line}\n" for line in lines)
    ),
)


def cri(text: str) -> dict[str, object]:
    return tomllib.loads(text)["plugins"]["io.containerd.grpc.v1.cri"]


@given(texts, st.booleans(), st.booleans())
def test_what_was_added_can_be_taken_back(text: str, cdi: bool, runtime: bool) -> None:
    for made in (cc.in_place(text, cdi, runtime), cc.with_import(text, 3)):
        assert cc.plain(made) == text
        assert cc.plain(cc.plain(made)) == cc.plain(made)
    assert cc.in_place(cc.in_place(text, cdi, runtime), cdi, runtime) == cc.in_place(text, cdi, runtime)
    assert cc.with_import(cc.with_import(text, 3), 3) == cc.with_import(text, 3)


@pytest.mark.parametrize("text", ["", "version = 2\n", DEBIAN, OWN_RUNTIME])
def test_containerd_1_gets_the_lines_into_its_file_and_keeps_the_others(text: str) -> None:
    made = cc.in_place(text, cdi=True, runtime=True)
    before = tomllib.loads(text).get("plugins", {}).get("io.containerd.grpc.v1.cri", {})
    after = cri(made)
    assert after["enable_cdi"] is True
    runtimes = after.pop("containerd")["runtimes"]  # type: ignore[attr-defined]
    assert runtimes["runc"]["runtime_type"] == "io.containerd.runc.v2"
    assert runtimes["nvidia"]["options"]["BinaryName"] == cc.RUNTIME
    assert runtimes["nvidia"]["options"].get("SystemdCgroup", False) is ("SystemdCgroup" in text)
    del after["enable_cdi"]
    assert after == {key: value for key, value in before.items() if key not in ("enable_cdi", "containerd")}
    assert tomllib.loads(made)["version"] == 2


def test_a_runtime_that_somebody_set_up_already_stays_as_it_is() -> None:
    text = OWN_RUNTIME + '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]\n  runtime_type = "own"\n'
    made = cri(cc.in_place(text, cdi=True, runtime=True))
    assert made["containerd"]["runtimes"]["nvidia"] == {"runtime_type": "own"}  # type: ignore[index]


@pytest.mark.parametrize("text", TEXTS)
def test_containerd_2_reads_the_drop_ins_beside_what_it_read_before(text: str) -> None:
    made = tomllib.loads(cc.with_import(text, 3))
    before = tomllib.loads(text)
    assert made["imports"] == list(dict.fromkeys([*before.get("imports", []), cc.PATTERN]))
    assert made["version"] == before.get("version", 3)
    assert made.get("plugins") == before.get("plugins")


@pytest.mark.parametrize(("version", "name"), [(2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.runtime")])
def test_the_drop_in_speaks_the_format_of_the_main_file(version: int, name: str) -> None:
    made = tomllib.loads(cc.drop_in(version, OWN_RUNTIME, cdi=True, runtime=True))
    assert made["version"] == version
    assert made["plugins"][name]["enable_cdi"] is True
    runtime = made["plugins"][name]["containerd"]["runtimes"]["nvidia"]
    assert runtime["options"] == {"BinaryName": cc.RUNTIME, "SystemdCgroup": True}
    assert "containerd" not in tomllib.loads(cc.drop_in(version, "", cdi=True, runtime=False))["plugins"][name]


def test_what_containerd_shows() -> None:
    shown = cc.effect(
        'disabled_plugins = ["cri"]\nversion = 2\n    enable_cdi = true\n'
        '        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n'
        "        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]\n"
        '          [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\n'
    )
    assert shown == cc.Effect(cdi=True, runtimes={"runc", "nvidia"}, cri=False)
    plan = other_runtimes.plan(["containerd"], {"containerd": "1.7.24"}, nvidia_runtime=True, coming=False)
    good = cc.Effect(cdi=True, runtimes={"runc", "nvidia"}, cri=True)
    runc = cc.Effect(cdi=False, runtimes={"runc"}, cri=True)
    assert other_runtimes.trouble(runc, good, plan) == ""
    assert "lose the runtime runc" in other_runtimes.trouble(runc, cc.Effect(True, {"nvidia"}, True), plan)
    assert "CDI off" in other_runtimes.trouble(runc, cc.Effect(False, {"runc", "nvidia"}, True), plan)
    assert "not know the nvidia" in other_runtimes.trouble(runc, cc.Effect(True, {"runc"}, True), plan)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+deb13u1", (1, 7, 24)),
        ("containerd github.com/containerd/containerd/v2 2.1.9+unknown ", (2, 1, 9)),
        ("containerd containerd.io v1.7.27 05044ec0a9a7", (1, 7, 27)),
        ("Docker version 26.1.5+dfsg1, build a72d7cd", (26, 1, 5)),
        ("podman version 4.3.1", (4, 3, 1)),
        ("crio version 1.30.0\nVersion: 1.30.0", (1, 30, 0)),
        ("", ()),
    ],
)
def test_versions_as_the_programs_print_them(said: str, version: tuple[int, ...]) -> None:
    assert other_runtimes.version_of(said) == version


@pytest.mark.parametrize(
    ("name", "version", "cdi", "older_format"),
    [
        ("containerd", "1.6.20", False, False),
        ("containerd", "1.7.2", True, True),
        ("containerd", "1.7.24", True, False),
        ("containerd", "2.1.9", True, False),
        ("podman", "4.3.1", True, True),
        ("podman", "5.4.2", True, False),
        ("crio", "1.22.0", False, False),
        ("crio", "1.31.0", True, False),
        ("docker", "20.10.24", False, False),
        ("docker", "25.0.3", True, True),
        ("docker", "28.5.2", True, False),
    ],
)
def test_what_each_version_can(name: str, version: str, cdi: bool, older_format: bool) -> None:
    made = other_runtimes.plan([name], {name: version}, nvidia_runtime=False, coming=False)
    assert made.errors == []
    assert made.cdi[name] is cdi
    assert made.nvidia_runtime[name] is not cdi
    assert bool(made.features) is older_format
    assert bool(made.notes) is (older_format or (not cdi and name != "docker"))


def test_refusals() -> None:
    def errors(*names: str, coming: bool = False, **said: str) -> list[str]:
        return other_runtimes.plan(names, said, nvidia_runtime=False, coming=coming).errors

    assert '"rkt" is not a runtime' in errors("rkt", coming=True)[0]
    assert "Allowed: docker, containerd, crio, podman" in errors("rkt")[0]
    assert "podman is asked for, and this host has none" in errors("podman")[0]
    assert errors("podman", coming=True) == []
    assert "podman 3.0.1 knows no CDI" in errors("podman", podman="podman version 3.0.1")[0]
    assert errors("docker") == []


def test_crio_gets_a_file_of_its_own() -> None:
    made = tomllib.loads(other_runtimes.crio_drop_in(cdi=True, runtime=True))["crio"]["runtime"]
    assert made["cdi_spec_dirs"] == ["/etc/cdi", "/var/run/cdi"]
    assert made["runtimes"]["nvidia"] == {"runtime_path": cc.RUNTIME, "runtime_type": "oci"}
    assert "runtimes" not in tomllib.loads(other_runtimes.crio_drop_in(cdi=True, runtime=False))["crio"]["runtime"]


def test_gpu_info_names_every_runtime_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "/usr/bin/containerd": "containerd github.com/containerd/containerd 1.7.24~ds1",
        "/usr/bin/podman": "podman version 5.4.2",
    }
    monkeypatch.setattr(dockerd, "find", lambda name: f"/usr/bin/{name}" if f"/usr/bin/{name}" in said else None)
    monkeypatch.setattr(dockerd, "ask", lambda *_args, **_more: None)
    found = gpu_host.engine(lambda argv: (0, said[argv[0]], ""))
    assert found == {"docker": "", "cdi": False, "containerd": "1.7.24", "crio": "", "podman": "5.4.2"}
