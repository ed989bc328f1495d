# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that show something or run something in an environment."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml
from conda import __version__

from .configuration import CONFIG, PLATFORM, ROOT, CondaError, channel_urls, config_files, read_config
from .output import answer
from .prefixes import environments, find_prefix, records


def cmd_info(args: argparse.Namespace) -> None:
    data = {
        "conda_version": __version__,
        "conda_standin": True,
        "root_prefix": str(ROOT),
        "default_prefix": os.environ.get("CONDA_PREFIX", str(ROOT)),
        "envs": [str(path) for path in environments()],
        "envs_dirs": CONFIG["envs_dirs"],
        "pkgs_dirs": CONFIG["pkgs_dirs"],
        "channels": [f"{url}/{sub}" for url in channel_urls(CONFIG["channels"]) for sub in (PLATFORM, "noarch")],
        "config_files": [str(path) for path in config_files()],
        "platform": PLATFORM,
        "python_version": ".".join(map(str, sys.version_info[:3])) + ".final.0",
        "root_writable": os.access(ROOT / "conda-meta" / "history", os.W_OK),
    }
    answer(args, data, "\n".join(f"{key:>20} : {value}" for key, value in data.items()))


def cmd_config(args: argparse.Namespace) -> None:
    if args.show_sources:
        sources = {str(path): read_config(path) for path in config_files()}
        text = "\n".join(f"==> {path} <==\n{yaml.safe_dump(data)}" for path, data in sources.items())
        answer(args, sources, text)
    elif args.show is not None:
        shown = {key: CONFIG.get(key) for key in args.show} if args.show else CONFIG
        answer(args, shown, yaml.safe_dump(shown))
    elif not args.validate:
        raise CondaError("CondaValueError", "the stand-in knows --show, --show-sources and --validate only")


def cmd_env_list(args: argparse.Namespace) -> None:
    paths = environments()
    rows = [f"{'base' if path == ROOT else path.name:<24} {path}" for path in paths]
    answer(args, {"envs": [str(path) for path in paths]}, "# conda environments:\n#\n" + "\n".join(rows))


def pip_only(prefix: Path) -> list[str]:
    names = {str(record["name"]).replace("_", "-") for record in records(prefix)}
    found: list[str] = []
    for info in sorted(prefix.glob("lib/python3*/site-packages/*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        installer = info / "INSTALLER"
        if (
            name.replace("_", "-").lower() not in names
            and installer.is_file()
            and installer.read_text().strip() == "pip"
        ):
            found.append(f"{name}=={version}")
    return found


def cmd_env_export(args: argparse.Namespace) -> None:
    prefix = find_prefix(args)
    build = not args.no_builds
    lines: list[Any] = [
        f"{record['name']}={record['version']}" + (f"={record['build']}" if build else "") for record in records(prefix)
    ]
    if pip_only(prefix):
        lines.append({"pip": pip_only(prefix)})
    # As conda does: where a package came from that is none of the configured channels, first.
    known = channel_urls(CONFIG["channels"])
    strange = [url for record in records(prefix) if (url := record["url"].rsplit("/", 2)[0]) not in known]
    channels = [*dict.fromkeys(strange), *CONFIG["channels"]]
    data = {"name": prefix.name, "channels": channels, "dependencies": lines, "prefix": str(prefix)}
    answer(args, data, yaml.safe_dump(data, sort_keys=False).rstrip())


def cmd_list(args: argparse.Namespace) -> None:
    prefix = find_prefix(args)
    found = records(prefix)
    if args.explicit:

        def mark(record: dict[str, Any]) -> str:
            return f"#{record['sha256']}" if args.sha256 else f"#{record['md5']}" if args.md5 else ""

        print(
            "# This file may be used to create an environment using:\n# $ conda create --name <env> --file <this file>"
        )
        print(f"# platform: {PLATFORM}\n@EXPLICIT")
        for record in found:
            print(record["url"] + mark(record))
        return
    rows = [
        {
            "name": record["name"],
            "version": record["version"],
            "build_string": record["build"],
            "build_number": record["build_number"],
            "channel": str(record.get("channel", "")).rstrip("/").rsplit("/", 1)[-1],
            "dist_name": f"{record['name']}-{record['version']}-{record['build']}",
        }
        for record in found
    ]
    rows += [
        {"name": name, "version": version, "build_string": "pypi_0", "build_number": 0, "channel": "pypi"}
        for name, _, version in (item.partition("==") for item in pip_only(prefix))
    ]
    text = "\n".join(
        f"{row['name']:<24} {row['version']:<12} {row['build_string']:<12} {row['channel']}" for row in rows
    )
    answer(args, rows, f"# packages in environment at {prefix}:\n#\n{text}")


def cmd_run(args: argparse.Namespace) -> NoReturn:
    prefix = find_prefix(args)
    if not (prefix / "conda-meta").is_dir():
        raise CondaError("EnvironmentLocationNotFound", f"Not a conda environment: {prefix}")
    environ = dict(os.environ, CONDA_PREFIX=str(prefix), CONDA_DEFAULT_ENV=prefix.name, CONDA_SHLVL="1")
    environ["PATH"] = f"{prefix}/bin:{ROOT}/condabin:{environ.get('PATH', '/usr/bin:/bin')}"
    os.chdir(args.cwd or os.getcwd())
    try:
        os.execvpe(args.executable_call[0], args.executable_call, environ)  # noqa: S606
    except OSError as error:
        raise CondaError("CommandNotFoundError", f"{args.executable_call[0]}: {error.strerror}") from error


def cmd_shell(args: argparse.Namespace) -> None:
    """`conda shell.posix activate NAME` and `deactivate`: lines for the calling shell to evaluate."""
    if args.action == "hook":
        print((ROOT / "etc" / "profile.d" / "conda.sh").read_text(encoding="utf-8"))
        return
    old = os.environ.get("CONDA_PREFIX")
    path = [part for part in os.environ.get("PATH", "").split(":") if not old or part != f"{old}/bin"]
    if args.action == "deactivate":
        print(f'export PATH="{":".join(path)}"\nunset CONDA_PREFIX CONDA_DEFAULT_ENV\nexport CONDA_SHLVL=0')
        return
    name = args.rest[0] if args.rest else "base"
    prefix = find_prefix(argparse.Namespace(**({"prefix": name} if "/" in name else {"name": name})))
    print(
        f'export PATH="{prefix}/bin:{":".join(path)}"\nexport CONDA_PREFIX="{prefix}"\n'
        f'export CONDA_DEFAULT_ENV="{name}"\nexport CONDA_SHLVL=1'
    )
