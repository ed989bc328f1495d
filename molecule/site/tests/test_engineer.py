# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engineer gets, from the machine's own terminal: the commands that `make demo` prints, run as printed."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from lab_site import CONFIG, ROOT, ssh, ssh_options

pytestmark = pytest.mark.usefixtures("lab")


def test_torch_runs_in_the_engineers_container() -> None:
    matmul = "(torch.ones(8, 8) @ torch.ones(8, 8)).sum().item()"
    done = ssh("gpu-01", f'python3 -c "import torch; print(torch.__version__, {matmul})"')
    assert done.returncode == 0, done.stderr
    version, total = done.stdout.split()
    assert version[0].isdigit()
    assert float(total) == 8 * 8 * 8


def test_the_prompt_is_in_the_container_and_not_on_the_node() -> None:
    inside = ssh("gpu-01", "test -f /.dockerenv && id -un && id -u")
    assert inside.returncode == 0, inside.stderr
    assert inside.stdout.split()[0] == "ada"
    assert inside.stdout.split()[1] != "0"


def test_the_second_command_is_many_times_faster_than_the_first() -> None:
    subprocess.run(["ssh", "-F", CONFIG, "-O", "exit", "gpu-01"], capture_output=True)
    subprocess.run(["ssh", "-F", CONFIG, "-O", "exit", "bastion"], capture_output=True)
    started = time.monotonic()
    assert ssh("gpu-01", "true").returncode == 0
    cold = time.monotonic() - started
    check = subprocess.run(["ssh", "-F", CONFIG, "-O", "check", "gpu-01"], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
    assert "Master running" in check.stderr
    warm = min(_timed("gpu-01") for _ in range(5))
    assert cold / warm > 5, f"cold {cold:.3f} s, warm {warm:.3f} s"


def _timed(alias: str) -> float:
    started = time.monotonic()
    assert ssh(alias, "true").returncode == 0
    return time.monotonic() - started


def test_scp_sftp_and_rsync_use_the_same_configuration(tmp_path: Path) -> None:
    sent = tmp_path / "sent.txt"
    sent.write_text("one file\n")
    for command in (
        ["scp", "-q", "-F", CONFIG, str(sent), "gpu-01:by-scp.txt"],
        ["rsync", "-e", f"ssh -F {CONFIG}", str(sent), "gpu-01:by-rsync.txt"],
    ):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    done = subprocess.run(
        ["sftp", "-q", "-F", CONFIG, "-b", "-", "gpu-01"], cwd=ROOT, input=f"put {sent} by-sftp.txt\n",
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    back = ssh("gpu-01", "cat by-scp.txt by-rsync.txt by-sftp.txt && rm by-scp.txt by-rsync.txt by-sftp.txt")
    assert back.stdout == "one file\n" * 3


def test_git_clones_with_the_key_only_in_the_agent() -> None:
    clone = ssh("gpu-01", "rm -rf demo && git clone -q git@git.lab.internal:demo.git && ls demo && rm -rf demo")
    assert clone.returncode == 0, clone.stderr
    assert "README.md" in clone.stdout
    keys = ssh("gpu-01", "grep -rlE 'PRIVATE KEY' ~ /tmp 2>/dev/null; true")
    assert keys.stdout == "", f"private keys in the container: {keys.stdout}"


def test_git_without_the_agent_is_refused() -> None:
    done = ssh("gpu-01", "env -u SSH_AUTH_SOCK git clone -q git@git.lab.internal:demo.git /tmp/should-not-be")
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_jupyter_answers_through_the_configured_forward_and_only_with_its_token() -> None:
    forward = [v for k, v in ssh_options("gpu-01") if k == "localforward"]
    assert forward, "the configuration names no forward for Jupyter"
    local = forward[0].split()[0].rsplit(":", 1)[-1].strip("[]")
    assert ssh("gpu-01", "true").returncode == 0  # the shared connection carries the forward
    token = ssh("gpu-01", "devnode-jupyter token").stdout.strip()
    assert len(token) >= 32
    url = f"http://127.0.0.1:{local}/api/kernelspecs"
    with urllib.request.urlopen(f"{url}?token={token}", timeout=20) as answer:  # noqa: S310  our own loopback
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=20)
    assert refused.value.code == 403
    user = ssh("gpu-01", "ps -eo user:32,args | grep '[j]upyter-lab' | cut -d' ' -f1 | sort -u").stdout.split()
    assert user == ["ada"]


def test_the_bastion_itself_is_refused_by_ssh() -> None:
    for command in ([], ["id"], ["-s", "sftp"]):
        done = subprocess.run(
            ["ssh", "-F", CONFIG, "-o", "BatchMode=yes", "bastion", *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode == 255, (command, done.stdout, done.stderr)
        assert "uid=" not in done.stdout


def test_no_trust_on_first_use_and_no_prompt() -> None:
    for alias in ("gpu-01", "bastion"):
        options = dict(ssh_options(alias))
        assert options["stricthostkeychecking"] in ("yes", "true")
        assert options["updatehostkeys"] in ("no", "false")
        assert options["identitiesonly"] == "yes"
        assert options["hostkeyalias"]
    assert dict(ssh_options("bastion"))["forwardagent"] == "no"


def test_the_gpus_asked_for_are_there_and_no_others() -> None:
    listed = ssh("gpu-01", "ls -1 /dev | grep -E '^nvidia[0-9]+$'")
    assert listed.stdout.split() == ["nvidia0"]
