# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate counts what it leaves out, by name; it passes nothing over in silence."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cores
import pytest
import run
import sanity
from doc_blocks import ROOT


def test_a_sanity_test_without_its_program_is_skipped_by_name() -> None:
    said = [
        'Running sanity test "pslint"',
        'WARNING: Required program "pwsh" not found.',
        'Running sanity test "pylint"',
        "WARNING: Reviewing previous 1 warning(s):",
        'WARNING: Required program "pwsh" not found.',
    ]
    known, other = sanity.left_out(said)
    assert [line.partition(";")[0] for line in known] == ["sanity test pslint: no pwsh here"]
    assert other == []


@pytest.mark.parametrize(
    "said",
    [
        'WARNING: Required program "shellcheck" not found.',
        'WARNING: Skipping sanity test "validate-modules" on Python 3.11 due to missing virtual environment support.',
    ],
)
def test_another_one_that_is_left_out_fails(said: str) -> None:
    known, other = sanity.left_out(['Running sanity test "shellcheck"', said])
    assert (known, len(other)) == ([], 1)


def test_every_line_that_sanity_ignores_has_a_reason() -> None:
    files = sorted((ROOT / "tests/sanity").glob("ignore-*.txt"))
    assert len(files) == len(cores.CORES)  # one for each core
    lines = [(path.name, line) for path in files for line in path.read_text().splitlines() if line.strip()]
    assert lines
    assert not [line for line in lines if not re.search(r"\S # \S+ \S+", line[1])]


def test_what_a_step_says_it_skipped_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "OUTPUT", tmp_path)
    monkeypatch.setattr(run, "DONE", [])
    count = run.run(run.Step("one", (sys.executable, "-c", "print('skipped: half of it: no moon')")))
    assert count == run.Count(passed=1, skipped=1)
    assert "skipped: half of it: no moon" in capsys.readouterr().out
    assert run.DONE[0].endswith("(1 passed, 0 failed, 1 skipped)")


def test_without_an_engine_all_that_needs_one_is_skipped_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGINE", "none")
    monkeypatch.setattr(run, "DONE", [])
    assert run.environments() == run.Count(skipped=1)
    assert run.molecule_all(["site"]) == run.Count(skipped=1)
    assert run.DONE == ["skipped ee: ENGINE=none", "skipped molecule-site: ENGINE=none"]
    capsys.readouterr()


def test_without_an_engine_the_cores_skip_their_scenario_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGINE", "none")
    monkeypatch.setattr(cores, "OUTPUT", tmp_path)
    saying = "print('skipped: sanity test pslint: no pwsh here')"
    monkeypatch.setattr(
        cores, "steps", lambda _bin: {"sanity": [sys.executable, "-c", saying], cores.SCENARIO: ["false"]}
    )
    assert cores.check(cores.CORES[0], Path(sys.executable).parent) == 0
    skipped = [line for line in capsys.readouterr().out.splitlines() if line.startswith(run.SKIPPED)]
    assert skipped == [
        f"skipped: ansible-core {cores.CORES[0].version}, sanity test pslint: no pwsh here",
        f"skipped: ansible-core {cores.CORES[0].version}, host_firewall: ENGINE=none",
    ]


def test_without_an_engine_a_core_for_a_newer_python_is_skipped_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGINE", "none")
    monkeypatch.setattr(cores, "OUTPUT", tmp_path)
    monkeypatch.setattr(cores, "CORES", (cores.Core("9.9.9", (9, 0), (9, 9)),))
    monkeypatch.setattr(sys, "argv", ["cores"])
    assert cores.main() == 0
    skipped = capsys.readouterr().out.splitlines()
    assert len(skipped) == len(cores.steps(Path()))
    assert all(line.startswith("skipped: ansible-core 9.9.9, ") for line in skipped)
