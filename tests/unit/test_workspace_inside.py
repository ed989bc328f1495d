# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the container's own program writes."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import (
    workspace_container,
)
from hypothesis import given
from hypothesis import strategies as st
from unit.in_image import in_image
from workspace_case import OPTIONS, nlp

accounts, base, environment, inside, sshd = (
    in_image(f"devnode_{name}") for name in ("accounts", "base", "environment", "workspace", "sshd")
)


def test_a_container_whose_description_was_taken_away_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "WORKSPACE", tmp_path)
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


def test_a_file_of_an_older_version_says_nothing_of_keys_and_ends_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes back to 0.1.0 has containers of the newer image until nobody is in them."""
    monkeypatch.setattr(inside.devnode_sessions, "end_lost", lambda *_words: pytest.fail("sessions were looked at"))
    config = {"owner": {"name": "ada", "uid": 2001}, "members": []}
    assert inside.end_lost_sessions(config) == []


def test_the_first_process_outlives_that_no_more_processes_are_to_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody forks without end, and JupyterLab or cron cannot be started: the container must not end for that."""

    class Sshd:
        stderr = None

        def poll(self) -> None:
            return None

    supervisor = inside.Supervisor()
    failures = [BlockingIOError(11, "Resource temporarily unavailable"), RuntimeError("can't start new thread")]

    def tend() -> None:
        if failures:
            raise failures.pop(0)
        supervisor.stopping = True

    monkeypatch.setattr(inside, "put", lambda *_words: True)
    monkeypatch.setattr(inside.signal, "signal", lambda *_words: None)
    monkeypatch.setattr(inside.subprocess, "Popen", lambda *_words, **_more: Sshd())
    monkeypatch.setattr(supervisor, "TICK", 0.01)
    monkeypatch.setattr(supervisor, "_tend", tend)
    monkeypatch.setattr(supervisor, "_end_everybody", lambda: None)
    assert supervisor.run() == 0
    assert capsys.readouterr().err.count("devnode-workspace: not now: ") == 2


PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("Cc", "Zl", "Zp", "Cs")))


@given(PRINTABLE.filter(str.isprintable))
def test_profile_gives_back_every_value(value: str) -> None:
    text = environment.profile({"NOTE": value})
    assert shlex.split(text, comments=True) == ["export", f"NOTE={value}"]


@given(PRINTABLE.filter(str.isprintable))
def test_sshd_reads_back_every_value(value: str) -> None:
    assert _argv_split(environment.sshd_setenv({"A": "1", "NOTE": value}).strip()) == ["SetEnv", "A=1", f"NOTE={value}"]


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


def test_environment_takes_the_allow_list_and_printable_values() -> None:
    given_ = {"PATH": "/bin", "CUDA_HOME": "/c", "SECRET": "x", "CUDA_BAD": "a\nb", "NOTE": "n"}
    kept = environment.environment(given_, ["PATH", "CUDA_*", "NOTE"])
    assert kept == {"PATH": "/bin", "CUDA_HOME": "/c", "NOTE": "n"}


def test_pam_environment_leaves_out_what_its_format_cannot_say() -> None:
    assert environment.pam_environment({"A": "x y", "B": "it's", "C": "#"}) == 'A="x y"\n'


def test_sshd_config_is_one_that_sshd_takes(tmp_path: Path) -> None:
    config = json.loads(workspace_container.config_json(nlp(agent_forwarding=True), OPTIONS))
    chosen = {"Ciphers": ["aes256-gcm@openssh.com"]}
    text = sshd.sshd_config(config, {"NOTE": 'a "b" \\c'}, (9, 2), chosen)
    assert "PerSourcePenalties" not in text
    assert "AllowUsers ada grace" in text
    assert "AllowAgentForwarding yes" in text
    assert "PerSourcePenalties no" in sshd.sshd_config(config, {}, (9, 8), {})
    config["exempt_networks"] = ["10.0.0.1/32"]
    assert "PerSourcePenaltyExemptList 10.0.0.1/32" in sshd.sshd_config(config, {}, (10, 0), {})
    program = Path("/usr/sbin/sshd")
    if not program.exists():
        pytest.skip("no sshd on this machine to read the file back with")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    path = tmp_path / "sshd_config"
    path.write_text(text + f"HostKey {key}\n")
    done = subprocess.run([program, "-T", "-f", path], capture_output=True, text=True)
    if "privilege separation" in done.stderr.lower():
        pytest.skip("this machine's sshd cannot run here")
    assert done.returncode == 0, done.stderr
    assert "permitopen 127.0.0.1:* localhost:* [::1]:*" in done.stdout
    assert 'setenv NOTE=a "b" \\c' in done.stdout


def test_a_home_is_made_once_and_never_walked(tmp_path: Path) -> None:
    skeleton = tmp_path / "skel"
    skeleton.mkdir()
    (skeleton / ".profile").write_text("x")
    home, me = tmp_path / "ada", tmp_path.stat().st_uid
    assert accounts.make_home(home, me, skeleton)
    assert (home / ".profile").read_text() == "x"
    assert home.stat().st_mode & 0o777 == 0o700
    (home / ".profile").write_text("mine")
    assert not accounts.make_home(home, me, skeleton)
    assert (home / ".profile").read_text() == "mine"
