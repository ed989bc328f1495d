#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the checks: lint, units, Molecule scenarios. Prints a line per step and counts at the end.

The output of each step goes to tests/output/<step>.log; a failed step's tail is printed as well. `full` is the gate
with everything that the gate leaves to one OS or to fixed examples; it writes its report to tests/reports/full.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "tests" / "output"
PLUGINS = ".collections/ansible_collections/devnode/gpu/plugins"
REPORT = ROOT / "tests" / "reports" / "full.md"
# What the scenario `bastion` wrote in its full run: outside auditors' words, before and after.
YARDSTICKS = ROOT / "tests" / "reports" / "yardsticks.md"
# Read by the scenarios (every test on every OS) and by tests/unit/conftest.py (new examples each time).
FULL = {"DEVNODE_TESTS": "full", "HYPOTHESIS_PROFILE": "full"}
GITHUB = (
    *(f"docs/ci/github/{name}.yml" for name in ("fleet", "fleet-check", "fleet-run")),
    ".github/workflows/test.yml",
)
GITLAB = "docs/ci/gitlab-ci.yml"
PYTHON = ("plugins", "tests", "molecule", "bench", "roles")
PROGRAMS = ("run", "role_docs", "docs_site", "cores", "ee", "attack_table", "sanity", "shell_scripts")
TAIL_LINES = 60
DEPRECATED = "[DEPRECATION"
# A step that leaves something out says so on a line that begins with this.
SKIPPED = "skipped: "
# The whole lab last: it is the dearest, and the role scenarios say more precisely what broke.
LAST_SCENARIO = "site"
# Too dear for the gate, and what they ask does not break by itself.
ONLY_IN_FULL = ("bastion_load", "upgrade")


@dataclass(frozen=True)
class Step:
    """One command. `junit` means that it reports its own tests, which are counted as well."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    junit: bool = False


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Count) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


def lint_steps() -> list[Step]:
    return [
        Step("yamllint", ("yamllint", "-s", "-c", ".config/yamllint.yml", ".")),
        Step("ruff", ("ruff", "check", *PYTHON)),
        Step("ruff-format", ("ruff", "format", "--check", *PYTHON)),
        Step("shellcheck", (sys.executable, "tests/shell_scripts.py")),
        # By this path mypy gives the modules the names that they have when Ansible imports them.
        Step("mypy", ("mypy", PLUGINS)),
        Step("mypy-tests", ("mypy", *(f"tests/{name}.py" for name in PROGRAMS), "tests/lab", "bench")),
        Step("ansible-lint", ("ansible-lint", "-c", ".config/ansible-lint.yml", "--offline")),
        Step("github", ("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *GITHUB)),
        Step(
            "gitlab",
            ("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", GITLAB),
        ),
        Step("reuse", ("reuse", "lint", "--quiet")),
        Step("changelog", ("antsibull-changelog", "lint")),
        Step("plugin-docs", ("antsibull-docs", "lint-collection-docs", "--plugin-docs", ".")),
        Step("site", (sys.executable, "tests/docs_site.py")),
        Step("syntax", ("ansible-playbook", "--syntax-check", "-i", "inventory/example/hosts.yml", "site.yml")),
        Step("inventory", ("ansible-inventory", "-i", "inventory/example/hosts.yml", "--list")),
    ]


def sanity_steps() -> list[Step]:
    return [Step("sanity", (sys.executable, "tests/sanity.py"))]


def core_steps() -> list[Step]:
    return [Step("cores", (sys.executable, "tests/cores.py"))]


def environment_steps() -> list[Step]:
    return [Step("ee", (sys.executable, "tests/ee.py"))]


def unit_steps() -> list[Step]:
    return [Step("unit", (sys.executable, "-m", "pytest", "tests/unit"), junit=True)]


def scenario_names() -> list[str]:
    names = sorted(p.parent.name for p in (ROOT / "molecule").glob("*/molecule.yml"))
    return [n for n in names if n != LAST_SCENARIO] + [n for n in names if n == LAST_SCENARIO]


def molecule_step(name: str) -> Step:
    ephemeral = os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", f"/tmp/devnode-mol-{name}")  # noqa: S108  short, for sockets
    return Step(
        f"molecule-{name}",
        ("molecule", "test", "-s", name),
        env={"MOLECULE_EPHEMERAL_DIRECTORY": ephemeral},
        junit=True,
    )


def _junit_count(path: Path) -> Count:
    count = Count()
    if not path.exists():
        return count
    for case in ET.parse(path).iter("testcase"):  # noqa: S314  our own pytest's report
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            count.failed += 1
        elif skip is not None:
            count.skipped += 1
            print(f"      skipped: {case.get('classname')}.{case.get('name')}: {skip.get('message')}")
        else:
            count.passed += 1
    return count


DONE: list[str] = []


def run(step: Step) -> Count:
    log = OUTPUT / f"{step.name}.log"
    report = OUTPUT / f"{step.name}.xml"
    report.unlink(missing_ok=True)
    env = {**os.environ, **step.env}
    if step.junit:
        env["PYTEST_ADDOPTS"] = f"{env.get('PYTEST_ADDOPTS', '')} --junitxml={report}".strip()
    started = time.monotonic()
    print(f"  ... {step.name}", flush=True)
    with log.open("wb") as out:
        status = subprocess.run(step.argv, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT).returncode
    seconds = time.monotonic() - started
    count = _junit_count(report) if step.junit else Count()
    lines = log.read_text(errors="replace").splitlines()
    for line in lines:
        if line.startswith(SKIPPED):
            count.skipped += 1
            print(f"      {line}", flush=True)
    # What is only deprecated today is refused one day, in every run of everybody's.
    deprecated = [line for line in lines if DEPRECATED in line]
    status = status or len(deprecated)
    # The command itself counts as one check: a scenario that dies before its tests has failed.
    if status == 0:
        count.passed += 1
    else:
        count.failed += 1
    verdict = "ok " if status == 0 else "FAILED"
    counted = f"{count.passed} passed, {count.failed} failed"
    if count.skipped:
        counted += f", {count.skipped} skipped"
    closing = f"{verdict} {step.name}  {seconds:.0f} s  ({counted})"
    DONE.append(closing)
    print(f"  {closing}", flush=True)
    if status != 0:
        print("\n".join(f"      | {line}" for line in [*lines[-TAIL_LINES:], *deprecated[:5]]))
        print(f"      whole output: {log.relative_to(ROOT)}", flush=True)
    return count


def run_all(steps: Sequence[Step], jobs: int = 1) -> Count:
    total = Count()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for count in pool.map(run, steps):
            total.add(count)
    return total


def side_by_side() -> int:
    """Two at once where there are cores for it; a scenario often waits for its hosts."""
    return 2 if (os.cpu_count() or 1) > 1 else 1


def no_engine() -> bool:
    """Whether somebody asked to do without one. What needs it is then skipped, and counted so."""
    return os.environ.get("ENGINE") == "none"


def skip(names: Sequence[str]) -> Count:
    for name in names:
        DONE.append(f"skipped {name}: ENGINE=none")
        print(f"  {DONE[-1]}", flush=True)
    return Count(skipped=len(names))


def environments() -> Count:
    """Needs an engine and a package index."""
    steps = environment_steps()
    return skip([step.name for step in steps]) if no_engine() else run_all(steps)


def molecule_all(names: Sequence[str]) -> Count:
    if no_engine():
        return skip([f"molecule-{name}" for name in names])
    total = run(Step("engine", (sys.executable, "tests/lab/lab.py", "engine")))
    if total.failed:
        print("No container engine: the scenarios cannot run. To run only what needs none: make test ENGINE=none")
        return total
    total.add(run(Step("images", (sys.executable, "tests/lab/lab.py", "images"))))
    roles = [molecule_step(n) for n in names if n != LAST_SCENARIO]
    total.add(run_all(roles, jobs=int(os.environ.get("MOLECULE_JOBS") or side_by_side())))
    total.add(run_all([molecule_step(n) for n in names if n == LAST_SCENARIO]))
    return total


def write_report(minutes: float, closing: str) -> None:
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    steps = "\n".join(DONE)
    yardsticks = f"\n## ssh-audit and Lynis\n\n{YARDSTICKS.read_text()}" if YARDSTICKS.exists() else ""
    REPORT.write_text(
        f"# make test-full\n\nRevision {revision.strip()}, {minutes:.1f} minutes: {closing}\n\n"
        f"```text\n{steps}\n```\n{yardsticks}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["gate", "full", "lint", "sanity", "unit", "cores", "molecule"])
    parser.add_argument("scenario", nargs="*")
    args = parser.parse_args()
    unknown = set(args.scenario) - set(scenario_names())
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are: {', '.join(scenario_names())}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    if args.what == "full":
        os.environ.update(FULL)
        YARDSTICKS.unlink(missing_ok=True)
    started = time.monotonic()
    total = Count()
    if args.what in ("gate", "full", "lint"):
        total.add(run_all(lint_steps(), jobs=2))
    slow = {"sanity": sanity_steps(), "unit": unit_steps()}
    wanted = [step for what, steps in slow.items() if args.what in ("gate", "full", what) for step in steps]
    total.add(run_all(wanted, jobs=side_by_side()))
    if args.what in ("full", "cores"):
        total.add(run_all(core_steps()))
    if args.what == "full":
        total.add(environments())
    if args.what in ("gate", "full", "molecule"):
        left_out = ONLY_IN_FULL if args.what == "gate" else ()
        total.add(molecule_all(args.scenario or [name for name in scenario_names() if name not in left_out]))
    minutes = (time.monotonic() - started) / 60
    closing = f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped"
    if args.what == "full":
        write_report(minutes, closing)
    print(f"\n{minutes:.1f} minutes")
    print(closing)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
