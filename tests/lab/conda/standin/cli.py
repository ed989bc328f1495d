# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, NoReturn

from conda import __version__

from . import __doc__ as about
from .changing import cmd_create, cmd_env_create, cmd_env_update, cmd_install, cmd_remove
from .configuration import CONFIG, CondaError, load_config
from .showing import cmd_config, cmd_env_export, cmd_env_list, cmd_info, cmd_list, cmd_run, cmd_shell


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="conda", description=about)
    top.add_argument("-V", "--version", action="version", version=f"conda {__version__}")
    sub = top.add_subparsers(dest="command", required=True)

    def command(name: str, function: Any, parent: Any = sub) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = parent.add_parser(name)
        made.set_defaults(function=function)
        made.add_argument("--json", action="store_true")
        made.add_argument("-q", "--quiet", action="store_true")
        made.add_argument("-v", "--verbose", action="count")
        return made

    def target(made: argparse.ArgumentParser) -> None:
        made.add_argument("-n", "--name")
        made.add_argument("-p", "--prefix")

    def change(made: argparse.ArgumentParser) -> None:
        made.add_argument("-y", "--yes", action="store_true")
        made.add_argument("-d", "--dry-run", action="store_true")
        made.add_argument("-c", "--channel", action="append")
        made.add_argument("--override-channels", action="store_true")
        made.add_argument("--override-frozen", action="store_true")
        made.add_argument("--offline", action="store_true")

    info = command("info", cmd_info)
    info.add_argument("-e", "--envs", action="store_true")
    config = command("config", cmd_config)
    config.add_argument("--show", nargs="*")
    config.add_argument("--show-sources", action="store_true")
    config.add_argument("--validate", action="store_true")
    for name, function in (
        ("create", cmd_create), ("install", cmd_install), ("update", cmd_install), ("remove", cmd_remove)
    ):  # fmt: skip
        made = command(name, function)
        target(made)
        change(made)
        made.add_argument("packages", nargs="*")
        made.add_argument("--file", action="append")
        if name == "remove":
            made.add_argument("--all", action="store_true")
    listing = command("list", cmd_list)
    target(listing)
    for flag in ("--explicit", "--sha256", "--md5"):
        listing.add_argument(flag, action="store_true")
    run = command("run", cmd_run)
    target(run)
    run.add_argument("--no-capture-output", "--live-stream", action="store_true")
    run.add_argument("--cwd")
    run.add_argument("executable_call", nargs=argparse.REMAINDER)
    for name in ("shell.posix", "shell.bash", "shell.zsh"):
        shell = command(name, cmd_shell)
        shell.add_argument("action", choices=["activate", "deactivate", "hook"])
        shell.add_argument("rest", nargs="*")

    env = sub.add_parser("env").add_subparsers(dest="env_command", required=True)
    made = command("list", cmd_env_list, env)
    for name, function in (("create", cmd_env_create), ("update", cmd_env_update)):
        made = command(name, function, env)
        target(made)
        made.add_argument("-f", "--file", default="environment.yml")
        if name == "update":
            made.add_argument("--prune", action="store_true")
            made.add_argument("--override-frozen", action="store_true")
        else:
            made.add_argument("-y", "--yes", action="store_true")
            made.add_argument("-d", "--dry-run", action="store_true")
    made = command("remove", cmd_remove, env)
    target(made)
    made.add_argument("-y", "--yes", action="store_true")
    made.add_argument("-d", "--dry-run", action="store_true")
    made.add_argument("--override-frozen", action="store_true")
    made.set_defaults(all=True)
    made = command("export", cmd_env_export, env)
    target(made)
    made.add_argument("--no-builds", action="store_true")
    return top


def run() -> int:
    args = parser().parse_args()
    try:
        CONFIG.update(load_config())
        args.function(args)
    except CondaError as error:
        if error.kind == "DryRunExit":
            return 0
        if getattr(args, "json", False):
            print(json.dumps({"error": f"{error.kind}: {error}", "exception_name": error.kind, "message": str(error)}))
        else:
            sys.stderr.write(f"\n{error.kind}: {error}\n\n")
        return 1
    except BrokenPipeError:
        return 1
    return 0


def main() -> NoReturn:
    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    # py-rattler's threads sometimes outlive the interpreter and then crash it on its way out.
    os._exit(code)
