# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be so also when nothing is to be changed: looked at, put right where that is possible, told otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils import fileset_commands
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import masked, verified, verify_all
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import FileSetError
from ansible_collections.devnode.gpu.plugins.modules import file_set
from file_set_case import Case, tree


class Module:
    """As much of AnsibleModule as the last step needs."""

    def __init__(self, verify: list[dict[str, Any]], check: bool = False, state: str = "present") -> None:
        defaults = {"always": False, "repair": None, "timeout": 10}
        self.params = {"name": "demo", "state": state, "verify": [{**defaults, **one} for one in verify]}
        self.check_mode = check
        self._diff = True
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def look_again(module: Module) -> dict[str, Any]:
    run = file_set.FileSet(module)  # type: ignore[arg-type]
    run._look_again()
    return run.result


def there(path: Path, always: bool = True, repair: list[str] | None = None) -> dict[str, Any]:
    return {"argv": ["test", "-e", str(path)], "always": always, "repair": repair}


@pytest.mark.parametrize("check", [False, True])
def test_what_holds_is_not_talked_about(tmp_path: Path, check: bool) -> None:
    module = Module([there(tmp_path)], check)
    result = look_again(module)
    assert (result["changed"], result["repaired"], module.warnings) == (False, [], [])
    assert [one["rc"] for one in result["commands"]] == [0]


@pytest.mark.parametrize("check", [False, True])
def test_all_that_does_not_hold_is_told_in_words(tmp_path: Path, check: bool) -> None:
    failing = [{"argv": ["sh", "-c", f"echo {word}; exit 3"], "always": True} for word in ("one", "two")]
    with pytest.raises(FileSetError) as caught:
        look_again(Module([*failing, there(tmp_path / "no", always=False)], check))
    text = str(caught.value)
    assert "nothing was to be changed" in text
    assert "ended with 3: one" in text
    assert "ended with 3: two" in text
    assert "test" not in text


def test_a_set_that_goes_has_nothing_to_hold(tmp_path: Path) -> None:
    assert look_again(Module([there(tmp_path / "no")], state="absent"))["commands"] == []


def test_what_can_be_put_right_is_and_check_mode_says_so_first(tmp_path: Path) -> None:
    place = tmp_path / "service"
    verify = [there(place, repair=["touch", str(place)])]
    module = Module(verify, check=True)
    result = look_again(module)
    assert not place.exists()
    assert (result["changed"], result["repaired"]) == (True, [f"test -e {place}"])
    assert "would put that right" in module.warnings[0]
    (diff,) = result["diff"]
    assert (diff["before"], diff["after"]) == (
        f"`test -e {place}` does not succeed\n",
        f"`test -e {place}` succeeds, after `touch {place}`\n",
    )
    result = look_again(Module(verify))
    assert place.exists()
    assert (result["changed"], result["repaired"]) == (True, [f"test -e {place}"])
    assert not look_again(Module(verify))["changed"]


def test_a_repair_that_does_not_help_is_told_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(FileSetError, match=r"`sh -c echo masked; exit 1` ended with 1: masked"):
        look_again(Module([there(tmp_path / "no", repair=["sh", "-c", "echo masked; exit 1"])]))


def test_a_change_is_not_taken_back_for_what_can_be_put_right(case: Case) -> None:
    """Somebody stopped a service; this change is about something else."""
    place = case.root / "service"
    stopped = {"argv": ["test", "-e", str(place)], "repair": ["touch", str(place)]}
    change = case.transaction([case.state("a", "file", b"x")], verify=[stopped, {"argv": ["true"]}])
    assert change.apply() is None
    assert set(tree(case.root)) == {"a", "service"}
    shutil.rmtree(case.base)
    broken = {"argv": ["false"], "repair": ["true"]}
    bad = case.transaction(
        [case.state("b", "file", b"x")], verify=[broken, {"argv": ["touch", str(place) + "2"]}]
    ).apply()
    assert bad is not None
    assert (bad["reason"], bad["command"]["argv"]) == ("verify", ["false"])
    assert "service2" not in tree(case.root)


def test_no_outcome_shows_a_secret() -> None:
    said = verified({"argv": ["sh", "-c", "echo hunter2hunter2; exit 1"], "repair": ["true"], "timeout": 5})
    (shown,) = masked([said], ["hunter2hunter2"])
    assert "hunter2" not in str(shown["output"]) + str(shown["repaired"])


def test_it_stops_at_the_first_that_does_not_succeed() -> None:
    assert [one["rc"] for one in verify_all([{"argv": ["true"]}, {"argv": ["false"]}, {"argv": ["true"]}])] == [0, 1]


def comes_and_goes(tmp_path: Path, settle: int) -> dict[str, Any]:
    """A service that is up at the first look after its start, and not at the next."""
    count = tmp_path / "count"
    look = f"echo x >> {count}; test $(wc -l < {count}) -eq 2"
    return {"argv": ["sh", "-c", look], "always": True, "repair": ["true"], "settle": settle}


def test_what_comes_and_goes_is_not_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fileset_commands, "BETWEEN_LOOKS", 0.01)
    assert look_again(Module([comes_and_goes(tmp_path, 0)]))["repaired"]
    (tmp_path / "count").unlink()
    with pytest.raises(FileSetError, match="it does not last"):
        look_again(Module([comes_and_goes(tmp_path, 1)]))


def test_a_change_after_which_a_service_does_not_last_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fileset_commands, "BETWEEN_LOOKS", 0.01)
    once = {"argv": ["sh", "-c", f"mkdir {tmp_path}/once"], "settle": 1}
    lasts = {"argv": ["true"], "settle": 1}
    assert [one["rc"] for one in verify_all([lasts])] == [0]
    outcomes = verify_all([lasts, once])
    assert [one["rc"] for one in outcomes] == [0, 0, 1]
    assert "does not last" in outcomes[-1]["output"]
