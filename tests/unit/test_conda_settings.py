# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the role miniconda: what they mean together, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.devnode.gpu.plugins.action.miniconda_plan import condarc_text
from ansible_collections.devnode.gpu.plugins.module_utils import conda_settings
from ansible_collections.devnode.gpu.plugins.module_utils.conda_settings import Plan, Settings
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

ROLE = Path(__file__).parents[2] / "roles" / "miniconda"
VARS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
SHA = "c" * 64


def plan(**changes: Any) -> Plan:
    names = [name for name in Settings.__dataclass_fields__ if f"miniconda_{name}" in DEFAULTS]
    values = {name: DEFAULTS[f"miniconda_{name}"] for name in names}
    values |= {"checksums": VARS["__miniconda_checksums"], "mirrors": VARS["__miniconda_mirrors"]}
    return conda_settings.plan_of(Settings(**{**values, **changes}))


def errors(**changes: Any) -> str:
    found = plan(**changes).errors
    assert found
    return "\n".join(found)


def test_the_defaults_are_a_plan() -> None:
    made = plan()
    assert made.errors == []
    assert made.installer_url == "https://repo.anaconda.com/miniconda/{file}"
    assert made.condarc["channels"] == ["conda-forge"]
    assert made.condarc["channel_priority"] == "strict"


def test_defaults_never_means_anaconda_by_default() -> None:
    made = plan()
    assert made.condarc["default_channels"] == ["https://conda.anaconda.org/conda-forge"]
    assert "plugins" not in made.condarc


def test_defaults_and_documentation_have_the_same_variables() -> None:
    specs = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options = specs["argument_specs"]["main"]["options"]
    assert set(options) == set(DEFAULTS)
    assert {name: option.get("default") for name, option in options.items()} == DEFAULTS


def test_the_table_holds_checksums() -> None:
    assert DEFAULTS["miniconda_version"] == "26.5.3-1"
    for name, digest in VARS["__miniconda_checksums"].items():
        assert conda_settings.conda_install.parse_installer_name(name)
        assert conda_settings.conda_install.sha256(digest) == digest


@pytest.mark.parametrize("name", ["tuna", "bfsu", "ustc", "aliyun"])
def test_a_mirror_serves_installer_and_channel(name: str) -> None:
    made = plan(mirror=name)
    assert made.errors == []
    assert name in made.installer_url
    assert name in made.condarc["custom_channels"]["conda-forge"]
    assert name in made.condarc["default_channels"][0]


def test_an_own_mirror() -> None:
    own = {
        "miniconda": "http://m.example/conda",
        "channels": {"conda-forge": "http://m.example"},
        "pypi": "http://m.example/simple",
    }
    made = plan(mirror="own", mirrors={"own": own})
    assert made.errors == []
    assert made.pip_index_url == "http://m.example/simple"
    assert made.condarc["default_channels"] == ["http://m.example/conda-forge"]


def test_an_unknown_mirror_is_refused_with_the_known_ones() -> None:
    text = errors(mirror="tsinghua")
    assert 'miniconda_mirror: "tsinghua"' in text
    assert "tuna" in text


def test_a_mirror_without_the_installer_is_refused() -> None:
    assert "does not have miniforge" in errors(mirror="tuna", distribution="miniforge", version="26.3.2-3")


def test_miniforge_from_upstream() -> None:
    made = plan(distribution="miniforge", version="26.3.2-3")
    assert made.errors == []
    assert made.installer_url == "https://github.com/conda-forge/miniforge/releases/download/26.3.2-3/{file}"


def test_an_installer_without_checksum_is_refused() -> None:
    assert "no known sha256" in errors(version="24.1.2-0")
    assert "no known sha256" in errors(installer_url="https://h.example/installer.sh")
    assert plan(version="24.1.2-0", installer_sha256=SHA).errors == []
    assert "miniconda_installer_sha256" in errors(installer_sha256="abc")


def test_a_file_of_the_controller() -> None:
    name = "Miniconda3-py311_26.5.3-1-Linux-x86_64.sh"
    made = plan(installer_src=f"downloads/{name}")
    assert made.errors == []
    assert made.copies == [{"src": f"downloads/{name}", "dest": f"{conda_settings.CACHE}/"}]
    assert made.installer_url == f"file://{conda_settings.CACHE}/{name}"
    assert "choose one" in errors(installer_src=name, installer_url="https://h.example/x.sh")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Miniconda3-py312_26.5.3-1-Linux-x86_64.sh", "is python 3.12"),
        ("Miniconda3-py311_26.3.2-2-Linux-x86_64.sh", "is version 26.3.2-2"),
        ("Miniforge3-26.5.3-1-Linux-x86_64.sh", "is distribution miniforge"),
    ],
)
def test_an_installer_that_is_something_else_than_the_variables_say(name: str, part: str) -> None:
    assert part in errors(installer_url=f"https://h.example/{name}", installer_sha256=SHA)


def test_anacondas_channels_need_the_opt_in() -> None:
    assert "licence" in errors(channels=["defaults"])
    made = plan(channels=["defaults"], anaconda_terms_accepted=True)
    assert made.errors == []
    assert made.condarc["default_channels"][0] == "https://repo.anaconda.com/pkgs/main"
    assert made.condarc["plugins"] == {"auto_accept_tos": True}


def test_more_settings_for_conda_but_not_the_ones_that_are_set_elsewhere() -> None:
    assert plan(condarc={"remote_read_timeout_secs": 120}).condarc["remote_read_timeout_secs"] == 120
    assert "is set by miniconda_ca_bundle" in errors(condarc={"ssl_verify": False})
    assert "is set by miniconda_channels" in errors(condarc={"channels": ["defaults"]})
    assert "is set by miniconda_anaconda_terms_accepted" in errors(condarc={"plugins": {"auto_accept_tos": True}})


def test_everything_wrong_is_said_at_once() -> None:
    text = errors(prefix="/home/ada/conda", channels=[], environments=[{"name": "a/b", "packages": ["x"]}], python=3.11)
    for part in ("miniconda_prefix", "miniconda_channels", "miniconda_environments[0].name", "miniconda_python"):
        assert part in text


def test_a_declaration_with_a_file() -> None:
    data = {"name": "ignored", "dependencies": ["numpy"]}
    assert conda_settings.from_file({"name": "x", "file": "f.yml"}, data) == {
        "name": "x",
        "channels": [],
        "packages": ["numpy"],
        "pip": [],
    }
    with pytest.raises(InvalidError):
        conda_settings.from_file({"name": "x", "file": "f.yml", "packages": ["numpy"]}, data)


def test_what_users_cannot_override_is_marked() -> None:
    made = plan(condarc_final=["channels", "channel_priority"])
    text = condarc_text(made.condarc, made.final)
    assert "channels:  #!final\n- conda-forge\n" in text
    assert "channel_priority: strict  #!final\n" in text
    assert "auto_activate: false\n" in text
    assert yaml.safe_load(text) == made.condarc
    assert "is not set here" in errors(condarc_final=["ssl_verify"])


def test_proxies_and_certificates_reach_everything_that_is_started() -> None:
    made = plan(proxies={"https": "http://proxy.example:3128"}, ca_bundle="/etc/ssl/certs/ca-certificates.crt")
    assert made.condarc["proxy_servers"] == {"https": "http://proxy.example:3128"}
    assert made.condarc["ssl_verify"] == "/etc/ssl/certs/ca-certificates.crt"
    assert made.variables["https_proxy"] == made.variables["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert made.variables["PIP_CERT"] == made.variables["SSL_CERT_FILE"] == "/etc/ssl/certs/ca-certificates.crt"
    assert plan().variables == {}


def test_a_proxy_with_a_password_is_refused_and_not_shown() -> None:
    text = errors(proxies={"http": "http://ada:secret@proxy.example"})
    assert "everybody could read" in text
    assert "secret" not in text
    assert "unknown scheme" in errors(proxies={"ftp": "http://proxy.example"})
    assert "miniconda_ca_bundle" in errors(ca_bundle="certs/ca.pem")


def test_what_is_imported_is_imported_by_the_environments_owner() -> None:
    declared = [
        {"name": "a", "packages": ["torch-cpu"], "imports": ["torch", "torch.cuda"]},
        {"name": "b", "owner": "ada", "packages": ["numpy"], "imports": ["numpy"]},
        {"name": "c", "packages": ["numpy"]},
    ]
    conda = "/opt/miniconda/bin/conda"
    assert plan(environments=declared).checks == [
        {"name": "a", "argv": [conda, "run", "--name", "a", "python", "-c", "import torch, torch.cuda"]},
        {"name": "ada/b", "argv": ["runuser", "-l", "ada", "-c", f"{conda} run --name b python -c 'import numpy'"]},
    ]
