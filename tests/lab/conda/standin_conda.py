"""STAND-IN for conda in the tests and the demo. This is not conda.

It answers to the documented commands and flags of conda that the role `miniconda` uses, with their documented
effects, error names and exit codes. Solving, downloading, linking and unlinking are real: py-rattler does them, on
real conda packages. What conda does beyond that (plugins, notices, several solvers, Windows, ...) is left out.
The real conda takes its place with one variable of the role: the installer's URL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import yaml
from conda import __version__

ROOT = Path(sys.prefix)
PLATFORM = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[os.uname().machine]
TERMS_HOSTS = ("repo.anaconda.com",)
DEFAULT_CHANNELS = ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"]


class CondaError(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# --- configuration -------------------------------------------------------------------------------------------------

TYPES: dict[str, type | tuple[str, ...]] = {
    "channels": list,
    "default_channels": list,
    "envs_dirs": list,
    "pkgs_dirs": list,
    "create_default_packages": list,
    "custom_channels": dict,
    "proxy_servers": dict,
    "plugins": dict,
    "channel_alias": str,
    "channel_priority": ("strict", "flexible", "disabled", True, False),  # type: ignore[dict-item]
    "auto_activate": bool,
    "auto_activate_base": bool,
    "always_yes": bool,
    "changeps1": bool,
    "notify_outdated_conda": bool,
    "offline": bool,
    "protect_frozen_envs": bool,
    "report_errors": bool,
    "show_channel_urls": bool,
}


def config_files() -> list[Path]:
    """In order of rising priority, as documented for conda."""
    home = Path(os.path.expanduser("~"))
    places = [Path("/etc/conda"), Path("/var/lib/conda"), ROOT, home / ".conda"]
    found: list[Path] = []
    for place in places:
        found += [place / ".condarc", place / "condarc", *sorted((place / "condarc.d").glob("*.y*ml"))]
    found.append(home / ".condarc")
    for name in ("CONDA_PREFIX", "CONDARC"):
        if os.environ.get(name):
            path = Path(os.environ[name])
            found.append(path / ".condarc" if name == "CONDA_PREFIX" else path)
    unique = dict.fromkeys(path for path in found if path.is_file() and os.access(path, os.R_OK))
    return list(unique)


def read_config(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CondaError(
            "ConfigurationLoadError", f"Unable to load configuration file.\n  path: {path}\n  {error}"
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise CondaError(
            "ConfigurationLoadError", f"Unable to load configuration file.\n  path: {path}\n  not a mapping"
        )
    for key, value in data.items():
        wanted = TYPES.get(key)
        wrong = value not in wanted if isinstance(wanted, tuple) else wanted and not isinstance(value, wanted)
        if wrong and value is not None:
            what = f"one of {wanted}" if isinstance(wanted, tuple) else f"a {wanted.__name__}"  # type: ignore[union-attr]
            raise CondaError(
                "InvalidTypeError",
                f"Parameter {key} = {value!r} declared in {path} has type {type(value).__name__}.\nIt must be {what}.",
            )
    return data


def load_config() -> dict[str, Any]:
    merged: dict[str, Any] = {
        "channels": [],
        "default_channels": [],
        "custom_channels": {},
        "channel_alias": "https://conda.anaconda.org",
        "channel_priority": "flexible",
        "envs_dirs": [],
        "pkgs_dirs": [],
        "plugins": {},
        "protect_frozen_envs": True,
        "offline": False,
    }
    final: set[str] = set()
    for path in config_files():
        data = read_config(path)
        finals = set(re.findall(r"^(\w+):.*#!final", path.read_text(encoding="utf-8"), re.M))
        for key, value in data.items():
            if key in final or value is None:
                continue
            if isinstance(value, list):
                merged[key] = list(dict.fromkeys([*value, *merged.get(key, [])]))
            elif isinstance(value, dict):
                merged[key] = {**merged.get(key, {}), **value}
            else:
                merged[key] = value
        final |= finals
    for name in ("PROTECT_FROZEN_ENVS", "OFFLINE"):
        if f"CONDA_{name}" in os.environ:
            merged[name.lower()] = os.environ[f"CONDA_{name}"].lower() in ("1", "true", "yes")
    if not merged["channels"]:
        merged["channels"] = ["defaults"]
    if not merged["default_channels"]:
        merged["default_channels"] = DEFAULT_CHANNELS
    home = Path(os.path.expanduser("~"))
    merged["envs_dirs"] += [str(ROOT / "envs"), str(home / ".conda" / "envs")]
    merged["pkgs_dirs"] += [str(ROOT / "pkgs"), str(home / ".conda" / "pkgs")]
    return merged


CONFIG: dict[str, Any] = {}


def channel_urls(names: list[str]) -> list[str]:
    urls: list[str] = []
    for name in names:
        if name == "defaults":
            urls += channel_urls(CONFIG["default_channels"])
        elif "://" in name:
            urls.append(name.rstrip("/"))
        elif name.startswith("/"):
            urls.append(f"file://{name.rstrip('/')}")
        else:
            base = CONFIG["custom_channels"].get(name, CONFIG["channel_alias"])
            urls.append(f"{str(base).rstrip('/')}/{name}")
    terms = [url for url in urls if urlsplit(url).hostname in TERMS_HOSTS]
    accepted = CONFIG["plugins"].get("auto_accept_tos") or os.environ.get("CONDA_PLUGINS_AUTO_ACCEPT_TOS") == "yes"
    if terms and not accepted:
        listing = "\n".join(f"    - {url}" for url in terms)
        raise CondaError(
            "CondaToSNonInteractiveError",
            f"Terms of Service have not been accepted for the following channels. Please accept or remove them before "
            f"proceeding:\n{listing}",
        )
    return list(dict.fromkeys(urls))


# --- prefixes ------------------------------------------------------------------------------------------------------


def find_prefix(args: argparse.Namespace, *, create: bool = False) -> Path:
    if getattr(args, "prefix", None):
        return Path(args.prefix).absolute()
    name: str | None = getattr(args, "name", None)
    if not name:
        current = os.environ.get("CONDA_PREFIX")
        return Path(current) if current else ROOT
    if name in ("base", "root"):
        return ROOT
    if "/" in name or not name.strip():
        raise CondaError("CondaValueError", f"Invalid environment name: {name!r}\n Characters not allowed: / , space")
    places = [Path(place) for place in CONFIG["envs_dirs"]]
    for directory in places:
        if (directory / name / "conda-meta" / "history").is_file():
            return directory / name
    if not create:
        raise CondaError("EnvironmentLocationNotFound", f"Not a conda environment: {CONFIG['envs_dirs'][0]}/{name}")
    for directory in places:
        parent = directory if directory.exists() else directory.parent
        if os.access(parent, os.W_OK) or (not directory.exists() and not str(directory).startswith(str(ROOT))):
            return directory / name
    raise CondaError("NoWritableEnvsDirError", "No writable envs directories configured.")


def cache_dir() -> Path:
    for directory in map(Path, CONFIG["pkgs_dirs"]):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return directory
    raise CondaError("NoWritablePkgsDirError", "No writeable pkgs directories configured.")


def records(prefix: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((prefix / "conda-meta").glob("*.json"))]
    return sorted(found, key=lambda record: str(record["name"]))


def check_writable(prefix: Path, args: argparse.Namespace) -> None:
    if (prefix / "conda-meta").exists() and not os.access(prefix / "conda-meta", os.W_OK):
        raise CondaError(
            "EnvironmentNotWritableError",
            "The current user does not have write permissions to the target environment.\n"
            f"  environment location: {prefix}",
        )
    frozen = prefix / "conda-meta" / "frozen"
    if frozen.exists() and CONFIG["protect_frozen_envs"] and not getattr(args, "override_frozen", False):
        try:
            reason = json.loads(frozen.read_text(encoding="utf-8") or "{}").get("message", "")
        except ValueError:
            reason = ""
        raise CondaError(
            "EnvironmentIsFrozenError", f"Cannot modify '{prefix}'. The environment is marked as frozen. {reason}"
        )


def environments() -> list[Path]:
    found = [ROOT]
    for directory in map(Path, CONFIG["envs_dirs"]):
        if directory.is_dir():
            found += sorted(path.parent.parent for path in directory.glob("*/conda-meta/history"))
    return found


# --- solving and linking (real: py-rattler) ------------------------------------------------------------------------


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


# --- output --------------------------------------------------------------------------------------------------------


def say(args: argparse.Namespace, text: str) -> None:
    if not getattr(args, "json", False) and not getattr(args, "quiet", False):
        print(text, flush=True)


def answer(args: argparse.Namespace, data: Any, text: str = "") -> None:
    if getattr(args, "json", False):
        print(json.dumps(data, indent=2, default=str))
    elif text:
        print(text)


# --- commands ------------------------------------------------------------------------------------------------------


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


# --- command line --------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="conda", description=__doc__)
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
