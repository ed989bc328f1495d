# SPDX-License-Identifier: GPL-3.0-or-later
"""JupyterLab over HTTPS on the node: who gets in, to what, and what a browser and a kernel need."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import socket
import ssl
from typing import Any

import pytest
from pytorch_sshd_lab import EPHEMERAL, converge, node_address, ok, ssh, wait_until

ADA, GRACE = ("ada", "a sentence, and not a word"), ("grace", "another")
PORTS = {"nlp": 8443, "team": 8444}
Answer = tuple[int, list[str], str]  # status, cookies, text


@pytest.fixture(scope="module", autouse=True)
def certificates(host: Any) -> None:
    """As people would get them handed over; nothing is trusted at first sight here either."""
    for name in PORTS:
        text = host.check_output(f"cat /var/lib/devnode/web/{name}.crt")
        (EPHEMERAL / f"{name}.crt").write_text(text)


@pytest.fixture(scope="module")
def tokens() -> dict[str, str]:
    return {name: ok(name, "ada", "devnode-jupyter >/dev/null; devnode-jupyter token").strip() for name in PORTS}


def connected(workspace: str, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(EPHEMERAL / f"{workspace}.crt"))
    if version:
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
    plain = socket.create_connection((node_address(), PORTS[workspace]), timeout=20)
    return context.wrap_socket(plain, server_hostname=f"{workspace}.example.org")


def basic(who: tuple[str, str] | None) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(":".join(who).encode()).decode()} if who else {}


def ask(
    workspace: str, path: str, who: tuple[str, str] | None = ADA, method: str = "GET", body: str = "", **headers: str
) -> Answer:
    """One request; header names are written with _ for -."""
    connection = http.client.HTTPSConnection(node_address(), PORTS[workspace])
    connection.sock = connected(workspace)
    given = {"Host": f"{workspace}.example.org:{PORTS[workspace]}", **basic(who)}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body or None, headers=given)
    answer = connection.getresponse()
    cookies = [value for name, value in answer.getheaders() if name.lower() == "set-cookie"]
    return answer.status, cookies, answer.read().decode()


def test_two_locks_and_both_are_needed(tokens: dict[str, str]) -> None:
    assert ask("nlp", "/api/kernels", who=None)[0] == 401
    assert ask("nlp", "/api/kernels?token=" + tokens["nlp"], who=None)[0] == 401
    assert ask("nlp", "/api/kernels?token=" + tokens["nlp"], who=("ada", "a sentence"))[0] == 401
    assert ask("nlp", "/api/kernels")[0] == 403
    assert ask("nlp", "/api/kernels?token=" + tokens["nlp"])[0] == 200
    # Both kinds of hashes; only those who are named.
    assert ask("team", "/api/kernels?token=" + tokens["team"], who=GRACE)[0] == 200
    assert ask("nlp", "/api/kernels?token=" + tokens["nlp"], who=GRACE)[0] == 401


def test_a_browser_gets_a_page_and_a_cookie_that_goes_by_tls_only(tokens: dict[str, str]) -> None:
    status, cookies, text = ask("nlp", "/lab?token=" + tokens["nlp"])
    assert (status, "JupyterLab" in text) == (200, True)
    assert cookies
    assert all("secure" in cookie.lower() for cookie in cookies)
    # A page of another site, opened in the same browser, comes with these cookies.
    cookie = "; ".join(one.split(";")[0] for one in cookies)
    assert ask("nlp", "/api/kernels", Cookie=cookie, Referer="https://nlp.example.org:8443/lab")[0] == 200
    assert ask("nlp", "/api/kernels", Cookie=cookie, Origin="https://evil.example.org")[0] == 403
    subscribe = {"path": "/api/events/subscribe", "Cookie": cookie, **upgrading()}
    assert ask("nlp", Origin="https://nlp.example.org:8443", **subscribe)[0] == 101
    assert ask("nlp", Origin="https://evil.example.org", **subscribe)[0] == 403


def test_a_kernel_starts_and_computes_over_a_websocket(tokens: dict[str, str]) -> None:
    by_token = "?token=" + tokens["nlp"]
    status, _, text = ask("nlp", "/api/kernels" + by_token, method="POST", body="{}")
    assert status == 201, text
    path = f"/api/kernels/{json.loads(text)['id']}"
    try:
        with connected("nlp") as line:
            given = {"Host": "nlp.example.org:8443", "Origin": "https://nlp.example.org:8443", **basic(ADA)}
            given |= {name.replace("_", "-"): value for name, value in upgrading().items()}
            lines = [f"GET {path}/channels{by_token} HTTP/1.1"] + [f"{name}: {value}" for name, value in given.items()]
            line.sendall("\r\n".join([*lines, "", ""]).encode())
            said = line.recv(4096)
            assert said.startswith(b"HTTP/1.1 101 "), said
            header = {"msg_id": "1", "msg_type": "execute_request", "username": "", "session": "s", "version": "5.3"}
            content = {"code": "print(6 * 7000 + 1)", "silent": False}
            message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
            line.sendall(frame(json.dumps(message).encode()))
            while b"42001" not in said:
                more = line.recv(1 << 16)
                assert more, said
                said += more
    finally:
        assert ask("nlp", path + by_token, method="DELETE")[0] == 204


def frame(data: bytes) -> bytes:
    """One text message of a client."""
    mask = secrets.token_bytes(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return b"\x81" + bytes([0x80 | 126]) + len(data).to_bytes(2, "big") + mask + masked


def upgrading() -> dict[str, str]:
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    return {**upgrade, "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": key}


def test_nothing_but_tls_1_2_and_newer_and_its_own_name(host: Any) -> None:
    with socket.create_connection((node_address(), 8443), timeout=20) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: nlp.example.org\r\n\r\n")
        assert b" 400 " in plain.recv(4096)
    connected("nlp", ssl.TLSVersion.TLSv1_2).close()
    with pytest.raises(ssl.SSLError):
        connected("nlp", ssl.TLSVersion.TLSv1_1)
    assert ask("nlp", "/api", Host="evil.example.org")[0] == 421
    assert ask("nlp", "/api", Host="team.example.org")[0] == 421


def test_each_door_leads_to_its_own_workspace(host: Any, tokens: dict[str, str]) -> None:
    assert tokens["nlp"] != tokens["team"]
    assert ask("team", "/api/kernels?token=" + tokens["nlp"])[0] == 403
    assert ask("nlp", "/api/kernels?token=" + tokens["team"])[0] == 403
    # JupyterLab itself listens where it did; nginx has one port of the node for each; the doors are nginx's alone.
    curl = "curl -s -o /dev/null --unix-socket /run/devnode-door/nlp.sock http://localhost/api"
    status = "/proc/$(pgrep -f 'inside 2001' | head -1)/status"
    looked = host.check_output(
        f"ss -Hltn | awk '{{print $4}}'; echo; runuser -u nobody -- {curl}; echo $?; runuser -u devnode-web -- {curl}; "
        f"echo $?; echo; grep -h -E '^(Uid|CapEff|CapBnd|NoNewPrivs)' {status}"
    )
    ports, curls, rights = looked.split("\n\n")
    seen = {port for port in ports.split() if not port.startswith("127.")}
    ours = {f"{node_address()}:{port}" for port in (2201, 2202, 2203, *PORTS.values())}
    assert {port for port in seen if not port.endswith(":22")} == ours
    assert curls.split() == ["7", "0"]
    # The door itself has no right left.
    assert rights.split() == [
        *("Uid:", *["65534"] * 4, "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"),
    ]
    # A container that could reach the node (its role host_firewall says no) is in no network that is allowed.
    inside = f"import urllib.request as u; u.urlopen('http://{node_address()}:8443')"
    assert "400" in ssh("vision", "grace", f'python3 -c "{inside}"').stderr


def test_whoever_else_takes_the_port_inside_gets_nothing(host: Any, tokens: dict[str, str]) -> None:
    """JupyterLab ends, and a member is quicker to listen than its next start."""
    by_token = "/api/kernels?token=" + tokens["team"]
    ok("team", "grace", "mkdir -p trap && cd trap && (setsid -f sh -c "
       "'while ! python3 -m http.server 8888 --bind 127.0.0.1; do :; done' >log 2>&1 </dev/null)")  # fmt: skip
    try:
        host.check_output("docker exec devnode-team pkill -u 2001 -f jupyter-lab")
        taken = "docker exec devnode-team pgrep -u 2002 -f http.server"
        wait_until("grace listens", lambda: host.run(taken).rc == 0 and ask("team", by_token)[0] == 502, 30)
        assert ask("team", by_token)[2] == "JupyterLab of this workspace does not run (yet).\n"
        assert "GET" not in ok("team", "grace", "cat trap/log")
    finally:
        host.run("docker exec devnode-team pkill -KILL -u 2002 -f 8888")


def test_the_way_follows_a_new_container(host: Any, tokens: dict[str, str]) -> None:
    """A restart by hand, which no unit knows of: another network namespace under the same name."""
    host.check_output("docker restart -t 5 devnode-nlp")
    wait_until("JupyterLab is back", lambda: ask("nlp", "/api/kernels?token=" + tokens["nlp"])[0] == 200, 60)


def test_no_secret_is_told(host: Any, tokens: dict[str, str]) -> None:
    """Not to the journal, not to the workspace, not by a run that says all it can."""
    ask("nlp", "/api/kernels?token=" + tokens["nlp"])
    code, out, changed = converge("-vvv")
    assert (code, changed) == (0, 0), out
    told = host.check_output("journalctl -o cat --since -30min") + out
    look = (
        "cat /etc/devnode/web/*.htpasswd; stat -c '%a %U %G' /etc/devnode/web/nlp.htpasswd /var/lib/devnode/web/nlp.key"
    )
    *kept, of_passwords, of_key = host.check_output(look).splitlines()
    assert (of_passwords, of_key) == ("640 root devnode-web", "600 root root")
    hashes = [line.split(":")[1] for line in kept]
    for secret in (*tokens.values(), ADA[1], base64.b64encode(":".join(ADA).encode()).decode(), *hashes):
        assert secret not in told, secret[:6]
    assert "PRIVATE KEY" not in told
    assert "GET /api/kernels" in told


def test_refused_before_anything_is_changed(host: Any) -> None:
    listen = (
        "systemd-run --unit=somebody python3 -m http.server 22222 && until ss -Hltn | grep :22222; do sleep 0.2; done"
    )
    before = host.check_output(f"{listen} >/dev/null; sha256sum /etc/devnode/web/*")
    web = {"name": "nlp.example.org", "networks": ["192.0.2.0/24"]}
    taken = {"nlp_web": {**web, "port": 22222, "certificate": "/etc/ssl/none.pem", "key": "/etc/ssl/none.key"}}
    clear = {"pytorch_sshd_web_passwords": {"ada": "hunter2hunter2"}, "nlp_web": {**web, "port": 8444}}
    says = {
        "web.port 22222 is taken by python3": taken,
        "web.certificate /etc/ssl/none.pem is not there on this host": taken,
        "pytorch_sshd_web_passwords.ada: (not shown) is no hash of a password; one in clear text": clear,
        "pytorch_sshd_web_passwords.grace: is missing": clear,
    }
    try:
        runs = {str(extra): converge(**extra) for extra in (taken, clear)}
    finally:
        host.check_output("systemctl stop somebody")
    for text, extra in says.items():
        code, out, changed = runs[str(extra)]
        assert (code != 0, changed) == (True, 0), out
        assert text in " ".join(out.split()), (text, out)
        assert "hunter2" not in out
    assert host.check_output("sha256sum /etc/devnode/web/*") == before
