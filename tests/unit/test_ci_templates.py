# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/ci gives to other people's repositories keeps its promises.

The scenario first_fleet runs fleet.sh on hosts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import ROOT, blocks, to_run
from scenario_hosts import processes, wait_until

CI = ROOT / "docs/ci"
WORKFLOWS = sorted([*(CI / "github").glob("*.yml"), *(ROOT / ".github/workflows").glob("*.yml")])
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
PUSH = (
    "github.event_name == 'push' && github.event.repository.private"
    " && github.ref == format('refs/heads/{0}', github.event.repository.default_branch)"
)
GITLAB_PUSH = (
    '$CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH && $CI_COMMIT_REF_PROTECTED == "true"'
    ' && $CI_PROJECT_VISIBILITY != "public"'
)
VALIDATE = "ansible-playbook -i inventory/hosts.yml devnode.gpu.validate"
LINT = "ansible-lint --offline --exclude .venv --exclude .collections"
SYNTAX = "ansible-playbook -i inventory/hosts.yml devnode.gpu.site --syntax-check"


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def script(job: str, name: str) -> str:
    """A step of the reusable workflow, as its shell gets it."""
    steps = load(CI / "github/fleet-run.yml")["jobs"][job]["steps"]
    return next(step["run"] for step in steps if step.get("name") == name)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    lines = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert not [line for line in lines if not PINNED.search(line) and not line.startswith("uses: ./")]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_and_no_more(path: Path) -> None:
    assert load(path)["permissions"] == {"contents": "read"}


def test_a_pull_request_reaches_no_secret_and_no_environment() -> None:
    assert load(CI / "github/fleet.yml")["on"] == {"pull_request": None, "push": {"branches": ["main"]}}
    caller = load(CI / "github/fleet.yml")["jobs"]
    reached = [job for job in caller.values() if "if" not in job]
    assert [job["uses"] for job in reached] == ["./.github/workflows/fleet-check.yml"]
    assert all(set(job) == {"uses"} for job in reached)
    check = (CI / "github/fleet-check.yml").read_text()
    assert not re.search(r"secrets|environment:|self-hosted|token", check)
    assert not [job for job in load(CI / "github/fleet-check.yml")["jobs"].values() if "permissions" in job]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_workflow_runs_with_secrets_for_what_a_stranger_wrote(path: Path) -> None:
    """pull_request_target and workflow_run have the repository's secrets, whoever's branch it is."""
    allowed = {"workflow_call"} if path.name in ("fleet-check.yml", "fleet-run.yml") else {"push", "pull_request"}
    assert set(load(path)["on"]) == allowed


def lint_version() -> str:
    """The one that this tree is linted with."""
    found = re.search(r"^ansible-lint==(\S+)", (ROOT / ".config/requirements.txt").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_a_pull_request_is_validated_linted_and_read() -> None:
    install = f"pip install -q ansible-lint=={lint_version()}"
    job = load(CI / "github/fleet-check.yml")["jobs"]["check"]
    assert "if" not in job
    assert not [step for step in job["steps"] if {"if", "continue-on-error"} & set(step)]
    _, *rest = [step["run"] for step in job["steps"] if "run" in step]
    lint = [f".venv/bin/{install}", f'PATH="$PWD/.venv/bin:$PATH" {LINT}']
    assert [line for one in rest for line in one.splitlines()] == [
        f".venv/bin/{VALIDATE}",
        *lint,
        f".venv/bin/{SYNTAX}",
    ]
    check = load(CI / "gitlab-ci.yml")["check"]
    assert set(check) == {"extends", "stage", "script"}
    assert check["script"] == [VALIDATE, install, LINT, SYNTAX]


@pytest.mark.skipif(not shutil.which("git"), reason="no git here")
def test_the_lint_takes_the_first_fleet_and_refuses_a_mistake(tmp_path: Path) -> None:
    """The very command of the templates, on the repository that docs/first-fleet.md and docs/ci.md make."""
    page = ROOT / "docs/first-fleet.md"
    work = tmp_path / "fleet"
    example = ".ansible/collections/ansible_collections/devnode/gpu/inventory/example"
    shutil.copytree(ROOT / "inventory/example", tmp_path / example)
    shutil.copytree(CI / "github", work / ".github/workflows")
    shutil.copy(CI / "gitlab-ci.yml", work / ".gitlab-ci.yml")
    [requirements] = re.findall(r"`requirements.yml`:\n\n```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    (work / "requirements.yml").write_text(requirements)
    subprocess.run(["git", "init", "-q", work], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment["HOME"] = str(tmp_path)

    def run(command: str) -> subprocess.CompletedProcess[str]:
        argv = ["bash", "-c", command]
        return subprocess.run(argv, cwd=work, env=environment, capture_output=True, text=True, check=False)

    values = next(block.text for block in blocks(page) if block.marker == "values")
    assert run(values + to_run(page, "first-fleet")[1].text).returncode == 0
    good = run(LINT)
    assert good.returncode == 0, good.stdout + good.stderr
    with (work / "inventory/group_vars/all/people.yml").open("a") as people:
        people.write("devnode_users: []\n")
    bad = run(LINT)
    assert bad.returncode != 0
    assert "devnode_users" in bad.stdout + bad.stderr


def test_the_key_is_for_pushes_to_the_default_branch_alone() -> None:
    assert load(CI / "github/fleet.yml")["jobs"]["run"]["if"] == "github.event_name == 'push'"
    jobs = load(CI / "github/fleet-run.yml")["jobs"]
    assert all(PUSH in " ".join(job["if"].split()) for job in jobs.values())
    for name, job in jobs.items():
        has_key = "FLEET_KEY" in yaml.safe_dump(job)
        assert has_key == ("environment" in job) == (name in ("plan", "apply"))
        # Who has the key cannot write to the repository, and the other way round.
        assert ("permissions" in job) != has_key
    assert {name: job.get("environment") for name, job in jobs.items()} == {
        "plan": "fleet-plan",
        "apply": "fleet",
        "record": None,
    }


def test_plan_and_apply_differ_by_check_mode() -> None:
    plan, apply = script("plan", "Check mode, with its diff"), script("apply", "The same run, for real")
    assert plan.replace("plan.txt", "apply.txt").removesuffix(" --check") == apply
    assert plan.endswith(" --check")


def test_gitlab() -> None:
    pipeline = load(CI / "gitlab-ci.yml")
    # For what there are pipelines at all; which jobs they have is said below.
    assert pipeline["workflow"] == {
        "rules": [
            {"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'},
            {"if": '$CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH'},
        ]
    }
    jobs = {"check", ".ansible", ".fleet", "plan", "apply", "record"}
    assert set(pipeline) == {"stages", "workflow", "default", "variables", *jobs}
    assert not re.search("FLEET|KEY|TOKEN", str(pipeline["variables"]) + str(pipeline["default"]))
    check = pipeline["check"]
    assert not {"environment", "tags", "rules"} & set(check) | {"environment", "tags"} & set(pipeline[".ansible"])
    assert pipeline[".fleet"]["rules"] == [{"if": GITLAB_PUSH, "when": "manual", "allow_failure": False}]
    assert pipeline["record"]["rules"] == [{"if": GITLAB_PUSH}]
    for name in ("plan", "apply"):
        job = pipeline[name]
        assert (job["extends"], job["environment"]["name"]) == (".fleet", f"fleet/{name}")
        assert "rules" not in job
        assert job["artifacts"]["access"] == "developer"
    assert "environment" not in pipeline["record"]
    [plan], [apply] = pipeline["plan"]["script"], pipeline["apply"]["script"]
    assert plan == apply.replace("apply.txt", "plan.txt") + " --check"
    # The same words as on GitHub.
    assert script("apply", "The same run, for real").endswith(apply)


PLAYBOOK = """#!/bin/bash
echo "argv: $*"
echo "key: ${FLEET_KEY-unset}"
echo "agent: $(ssh-add -L)"
echo "sockets: $ANSIBLE_SSH_CONTROL_PATH_DIR"
for word; do case $word in ansible_ssh_private_key_file=*)
  echo "identity: $(cat "${word#*=}")"; echo "certificate: $(cat "${word#*=}-cert.pub" 2>/dev/null)"; ls "${word%/*}" ;;
*/vault) echo "vault: $(cat "$word") ${FLEET_VAULT-unset}" ;;
esac; done
printf 'PLAY RECAP ***\\ngpu-01 : ok=1\\n'
exit "${STUB_STATUS:-0}"
"""


@pytest.fixture
def job(tmp_path: Path) -> Any:
    """A job's machine: a program in place of ansible-playbook, a temporary directory, a key."""
    tools, temporary = tmp_path / "bin", tmp_path / "temp"
    tools.mkdir()
    temporary.mkdir()
    (tools / "ansible-playbook").write_text(PLAYBOOK)
    (tools / "ansible-playbook").chmod(0o755)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ci", "-f", tmp_path / "key"], check=True)

    def run(key: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "RUNNER_TEMP": str(temporary),
            "HOME": str(tmp_path),
            "FLEET_KEY": key,
            # Somebody else's, which must be left alone: no such process would be killed quietly.
            "SSH_AGENT_PID": "999999999",
            **more,
        }
        argv = ["bash", CI / "fleet.sh", "log", "devnode.gpu.site", "--check"]
        return subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("given", ["text", "windows text", "file"])
def test_fleet_sh_leaves_nothing(tmp_path: Path, job: Any, given: str) -> None:
    text = (tmp_path / "key").read_text()
    done = job({"text": text, "windows text": text.replace("\n", "\r\n"), "file": str(tmp_path / "key")}[given])
    assert done.returncode == 0, done.stderr
    public = (tmp_path / "key.pub").read_text().strip()
    log = (tmp_path / "log").read_text()
    assert f"agent: {public}\n" in log
    assert f"identity: {public}\n" in log
    assert "key: unset\n" in log
    assert "devnode.gpu.site --check" in log
    assert "\nkey\n" not in log  # no private key in a file while the playbook runs
    assert f"sockets: {tmp_path}/temp/" in log
    # The job's own log has the counts and nothing else; the diff is for the artifact.
    assert done.stdout == "PLAY RECAP ***\ngpu-01 : ok=1\n"
    assert list((tmp_path / "temp").iterdir()) == []
    wait_until(lambda: not processes(str(tmp_path / "temp")), "the agent has ended", 10)
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


def test_fleet_sh_takes_a_certificate_along(tmp_path: Path, job: Any) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ca"], check=True)
    sign = ["ssh-keygen", "-q", "-s", tmp_path / "ca", "-I", "ci", "-n", "fleet", "-V", "+1h", tmp_path / "key.pub"]
    subprocess.run(sign, check=True)
    assert job(str(tmp_path / "key")).returncode == 0
    certificate = (tmp_path / "key-cert.pub").read_text().split()[1]
    log = (tmp_path / "log").read_text()
    assert re.search(rf"^certificate: \S+ {re.escape(certificate)}", log, re.MULTILINE)


def test_fleet_sh_hands_the_password_of_vaults_on(tmp_path: Path, job: Any) -> None:
    (tmp_path / "password").write_text("open sesame\n")
    for given in ("open sesame", str(tmp_path / "password")):
        assert job(str(tmp_path / "key"), FLEET_VAULT=given).returncode == 0
        assert "vault: open sesame unset\n" in (tmp_path / "log").read_text()
    assert job(str(tmp_path / "key"), FLEET_VAULT="").returncode == 0
    assert "--vault-password-file" not in (tmp_path / "log").read_text()
    assert list((tmp_path / "temp").iterdir()) == []


def test_fleet_sh_passes_failure_on(tmp_path: Path, job: Any) -> None:
    done = job((tmp_path / "key").read_text(), STUB_STATUS="2")
    assert (done.returncode, "exit status 2" in done.stderr) == (2, True)
    assert job("no key").returncode != 0
    assert list((tmp_path / "temp").iterdir()) == []


GH = """#!/bin/sh
echo "gh $*" >>"$CALLS"
[ "$2" != list ] || cat "$OPEN"
"""


@pytest.mark.skipif(not shutil.which("git"), reason="no git here")
def test_what_a_run_learnt_comes_as_a_pull_request(tmp_path: Path) -> None:
    step = script("record", "A pull request with what is new, and with nothing else")

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=work, check=True, capture_output=True, text=True).stdout

    work, calls = tmp_path / "work", tmp_path / "calls"
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "origin.git"], check=True)
    subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
    (work / "inventory").mkdir()
    (work / "inventory/known_hosts").write_text("bastion ssh-ed25519 AAAA\n")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "-m", "first")
    git("remote", "add", "origin", str(tmp_path / "origin.git"))
    git("push", "-q", "origin", "main")
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "open").write_text("")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "OPEN": str(tmp_path / "open")}

    def record() -> list[str]:
        calls.unlink(missing_ok=True)
        environment.update(BASE="main", HOME=str(tmp_path))
        subprocess.run(["bash", "-e", "-c", step], cwd=work, env=environment, check=True, capture_output=True)
        return [line.split()[2] for line in calls.read_text().splitlines()] if calls.exists() else []

    assert record() == []  # nothing new
    (work / "inventory/known_hosts").write_text("bastion ssh-ed25519 AAAA\nnlp.gpu-01 ssh-ed25519 AAAA\n")
    (work / "inventory/devnode_images.json").write_text("{}\n")
    (work / "inventory/hosts.yml").write_text("what a run has no business to change\n")
    assert record() == ["list", "create"]
    changed = git("diff", "--name-only", "origin/main", "HEAD").split()
    assert changed == ["inventory/devnode_images.json", "inventory/known_hosts"]
    assert git("ls-remote", "origin", "main").split()[0] == git("rev-parse", "main~1").strip()
    assert git("ls-remote", "origin", "fleet-record").split()[0] == git("rev-parse", "main").strip()
    # Another run meets the branch that is still open: it is written anew, and asked about once.
    git("reset", "-q", "--hard", "origin/main")
    (work / "inventory/known_hosts").write_text("bastion ssh-ed25519 AAAA\nvision.gpu-01 ssh-ed25519 AAAA\n")
    (tmp_path / "open").write_text("7\n")
    assert record() == ["list"]
    assert git("ls-remote", "origin", "fleet-record").split()[0] == git("rev-parse", "main").strip()


def test_the_shell_can_read_it() -> None:
    subprocess.run(["bash", "-n", CI / "fleet.sh"], check=True)
    for job in load(CI / "github/fleet-run.yml")["jobs"].values():
        for step in job["steps"]:
            subprocess.run(["bash", "-n"], input=step.get("run", ""), text=True, check=True)
