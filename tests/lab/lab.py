#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab from the command line. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.devlab import engine, fleet, hosts, images, keys, networks, scenario, standins
from lab.devlab.paths import LAB_DIR
from lab.devlab.shell import LabError


def show_engine(_: argparse.Namespace) -> None:
    engine.ensure()
    print(engine.describe())


def show_images(args: argparse.Namespace) -> None:
    engine.ensure()
    for name in args.os or images.SYSTEMS:
        print(name, images.ensure(name))


def show_standins(_: argparse.Namespace) -> None:
    engine.ensure()
    print(json.dumps(standins.build_all(), sort_keys=True))


def host_up(args: argparse.Namespace) -> None:
    """One host for work by hand; its key and ssh_config go to a folder of its own."""
    engine.ensure()
    folder = host_folder(args.name)
    public_key = keys.ensure_key(folder / keys.AUTOMATION, keys.AUTOMATION)
    places = [hosts.Attachment(*place.split(":", 1)) for place in args.network]
    if not places:
        own = f"{args.name}-net"
        places = [hosts.Attachment(own, networks.address_in(networks.ensure(own), 0))]
    spec = hosts.HostSpec(
        container=args.name,
        hostname=args.name,
        os=args.os,
        engine=args.engine,
        attachments=tuple(places),
        aliases=(args.name,),
        name_servers=networks.name_servers(),
    )
    hosts.up(spec, public_key)
    target = hosts.target(args.name, args.name, places[0].network)
    hosts.write_access(folder, [target])
    hosts.wait_for_ssh(target.address)
    print(f"ssh -F {folder / 'ssh_config'} {args.name}")


def host_down(args: argparse.Namespace) -> None:
    folder = host_folder(args.name)
    hosts.leave(args.name)
    hosts.down(args.name)
    networks.remove(f"{args.name}-net")
    shutil.rmtree(folder, ignore_errors=True)
    for parent in (folder.parent, LAB_DIR):
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def host_folder(name: str) -> Path:
    return LAB_DIR / "hosts" / name


def run_scenario(args: argparse.Namespace) -> None:
    engine.ensure()
    one = scenario.Scenario(args.name, args.folder, json.loads(args.platforms))
    (scenario.create if args.action == "create" else scenario.destroy)(one)


def fleet_up(_: argparse.Namespace) -> None:
    engine.ensure()
    fleet.up(standins.build_all())
    fleet_status(_)


def fleet_down(args: argparse.Namespace) -> None:
    if engine.answers():
        fleet.down(args.images)


def fleet_status(_: argparse.Namespace) -> None:
    print("\n".join(fleet.status()))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__)
    commands = top.add_subparsers(required=True)

    commands.add_parser("engine", help="find or start a container engine").set_defaults(call=show_engine)

    some = commands.add_parser("images", help="build what is missing, print the names")
    some.add_argument("os", nargs="*", choices=[*images.SYSTEMS, []], help="default: all")
    some.set_defaults(call=show_images)

    facts = commands.add_parser("standins", help="build what is missing; the last line says as JSON what there is")
    facts.set_defaults(call=show_standins)

    host = commands.add_parser("host", help="one host for work by hand").add_subparsers(required=True)
    one = host.add_parser("up")
    one.add_argument("--name", required=True)
    one.add_argument("--os", choices=list(images.SYSTEMS), default="debian13")
    one.add_argument("--network", action="append", default=[], metavar="NAME:IP", help="default: one of its own")
    one.add_argument("--engine", action="store_true", help="the host can run a container engine itself")
    one.set_defaults(call=host_up)
    one = host.add_parser("down")
    one.add_argument("--name", required=True)
    one.set_defaults(call=host_down)

    commands.add_parser("up", help="the demo's fleet").set_defaults(call=fleet_up)
    all_of_it = commands.add_parser("down", help="take it away; images and caches stay")
    all_of_it.add_argument("--images", action="store_true", help="take these away as well")
    all_of_it.set_defaults(call=fleet_down)
    commands.add_parser("status", help="what is there of it").set_defaults(call=fleet_status)

    for_molecule = commands.add_parser("scenario", help="called by molecule/shared")
    for_molecule.add_argument("action", choices=["create", "destroy"])
    for_molecule.add_argument("--name", required=True)
    for_molecule.add_argument("--folder", type=Path, required=True)
    for_molecule.add_argument("--platforms", required=True, help="JSON")
    for_molecule.set_defaults(call=run_scenario)
    return top


def main() -> int:
    args = parser().parse_args()
    try:
        args.call(args)
    except LabError as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
