"""Build the STAND-IN for the Miniconda installer, and a small channel and wheel index to go with it.

    python tests/lab/conda/build.py OUT

makes in OUT:
    Miniconda3-py311_<version>-Linux-<arch>.sh   two versions, so that an upgrade can be tested
    channels/conda-forge/                        a conda channel of small, hand-built packages (and a real Python 3.11)
    simple/                                      a package index for pip with small wheels
    whl/cu128/                                   one like PyTorch's: its torch is a STAND-IN that only knows its version
    facts.json                                   paths, versions and checksums of all that

What is real: Python 3.11 (Debian 12's packages, unpacked), pip, the solver and the linker (py-rattler), the packages'
format and the channel's index. What is not: conda itself (standin_conda.py answers in its place) and the packages'
contents. Runs on Debian 12 and 13 and on Ubuntu (it needs apt-get, dpkg-deb and Debian's archive keyring), in the
project's virtual environment (it needs py-rattler and PyYAML). The result is kept as long as its inputs are the same.

The shared libraries that Python's own modules need (libssl3, libffi8, libexpat1, ...) are the host's: every Debian 12
or 13 with python3 has them, under the same names. So no wrapper and no library path is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import bz2
import csv
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))  # run as a program, from wherever

from lab.devlab import locks  # noqa: E402

ARCH = os.uname().machine
DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}
VERSIONS = ("26.3.2-2", "26.5.3-1")
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


# --- sources -------------------------------------------------------------------------------------------------------


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


# --- writing -------------------------------------------------------------------------------------------------------


def write_tar(file: io.BufferedIOBase | Any, tree: Tree, mtime: int = EPOCH) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, entry in sorted(tree.items()):
            member = tarfile.TarInfo(name)
            member.mtime = mtime
            member.mode = entry.mode
            if entry.target:
                member.type, member.linkname = tarfile.SYMTYPE, entry.target
            member.size = len(entry.data)
            archive.addfile(member, io.BytesIO(entry.data))


def paths_json(tree: Tree) -> dict[str, Any]:
    paths: list[dict[str, Any]] = []
    for name, entry in sorted(tree.items()):
        path: dict[str, Any] = {"_path": name, "path_type": "softlink" if entry.target else "hardlink"}
        data = entry.data
        if entry.target:
            final = os.path.normpath(os.path.join(os.path.dirname(name), entry.target))
            data = tree[final].data if final in tree else b""
        paths.append(path | {"sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)})
    return {"paths": paths, "paths_version": 1}


def write_package(package: Package, channel: Path) -> None:
    info: Tree = {
        "info/index.json": Entry(json.dumps(package.index(), indent=1).encode()),
        "info/paths.json": Entry(json.dumps(paths_json(package.tree), indent=1).encode()),
        "info/files": Entry("".join(f"{name}\n" for name in sorted(package.tree)).encode()),
        "info/about.json": Entry(json.dumps({"summary": "stand-in, see tests/lab/conda/build.py"}).encode()),
    }
    if package.noarch:
        link = {"noarch": {"type": "python", "entry_points": list(package.entry_points)}, "package_metadata_version": 1}
        info["info/link.json"] = Entry(json.dumps(link).encode())
    directory = channel / package.subdir
    directory.mkdir(parents=True, exist_ok=True)
    with bz2.open(directory / f"{package.stem}.tar.bz2", "wb", compresslevel=1) as file:
        write_tar(file, package.tree | info)


def write_channel(packages: list[Package], channel: Path) -> None:
    import rattler.index

    for subdir in ("noarch", SUBDIR[ARCH]):
        (channel / subdir).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda package: write_package(package, channel), packages))
    # No shards: py-rattler takes a "304 Not Modified" for them, which simple web servers send, for an error.
    asyncio.run(rattler.index.index_fs(channel, write_shards=False))


def write_wheel(directory: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f'__version__ = "{version}"\n'.encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    writer = csv.writer(record, lineterminator="\n")
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        writer.writerow([path, f"sha256={digest}", len(data)])
    writer.writerow([f"{info}/RECORD", "", ""])
    files[f"{info}/RECORD"] = record.getvalue().encode()
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(zipfile.ZipInfo(path, (2025, 6, 15, 0, 0, 0)), data)


def write_index(simple: Path, projects: dict[str, tuple[str, ...]]) -> None:
    """A package index of small wheels."""
    for name, versions in projects.items():
        write_project(simple / name, name, versions)
    links = "".join(f'<a href="{name}/">{name}</a>' for name in projects)
    (simple / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>\n", encoding="utf-8")


def write_project(project: Path, name: str, versions: tuple[str, ...]) -> None:
    project.mkdir(parents=True)
    for version in versions:
        write_wheel(project, name, version)
    wheels = {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in sorted(project.glob("*.whl"))}
    links = "".join(f'<a href="{quote(wheel)}#sha256={hash}">{wheel}</a>\n' for wheel, hash in wheels.items())
    (project / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n", encoding="utf-8")


# --- the installer -------------------------------------------------------------------------------------------------

CONDA_SH = """\
# STAND-IN for conda's shell function: `conda activate` and `deactivate` change this shell, all else runs conda.
export CONDA_EXE='@PREFIX@/bin/conda'
conda() {
    case "${1:-}" in
        activate|deactivate) eval "$("$CONDA_EXE" shell.posix "$@")" ;;
        *) "$CONDA_EXE" "$@" ;;
    esac
}
[ -n "${CONDA_SHLVL:-}" ] || { export CONDA_SHLVL=0; PATH="@PREFIX@/condabin:$PATH"; export PATH; }
"""
LAUNCHER = "#!@PREFIX@/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"


def base_record(package: Package) -> Entry:
    record = package.index() | {
        "fn": f"{package.stem}.tar.bz2",
        "url": f"https://repo.anaconda.com/pkgs/main/{package.subdir}/{package.stem}.tar.bz2",
        "channel": "https://repo.anaconda.com/pkgs/main",
        "md5": "0" * 32,
        "sha256": "0" * 64,
        "size": 0,
        "files": sorted(package.tree),
        "paths_data": paths_json(package.tree),
        "requested_spec": package.name,
    }
    return Entry(json.dumps(record, indent=1).encode())


def base_packages(version: str, python: Package, pip: Package) -> list[Package]:
    """The base environment: Python, pip, the stand-in conda and what it needs."""
    module = f"{SITE}/conda"
    conda: Tree = {
        f"{module}/__init__.py": Entry(f'__version__ = "{version.partition("-")[0]}"\n'.encode()),
        f"{module}/standin_conda.py": Entry((HERE / "standin_conda.py").read_bytes()),
        f"{module}/__main__.py": Entry(b"import sys\nfrom conda.standin_conda import main\nsys.exit(main())\n"),
        "bin/conda": Entry(LAUNCHER.format(module="conda.standin_conda").encode(), 0o755),
        "condabin/conda": Entry(LAUNCHER.format(module="conda.standin_conda").encode(), 0o755),
        "bin/activate": Entry(b'. "@PREFIX@/etc/profile.d/conda.sh"\nconda activate "${1:-base}"\n', 0o755),
        "etc/profile.d/conda.sh": Entry(CONDA_SH.encode()),
        "etc/fish/conf.d/conda.fish": Entry(b"set -gx PATH '@PREFIX@/condabin' $PATH\n"),
    }
    in_site = {name.replace("site-packages/", f"{SITE}/", 1): entry for name, entry in pip.tree.items()}
    in_site["bin/pip"] = Entry(LAUNCHER.format(module="pip._internal.cli.main").encode(), 0o755)
    rattler_version = importlib.metadata.version("py-rattler")
    return [
        python,
        Package("pip", pip.version, in_site, ("python",)),
        Package("py-rattler", rattler_version, installed_module("py-rattler"), ("python",)),
        Package("pyyaml", importlib.metadata.version("PyYAML"), installed_module("PyYAML"), ("python",)),
        Package("conda", version.partition("-")[0], conda, ("python", "pip", "py-rattler", "pyyaml")),
    ]


def write_installer(path: Path, version: str, python: Package, pip: Package) -> None:
    packages = base_packages(version, python, pip)
    tree: Tree = {}
    for package in packages:
        tree |= package.tree
        tree[f"conda-meta/{package.stem}.json"] = base_record(package)
    # As the real one does: without a configuration of the site's own, Anaconda's channels are asked.
    tree[".condarc"] = Entry(b"channels:\n  - defaults\n")
    tree["conda-meta/history"] = Entry(b"")
    payload = io.BytesIO()
    with gzip.GzipFile(fileobj=payload, mode="wb", compresslevel=1, mtime=EPOCH) as file:
        # A time of its own for each version, or Python would go on with the old version's compiled files.
        write_tar(file, tree, EPOCH + int("".join(re.findall("[0-9]", version))))
    data = payload.getvalue()
    values = {
        "VERSION": f"py311_{version}",
        "PLATFORM": SUBDIR[ARCH],
        "TOTAL_KB": str(sum(len(entry.data) for entry in tree.values()) // 1024),
        "PAYLOAD_SIZE": str(len(data)),
        "PAYLOAD_SHA256": hashlib.sha256(data).hexdigest(),
        "HEADER_SIZE": "0" * 8,
    }
    text = (HERE / "installer.sh").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    text = text.replace("boundary=" + "0" * 8, f"boundary={len(text.encode()):<8}")
    path.write_bytes(text.encode() + data)
    path.chmod(0o755)


def input_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(HERE.glob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    versions = [importlib.metadata.version(name) for name in ("py-rattler", "PyYAML")]
    digest.update(repr([ARCH, versions]).encode())
    return digest.hexdigest()


def build(out: Path) -> dict[str, Any]:
    """Make everything in OUT, or find it there already. Returns the facts."""
    with locks.only_one(locks.beside(out)):
        return _build(out)


def _build(out: Path) -> dict[str, Any]:
    facts_file = out / "facts.json"
    wanted = input_hash()
    if facts_file.is_file():
        known: dict[str, Any] = json.loads(facts_file.read_text(encoding="utf-8"))
        if known.get("inputs") == wanted and all((out / item["file"]).is_file() for item in known["installers"]):
            return known
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb") or not Path(KEYRING).exists():
        raise SystemExit(f"The stand-in needs apt-get, dpkg-deb and {KEYRING} (package debian-archive-keyring).")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="devnode-conda-") as temporary:
        root = fetch_debs(Path(temporary))
        python, pip = python_package(root), pip_package(root)
    names = [f"Miniconda3-py311_{version}-Linux-{ARCH}.sh" for version in VERSIONS]
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(write_installer, out / name, version, python, pip)
            for name, version in zip(names, VERSIONS, strict=True)
        ]
        write_channel([python, pip, *channel_packages()], out / "channels" / "conda-forge")
        write_index(out / "simple", {"labpip": ("1.0", "1.1"), "torch": ("2.8.0",)})
        write_index(out / "whl" / "cu128", {"torch": ("2.8.0+cu128",), "torchvision": ("0.23.0+cu128",)})
        for job in jobs:
            job.result()
    facts: dict[str, Any] = {
        "inputs": wanted,
        "arch": ARCH,
        "python": python.version,
        "channels": "channels",
        "channel": "channels/conda-forge",
        "pip_index": "simple",
        "installers": [
            {"version": version, "file": name, "sha256": hashlib.sha256((out / name).read_bytes()).hexdigest()}
            for name, version in zip(names, VERSIONS, strict=True)
        ],
    }
    facts_file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("out", type=Path, help="directory to make; what is there is replaced")
    print(json.dumps(build(arguments.parse_args().out), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
