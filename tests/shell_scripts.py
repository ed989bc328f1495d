#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""shellcheck on every shell script of this tree, shipped or not.

They are found by their first line, or by .sh: no list names them. What a script reads from its host is not here to be
followed (SC1091).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHEBANG = re.compile(rb"#!\s*/\S*?(?:/|env\s+)(?:ba|da)?sh\b")
EXPRESSION = re.compile(r"\{\{.*?\}\}|\{[%#].*?[%#]\}", re.DOTALL)


def is_script(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return path.name.endswith((".sh", ".sh.j2")) or bool(SHEBANG.match(file.read(80)))


def scripts(root: Path = ROOT) -> list[Path]:
    """What git knows or would take."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted({root / name for name in listed.split("\0") if name and is_script(root / name)})


def text_of(path: Path) -> str:
    """Of a template what is shell in it, with a word for each of its expressions."""
    text = path.read_text(errors="surrogateescape")
    return EXPRESSION.sub("word", text) if path.suffix == ".j2" else text


def findings(path: Path) -> str:
    """What shellcheck says of one script; nothing of a good one."""
    text = text_of(path)
    # A file without a first line is read by other people's shells: nothing but what every sh knows.
    shell = [] if text.startswith("#!") else ["--shell", "sh"]
    argv = ["shellcheck", "--norc", "--exclude", "SC1091", "--format", "gcc", *shell, "-"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, errors="surrogateescape", check=False)
    if done.returncode and not done.stdout:
        return f"{path}: {done.stderr}"
    return done.stdout.replace("-:", f"{path}:")


def main() -> int:
    every = scripts()
    said = [(path, findings(path)) for path in every]
    for path, words in said:
        print(f"{'FAILED' if words else 'ok'} {path.relative_to(ROOT)}\n{words}".rstrip())
    return 1 if any(words for _, words in said) else 0


if __name__ == "__main__":
    sys.exit(main())
