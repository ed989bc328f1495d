# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the variables of the role `miniconda` mean: installer, configuration of conda, environments. Pure."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils import (
    conda_bundle,
    conda_env,
    conda_install,
    conda_pytorch,
    conda_values,
)
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, path, show

CACHE = "/var/cache/devnode/miniconda"
# Settings that follow from other variables; a second place to set them would be one too many.
OWN_KEYS = {
    "channels": "miniconda_channels",
    "default_channels": "miniconda_channels",
    "custom_channels": "miniconda_mirrors",
    "channel_alias": "miniconda_mirrors",
    "plugins": "miniconda_anaconda_terms_accepted",
    "proxy_servers": "miniconda_proxies",
    "ssl_verify": "miniconda_ca_bundle",
}
KEY_RE = re.compile(r"[a-z][a-z0-9_]{0,63}")
URL_RE = re.compile(r"(?:https?|file)://[A-Za-z0-9._~:/@{}%+-]+")
FILE_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.sh")
PROXY_RE = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?/?")
LOCAL = "localhost,127.0.0.1,::1"
MIRROR_KEYS = ("miniconda", "miniforge", "channels", "anaconda", "pypi", "pytorch")


@dataclass
class Settings:
    """The role's variables, as Ansible has them."""

    prefix: Any
    distribution: str
    version: Any
    python: Any
    installer_url: Any
    installer_src: Any
    installer_sha256: Any
    checksums: dict[str, Any]
    mirror: Any
    mirrors: dict[str, Any]
    channels: Any
    anaconda_terms_accepted: bool
    pip_index_url: Any
    condarc: dict[str, Any]
    environments: Any
    environment_python: Any
    condarc_final: list[Any] = field(default_factory=list)
    proxies: dict[str, Any] = field(default_factory=dict)
    ca_bundle: Any = ""
    bundle: Any = ""  # where it is on the controller
    bundle_about: conda_bundle.About | None = None
    bundle_id: str = ""


@dataclass
class Plan:
    """What the role's tasks take. `errors` is empty in a plan that may be used."""

    errors: list[str] = field(default_factory=list)
    installer_url: str = ""
    installer_sha256: str = ""
    copies: list[dict[str, str]] = field(default_factory=list)  # the controller's files that the host needs
    bundle: str = ""  # where it is on the host
    channels: list[str] = field(default_factory=list)
    condarc: dict[str, Any] = field(default_factory=dict)
    final: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)  # for downloads, conda and pip
    pip_index_url: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)  # commands that see whether an environment works
    environments: list[dict[str, Any]] = field(default_factory=list)

    def check(self, variable: str, value: Any, rule: Any, *arguments: Any) -> Any:
        try:
            return rule(value, *arguments)
        except InvalidError as error:
            self.refuse(variable, value, error.why, error.allowed)
            return None

    def refuse(self, variable: str, value: Any, why: str, allowed: str = "") -> None:
        self.errors.append(f"miniconda_{variable}: {show(value)} {why}." + (f" Allowed: {allowed}." if allowed else ""))


def _url(value: Any) -> str:
    allowed = "http, https or file, and no spaces or quotes"
    if not isinstance(value, str) or not URL_RE.fullmatch(value):
        raise InvalidError("is not a URL", allowed)
    return value.rstrip("/")


def _base_python(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"3\.[0-9]{1,2}", value):
        raise InvalidError("is not a Python version", 'such as "3.11", in quotes')
    return value


def _mirror(settings: Settings, plan: Plan) -> dict[str, Any]:
    """The chosen mirror, checked."""
    chosen = settings.mirrors.get(settings.mirror) if isinstance(settings.mirror, str) else None
    if not isinstance(chosen, dict):
        known = ", ".join(sorted(settings.mirrors))
        plan.refuse("mirror", settings.mirror, "is no known mirror", f"{known}; or describe it in miniconda_mirrors")
        return {}
    where = f"mirrors.{settings.mirror}"
    for key in sorted(str(key) for key in chosen if key not in MIRROR_KEYS):
        plan.refuse(f"{where}.{key}", chosen.get(key), "is unknown", ", ".join(MIRROR_KEYS))
    urls: dict[str, Any] = {
        key: plan.check(f"{where}.{key}", chosen[key], _url)
        for key in MIRROR_KEYS
        if key != "channels" and chosen.get(key)
    }
    channels = chosen.get("channels") or {}
    if not isinstance(channels, dict):
        plan.refuse(f"{where}.channels", channels, "is not a mapping", "channel name to the URL above it")
        channels = {}
    urls["channels"] = {
        str(name): plan.check(f"{where}.channels.{name}", url, _url) for name, url in sorted(channels.items())
    }
    return urls


def _check_name(settings: Settings, plan: Plan, variable: str, base: str) -> None:
    """An installer whose name says something else than the variables would end as something else than they say."""
    said = conda_install.parse_installer_name(base)
    asked = {"distribution": settings.distribution, "version": settings.version}
    if settings.distribution == "miniconda":
        asked["python"] = settings.python
    for key, value in asked.items():
        if said.get(key) and said[key] != value:
            plan.refuse(variable, base, f"is {key} {said[key]}, and miniconda_{key} is {show(value)}: make them agree")


def _installer(settings: Settings, plan: Plan, mirror: dict[str, Any]) -> None:
    about = settings.bundle_about
    for other in ("installer_url", "installer_src") if about else ():
        if getattr(settings, other):
            plan.refuse(
                other, getattr(settings, other), "and miniconda_bundle are both set: the bundle has an installer"
            )
    if settings.installer_url and settings.installer_src:
        plan.refuse("installer_src", settings.installer_src, "and miniconda_installer_url are both set: choose one")
        return
    if settings.installer_sha256:
        plan.installer_sha256 = plan.check("installer_sha256", settings.installer_sha256, conda_install.sha256) or ""
    variable, url = "installer_url", settings.installer_url
    if about:
        variable, url = "bundle", f"file://{conda_bundle.UNPACKED}/{about.installer}"
    elif settings.installer_src:
        variable, base = "installer_src", os.path.basename(str(settings.installer_src))
        if not FILE_RE.fullmatch(base):
            plan.refuse(variable, settings.installer_src, "has no plain file name", "letters, digits, . _ + -, and .sh")
            return
        plan.copies.append({"src": str(settings.installer_src), "dest": f"{CACHE}/"})
        url = f"file://{CACHE}/{base}"
    elif not url:
        variable = "mirror"
        if not mirror.get(settings.distribution):
            why = f"does not have {settings.distribution}: set miniconda_installer_url, or choose another"
            plan.refuse("mirror", settings.mirror, why)
            return
        url = f"{mirror[settings.distribution]}/{{file}}".replace("{version}", str(settings.version))
    plan.installer_url = plan.check(variable, url, _url) or ""
    base = os.path.basename(str(url))
    names = [base]
    if base == "{file}":
        names = [
            conda_install.installer_name(settings.distribution, str(settings.python), str(settings.version), arch)
            for arch in conda_install.ARCHITECTURES
        ]
    else:
        _check_name(settings, plan, variable, base)
    if not settings.installer_sha256 and not any(name in settings.checksums for name in names):
        plan.refuse(
            "version" if base == "{file}" else variable,
            names[0],
            "has no known sha256, and an installer that runs as root is never run unverified: set "
            "miniconda_installer_sha256 to what its maker publishes",
            "a version of the table in the role's vars, or one with miniconda_installer_sha256",
        )


def _channel_url(name: str, mirror: dict[str, Any]) -> str:
    if "://" in name:
        return name
    base = mirror.get("channels", {}).get(name) or "https://conda.anaconda.org"
    return f"{base}/{name}"


def _condarc(settings: Settings, plan: Plan, mirror: dict[str, Any]) -> None:
    """The system-wide configuration. `default_channels` is set too, so that the word `defaults`, wherever somebody
    writes it, never means Anaconda's channels unless that was asked for."""
    anaconda = f"{mirror.get('anaconda') or 'https://repo.anaconda.com/pkgs'}"
    ours = [name for name in plan.channels if not conda_values.is_anaconda(name)]
    wanted: dict[str, Any] = {
        "channels": plan.channels,
        "default_channels": (
            [f"{anaconda}/main", f"{anaconda}/r"]
            if "defaults" in plan.channels
            else [_channel_url(name, mirror) for name in ours]
        ),
        "channel_priority": "strict",
        "auto_activate": False,
        "notify_outdated_conda": False,
    }
    if mirror.get("channels"):
        wanted["custom_channels"] = mirror["channels"]
    if settings.anaconda_terms_accepted:
        wanted["plugins"] = {"auto_accept_tos": True}
    for key, value in settings.condarc.items():
        if not isinstance(key, str) or not KEY_RE.fullmatch(key):
            plan.refuse("condarc", key, "is not a name of a setting", "a-z 0-9 _")
        elif key in OWN_KEYS:
            plan.refuse(f"condarc.{key}", value, f"is set by {OWN_KEYS[key]}")
        else:
            wanted[key] = value
    _network(settings, plan, wanted)
    for key in settings.condarc_final:
        if key in wanted:
            plan.final.append(str(key))
        else:
            plan.refuse("condarc_final", key, "is not set here, so it cannot be final", ", ".join(sorted(wanted)))
    plan.condarc = wanted


def _network(settings: Settings, plan: Plan, wanted: dict[str, Any]) -> None:
    """Proxies and certificates, for conda and for everything else that the role starts."""
    proxies: dict[str, str] = {}
    for scheme, url in sorted(settings.proxies.items()):
        if scheme not in ("http", "https"):
            plan.refuse(f"proxies.{scheme}", url, "is for an unknown scheme", "http, https")
        elif not isinstance(url, str) or not PROXY_RE.fullmatch(url):
            why = "is not a proxy" if "@" not in str(url) else "has a user or password, which everybody could read"
            plan.refuse(f"proxies.{scheme}", url if "@" not in str(url) else "(not shown)", why, "http://host:port")
        else:
            proxies[scheme] = url
            plan.variables.update({f"{scheme}_proxy": url, f"{scheme.upper()}_PROXY": url})
    if proxies:
        wanted["proxy_servers"] = proxies
        plan.variables.update(no_proxy=LOCAL, NO_PROXY=LOCAL)
    if settings.ca_bundle:
        bundle = plan.check("ca_bundle", settings.ca_bundle, path)
        wanted["ssl_verify"] = bundle
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
        plan.variables.update(dict.fromkeys(names, str(bundle)))


def _bundled(about: conda_bundle.About, wanted: conda_env.Environment, errors: list[str]) -> conda_env.Environment:
    try:
        return conda_bundle.environment_from(about, wanted) if wanted.present else wanted
    except (conda_bundle.BundleError, InvalidError) as error:
        errors.append(f"miniconda_environments: {show(wanted.title)} {error}.")
        return wanted


def _importing(prefix: str, wanted: conda_env.Environment) -> dict[str, Any]:
    """The command that imports what an environment should have, as its owner."""
    program = f"import {', '.join(wanted.imports)}"
    argv = [f"{prefix}/bin/conda", "run", "--name", wanted.name, "python", "-c", program]
    if wanted.owner:  # names of accounts, environments and modules need no other quoting than this
        argv = ["runuser", "-l", wanted.owner, "-c", f"{' '.join(argv[:-1])} '{program}'"]
    return {"name": wanted.title, "argv": argv}


def _with_pytorch(plan: Plan, index: int, item: Any, mirror: dict[str, Any]) -> Any:
    try:
        return conda_pytorch.expanded(item, mirror.get("pytorch") or conda_pytorch.WHEELS)
    except InvalidError as error:
        plan.refuse(f"environments[{index}].pytorch", item["pytorch"], error.why, error.allowed)
        return {key: value for key, value in item.items() if key != "pytorch"} | {"packages": ["python"]}


def plan_of(settings: Settings) -> Plan:
    """What the settings mean, and everything that is wrong with them."""
    plan = Plan()
    plan.check("prefix", settings.prefix, conda_install.prefix_path)
    plan.check("version", settings.version, conda_install.version)
    plan.check("python", settings.python, _base_python)
    mirror = _mirror(settings, plan)
    if not plan.errors:
        _installer(settings, plan, mirror)
    channels = settings.channels if isinstance(settings.channels, list) else []
    if not channels:
        plan.refuse("channels", settings.channels, "is not a list with a channel in it", "such as [conda-forge]")
    accepted = settings.anaconda_terms_accepted
    checked = [
        plan.check(f"channels[{index}]", item, conda_values.channel, accepted) for index, item in enumerate(channels)
    ]
    plan.channels = [item for item in checked if item]
    plan.pip_index_url = str(mirror.get("pypi") or "")
    if settings.pip_index_url:
        plan.pip_index_url = plan.check("pip_index_url", settings.pip_index_url, _url) or ""
    _condarc(settings, plan, mirror)
    declared = settings.environments
    if isinstance(declared, list):
        declared = [_with_pytorch(plan, index, item, mirror) for index, item in enumerate(declared)]
    environments, errors = conda_env.parse_environments(
        declared,
        channels=tuple(plan.channels),
        python=settings.environment_python,
        anaconda_allowed=accepted,
        variable="miniconda_environments",
    )
    if settings.bundle_about:
        folder = f"{CACHE}/bundle-{settings.bundle_id}/"
        plan.bundle = folder + os.path.basename(str(settings.bundle))
        plan.copies.append({"src": str(settings.bundle), "dest": folder})
        environments = [_bundled(settings.bundle_about, item, errors) for item in environments]
    else:
        environments = [replace(item, lock=item.lock.moved(mirror.get("channels", {}))) for item in environments]
    plan.environments = [environment.declaration() for environment in environments]
    plan.checks = [_importing(str(settings.prefix), item) for item in environments if item.present and item.imports]
    plan.errors += errors
    return plan


def from_file(item: dict[str, Any], data: Any) -> dict[str, Any]:
    """A declaration that takes its contents from an environment.yml. Raises InvalidError."""
    both = [key for key in ("channels", "packages", "pip") if item.get(key)]
    if both:
        raise InvalidError(f"and {', '.join(both)} are both given: the file says it all", "one or the other")
    rest = {key: value for key, value in item.items() if key not in ("file", "channels", "packages", "pip")}
    return {**rest, **conda_env.split_file(data)}
