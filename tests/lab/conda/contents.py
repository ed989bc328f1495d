# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in's packages hold: a real Python and pip from Debian 12, small modules, and what this venv has."""

from __future__ import annotations

import importlib.metadata
import os
import re
import stat
import subprocess
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCH = os.uname().machine
DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}
DEBS = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "python3-pip-whl")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
EPOCH = 1_750_000_000
SITE = "lib/python3.11/site-packages"
# Of the standard library, what a test needs; the rest only costs time.
LEAVE_OUT = re.compile(
    r"(^|/)(test|tests|idlelib|lib2to3|turtledemo|tkinter|ensurepip|pydoc_data|__pycache__)(/|$)"
    r"|/_test|/xxlimited|/EXTERNALLY-MANAGED$|/sitecustomize\.py$|/_distutils_system_mod\.py$|/turtle\.py$"
)


@dataclass(frozen=True)
class Entry:
    """One file of a package or of a prefix: its bytes or, for a link, its target."""

    data: bytes = b""
    mode: int = 0o644
    target: str = ""


Tree = dict[str, Entry]


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    tree: Tree
    depends: tuple[str, ...] = ()
    noarch: bool = False
    entry_points: tuple[str, ...] = field(default=())

    @property
    def build(self) -> str:
        return "pyh0000000_0" if self.noarch else "h0000000_0"

    @property
    def subdir(self) -> str:
        return "noarch" if self.noarch else SUBDIR[ARCH]

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"

    def index(self) -> dict[str, Any]:
        index: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": 0,
            "depends": list(self.depends),
            "license": "PSF-2.0" if self.name == "python" else "MIT",
            "subdir": self.subdir,
            "timestamp": EPOCH * 1000,
        }
        if self.noarch:
            index["noarch"] = "python"
        else:
            index |= {"arch": ARCH, "platform": "linux"}
        return index


def archive_uri() -> str:
    """The Debian archive that this machine already uses, else Debian's own address."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(Path("/etc/apt").rglob("*.sources"))]
    texts += [path.read_text(encoding="utf-8", errors="replace") for path in sorted(Path("/etc/apt").rglob("*.list"))]
    for text in texts:
        for uri in re.findall(
            r"\bhttps?://[^\s\]]+/debian/?(?=\s|$)", "\n".join(x for x in text.splitlines() if x[:1] != "#")
        ):
            return str(uri)
    return "http://deb.debian.org/debian"


def fetch_debs(work: Path) -> Path:
    """Download Debian 12's packages through apt, with its signature check, whatever this machine itself runs."""
    for directory in ("lists/partial", "cache/archives/partial", "state"):
        (work / directory).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {archive_uri()} bookworm main\n", encoding="utf-8")
    options = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "APT::Architecture": DEB_ARCH[ARCH],
        "APT::Architectures": DEB_ARCH[ARCH],
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", *flags, "-qq", "update"], check=True, stdin=subprocess.DEVNULL)
    subprocess.run(["apt-get", *flags, "-qq", "download", *DEBS], check=True, cwd=work, stdin=subprocess.DEVNULL)
    root = work / "root"
    for deb in sorted(work.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
    return root


def read_tree(root: Path, prefix: str = "", skip: Callable[[str], object] = lambda name: False) -> Tree:
    tree: Tree = {}
    for path in sorted(root.rglob("*")):
        name = prefix + path.relative_to(root).as_posix()
        if skip(name) or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink():
            target = os.readlink(path)
            if not target.startswith("/"):
                tree[name] = Entry(target=target)
            continue
        mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
        tree[name] = Entry(path.read_bytes(), mode)
    return tree


SITECUSTOMIZE = """\
# Debian's Python looks for modules in dist-packages, and its module `site` is compiled in. A Python in a prefix of its
# own keeps them in site-packages.
import os
import site
import sys

site.addsitedir(os.path.join(sys.prefix, "lib/python3.11/site-packages"))
"""


def undo_debian_layout(tree: Tree) -> None:
    """Install modules where a Python in a prefix of its own keeps them, and find them there."""
    name, old, new = "lib/python3.11/sysconfig.py", "prefix_scheme = 'posix_local'", "prefix_scheme = 'posix_prefix'"
    text = tree[name].data.decode()
    if old not in text:
        raise SystemExit(f"{name}: Debian's Python no longer has the line {old!r}; build.py needs a new edit")
    tree[name] = Entry(text.replace(old, new).encode())
    tree["lib/python3.11/sitecustomize.py"] = Entry(SITECUSTOMIZE.encode())


def python_package(root: Path) -> Package:
    tree = read_tree(root / "usr/lib/python3.11", "lib/python3.11/", LEAVE_OUT.search)
    undo_debian_layout(tree)
    tree["bin/python3.11"] = Entry((root / "usr/bin/python3.11").read_bytes(), 0o755)
    tree["bin/python3"] = tree["bin/python"] = Entry(target="python3.11")
    tree[f"{SITE}/README.txt"] = Entry(b"Modules of this environment go here.\n")
    version = subprocess.run(
        [root / "usr/bin/python3.11", "-IS", "-c", "import platform; print(platform.python_version())"],
        check=True, capture_output=True, text=True, env={"PYTHONHOME": str(root / "usr")},
    ).stdout.strip()  # fmt: skip
    return Package("python", version, tree)


def pip_package(root: Path) -> Package:
    wheel = next((root / "usr/share/python-wheels").glob("pip-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        tree = {
            f"site-packages/{name}": Entry(archive.read(name)) for name in archive.namelist() if not name.endswith("/")
        }
    entry_points = ("pip = pip._internal.cli.main:main", "pip3 = pip._internal.cli.main:main")
    return Package("pip", wheel.name.split("-")[1], tree, ("python >=3.7",), noarch=True, entry_points=entry_points)


def module_package(
    name: str, version: str, depends: Iterable[str] = (), text: str = "", entry_points: tuple[str, ...] = ()
) -> Package:
    """A small Python package: one module that knows its version."""
    source = f'"""{name}: made by tests/lab/conda/build.py."""\n__version__ = "{version}"\n{text}'
    info = f"site-packages/{name}-{version}.dist-info"
    tree = {
        f"site-packages/{name}/__init__.py": Entry(source.encode()),
        f"{info}/METADATA": Entry(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()),
        f"{info}/INSTALLER": Entry(b"conda\n"),
        f"{info}/RECORD": Entry(b""),
    }
    return Package(name, version, tree, ("python >=3.8", *depends), noarch=True, entry_points=entry_points)


def channel_packages() -> list[Package]:
    """Enough for a solve with a choice, a conflict, a dependency and a program."""
    return [
        module_package("labmath", "1.0"),
        module_package("labmath", "1.1"),
        module_package("labmath", "2.0"),
        module_package("labplot", "1.0", ["labmath >=1,<2"]),
        module_package("labfit", "1.0", ["labmath >=2"]),
        module_package(
            "labtool",
            "1.0",
            ["labmath"],
            "def main():\n    print('labtool', __version__)\n",
            ("labtool = labtool:main",),
        ),
    ]


def pytorch_packages() -> list[Package]:
    """A PyTorch that can train: it leads to Debian 13's own, where that is installed, and so does its Python."""
    site = "lib/python3.13/site-packages"
    python: Tree = {
        "bin/python3.13": Entry(target="/usr/bin/python3.13"),
        "bin/python3": Entry(target="python3.13"),
        "bin/python": Entry(target="python3.13"),
        # What makes the link a Python of this prefix, which sees nothing of the system's packages.
        "pyvenv.cfg": Entry(b"home = /usr/bin\ninclude-system-site-packages = false\n"),
        f"{site}/README.txt": Entry(b"Modules of this environment go here.\n"),
    }
    torch: Tree = {"site-packages/debian-pytorch.pth": Entry(b"/usr/lib/python3/dist-packages\n")}
    return [
        Package("python", "3.13.5", python),
        Package("pytorch", "2.6.0", torch, ("python 3.13.*",), noarch=True),
    ]


def installed_module(name: str) -> Tree:
    """A package of the virtual environment that runs this script, as files below site-packages."""
    tree: Tree = {}
    for file in importlib.metadata.files(name) or []:
        path = Path(str(file.locate()))
        if ".." not in file.parts and "__pycache__" not in file.parts and path.is_file():
            tree[f"{SITE}/{file.as_posix()}"] = Entry(path.read_bytes(), 0o755 if path.suffix == ".so" else 0o644)
    if not tree:
        raise SystemExit(f"{name} is not installed in this virtual environment")
    return tree
