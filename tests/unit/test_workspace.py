"""Workspaces as data: what is refused, what a container is made of, what the container's own program writes."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_host as host
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_image
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_preflight as preflight
from ansible_collections.devnode.gpu.plugins.module_utils.ssh_keys import public_key
from ansible_collections.devnode.gpu.plugins.module_utils.topology_plan import node_plan
from hypothesis import given
from hypothesis import strategies as st
from unit.fleet import key, loaded

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBkz1jAoIKYsCwz6jJNDiJRvbwqz624gk6E5pAA/we7G"
NLP = {
    "name": "nlp",
    "port": 2201,
    "bind_address": "10.0.0.11",
    "owner": {"name": "ada", "uid": 2001},
    "members": [{"name": "grace", "uid": 2002}],
    "keys": {"ada": [KEY]},
    "gpus": ["nvidia.com/gpu=0"],
    "env": {"NOTE": "a b"},
}
OPTIONS = model.Options(image="devnode/pytorch-sshd:1")


def nlp(**changes: Any) -> model.Workspace:
    workspaces, problems = model.parse([{**NLP, **changes}])
    assert problems == []
    return workspaces[0]


@pytest.fixture(scope="module")
def inside() -> ModuleType:
    """The program that runs in the container."""
    sys.path.insert(0, str(ROOT / "roles" / "pytorch_sshd" / "files" / "image"))
    try:
        return importlib.import_module("devnode_workspace")
    finally:
        sys.path.pop(0)


def test_certificates_count_for_the_login_that_they_name_and_revoked_keys_for_nobody() -> None:
    authority, other = key("ca"), key("other")
    given = nlp(keys={"ada": [KEY, other]}, user_ca_keys=[authority], revoked_keys=[other])
    files = {entry["path"]: entry.get("content") for entry in model.config_files([given], OPTIONS)}
    folder = "/etc/devnode/workspaces/nlp"
    ca = public_key(authority).bare
    assert files[f"{folder}/keys/grace"] == f'cert-authority,principals="grace" {ca}\n'
    assert files[f"{folder}/keys/ada"].splitlines()[-1] == f'cert-authority,principals="ada" {ca}'
    assert files[f"{folder}/revoked_keys"] == f"{public_key(other).bare}\n"
    config = json.loads(files[f"{folder}/workspace.json"] or "")
    prints = [public_key(one).fingerprint for one in (KEY, authority)]
    assert config["keys"] == {"ada": prints, "grace": prints[1:]}
    assert config["revoked"] == [public_key(other).fingerprint]
    # An authority that is itself revoked lets nobody in.
    config = json.loads(model.config_json(nlp(user_ca_keys=[authority], revoked_keys=[authority]), OPTIONS))
    assert config["keys"]["grace"] == []


# --- reading


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("name", "a b", "is not a plain name"),
        ("name", "-x", "is not a plain name"),
        ("port", 0, "is out of range"),
        ("port", "22; reboot", "not a whole number"),
        ("bind_address", "0.0.0.0", "is not the address of one host"),  # noqa: S104
        ("bind_address", "gpu-01", "is not an IP address"),
        ("owner", {"name": "root", "uid": 2001}, "is an account that systems have"),
        ("owner", {"name": "ada", "uid": 0}, "is out of range"),
        ("owner", "ada", "is not a mapping with name and uid"),
        ("members", [{"name": "ada", "uid": 2003}], "is the name of two people"),
        ("members", [{"name": "eve", "uid": 2001}], "is the uid of two people"),
        ("keys", {"eve": [KEY]}, "is neither owner nor member"),
        ("keys", {"ada": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "is a private key"),
        ("user_ca_keys", ["ssh-dss AAAA"], "DSA"),
        ("revoked_keys", ["a\nb"], "more than one line"),
        ("gpus", ["0"], "is not a GPU"),
        ("gpus", ["nvidia.com/gpu=0 --privileged"], "is not a GPU"),
        ("gpus", "all", "is not a list"),
        ("shm_size", "much", "is not a size"),
        ("memory", "1", "is less than the engine accepts"),
        ("pids", 3, "is out of range"),
        ("stop_grace", 601, "is out of range"),
        ("ulimits", {"--privileged": 1}, "is not one of the choices"),
        ("ulimits", {"nofile": "5:4"}, "has a soft limit above its hard limit"),
        ("ulimits", {"nofile": "many"}, "is not a limit"),
        ("sudo", "perhaps", "is neither true nor false"),
        ("mounts", [{"source": "/data", "target": "/etc/ssh"}], "belongs to the workspace's own system"),
        ("mounts", [{"source": "/", "target": "/data"}], "control over the host"),
        ("mounts", [{"source": "/run/docker.sock", "target": "/data"}], "control over the host"),
        ("mounts", [{"source": "/a,readonly=false", "target": "/data"}], "is not a plain absolute path"),
        ("env", {"A B": "1"}, "is not a name for an environment variable"),
        ("env", {"A": "1\nB=2"}, "has control characters"),
        ("known_hosts", ["@cert-authority * ssh-ed25519 AAAA"], "does not begin with host names"),
        ("exempt_networks", ["10.0.0.1/8"], "has bits set behind its prefix"),
        ("image", "pytorch", "does not say which version it is"),
        ("image", "pytorch:latest", "does not say which version it is"),
        ("state", "gone", "is not one of the choices"),
    ],
)
def test_refused_with_its_place_and_value(place: str, value: Any, says: str) -> None:
    _, problems = model.parse([{**NLP, place: value}])
    assert any(f"pytorch_sshd_workspaces[0].{place}" in text and says in text for text in problems), problems


def test_all_problems_at_once() -> None:
    _, problems = model.parse([{**NLP, "name": "A", "port": 0}, {**NLP, "owner": {}}])
    assert len(problems) >= 4


def test_clashes_name_the_other() -> None:
    other = {**NLP, "name": "vision"}
    _, problems = model.parse([NLP, other])
    assert 'pytorch_sshd_workspaces[1].port: 2201 is the address and port of workspace "nlp" too.' in problems
    assert any('claimed by workspace "nlp" too (nvidia.com/gpu=0)' in text for text in problems)
    _, problems = model.parse([NLP, {**other, "port": 2202, "gpus": ["nvidia.com/gpu=all"]}])
    assert len(problems) == 1
    shared = [{**NLP, "gpu_shared": True}, {**other, "port": 2202, "gpu_shared": True}]
    assert model.parse(shared)[1] == []


def test_what_the_plan_gives_is_what_the_role_takes() -> None:
    topology = loaded()
    specs = yaml.safe_load((ROOT / "roles/pytorch_sshd/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    known = set(specs["options"]["pytorch_sshd_workspaces"]["options"])
    for node in ("gpu-01", "gpu-02"):
        given_specs = node_plan(topology, node)["workspaces"]
        workspaces, problems = model.parse(given_specs)
        assert problems == []
        assert workspaces
        assert all(set(spec) <= known for spec in given_specs)


def test_absent_is_not_there() -> None:
    assert model.parse([{**NLP, "state": "absent"}]) == ([], [])


ODD = st.text("az09 \n-=$%,\"'/é", max_size=9)
SPEC_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*NLP, "mounts", "shm_size", "image"]), SPEC_VALUES))
def test_no_input_breaks_the_reader(changes: dict[str, Any]) -> None:
    workspaces, problems = model.parse([{**NLP, **changes}])
    if not problems:
        for item in workspaces:
            words = model.create_arguments(item, OPTIONS)
            assert all(isinstance(word, str) and "\n" not in word for word in words)
            assert len(words) % 2 == 1


# --- files and container


def test_files_are_for_the_container_and_hold_each_persons_keys() -> None:
    entries = {entry["path"]: entry for entry in model.config_files([nlp()], OPTIONS)}
    assert entries["/etc/devnode/workspaces/nlp/keys/ada"]["content"] == f"{KEY}\n"
    assert entries["/etc/devnode/workspaces/nlp/keys/grace"]["content"] == ""
    described = json.loads(entries["/etc/devnode/workspaces/nlp/workspace.json"]["content"])
    assert described["environment"] == ["NOTE"]
    assert KEY not in json.dumps(described)


def test_a_rollback_brings_nobody_back() -> None:
    folder = "/etc/devnode/workspaces/nlp"
    kept = {entry["path"] for entry in model.config_files([nlp()], OPTIONS) if entry.get("never_restore")}
    assert kept == {f"{folder}/{name}" for name in ("workspace.json", "revoked_keys", "keys/ada", "keys/grace")}


def test_people_keys_and_jupyter_need_no_new_container() -> None:
    same = nlp(members=[], keys={}, jupyter=False, agent_forwarding=True, known_hosts=[f"git.example.org {KEY}"])
    assert model.shape(same, OPTIONS) == model.shape(nlp(), OPTIONS)
    assert model.config_digest(same, OPTIONS) != model.config_digest(nlp(), OPTIONS)


@pytest.mark.parametrize(
    "change",
    [
        {"port": 2202},
        {"gpus": []},
        {"shm_size": "1g"},
        {"memory": "2g"},
        {"env": {}},
        {"mounts": [{"source": "/data", "target": "/data"}]},
    ],
)
def test_what_does_need_one(change: dict[str, Any]) -> None:
    assert model.shape(nlp(**change), OPTIONS) != model.shape(nlp(), OPTIONS)


def test_container_is_confined() -> None:
    words = model.create_arguments(nlp(mounts=[{"source": "/data", "target": "/data"}]), OPTIONS)
    pairs = list(zip(words[::2], words[1::2], strict=False))
    assert ("--publish", "10.0.0.11:2201:2222/tcp") in pairs
    assert ("--cap-drop", "ALL") in pairs
    assert ("--restart", "no") in pairs
    assert ("--device", "nvidia.com/gpu=0") in pairs
    assert ("--mount", "type=bind,source=/data,target=/data,readonly") in pairs
    assert "--privileged" not in words
    assert words[-1] == OPTIONS.image
    assert "--publish [fd00::11]:2201:2222/tcp" in model.shape_lines(model.shape(nlp(bind_address="fd00::11"), OPTIONS))


def test_a_container_whose_description_was_taken_away_goes_on(
    inside: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "WORKSPACE", tmp_path)
    tended: list[dict[str, Any]] = []
    supervisor = inside.Supervisor()
    monkeypatch.setattr(supervisor, "_tend_jupyter", tended.append)
    supervisor._tend()
    assert tended == []
    config = {"jupyter": False, "owner": {"name": "ada", "uid": 2001}, "members": [], "environment": []}
    (tmp_path / "workspace.json").write_text(json.dumps(config))
    monkeypatch.setattr(inside, "container_environment", dict)
    monkeypatch.setattr(supervisor.crontabs, "tend", lambda people, _variables: tended.append(people))
    supervisor._tend()
    assert tended == [config, {"ada": 2001}]


# --- what the host says

CDI_YAML = """---
cdiVersion: 0.7.0
containerEdits:
  hooks:
    - hookName: createContainer
      name: not-a-device
devices:
  - containerEdits:
      deviceNodes:
        - path: /dev/nvidia0
    name: "0"
  - name: GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c
    containerEdits: {}
  - name: all # every one
kind: nvidia.com/gpu
"""


def test_cdi_devices_of_yaml_and_json() -> None:
    expected = ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c", "nvidia.com/gpu=all"]
    assert model.cdi_devices(CDI_YAML) == expected
    as_json = {"kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all"}]}
    assert model.cdi_devices(json.dumps(as_json)) == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
    assert model.cdi_devices("") == []


def test_busy_is_what_people_do() -> None:
    top = """UID PID STARTED COMMAND
0 1 Sun Nov 22 03:17:12 2026 /usr/bin/tini -- /usr/local/sbin/devnode-workspace run
101 30 Sun Nov 22 03:17:12 2026 sshd-session: [net]
2001 32 Sun Nov 22 03:17:12 2026 /opt/jupyter/bin/python /opt/jupyter/bin/jupyter-lab --ServerApp.port=8888
2001 43 Sun Nov 22 14:02:12 2026 python3 train.py --epochs 90
2002 44 Sun Nov 22 14:02:13 2026 sshd-session: grace@pts/0
"""
    found = model.busy(model.parse_top(top), {2001: "ada", 2002: "grace"})
    assert found == [
        "ada: python3 train.py --epochs 90 (since 14:02:12)",
        "grace: sshd-session: grace@pts/0 (since 14:02:13)",
    ]


@pytest.mark.parametrize(
    ("command", "idle"),
    [
        ("/opt/jupyter/bin/jupyter-lab --ServerApp.port=8888", True),
        ("/opt/jupyter/bin/python3.12 /opt/jupyter/bin/jupyter-lab", True),
        ("python3 /usr/local/bin/devnode-jupyter serve", True),
        ("python3 /home/ada/jupyter-lab/train.py", False),
        ("python3 train.py /opt/jupyter/bin/jupyter-lab", False),
        ("vim /usr/local/bin/devnode-jupyter", False),
        ("/home/ada/opt/jupyter/bin/jupyter-lab", False),
        ("python3", False),
        ("/opt/jupyter/bin/python -m ipykernel_launcher -f /home/ada/jupyter-lab.json", False),
    ],
)
def test_only_the_jupyter_server_itself_is_idle(command: str, idle: bool) -> None:
    assert bool(model.busy([model.Process(2001, "14:02:12", command)], {2001: "ada"})) is not idle


def test_listening_inodes() -> None:
    table = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00000A:0899 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0B00000A:0899 0100000A:1234 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
"""
    assert preflight.listening_inodes(table, 2201) == {"4711"}


class FakeDocker:
    """Answers as the docker command does; remembers what it was asked to do."""

    def __init__(self, containers: list[dict[str, Any]], top: str = "") -> None:
        self.containers, self.top, self.done = containers, top, []  # type: ignore[var-annotated]

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        words = tuple(argv[1:3])
        if words == ("info", "--format"):
            return 0, json.dumps({"ServerVersion": "26.1", "CDISpecDirs": ["/etc/cdi"]}), ""
        if words == ("ps", "--filter"):
            return 0, "\n".join(c["Name"].lstrip("/") for c in self.containers), ""
        if words[0] == "ps":
            rows = [(c["Id"], c["Name"].lstrip("/"), c["Config"]["Labels"][model.LABEL]) for c in self.containers]
            return 0, "\n".join("\t".join(row) for row in rows), ""
        if words == ("container", "inspect"):
            return 0, json.dumps(self.containers), ""
        if words == ("network", "ls"):
            return 0, "\n".join(c["Name"].lstrip("/") for c in self.containers), ""
        if words == ("volume", "ls") and "--filter" in argv:
            return 0, f"devnode-{argv[-1].rpartition('=')[2]}-home\n", ""
        if words == ("image", "inspect"):
            return 0, "sha256:1", ""
        if words[0] == "top":
            return 0, self.top, ""
        if words[0] == "exec" and argv[-2:] == ["cat", "/etc/passwd"]:
            return 0, "root:x:0:0::/root:/bin/sh\nada:x:2001:2001::/home/ada:/bin/bash\n", ""
        self.done.append(argv)
        return 0, "", ""


def container(item: model.Workspace, **changes: Any) -> dict[str, Any]:
    labels = {model.LABEL: item.name, model.LABEL_SHAPE: model.shape(item, OPTIONS)}
    found = {"Id": "c1", "Name": f"/devnode-{item.name}", "Image": "sha256:1", "State": {"Running": True}}
    return {**found, "Config": {"Labels": labels}, **changes}


def bring(
    docker: FakeDocker, wanted: list[model.Workspace], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> host.Result:
    monkeypatch.setattr(host.shutil, "which", lambda _: "/usr/bin/docker")
    monkeypatch.setattr(host, "_enabled", lambda: [c["Config"]["Labels"][model.LABEL] for c in docker.containers])
    keeper = host.Keeper(docker, OPTIONS, options.get("recreate", "idle"), True, options.get("people"))
    return keeper.bring(wanted, keeper.engine.look([OPTIONS.image]))


TRAINING = "UID PID STARTED COMMAND\n2001 43 Sun Nov 22 14:02:12 2026 python3 train.py\n"


def test_missing_is_created_and_undeclared_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    old = nlp(name="old")
    docker = FakeDocker([container(old)])
    result = bring(docker, [nlp()], monkeypatch)
    assert result.actions == ["remove old", "create nlp"]
    assert result.kept == ["devnode-old-home"]
    assert docker.done == []


@pytest.mark.parametrize("recreate", ["idle", "never"])
def test_undeclared_is_pending_while_somebody_works(monkeypatch: pytest.MonkeyPatch, recreate: str) -> None:
    docker = FakeDocker([container(nlp(name="old"))], TRAINING)
    result = bring(docker, [], monkeypatch, recreate=recreate)
    assert (result.actions, result.kept, docker.done) == (["do not start old at boot any more"], [], [])
    (entry,) = result.pending
    assert entry["workspace"] == "old"
    assert entry["reasons"] == ["no longer declared, but ada: python3 train.py (since 14:02:12) runs"]
    assert 'workspace "old" is no longer declared, but is left running' in host.pending_text(entry)
    assert bring(docker, [], monkeypatch, recreate="always").actions == ["remove old"]
    docker.top = ""
    assert bring(docker, [], monkeypatch, recreate=recreate).actions == ["remove old"]


def test_what_a_leaver_left_running_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp(name="old"))], TRAINING)
    assert bring(docker, [], monkeypatch, people=["ada"]).pending
    result = bring(docker, [], monkeypatch, people=["grace"])
    assert (result.actions, result.pending) == (["remove old"], [])


def test_a_leavers_processes_do_not_count_and_roots_do() -> None:
    logins = {0: "root", 33: "www-data", 2001: "ada", 2002: "grace"}
    assert model.who_left(logins, ["ada"]) == {2002}
    assert model.who_left(logins, None) == set()
    assert model.who_left(logins, []) == {2001, 2002}


def test_changed_is_pending_while_somebody_works(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp())], TRAINING)
    wanted = [nlp(shm_size="16g")]
    result = bring(docker, wanted, monkeypatch)
    assert "recreate nlp" not in result.actions
    assert result.pending[0]["running"] == ["ada: python3 train.py (since 14:02:12)"]
    assert result.pending[0]["reasons"] == ["- --shm-size 8g", "+ --shm-size 16g"]
    assert bring(docker, wanted, monkeypatch, recreate="always").actions == ["recreate nlp"]
    docker.top = ""
    assert bring(docker, wanted, monkeypatch).actions == ["recreate nlp"]
    assert bring(docker, wanted, monkeypatch, recreate="never").pending


def test_purged_by_name_only_and_not_while_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = FakeDocker([container(nlp(name="old"))])
    options = model.Options(image=OPTIONS.image, state_dir=str(tmp_path))
    monkeypatch.setattr(host.shutil, "which", lambda _: "/usr/bin/docker")
    monkeypatch.setattr(host, "_enabled", list)

    def purge(*names: str) -> host.Result:
        keeper = host.Keeper(docker, options, "idle", check=True)
        return keeper.bring([], keeper.engine.look([]), names)

    assert purge().kept == ["devnode-old-home"]
    result = purge("old")
    assert result.actions == ["remove old", "purge old: volume devnode-old-home"]
    assert result.kept == []
    docker.top = TRAINING
    assert not any(text.startswith("purge") for text in purge("old").actions)


def test_sudo_and_limits_are_in_the_containers_making() -> None:
    words = model.create_arguments(nlp(sudo=True, ulimits={"memlock": -1, "nofile": "1024:4096"}), OPTIONS)
    assert "no-new-privileges" not in words
    assert words[words.index("--ulimit") + 1] == "memlock=-1:-1"
    assert "nofile=1024:4096" in words
    assert "no-new-privileges" in model.create_arguments(nlp(), OPTIONS)


def test_root_at_work_counts_but_what_is_always_there_does_not() -> None:
    programs = (
        "/usr/bin/tini -- /usr/local/sbin/devnode-workspace run",
        "python3 /usr/local/sbin/devnode-workspace run",
        "sshd: /usr/sbin/sshd -D -e -f /run/devnode/sshd_config [listener] 0 of 100-200 startups",
        "sshd-session: ada [priv]",
        "/usr/lib/openssh/sshd-session -D -R",
        "[sshd-auth] <defunct>",
        "/usr/sbin/cron -f",
        "/usr/sbin/CRON -f",
    )
    assert model.busy([model.Process(0, "14:02:12", command) for command in programs], {}) == []
    assert model.busy([model.Process(0, "14:02:12", "apt-get install vim")], {}) == [
        "root: apt-get install vim (since 14:02:12)"
    ]


def test_a_new_image_under_the_same_tag_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp(), Image="sha256:0")])
    assert bring(docker, [nlp()], monkeypatch).actions == ["recreate nlp"]


def test_stopped_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp(), State={"Running": False})])
    assert bring(docker, [nlp()], monkeypatch).actions == ["start nlp"]


def test_check_mode_on_a_host_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.shutil, "which", lambda _: None)
    keeper = host.Keeper(FakeDocker([]), OPTIONS, "idle", check=True)
    found = keeper.engine.look([OPTIONS.image])
    assert not found.engine
    assert keeper.bring([nlp()], found).actions == ["create nlp"]


def test_an_engine_without_cdi_and_a_missing_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "known_devices", lambda: ["nvidia.com/gpu=0"])
    old = host.Found(engine=True, cdi=False)
    assert "does not inject CDI devices, which the GPUs of nlp need" in refused(monkeypatch, [nlp()], old)[0]
    assert refused(monkeypatch, [nlp(gpus=[])], old) == []
    new = host.Found(engine=True, cdi=True)
    assert refused(monkeypatch, [nlp()], new) == []
    found = refused(monkeypatch, [nlp(gpus=["nvidia.com/gpu=3"])], new)
    assert found == ['workspace "nlp": GPU "nvidia.com/gpu=3" does not exist on this host (it has nvidia.com/gpu=0).']
    stranger = host.Found(engine=True, cdi=True, strangers=["devnode-nlp"])
    assert "that this role did not make" in refused(monkeypatch, [nlp()], stranger)[0]
    assert 'purge: "nlp" is declared on this host' in refused(monkeypatch, [nlp()], new, purge=["nlp", "old"])[0]


def refused(
    monkeypatch: pytest.MonkeyPatch, wanted: list[model.Workspace], found: host.Found, **options: Any
) -> list[str]:
    monkeypatch.setattr(preflight.Preflight, "_port_problems", lambda *_: [])
    docker = FakeDocker([])
    return preflight.Preflight(docker, host.Engine(docker), found).judge(wanted, options.get("purge", ())).refused


SMI = "0, GPU-aaaa, {driver}, 9.0, NVIDIA H100 80GB HBM3\n1, GPU-bbbb, {driver}, {second}, Tesla P100\n"


@pytest.mark.parametrize(
    ("driver", "second", "gpus", "says"),
    [
        ("570.124.06", "9.0", ["nvidia.com/gpu=0"], ""),
        ("470.57.02", "9.0", ["nvidia.com/gpu=0"], "CUDA 12.8 does not run with driver 470.57.02"),
        ("570.124.06", "6.0", ["nvidia.com/gpu=1"], "has no code for a GPU of compute capability 6.0"),
        ("570.124.06", "6.0", ["nvidia.com/gpu=all"], "no kernel image is available"),
        ("570.124.06", "6.0", ["nvidia.com/gpu=GPU-aaaa"], ""),
        ("[N/A]", "[N/A]", ["nvidia.com/gpu=0"], ""),
    ],
)
def test_what_the_driver_does_not_run_is_said_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, driver: str, second: str, gpus: list[str], says: str
) -> None:
    monkeypatch.setattr(preflight, "known_devices", lambda: gpus)
    monkeypatch.setattr(preflight.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(preflight.Preflight, "_port_problems", lambda *_: [])

    def smi(argv: list[str]) -> tuple[int, str, str]:
        return 0, SMI.format(driver=driver, second=second), ""

    found = host.Found(engine=True, cdi=True)
    look = preflight.Preflight(smi, host.Engine(smi), found, base="pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel")
    verdict = look.judge([nlp(gpus=gpus)])
    assert bool(verdict.refused) == bool(says)
    assert says in " ".join(verdict.refused)


def test_a_port_that_a_workspace_in_use_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    old = nlp(name="old")
    docker = FakeDocker([container(old)], TRAINING)
    monkeypatch.setattr(host.shutil, "which", lambda _: "/usr/bin/docker")
    monkeypatch.setattr(host, "_enabled", list)
    engine = host.Engine(docker)
    found = engine.look([])
    wanted = nlp(name="new")

    def holder(recreate: str, *declared: model.Workspace) -> str:
        look = preflight.Preflight(docker, engine, found, recreate)
        return look._holder(wanted, {item.name: item for item in (wanted, *declared)})

    assert holder("idle") == (
        'workspace "old", which is no longer declared but is in use (ada: python3 train.py (since 14:02:12))'
    )
    assert 'workspace "old", which is to move to another port but is in use' in holder("idle", nlp(name="old", port=1))
    assert "recreate is set to never" in holder("never", nlp(name="old", port=1))
    assert holder("always") == ""
    docker.top = ""
    assert holder("idle") == ""


def test_a_gpu_that_a_workspace_in_use_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = FakeDocker([container(nlp(name="old"))], TRAINING)
    monkeypatch.setattr(host.shutil, "which", lambda _: "/usr/bin/docker")
    monkeypatch.setattr(host, "_enabled", list)
    engine = host.Engine(docker)
    found = engine.look([])
    heir = nlp(name="new", port=2299)

    def said(*declared: model.Workspace, recreate: str = "idle", people: Any = None) -> list[str]:
        look = preflight.Preflight(docker, engine, found, recreate, people=people)
        return look._gpus_in_use("new", declared[0], {item.name: item for item in declared})

    assert said(heir) == [
        'new: GPU "nvidia.com/gpu=0" is held by workspace "old", which is no longer declared but is in use '
        "(ada: python3 train.py (since 14:02:12)). Wait until it is free, or choose another."
    ]
    assert "which is to give it up but is in use" in said(heir, nlp(name="old", gpus=["nvidia.com/gpu=1"]))[0]
    assert said(nlp(name="new", gpus=["nvidia.com/gpu=all"]))
    assert said(nlp(name="new", gpus=["nvidia.com/gpu=1"])) == []
    assert said(nlp(name="new", gpu_shared=True)) == []
    assert said(heir, recreate="always") == []
    assert said(heir, people=["grace"]) == []
    docker.top = ""
    assert said(heir) == []


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [("02:00-05:00", (120, 299), (119, 300)), ("22:30-01:00", (1350, 0, 59), (60, 1349)), ("", (), (0, 720))],
)
def test_window(window: str, inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    assert all(model.in_window(window, minute) for minute in inside)
    assert not any(model.in_window(window, minute) for minute in outside)


@pytest.mark.parametrize("window", ["2-5", "02:00", "25:00-03:00", "02:00-05:00 "])
def test_window_refused(window: str) -> None:
    with pytest.raises(model.InvalidError):
        model.in_window(window, 0)


# --- image


def test_equal_inputs_give_an_equal_name() -> None:
    context = {"Dockerfile": "FROM x:1\n", "files/a": "1"}
    one = workspace_image.reference("", "devnode/pytorch-sshd", "pytorch/pytorch:2.8.0-cuda12.8", context)
    assert one == workspace_image.reference(
        "", "devnode/pytorch-sshd", "pytorch/pytorch:2.8.0-cuda12.8", dict(reversed(context.items()))
    )
    assert one.startswith("devnode/pytorch-sshd:2.8.0-cuda12.8-")
    assert workspace_image.pack(context) == workspace_image.pack(dict(reversed(context.items())))
    for change in ({"Dockerfile": "FROM x:2\n"}, {"files/a": "2"}, {"files/b": ""}):
        assert workspace_image.digest({**context, **change}) != workspace_image.digest(context)


@pytest.mark.parametrize(
    ("base", "tag"),
    [
        ("pytorch/pytorch@sha256:" + "0" * 64, ""),
        ("r.example:5000/a/b:1.2@sha256:" + "0" * 64, "1.2-"),
        ("r.example:5000/a/b:1.2", "1.2-"),
    ],
)
def test_tag_says_the_bases_version(base: str, tag: str) -> None:
    name = workspace_image.reference("h:5000", "a/b", base, {})
    assert name.startswith(f"h:5000/a/b:{tag}")
    assert len(name) == len(f"h:5000/a/b:{tag}") + 12


def test_bad_image_names_are_refused_together() -> None:
    found = workspace_image.problems("Bad Name", "base:latest", "http://registry", ["x"])
    assert [text.split(":")[0] for text in found] == ["name", "registry", "base", "others"]


# --- in the container

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("Cc", "Zl", "Zp", "Cs")))


@given(PRINTABLE.filter(str.isprintable))
def test_profile_gives_back_every_value(value: str) -> None:
    program = _program()
    text = program.profile({"NOTE": value})
    assert shlex.split(text, comments=True) == ["export", f"NOTE={value}"]


@given(PRINTABLE.filter(str.isprintable))
def test_sshd_reads_back_every_value(value: str) -> None:
    assert _argv_split(_program().sshd_setenv({"A": "1", "NOTE": value}).strip()) == ["SetEnv", "A=1", f"NOTE={value}"]


def _program() -> ModuleType:
    return sys.modules["devnode_workspace"]


@pytest.fixture(autouse=True)
def _loaded(inside: ModuleType) -> None:
    """The property tests above take the module from sys.modules."""


def _argv_split(text: str) -> list[str]:
    """OpenSSH's argv_split (misc.c), as far as double quotes go."""
    words, word, quoted, i, started = [], "", False, 0, False
    while i < len(text):
        char = text[i]
        if char == "\\" and i + 1 < len(text) and (text[i + 1] in "\"'\\" or (not quoted and text[i + 1] == " ")):
            word, i, started = word + text[i + 1], i + 1, True
        elif char == '"':
            quoted, started = not quoted, True
        elif char in " \t" and not quoted:
            words, word, started = [*words, word] if started else words, "", False
        else:
            word, started = word + char, True
        i += 1
    return [*words, word] if started else words


def test_environment_takes_the_allow_list_and_printable_values(inside: ModuleType) -> None:
    given_ = {"PATH": "/bin", "CUDA_HOME": "/c", "SECRET": "x", "CUDA_BAD": "a\nb", "NOTE": "n"}
    assert inside.environment(given_, ["PATH", "CUDA_*", "NOTE"]) == {"PATH": "/bin", "CUDA_HOME": "/c", "NOTE": "n"}


def test_pam_environment_leaves_out_what_its_format_cannot_say(inside: ModuleType) -> None:
    assert inside.pam_environment({"A": "x y", "B": "it's", "C": "#"}) == 'A="x y"\n'


def test_sshd_config_is_one_that_sshd_takes(inside: ModuleType, tmp_path: Path) -> None:
    config = json.loads(model.config_json(nlp(agent_forwarding=True), OPTIONS))
    chosen = {"Ciphers": ["aes256-gcm@openssh.com"]}
    text = inside.sshd_config(config, {"NOTE": 'a "b" \\c'}, (9, 2), chosen)
    assert "PerSourcePenalties" not in text
    assert "AllowUsers ada grace" in text
    assert "AllowAgentForwarding yes" in text
    assert "PerSourcePenalties no" in inside.sshd_config(config, {}, (9, 8), {})
    config["exempt_networks"] = ["10.0.0.1/32"]
    assert "PerSourcePenaltyExemptList 10.0.0.1/32" in inside.sshd_config(config, {}, (10, 0), {})
    sshd = Path("/usr/sbin/sshd")
    if not sshd.exists():
        pytest.skip("no sshd on this machine to read the file back with")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    path = tmp_path / "sshd_config"
    path.write_text(text + f"HostKey {key}\n")
    done = subprocess.run([sshd, "-T", "-f", path], capture_output=True, text=True)
    if "privilege separation" in done.stderr.lower():
        pytest.skip("this machine's sshd cannot run here")
    assert done.returncode == 0, done.stderr
    assert "permitopen 127.0.0.1:* localhost:* [::1]:*" in done.stdout
    assert 'setenv NOTE=a "b" \\c' in done.stdout


def test_a_home_is_made_once_and_never_walked(inside: ModuleType, tmp_path: Path) -> None:
    skeleton = tmp_path / "skel"
    skeleton.mkdir()
    (skeleton / ".profile").write_text("x")
    home, me = tmp_path / "ada", tmp_path.stat().st_uid
    assert inside.make_home(home, me, skeleton)
    assert (home / ".profile").read_text() == "x"
    assert home.stat().st_mode & 0o777 == 0o700
    (home / ".profile").write_text("mine")
    assert not inside.make_home(home, me, skeleton)
    assert (home / ".profile").read_text() == "mine"
