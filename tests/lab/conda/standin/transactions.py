# SPDX-License-Identifier: GPL-3.0-or-later
"""Solving and linking, which are real: py-rattler does them."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

from .configuration import CONFIG, PLATFORM, CondaError, channel_urls
from .output import answer, say
from .prefixes import cache_dir, check_writable


def requested(prefix: Path) -> dict[str, str]:
    """What people asked for so far, by package name, from the history."""
    wanted: dict[str, str] = {}
    history = prefix / "conda-meta" / "history"
    for line in history.read_text(encoding="utf-8").splitlines() if history.is_file() else []:
        match = re.match(r"# (update|remove|neutered) specs: (.*)", line)
        if match:
            for spec in json.loads(match[2]):
                name = package_name(spec)
                wanted.pop(name, None)
                if match[1] == "update":
                    wanted[name] = spec
    return wanted


def package_name(spec: str) -> str:
    match = re.match(r"(?:[^:\s]+::)?([A-Za-z0-9_][A-Za-z0-9_.-]*)", spec)
    if not match:
        raise CondaError("InvalidMatchSpec", f"Invalid spec '{spec}'")
    return match[1].lower()


async def _transact(
    prefix: Path,
    specs: list[str],
    channels: list[str],
    keep: list[str],
    remove: list[str],
    *,
    prune: bool,
    update: bool,
) -> dict[str, list[Any]]:
    import rattler
    from rattler import exceptions

    installed = [rattler.PrefixRecord.from_path(path) for path in sorted((prefix / "conda-meta").glob("*.json"))]
    asked = {package_name(spec) for spec in specs}
    solve_for = [*specs, *(spec for spec in keep if package_name(spec) not in asked | set(remove))]
    pinned = prefix / "conda-meta" / "pinned"
    pins = [line.strip() for line in pinned.read_text(encoding="utf-8").splitlines()] if pinned.is_file() else []
    sources = [rattler.Channel(url) for url in channels]
    try:
        solution = await rattler.solve(
            sources=sources,
            gateway=rattler.Gateway(cache_dir() / "cache"),
            specs=[rattler.MatchSpec(spec) for spec in solve_for],
            constraints=[rattler.MatchSpec(pin) for pin in pins if pin and not pin.startswith("#")],
            platforms=[PLATFORM, "noarch"],
            locked_packages=[] if prune or update else installed,
            virtual_packages=rattler.VirtualPackage.detect(),
            channel_priority=(
                rattler.ChannelPriority.Strict
                if CONFIG["channel_priority"] == "strict"
                else rattler.ChannelPriority.Disabled
            ),
        )
    except exceptions.SolverError as error:
        raise CondaError(
            "LibMambaUnsatisfiableError", f"Encountered problems while solving:\n{error}".rstrip()
        ) from error
    except exceptions.InvalidMatchSpecError as error:
        raise CondaError("InvalidMatchSpec", str(error)) from error
    except (exceptions.GatewayError, exceptions.FetchRepoDataError) as error:
        raise CondaError("CondaHTTPError", f"The channel could not be read.\n{error}") from error
    before = {str(record.file_name) for record in installed}
    after = {str(record.file_name): record for record in solution}
    result = {
        "LINK": [json.loads(record.to_json()) for name, record in sorted(after.items()) if name not in before],
        "UNLINK": sorted(before - set(after)),
        "solution": solution,
    }
    return result


async def _link(prefix: Path, solution: list[Any]) -> None:
    import rattler

    try:
        await rattler.install(
            records=solution,
            target_prefix=prefix,
            cache_dir=cache_dir(),
            show_progress=False,
        )
    except Exception as error:
        raise CondaError("CondaVerificationError", f"The transaction failed: {error}") from error


def transact(
    prefix: Path,
    specs: list[str],
    channels: list[str],
    args: argparse.Namespace,
    *,
    prune: bool = False,
    update: bool = False,
    remove: tuple[str, ...] = (),
) -> None:
    check_writable(prefix, args)
    urls = channel_urls(channels)
    keep = [] if prune else list(requested(prefix).values())
    plan = asyncio.run(_transact(prefix, specs, urls, keep, list(remove), prune=prune, update=update))
    say(args, "Solving environment: done")
    if getattr(args, "dry_run", False):
        answer(args, {"success": True, "dry_run": True, "actions": {key: plan[key] for key in ("LINK", "UNLINK")}})
        raise CondaError("DryRunExit", "Dry run. Exiting.")
    (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
    asyncio.run(_link(prefix, plan["solution"]))
    with (prefix / "conda-meta" / "history").open("a", encoding="utf-8") as history:
        history.write(f"==> stand-in <==\n# cmd: {' '.join(sys.argv)}\n")
        if prune and requested(prefix):
            gone = [name for name in requested(prefix) if name not in {package_name(spec) for spec in specs}]
            history.write(f"# neutered specs: {json.dumps(gone)}\n" if gone else "")
        if remove:
            history.write(f"# remove specs: {json.dumps(list(remove))}\n")
        if specs:
            history.write(f"# update specs: {json.dumps(specs)}\n")
    say(args, "Preparing transaction: done\nVerifying transaction: done\nExecuting transaction: done")


def install_explicit(prefix: Path, path: Path, args: argparse.Namespace) -> None:
    import rattler

    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    urls = [line for line in lines if line and not line.startswith(("#", "@"))]

    async def load() -> list[Any]:
        found: list[Any] = []
        for entry in urls:
            url, _, digest = entry.partition("#")
            channel, subdir, name = url.rsplit("/", 2)
            data = await rattler.Gateway(cache_dir() / "cache").query(
                [rattler.Channel(channel)], [subdir], [package_name(name.rsplit("-", 2)[0])], recursive=False
            )
            hits = [record for group in data for record in group if record.url == url]
            wanted = digest.removeprefix("sha256:")
            if not hits or (wanted and hits[0].sha256.hex() != wanted and hits[0].md5.hex() != wanted):
                raise CondaError(
                    "ChecksumMismatchError", f"Conda detected a mismatch between the expected content and {url}"
                )
            found.append(hits[0])
        return found

    check_writable(prefix, args)
    asyncio.run(_link(prefix, asyncio.run(load())))
    with (prefix / "conda-meta" / "history").open("a", encoding="utf-8") as history:
        history.write(f"==> stand-in <==\n# cmd: {' '.join(sys.argv)}\n")
