# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that change an environment."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from .configuration import CONFIG, ROOT, CondaError
from .output import answer, say
from .prefixes import check_writable, find_prefix, records
from .transactions import install_explicit, package_name, transact


def cmd_create(args: argparse.Namespace) -> None:
    prefix = find_prefix(args, create=True)
    if (prefix / "conda-meta" / "history").is_file():
        if not args.yes:
            raise CondaError("CondaSystemExit", f"A conda environment already exists at '{prefix}'")
        shutil.rmtree(prefix)
    fresh = not prefix.exists()
    try:
        if args.file and "@EXPLICIT" in Path(args.file[0]).read_text(encoding="utf-8"):
            install_explicit(prefix, Path(args.file[0]), args)
        else:
            transact(prefix, args.packages, wanted_channels(args), args)
    except CondaError:
        if fresh:
            shutil.rmtree(prefix, ignore_errors=True)
        raise
    answer(
        args,
        {"success": True, "prefix": str(prefix)},
        f"#\n# To activate this environment, use\n#     $ conda activate {args.name}",
    )


def wanted_channels(args: argparse.Namespace) -> list[str]:
    own = list(args.channel or [])
    if args.override_channels:
        if not own:
            raise CondaError(
                "ArgumentError", "At least one -c / --channel flag must be supplied when using --override-channels."
            )
        return own
    return [*own, *CONFIG["channels"]]


def cmd_install(args: argparse.Namespace) -> None:
    prefix = find_prefix(args)
    if args.file:
        install_explicit(prefix, Path(args.file[0]), args)
        return
    transact(prefix, args.packages, wanted_channels(args), args, update=args.command == "update")
    answer(args, {"success": True, "prefix": str(prefix)})


def cmd_remove(args: argparse.Namespace) -> None:
    prefix = find_prefix(args)
    check_writable(prefix, args)
    if getattr(args, "all", False):
        if prefix == ROOT:
            raise CondaError("CondaEnvironmentError", "cannot remove root environment, add -n NAME or -p PREFIX option")
        shutil.rmtree(prefix)
        say(args, f"Remove all packages in environment {prefix}:")
        answer(args, {"success": True, "prefix": str(prefix)})
        return
    names = {record["name"] for record in records(prefix)}
    missing = [name for name in args.packages if package_name(name) not in names]
    if missing:
        raise CondaError(
            "PackagesNotFoundError", f"The following packages are missing from the target environment: {missing}"
        )
    transact(prefix, [], wanted_channels(args), args, remove=tuple(package_name(name) for name in args.packages))


def read_environment(path: Path) -> tuple[list[str], list[str], list[str]]:
    if not path.is_file():
        raise CondaError("EnvironmentFileNotFound", f"'{path}' file not found")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CondaError("EnvironmentFileInvalid", f"{path}: {error}") from error
    specs: list[str] = []
    pip: list[str] = []
    for item in data.get("dependencies") or []:
        if isinstance(item, dict):
            pip += item.get("pip") or []
        else:
            specs.append(str(item))
    channels = list(data.get("channels") or [])
    if "nodefaults" in channels:
        channels = [channel for channel in channels if channel != "nodefaults"]
    else:
        channels += CONFIG["channels"]
    return channels, specs, pip


def install_pip(prefix: Path, pip: list[str], args: argparse.Namespace) -> None:
    if not pip:
        return
    say(args, "Installing pip dependencies: ...working...")
    with tempfile.NamedTemporaryFile("w", prefix="condaenv.", suffix=".requirements.txt", delete=False) as file:
        file.write("\n".join(pip) + "\n")
    command = [f"{prefix}/bin/python", "-m", "pip", "install", "-U", "-r", file.name, "--exists-action=b"]
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    run = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    os.unlink(file.name)
    say(args, run.stdout)
    if run.returncode:
        sys.stderr.write(run.stderr)
        raise CondaError("CondaEnvException", "Pip failed")


def cmd_env_create(args: argparse.Namespace) -> None:
    channels, specs, pip = read_environment(Path(args.file))
    prefix = find_prefix(args, create=True)
    if (prefix / "conda-meta" / "history").is_file():
        raise CondaError("CondaValueError", f"prefix already exists: {prefix}")
    fresh = not prefix.exists()
    try:
        transact(prefix, specs, channels, args)
    except CondaError:
        if fresh:
            shutil.rmtree(prefix, ignore_errors=True)
        raise
    install_pip(prefix, pip, args)
    answer(
        args,
        {"success": True, "prefix": str(prefix)},
        f"#\n# To activate this environment, use\n#     $ conda activate {args.name}",
    )


def cmd_env_update(args: argparse.Namespace) -> None:
    channels, specs, pip = read_environment(Path(args.file))
    prefix = find_prefix(args, create=True)
    transact(prefix, specs, channels, args, prune=args.prune)
    install_pip(prefix, pip, args)
    answer(args, {"success": True, "prefix": str(prefix)})
