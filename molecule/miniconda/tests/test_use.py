# SPDX-License-Identifier: GPL-3.0-or-later
"""What users get, on the finished host."""

from __future__ import annotations

import json
import re

import pytest
from conftest import PREFIX, Box
from doc_blocks import ROOT, to_run

DECLARED, OF_THEIR_OWN = to_run(ROOT / "docs" / "environments.md", "molecule/miniconda/tests/test_use.py")

# --- every kind of shell -------------------------------------------------------------------------------------------

SHELLS = {
    "a command over ssh": "conda --version",
    "a login shell": "bash -lc 'conda --version'",
    "a plain login shell": "sh -lc 'conda --version'",
    "sudo": "sudo -n conda --version",
    "root's login shell": "sudo -n -i conda --version",
    "an interactive shell": "bash -ic 'type -t conda && conda --version' 2>/dev/null",
    "a service": "sudo -n systemd-run --quiet --wait --pipe conda --version",
}


@pytest.mark.parametrize("kind", SHELLS)
def test_every_shell_finds_conda(box: Box, kind: str) -> None:
    assert re.search(r"^conda \d+\.\d+\.\d+$", box.person(SHELLS[kind]), re.MULTILINE)


OTHER_SHELLS = {
    "zsh": "zsh -c 'conda --version'",
    "a zsh login shell": "zsh -lc 'conda --version'",
    "an interactive zsh": "zsh -ic 'whence -w conda && conda --version' 2>/dev/null",
    "fish": "fish -c 'conda --version'",
    "a fish login shell": "fish -lc 'conda --version'",
}


@pytest.mark.full_run
@pytest.mark.parametrize("kind", OTHER_SHELLS)
def test_zsh_and_fish_find_conda_where_they_are_installed(any_state: Box, kind: str) -> None:
    said = any_state.person(OTHER_SHELLS[kind])
    assert re.search(r"^conda \d+\.\d+\.\d+$", said, re.MULTILINE), said
    if "interactive" in kind:
        assert "conda: function" in said


def test_what_cron_has_for_a_path_finds_conda(any_state: Box) -> None:
    """Debian's cron gives its jobs this PATH; the full run asks a real one."""
    said = any_state.person("env -i PATH=/usr/bin:/bin HOME=$HOME sh -c 'conda --version'")
    assert re.fullmatch(r"conda \d+\.\d+\.\d+", said)


@pytest.mark.full_run
def test_a_job_of_cron_finds_conda(any_state: Box) -> None:
    """Whatever PATH cron gives: Debian's leaves /usr/local/bin out."""
    out = "/home/automation/by-cron"
    any_state.root(f"rm -f {out}* /run/crond.reboot")
    any_state.root(
        f"echo '@reboot (echo $PATH; conda --version) >{out} 2>&1; touch {out}.done' | crontab -u automation -"
    )
    any_state.root("systemctl restart cron")
    any_state.root(f"timeout 30 sh -c 'until test -e {out}.done; do sleep 0.2; done'; crontab -u automation -r")
    said = any_state.root(f"cat {out}")
    assert re.search(r"^conda \d+\.\d+\.\d+$", said, re.MULTILINE), said


def test_nothing_is_activated_by_itself(box: Box) -> None:
    assert (
        box.person("bash -lic 'echo \"prefix:$CONDA_PREFIX\"; command -v python3' 2>/dev/null")
        == "prefix:\n/usr/bin/python3"
    )


@pytest.mark.standin
@pytest.mark.parametrize("shell", ["bash -lc", "bash -ic"])
def test_an_environment_can_be_activated(box: Box, shell: str) -> None:
    program = "import labplot, labpip, sys; print(sys.prefix, labpip.__version__)"
    said = box.person(f"{shell} 'conda activate plot-py311 && python -c \"{program}\"' 2>/dev/null")
    assert said == f"{PREFIX}/envs/plot-py311 1.0"


# --- what is in it -------------------------------------------------------------------------------------------------


@pytest.mark.standin
def test_the_declared_environments_work(box: Box) -> None:
    assert box.environments() == ["fit-py311", "plot-py311"]
    program = "import labmath, labplot, sys; print(labmath.__version__, *sys.version_info[:2])"
    said = box.person(f"conda run -n plot-py311 python -c '{program}'")
    assert said == "1.1 3 11"
    assert box.person("conda run -n fit-py311 python -c 'import labfit, labmath; print(labmath.__version__)'") == "2.0"
    assert box.person("conda run -n fit-py311 labtool") == "labtool 1.0"


def test_base_is_python_311_and_pinned(box: Box) -> None:
    assert box.root(f"{PREFIX}/bin/python -c 'import sys; print(*sys.version_info[:2])'") == "3 11"
    assert box.root(f"cat {PREFIX}/conda-meta/pinned") == "python 3.11.*"


def test_conda_asks_conda_forge_only(box: Box) -> None:
    shown = json.loads(box.person("conda config --show channels default_channels channel_priority --json"))
    assert shown["channels"] == ["conda-forge"]
    assert shown["channel_priority"] == "strict"
    assert all("conda-forge" in str(url) for url in shown["default_channels"])
    assert "anaconda.com" not in box.root(f"cat {PREFIX}/.condarc")


def test_everything_belongs_to_root(box: Box) -> None:
    assert box.root(f"find {PREFIX} ! -user root -o ! -type l -perm /002 | head") == ""


def test_base_is_protected_from_users_and_from_root(box: Box) -> None:
    by_user = box.ssh("conda install --name base --yes labtool")
    assert by_user.returncode == 1
    assert re.search("EnvironmentNotWritable|EnvironmentIsFrozen", by_user.stderr), by_user.stderr
    by_root = box.ssh("sudo -n conda install --name base --yes labtool")
    assert by_root.returncode == 1
    assert "frozen" in by_root.stderr.lower(), by_root.stderr
    by_pip = box.ssh(f"sudo -n {PREFIX}/bin/python -m pip install labpip")
    assert by_pip.returncode == 1
    assert "externally-managed-environment" in by_pip.stderr, by_pip.stderr


@pytest.mark.standin
def test_users_make_environments_of_their_own(box: Box) -> None:
    box.person("conda create --name mine --yes --quiet python=3.11 labtool")
    try:
        assert box.person("conda run -n mine labtool") == "labtool 1.0"
        assert box.person("test -d ~/.conda/envs/mine && echo there") == "there"
        assert box.ssh("conda install --name plot-py311 --yes labtool").returncode == 1
    finally:
        box.person("conda env remove --name mine --yes")


@pytest.mark.standin
def test_the_word_defaults_does_not_lead_to_anaconda(box: Box) -> None:
    """And without our configuration it would: that is the prompt that scripts die of."""
    made = box.ssh("conda create --name d --yes --quiet --channel defaults --override-channels labmath")
    assert made.returncode == 0, made.stderr
    box.person("conda env remove --name d --yes")
    box.root(f"mv {PREFIX}/.condarc /root/kept")
    bare = box.host.run(f"{PREFIX}/bin/conda create --name d --yes labmath")
    box.root(f"mv /root/kept {PREFIX}/.condarc")
    assert bare.rc == 1
    assert "CondaToSNonInteractiveError" in bare.stderr


@pytest.mark.one_system
@pytest.mark.standin
@pytest.mark.full_run
def test_anacondas_channels_are_a_decision_and_then_ask_nobody(any_state: Box) -> None:
    """The host's own mirror under Anaconda's name. Without the decision, a person's conda dies of the terms at once."""
    channel = "http://repo.anaconda.com:8077/channels/conda-forge"
    wanted = {"name": "terms-py311", "channels": [channel], "packages": ["labtool"]}
    person = f"conda create --name d --yes --quiet --channel {channel} --override-channels labmath"
    any_state.root("cp /etc/hosts /root/hosts; echo 127.0.0.1 repo.anaconda.com >>/etc/hosts")
    try:
        asked = any_state.ssh(person)
        assert "CondaToSNonInteractiveError" in asked.stderr
        refused = any_state.play(miniconda_environments=[wanted])
        assert refused.refused("licence", "miniconda_anaconda_terms_accepted: true").changed == 0
        any_state.play(miniconda_environments=[wanted], miniconda_anaconda_terms_accepted=True).ok()
        assert any_state.person("conda run -n terms-py311 labtool") == "labtool 1.0"
        any_state.person(person)
        any_state.person("conda env remove --name d --yes")
    finally:
        any_state.root("cat /root/hosts >/etc/hosts")


@pytest.mark.one_system
@pytest.mark.standin
@pytest.mark.full_run
def test_the_operator_decides_what_users_override_and_how_they_get_out(any_state: Box) -> None:
    """conda itself says what came of it, to a person who wrote something else into ~/.condarc."""
    invalid = any_state.play(miniconda_condarc={"channel_priority": "sometimes"})
    assert invalid.refused("channel_priority", "sometimes").changed == 0
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    any_state.play(
        miniconda_condarc_final=["channels", "channel_priority"],
        miniconda_proxies={"https": "http://proxy.example:3128"},
        miniconda_ca_bundle=certificates,
    ).ok()
    any_state.person("printf 'channels: [elsewhere]\nchannel_priority: disabled\nauto_activate: true\n' > ~/.condarc")
    try:
        shown = json.loads(any_state.person("conda config --show --json"))
    finally:
        any_state.person("rm ~/.condarc")
    assert (shown["channels"], shown["channel_priority"]) == (["conda-forge"], "strict")
    assert shown["auto_activate"] is True
    assert shown["proxy_servers"] == {"https": "http://proxy.example:3128"}
    assert shown["ssl_verify"] == certificates


# --- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_without_changes_is_short_and_does_not_start_conda(box: Box) -> None:
    conda = f"{PREFIX}/bin/conda"
    box.root(f"mv {conda} {conda}.real && printf '#!/bin/sh\\nexit 99\\n' > {conda} && chmod 755 {conda}")
    try:
        play = box.play()
    finally:
        box.root(f"mv {conda}.real {conda}")
    play.ok()
    assert play.changed == 0
    assert play.results <= 10


@pytest.mark.one_system
@pytest.mark.standin
@pytest.mark.full_run
def test_the_documented_commands_run_as_written(box: Box) -> None:
    box.person(f"set -e\n{DECLARED.text}")
    box.person(f"set -e\n{OF_THEIR_OWN.text}")
