# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a workspace: people's crontabs, the variables above them, and what cron says to them."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.in_image import in_image

cron: Any = in_image("devnode_cron")

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("Cc", "Zl", "Zp", "Cs")))


def as_cron_reads(line: str) -> tuple[str, str]:
    """One assignment, by the rules of crontab(5): blanks around =, matching quotes around the value, no escapes."""
    name, _, value = line.rstrip("\n").partition("=")
    value = value.strip()
    if value[:1] in ("'", '"'):
        inner, _, rest = value[1:].partition(value[0])
        assert not rest.strip()
        value = inner
    return name.strip(), value


@given(PRINTABLE.filter(str.isprintable))
def test_cron_reads_back_every_value_that_is_handed_over(value: str) -> None:
    line = cron.assignment("NOTE", value)
    assert line.count("\n") == (1 if line else 0)
    if line:
        assert as_cron_reads(line) == ("NOTE", value)
    else:
        assert ('"' in value and "'" in value) or len(value.encode()) > 900


@pytest.mark.parametrize("value", ["", "a b", "it's", 'a "b"', 'it\'s a "note" # with \\ and spaces', " lead"])
def test_these_are_handed_over(value: str) -> None:
    assert as_cron_reads(cron.assignment("NOTE", value)) == ("NOTE", value)


def test_complaints_name_the_persons_own_line() -> None:
    said = '"-":8: bad day-of-week\nerrors in crontab file, can\'t install.\n'
    assert cron.in_their_lines(said, 7) == "line 2: bad day-of-week"


class Home:
    """People's homes, and a crontab that refuses what says bad."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.given, self.read_by = folder, {}, []  # type: ignore[var-annotated]
        monkeypatch.setattr(cron, "CRON", str(folder / "cron"))
        (folder / "cron").write_text("#!/bin/sh\nexec sleep 60\n")
        (folder / "cron").chmod(0o755)
        self.tabs = cron.Crontabs(lambda login: folder / login, self.read, self.give, folder / "answers")

    def read(self, uid: int, path: Path) -> str | None:
        self.read_by.append(uid)
        return path.read_text() if path.exists() else None

    def give(self, login: str, text: str | None) -> str:
        if text is not None and "bad" in text:
            return '"-":1: bad minute\n'
        self.given[login] = text
        return ""

    def write(self, login: str, text: str) -> None:
        path = self.folder / login / cron.PLACE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def answer(self, login: str) -> Any:
        return json.loads((self.folder / "answers" / login).read_text())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Home(tmp_path, monkeypatch)
    yield made
    made.tabs.stop()


def test_a_table_is_taken_once_with_the_sessions_variables_above_it(home: Home) -> None:
    me = os.getgid()
    home.write("ada", "* * * * * true\n")
    for _ in range(3):
        home.tabs.tend({"ada": me, "grace": 2002}, {"PATH": "/opt/bin", "A": "x y"})
    assert home.given == {"ada": 'PATH="/opt/bin"\nA="x y"\n* * * * * true\n', "grace": None}
    assert home.read_by == [me]
    assert home.answer("ada") == {"table": cron.digest("* * * * * true\n"), "error": ""}
    home.tabs.tend({"ada": me, "grace": 2002}, {"PATH": "/other"})
    assert home.given["ada"].startswith('PATH="/other"')
    (home.folder / "ada" / cron.PLACE).unlink()
    home.tabs.tend({"ada": me}, {})
    assert home.given["ada"] is None
    assert not (home.folder / "answers" / "ada").exists()


def test_a_table_that_could_not_be_read_now_is_read_the_next_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more_processes(_uid: int, _path: Path) -> str | None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    home.write("ada", "0 3 * * * true\n")
    monkeypatch.setattr(home.tabs, "read", no_more_processes)
    with pytest.raises(BlockingIOError):
        home.tabs.tend({"ada": 2001}, {})
    monkeypatch.setattr(home.tabs, "read", home.read)
    home.tabs.tend({"ada": 2001}, {})
    assert "0 3 * * * true" in str(home.given["ada"])


def test_a_wrong_table_is_refused_in_words_and_the_old_one_stays(home: Home) -> None:
    me = os.getgid()
    home.write("ada", "* * * * * true\n")
    home.tabs.tend({"ada": me}, {})
    home.write("ada", "# mine\nbad\n")
    home.tabs.tend({"ada": me}, {})
    assert home.given["ada"] == "* * * * * true\n"
    assert home.answer("ada")["error"] == "line 2: bad minute"
    home.write("ada", "#" * (cron.LIMIT + 1))
    home.tabs.tend({"ada": me}, {})
    assert re.search("longer than", home.answer("ada")["error"])


def test_nothing_but_a_plain_file_is_read(home: Home) -> None:
    path = home.folder / "ada" / cron.PLACE
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    home.tabs.tend({"ada": os.getgid()}, {})
    assert home.read_by == []


def test_who_left_has_no_table_any_more(home: Home) -> None:
    home.write("ada", "* * * * * true\n")
    home.tabs.tend({"ada": os.getgid()}, {})
    home.tabs.tend({}, {})
    assert home.tabs.seen == {}
    assert not (home.folder / "answers" / "ada").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, who becomes somebody else")
def test_a_file_is_read_with_its_persons_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for above in tmp_path.parents:
        if not above.stat().st_mode & 0o001:
            pytest.skip("others cannot come here")
    secret, mine = tmp_path / "secret", tmp_path / "mine"
    secret.write_text("root's")
    secret.chmod(0o600)
    mine.symlink_to(secret)
    assert cron.read_as(65534, mine) is None
    secret.chmod(0o644)
    assert cron.read_as(65534, mine) == "root's"


def test_a_person_gets_the_answer_to_their_own_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cron, "CRON", sys.executable)
    monkeypatch.setattr(cron, "_me", lambda: "ada")
    path = tmp_path / ".config" / "devnode" / "crontab"
    for error, code in (("", 0), ("line 1: bad minute", 1)):
        (tmp_path / "ada").write_text(json.dumps({"table": cron.digest("x\n"), "error": error}))
        assert cron.put(path, "x\n", tmp_path, 5) == code
        assert error in capsys.readouterr().err
    assert cron.put(path, "y\n", tmp_path, 0.3) == 1
    assert "no answer" in capsys.readouterr().err
    assert path.read_text() == "y\n"
