"""Build the STAND-IN for the Miniconda installer, and a small channel and wheel index to go with it.

    python tests/lab/conda/build.py OUT

makes in OUT:
    Miniconda3-py311_<version>-Linux-<arch>.sh   two versions, so that an upgrade can be tested
    channels/conda-forge/                        a conda channel of small, hand-built packages (and a real Python 3.11)
    channels/pytorch/                            one like PyTorch's: its pytorch leads to Debian 13's, and so does its
                                                 python 3.13; they work where those are installed (tests/lab/pytorch/)
    simple/                                      a package index for pip with small wheels
    whl/cu128/                                   one like PyTorch's: its torch is a STAND-IN that only knows its version
    facts.json                                   paths, versions and checksums of all that

What is real: Python 3.11 (Debian 12's packages, unpacked), pip, the solver and the linker (py-rattler), the packages'
format and the channel's index. What is not: conda itself (standin/ answers in its place) and the packages'
contents. Runs on Debian 12 and 13 and on Ubuntu (it needs apt-get, dpkg-deb and Debian's archive keyring), in the
project's virtual environment (it needs py-rattler and PyYAML). The result is kept as long as its inputs are the same.

The shared libraries that Python's own modules need (libssl3, libffi8, libexpat1, ...) are the host's: every Debian 12
or 13 with python3 has them, under the same names. So no wrapper and no library path is needed.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.metadata
import io
import json
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))  # run as a program, from wherever

from lab.conda.contents import (  # noqa: E402
    ARCH,
    EPOCH,
    KEYRING,
    SITE,
    SUBDIR,
    Entry,
    Package,
    Tree,
    channel_packages,
    fetch_debs,
    installed_module,
    pip_package,
    python_package,
    pytorch_packages,
)
from lab.conda.writing import paths_json, write_channel, write_index, write_tar  # noqa: E402
from lab.devlab import locks  # noqa: E402

STANDIN = HERE / "standin"
VERSIONS = ("26.3.2-2", "26.5.3-1")

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
        **{f"{module}/standin/{path.name}": Entry(path.read_bytes()) for path in sorted(STANDIN.glob("*.py"))},
        f"{module}/__main__.py": Entry(b"import sys\nfrom conda.standin.cli import main\nsys.exit(main())\n"),
        "bin/conda": Entry(LAUNCHER.format(module="conda.standin.cli").encode(), 0o755),
        "condabin/conda": Entry(LAUNCHER.format(module="conda.standin.cli").encode(), 0o755),
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
    for path in sorted([*HERE.glob("*"), *STANDIN.glob("*.py")]):
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
        write_channel(pytorch_packages(), out / "channels" / "pytorch")
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
