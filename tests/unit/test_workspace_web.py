# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JupyterLab over HTTPS: what is refused, what the node opens to whom, what nginx reads, and the door itself."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.devnode.gpu.plugins.filter.workspace_web import workspace_web_filter
from ansible_collections.devnode.gpu.plugins.module_utils import (
    firewall,
    workspace_certificate,
    workspace_container,
    workspace_parse,
    workspace_web,
)
from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
from ansible_collections.devnode.gpu.plugins.module_utils.topology_plan import node_plan
from ansible_collections.devnode.gpu.plugins.module_utils.topology_read import TopologyError
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, FileSystemLoader
from unit.fleet import loaded

ROLE = Path(__file__).resolve().parents[2] / "roles" / "pytorch_sshd"
SHA512 = "$6$6bXo4aFzRk1W3tqd$//MqxC2hMAfiOCKphtqptXdRIAs/9kZ6vM4dI71XyceY3zUAQLE5Y3jokvUa55ndpak2XIPo8qaTfgMPSrXA11"
BCRYPT = "$2b$10$abcdefghijklmnopqrstuu3OXnChv9rsS38y2T8H/NPI6EHTr4uGS"
HASHES = st.sampled_from([BCRYPT, SHA512])
WEB = {"name": "nlp.example.com", "port": 8443, "networks": ["10.9.0.0/16"]}
NLP = {"name": "nlp", "port": 2201, "bind_address": "10.0.0.11", "owner": {"name": "ada", "uid": 2001}}
NLP |= {"members": [{"name": "grace", "uid": 2002}]}
TEAM = {**NLP, "name": "team", "port": 2202}


def fleet(web: Any, **workspace: Any) -> Any:
    """The small fleet, with JupyterLab by HTTPS for its first workspace."""
    return loaded(lambda values: values["workspaces"][0].update(web=web, **workspace))


def said_of(web: Any, **workspace: Any) -> str:
    with pytest.raises(TopologyError) as raised:
        fleet(web, **workspace)
    return str(raised.value)


# --- the inventory


def test_the_node_opens_the_port_to_the_networks_named_and_to_nobody_else() -> None:
    plan = node_plan(fleet({**WEB, "networks": ["10.9.0.0/16", "2001:db8::/32"]}), "gpu-01")
    web = [service for service in plan["firewall"]["services"] if service["port"] == 8443]
    assert web == [
        {"name": "web-8443", "port": 8443, "protocol": "tcp", "sources": ["10.9.0.0/16", "2001:db8::/32"], "rate": ""}
    ]
    rules = firewall.make_plan(plan["firewall"]["services"], [], plan["firewall"]["containers"], [], [])
    reached = {address: firewall.admits(rules, address, (8443,)) for address in ("10.9.1.1", "10.0.0.2", "203.0.113.9")}
    assert reached == {"10.9.1.1": True, "10.0.0.2": False, "203.0.113.9": False}
    assert all(service["port"] != 8443 for service in node_plan(loaded(), "gpu-01")["firewall"]["services"])


def test_off_by_default_and_the_owner_comes_in_by_default() -> None:
    specs = {spec["name"]: spec for spec in node_plan(fleet(WEB), "gpu-01")["workspaces"]}
    assert specs["nlp"]["web"]["users"] == ["ada"]
    assert specs["team"]["web"] is None
    workspaces, problems = workspace_parse.parse(list(specs.values()))
    assert problems == []
    assert {item.name: bool(item.web) for item in workspaces} == {"nlp": True, "team": False}


def test_a_plan_holds_no_password_and_no_container_changes_for_it() -> None:
    (asked,), problems = workspace_parse.parse([{**NLP, "web": WEB}])
    (plain,), _ = workspace_parse.parse([NLP])
    options = model.Options(image="x:1")
    assert problems == []
    assert workspace_container.shape(asked, options) == workspace_container.shape(plain, options)
    assert workspace_container.config_json(asked, options) == workspace_container.config_json(plain, options)


def test_who_left_does_not_come_in() -> None:
    def change(values: Any) -> None:
        values["workspaces"][1].update(node="gpu-02", web={**WEB, "users": ["ada", "grace"]})
        values["workspaces"][1].pop("nodes")
        values["users"][1]["state"] = "absent"

    (spec,) = node_plan(loaded(change), "gpu-02")["workspaces"]
    assert spec["web"]["users"] == ["grace"]


@pytest.mark.parametrize(
    ("web", "workspace", "says"),
    [
        ({**WEB, "networks": []}, {}, "web.networks: [] is empty. Allowed: at least one"),
        ({"name": "a.example.com", "port": 8443}, {}, "web.networks: is missing"),
        ({**WEB, "networks": ["any"]}, {}, "web.networks[0]: \"any\" is not a network"),
        ({**WEB, "port": 80}, {}, "web.port: 80 is out of range"),
        ({**WEB, "port": 853}, {}, "web.port: 853 belongs to the system"),
        ({**WEB, "port": 40000}, {}, "web.port: 40000 belongs to the system"),
        ({**WEB, "port": 2201}, {}, "web.port: 2201 is taken by devnode_workspaces[0]: on gpu-01 a port"),
        ({**WEB, "port": 2210}, {}, "port: 2210 is taken by devnode_workspaces[0].web: on gpu-01 a port"),
        ({**WEB, "name": "no such; name"}, {}, "web.name: \"no such; name\" is not a host name"),
        ({**WEB, "users": ["grace"]}, {}, "web.users: \"grace\" is none of its people. Allowed: ada"),
        ({**WEB, "certificate": "/etc/a.pem"}, {}, "web.key: \"\" and certificate belong together"),
        ({**WEB, "certificate": "a.pem", "key": "a.key"}, {}, "web.certificate: \"a.pem\""),
        ({**WEB, "password": "x"}, {}, "web: \"password\" is no key of this"),
        (WEB, {"jupyter": False}, "leads to JupyterLab, which jupyter: false switches off"),
        ("yes", {}, "web: \"yes\" is not a mapping"),
    ],
)  # fmt: skip
def test_refused(web: Any, workspace: dict[str, Any], says: str) -> None:
    assert says in said_of(web, **workspace)


def test_two_on_one_port_or_on_one_name_are_refused_and_one_on_two_nodes() -> None:
    def two(second: dict[str, Any]) -> Any:
        def change(values: Any) -> None:
            values["workspaces"][0]["web"] = WEB
            values["workspaces"].append({"name": "x", "node": "gpu-01", "owner": "ada", "port": 2300, "web": second})

        return change

    with pytest.raises(TopologyError, match=r"\[2\].web.port: 8443 is taken by devnode_workspaces\[0\].web"):
        loaded(two({**WEB, "name": "x.example.com"}))
    with pytest.raises(TopologyError, match=r"\[2\].web.name: .* a browser gives its cookies to every port of a name"):
        loaded(two({**WEB, "port": 8444}))
    with pytest.raises(TopologyError, match="leads to one place, and this workspace is on gpu-01, gpu-02"):
        loaded(lambda values: values["workspaces"][1].update(web=WEB))
    assert len(node_plan(loaded(two({**WEB, "name": "x.example.com", "port": 8444})), "gpu-01")["workspaces"]) == 3


def test_the_role_alone_refuses_the_same() -> None:
    both = [{**NLP, "web": WEB}, {**TEAM, "web": {**WEB, "name": "team.example.com"}}]
    assert '[1].web.port: 8443 is where nginx serves workspace "nlp"' in "\n".join(workspace_parse.parse(both)[1])
    both[1]["web"] = {**WEB, "port": 8444}
    assert '[1].web.name: "nlp.example.com" is the name of workspace "nlp"' in "\n".join(workspace_parse.parse(both)[1])
    both[1]["web"] = {**WEB, "name": "team.example.com", "port": 2201}
    assert '[1].web.port: 2201 is the port of workspace "nlp"' in "\n".join(workspace_parse.parse(both)[1])
    alone = [{**NLP, "web": {**WEB, "networks": [], "users": ["eve"], "tls": "off"}}]
    said = "\n".join(workspace_parse.parse(alone)[1])
    assert "[0].web.networks: [] names no network" in said
    assert '[0].web.users: "eve" is neither owner nor member' in said
    assert '[0].web: "tls" is no key of this' in said


# --- passwords


@pytest.mark.parametrize("sound", [SHA512, BCRYPT, BCRYPT.replace("$2b$", "$2y$"), f"$6$rounds=10000${SHA512[3:]}"])
def test_hashes_that_nginx_may_keep(sound: str) -> None:
    assert workspace_web.password_hash(sound) == sound


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "hunter2",
            "{PLAIN}hunter2",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00",
        ),
        *(7, None, ["$6$"], SHA512 + "\nroot:" + SHA512, SHA512 + ":", BCRYPT.replace("$10$", "$04$")),
        *(BCRYPT.replace("$10$", "$15$"), f"$6$rounds=1000${SHA512[3:]}", f"$6$rounds=9000000${SHA512[3:]}"),
    ],
)
def test_everything_else_is_refused_and_never_shown(value: Any) -> None:
    with pytest.raises(InvalidError) as raised:
        workspace_web.password_hash(value)
    webs = {"nlp": workspace_web.Web("a.example.com", 8443, ("10.0.0.0/8",), ("ada",))}
    said = "\n".join([*workspace_web.password_problems(webs, {"ada": value}), str(raised.value)])
    assert "(not shown)" in said
    assert "hunter2" not in said
    assert "lZL6V" not in said
    assert "abcdefghijklm" not in said


@given(
    st.text(max_size=120)
    | st.builds(
        lambda at, text, hash_: hash_[:at] + text + hash_[at:], st.integers(0, 130), st.text(max_size=3), HASHES
    )
)
def test_no_text_becomes_a_line_of_its_own(text: str) -> None:
    try:
        kept = workspace_web.password_hash(text)
    except InvalidError:
        return
    assert not set(kept) & set(":\n\r #")


def test_who_has_no_password_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match=r"pytorch_sshd_web_passwords.ada: is missing, and web.users of nlp"):
        workspace_web_filter([{**NLP, "web": WEB}], {})
    assert workspace_web_filter([NLP], {"ada": "clear"}) == {"servers": [], "files": []}


# --- what nginx reads


def config(*specs: dict[str, Any]) -> str:
    passwords = {"ada": SHA512, "grace": BCRYPT}
    found = workspace_web_filter(list(specs), passwords)
    environment = Environment(loader=FileSystemLoader(ROLE / "templates"), trim_blocks=True)  # noqa: S701 - no HTML
    return environment.get_template("nginx.conf.j2").render(servers=found["servers"], fingerprints={})


def test_each_server_has_its_own_port_name_people_and_door() -> None:
    text = config(
        {**NLP, "web": WEB}, {**TEAM, "web": {**WEB, "name": "2001:db8::1", "port": 443, "networks": ["::/0"]}}
    )
    nlp, team = (part.split("\n    }\n")[0] for part in text.split("    server {\n")[1:])
    for words in ("listen 10.0.0.11:8443 ssl;", "server_name nlp.example.com;", "allow 10.9.0.0/16;", "deny all;"):
        assert words in nlp
    assert "auth_basic_user_file /etc/devnode/web/nlp.htpasswd;" in nlp
    assert "proxy_pass http://unix:/run/devnode-door/nlp.sock;" in nlp
    assert 'proxy_set_header Authorization "";' in nlp
    assert 'if ($host != "[2001:db8::1]")' in team
    assert '"https://[2001:db8::1]" "http://127.0.0.1:8888";' in text
    assert "listen 10.0.0.11:443 ssl;" in team


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=30))
def test_no_input_adds_a_line_to_nginx(name: str, network: str, path: str) -> None:
    web = {**WEB, "name": name, "networks": [network], "certificate": path, "key": path}
    if workspace_parse.parse([{**NLP, "web": web}])[1]:
        return
    assert len(config({**NLP, "web": web}).splitlines()) == len(config({**NLP, "web": WEB}).splitlines())


# --- certificates


class Openssl:
    """Stands for the program: remembers what it was asked, answers as told."""

    def __init__(self, lasts: bool = True, matches: bool = True) -> None:
        self.lasts, self.matches = lasts, matches
        self.asked: list[list[str]] = []

    def __call__(self, words: list[str]) -> tuple[int, str, str]:
        self.asked.append(words)
        if "-out" in words:
            Path(words[words.index("-out") + 1]).write_text("certificate")
            Path(words[words.index("-keyout") + 1]).write_text("key")
        if "-checkend" in words:
            return (0 if self.lasts else 1), "", ""
        if "-fingerprint" in words:
            return 0, "sha256 Fingerprint=" + ":".join(["0F"] * 32) + "\n", ""
        return 0, "Hostname x does match certificate" if self.matches else "Hostname x does NOT match certificate", ""


def items(*specs: dict[str, Any]) -> list[model.Workspace]:
    found, problems = workspace_parse.parse(list(specs))
    assert problems == []
    return found


def test_a_certificate_is_made_once_and_again_before_its_end_or_for_another_name(tmp_path: Path) -> None:
    base, asking = str(tmp_path / "web"), items({**NLP, "web": WEB})
    assert workspace_certificate.ensure(Openssl(), asking, True, base) == [
        "make certificate of nlp for nlp.example.com"
    ]
    assert not (tmp_path / "web").exists()
    openssl = Openssl()
    assert workspace_certificate.ensure(openssl, asking, False, base)
    assert "subjectAltName=DNS:nlp.example.com" in openssl.asked[-1]
    assert (tmp_path / "web").stat().st_mode & 0o777 == 0o700
    assert workspace_certificate.ensure(Openssl(), asking, False, base) == []
    assert workspace_certificate.ensure(Openssl(lasts=False), asking, False, base)
    assert workspace_certificate.ensure(Openssl(matches=False), asking, False, base)
    assert workspace_certificate.ensure(Openssl(), items(NLP), False, base) == [
        f"remove {base}/nlp.crt", f"remove {base}/nlp.key",
    ]  # fmt: skip
    assert not (tmp_path / "web").exists()


def test_a_given_certificate_is_only_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.pem"
    path.write_text("certificate")
    asking = items({**NLP, "web": {**WEB, "certificate": str(path), "key": str(path)}})
    openssl = Openssl()
    assert workspace_certificate.ensure(openssl, asking, False, str(tmp_path / "web")) == []
    assert workspace_certificate.fingerprints(openssl, asking) == {"nlp": ":".join(["0F"] * 32)}
    with pytest.raises(workspace_certificate.CertificateError, match="is no certificate that openssl reads"):
        workspace_certificate.fingerprints(lambda _words: (1, "", "unable to load"), asking)


# --- the door


@pytest.fixture
def door() -> ModuleType:
    spec = importlib.util.spec_from_file_location("devnode_door", ROLE / "files" / "web" / "devnode_door.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_door_hands_on_to_the_owner_and_to_nobody_else(
    door: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"lab: " + await reader.read(100))
        writer.close()

    async def ask(owners: set[int]) -> tuple[bytes, bool]:
        monkeypatch.setattr(door, "listeners", lambda: owners)
        lab = await asyncio.start_server(echo, "127.0.0.1", 0)
        monkeypatch.setattr(door, "PORT", lab.sockets[0].getsockname()[1])
        one = door.Door(2001)
        path = str(tmp_path / "sock")
        async with lab, await asyncio.start_unix_server(one._hand_on, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"hello")
            try:
                answer = await asyncio.wait_for(reader.read(100), 10)
            except ConnectionResetError:  # it had not even read the question
                answer = b""
            writer.close()
            await asyncio.sleep(0)
            return answer, one.gone.is_set()

    assert asyncio.run(ask({2001})) == (b"lab: hello", False)
    for others in ({2002}, {2001, 2002}, set()):
        assert asyncio.run(ask(others)) == (b"", True)


def test_a_door_before_a_workspace_that_does_not_run_lets_go(
    door: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(tmp_path / "sock"))
        listening.listen()
        client.connect(str(tmp_path / "sock"))
        monkeypatch.setattr(door, "PASSED", listening.detach())
        monkeypatch.setattr(door, "network_of", lambda _name: "")
        assert door.main(["nlp"]) == 0
        assert client.recv(10) == b""
    assert [door.main(words) for words in ([], ["../nlp"], ["-x"], ["--inside", "x"])] == [2, 2, 2, 2]
