# SPDX-License-Identifier: GPL-3.0-or-later
"""The lint of shell scripts finds them all, and says what is wrong with one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from shell_scripts import ROOT, findings, scripts


def test_scripts_are_found_whatever_they_are_called() -> None:
    found = {str(path.relative_to(ROOT)) for path in scripts()}
    assert {
        ".ci/run",
        "docs/ci/fleet.sh",
        "roles/miniconda/templates/profile.sh.j2",
        "roles/pytorch_sshd/files/image/agent.sh",
        "roles/ssh_client_config/files/devnode-ssh",
        "tests/lab/services/lab-services",
    } <= found
    assert not [name for name in found if name.endswith(".py")]


def test_a_new_script_is_found_before_anybody_adds_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    texts = {"one": "#!/usr/bin/env bash\n", "two": "#!/bin/sh -e\n", "three": "#!/usr/bin/python3\n", "four.sh": ""}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert [path.name for path in scripts(tmp_path)] == ["four.sh", "one", "two"]


def test_a_bad_script_is_told_of(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nrm -r $1/x\n")
    assert "SC2086" in findings(script)
    script.write_text('#!/bin/sh\nrm -r "$1/x"\n')
    assert findings(script) == ""
    # Bash's own words in what sh reads.
    fragment = tmp_path / "profile.sh"
    fragment.write_text("if [[ -n $TMUX ]]; then exit; fi\n")
    assert "SC3010" in findings(fragment)


def test_of_a_template_the_shell_is_checked(tmp_path: Path) -> None:
    template = tmp_path / "program.j2"
    template.write_text('#!/bin/sh\nexec {{ folder }}/program "$@"\n')
    assert findings(template) == ""
    template.write_text("#!/bin/sh\nexec {{ folder }}/program $1\n")
    assert "SC2086" in findings(template)
