# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry that wants a password, with TLS by an authority of its own: one pushes, another pulls, nobody is told."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from pytorch_sshd_lab import EPHEMERAL, converge, node_address
from scenario_hosts import TINY, root

NAME = "registry.example.org:5443"
PASSWORD = "s3cret-of-the-registry"  # noqa: S105 - of a registry that lives as long as this test
HASH = "$2y$10$abcdefghijklmnopqrstuu5WWS0yhCtydiAkh79ALTtbqWCfzZela"
SETUP = f"""
set -eu
export DEBIAN_FRONTEND=noninteractive
systemctl mask --quiet docker-registry.service
apt-get install -q -y --no-install-recommends docker-registry >/dev/null
mkdir -p /root/registry/data /etc/docker/certs.d/{NAME}
cd /root/registry
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=registry \
  -addext subjectAltName=DNS:registry.example.org -keyout tls.key -out tls.crt 2>/dev/null
cp tls.crt /etc/docker/certs.d/{NAME}/ca.crt
echo 'builder:{HASH}' >htpasswd
cat >config.yml <<'END'
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: /root/registry/data}}}}
auth: {{htpasswd: {{realm: lab, path: /root/registry/htpasswd}}}}
http: {{addr: {node_address()}:5443, tls: {{certificate: /root/registry/tls.crt, key: /root/registry/tls.key}}}}
END
# Not the loopback: with that the engine would do without TLS.
echo '{node_address()} registry.example.org' >>/etc/hosts
systemd-run --quiet --unit=lab-registry docker-registry serve /root/registry/config.yml
until curl -s --cacert tls.crt https://{NAME}/v2/ >/dev/null; do sleep 0.3; done
# Everybody's command lines, for as long as this lasts.
systemd-run --quiet --unit=lab-watch sh -c 'while :; do cat /proc/[0-9]*/cmdline; sleep 0.02; done >/root/registry/ps'
"""
IMAGES = f"docker image ls -q {NAME}/lab/workspace"
CLEAN = f"""
{IMAGES} | xargs -r docker image rm -f
systemctl stop lab-registry lab-watch
rm -rf /root/registry /etc/docker/certs.d/{NAME}
"""


@pytest.fixture(scope="module")
def registry() -> Iterator[None]:
    root("debian13", f"set -- lab/tiny:1\n{TINY.read_text()}")
    root("debian13", SETUP)
    yield
    root("debian13", CLEAN)


def run(source: str, password: str = PASSWORD) -> tuple[int, str, int]:
    user = "builder" if password else ""
    values = {"registry_source": source, "registry_username": user, "registry_password": password}
    code, out, changed = converge("-vvv", playbook="registry", **values)
    TOLD.append(out)
    return code, " ".join(out.split()), changed


TOLD: list[str] = []


@pytest.mark.usefixtures("registry")
def test_one_pushes_another_pulls_and_the_password_is_nowhere() -> None:
    code, out, changed = run("build", "not-the-password")
    assert (code != 0, changed) == (True, 0)
    assert f"docker login of {NAME} as builder failed" in out
    assert "401 Unauthorized" in out
    code, out, changed = run("build")
    assert (code, changed) == (0, 1), out
    assert f"push {NAME}/lab/workspace:" in out
    # The other host has nothing yet. Who does not say the password gets nothing.
    root("debian13", f"docker image rm -f $({IMAGES})")
    code, out, _ = run("pull", "")
    assert code != 0
    assert "no basic auth credentials" in out
    code, out, changed = run("pull")
    assert (code, changed) == (0, 1), out
    assert f"pull {NAME}/lab/workspace:" in out

    by_docker = base64.b64encode(f"builder:{PASSWORD}".encode()).decode()
    look = "journalctl -o cat; cat /root/registry/ps; docker image inspect $({0}); docker history --no-trunc $({0})"
    told = "\n".join(TOLD) + root("debian13", f"({look.format(IMAGES)}) | tr '\\0' ' '")
    assert "docker login" in told
    assert "--password-stdin" in told
    for secret in (PASSWORD, by_docker, "not-the-password"):
        assert secret not in told
    places = "/root /home /tmp /var/tmp /etc /var/lib/devnode"
    left = "ls -d /root/.docker /home/*/.docker /tmp/devnode-docker-* /var/tmp/devnode-docker-*; "
    left += f"grep -rlE --exclude=ps '{PASSWORD}|{by_docker}' {places}"
    assert root("debian13", f"({left}) 2>/dev/null || true").split() == []
    assert PASSWORD not in (EPHEMERAL / "registry_lock.json").read_text()
