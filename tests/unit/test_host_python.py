# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on hosts is written for Python 3.9: its syntax, and the newer names and arguments that are easily taken."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import ansible
import pytest
from doc_blocks import ROOT

OLDEST = (3, 9)
ON_HOSTS = sorted(
    path for folder in ("plugins/modules", "plugins/module_utils", "roles") for path in (ROOT / folder).rglob("*.py")
)
NEWER_NAMES = {
    "datetime": {"UTC"},
    "enum": {"StrEnum", "verify"},
    "itertools": {"batched", "pairwise"},
    "typing": {"Concatenate", "NotRequired", "ParamSpec", "Required", "Self", "TypeAlias", "TypeGuard", "Unpack"},
}
NEWER_MODULES = {"tomllib"}
NEWER_ARGUMENTS = {("zip", "strict"), ("dataclass", "slots"), ("dataclass", "kw_only"), ("field", "kw_only")}
TYPES = {"bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "set", "str", "tuple", "Path"}


def _is_type(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    return (isinstance(node, ast.Constant) and node.value is None) or (isinstance(node, ast.Name) and node.id in TYPES)


def evaluated(node: ast.AST, postponed: bool) -> Iterator[ast.AST]:
    """Every node that Python evaluates: annotations are not, where the file postpones them."""
    yield node
    for name, value in ast.iter_fields(node):
        if postponed and name in ("annotation", "returns"):
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, ast.AST):
                yield from evaluated(one, postponed)


def newer(text: str) -> list[str]:
    """What a Python of the oldest version would not take."""
    try:
        tree = ast.parse(text, feature_version=OLDEST)
    except SyntaxError as exc:
        return [f"line {exc.lineno}: {exc.msg}"]
    postponed = any(isinstance(one, ast.ImportFrom) and one.module == "__future__" for one in tree.body)
    found = []
    for node in evaluated(tree, postponed):
        words = []
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.BitOr)
            and (_is_type(node.left) or _is_type(node.right))
        ):
            words = ["X | Y of types, evaluated"]
        if isinstance(node, ast.ImportFrom):
            words = [one.name for one in node.names if one.name in NEWER_NAMES.get(node.module or "", ())]
        if isinstance(node, ast.Import):
            words = [one.name for one in node.names if one.name in NEWER_MODULES]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            words = [node.attr] if node.attr in NEWER_NAMES.get(node.value.id, ()) else []
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            words = [f"{called}({one.arg}=)" for one in node.keywords if (called, one.arg) in NEWER_ARGUMENTS]
        found += [f"line {getattr(node, 'lineno', '?')}: {word}" for word in words]
    return found


@pytest.mark.parametrize("path", ON_HOSTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_oldest_python_could_read_it(path: Path) -> None:
    assert newer(path.read_text()) == []


FUTURE = "from __future__ import annotations\n"


@pytest.mark.parametrize(
    "text",
    [
        "match x:\n    case 1: pass\n",
        "try:\n    pass\nexcept* OSError:\n    pass\n",
        "type X = int\n",
        "def f[T](x: T) -> T: ...\n",
        "def f(x: int | None): ...\n",
        "def f() -> str | bytes: ...\n",
        f"{FUTURE}X = dict[str, int] | None\n",
        f"{FUTURE}isinstance(x, int | str)\n",
        "import tomllib\n",
        "from itertools import pairwise\n",
        "import datetime\ndatetime.UTC\n",
        "zip(a, b, strict=True)\n",
        "@dataclass(frozen=True, slots=True)\nclass A: ...\n",
    ],
)
def test_newer_python_is_noticed(text: str) -> None:
    assert newer(text)


@pytest.mark.parametrize(
    "text",
    [f"{FUTURE}def f(x: int | None) -> str | None:\n    y: int | None = x\n", "a | b\n", "zip(a, b)\n", "{**a} | b\n"],
)
def test_older_python_is_let_pass(text: str) -> None:
    assert newer(text) == []


def runs(python: str) -> bool:
    """A name on the PATH can also be a stub that only says that there is no such Python."""
    found = shutil.which(python)
    return bool(found) and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not runs("python3.9"), reason="no Python 3.9 here; the syntax is checked without it")
def test_the_oldest_python_imports_it(tmp_path: Path) -> None:
    (tmp_path / "ansible").symlink_to(Path(ansible.__file__).parent)
    modules = [path for path in ON_HOSTS if path.is_relative_to(ROOT / "plugins")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    argv = ["python3.9", "-c", program, *(f"ansible_collections.devnode.gpu.{name}" for name in names)]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / '.collections'}"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
