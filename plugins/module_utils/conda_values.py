# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a name, a channel, a package … of a conda environment may look like. Pure.

The rules are allow-lists: whatever passes can stand in an environment.yml and on a command line.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

NAME_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CHANNEL_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*){0,4}")
CHANNEL_URL_RE = re.compile(r"(?:https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?|file://)(?:/[A-Za-z0-9._~+-]+)+/?")
# conda's MatchSpec as people write it: channel::name, then a version constraint, then [key=value, ...].
PACKAGE_RE = re.compile(
    r"(?:(?P<channel>[A-Za-z0-9_][A-Za-z0-9._/-]*)::)?"
    r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?P<version>\s*[=<>!~][A-Za-z0-9.*+!_=<>,|~ -]*|\s+[0-9*][A-Za-z0-9.*+!_=<>,|~ -]*)?"
    r"(?P<keys>\[[A-Za-z0-9_.*=<>,|'\" :/+-]*\])?"
)
# PEP 508 as people write it: name[extra], then a version constraint or @ URL, then a marker.
PIP_RE = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?:\[[A-Za-z0-9._, -]+\])?"
    r"(?:\s*(?:===|==|~=|!=|<=|>=|<|>)[A-Za-z0-9.*+!_=<>,~ -]*|\s*@\s*(?:https|file|git\+https|git\+ssh)://[A-Za-z0-9._~:/@+#&=?%-]+)?"
    r"(?:\s*;[A-Za-z0-9_.'\"<>=! ()-]+)?"
)
# Two names for one program: the module would be installed twice.
SAME_AS = {"torch": "pytorch"}
ANACONDA_CHANNELS = frozenset(
    {"defaults", "main", "r", "msys2", "anaconda", "pkgs/main", "pkgs/r", "pkgs/msys2", "free"}
)
ANACONDA_HOSTS = frozenset({"repo.anaconda.com", "repo.continuum.io"})
INDEX_RE = re.compile(r"(?:https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?|file://)(?:/[A-Za-z0-9._~+-]+)*/?")
MODULE_RE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
PART_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}")
LICENCE = (
    "Anaconda's channels need a licence in organisations of more than 200 people: settle that first, then set "
    "miniconda_anaconda_terms_accepted: true"
)


def canonical_pip(name: str) -> str:
    """The one spelling of a Python package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def package_key(name: str) -> str:
    """One key for a package, whoever installs it."""
    key = canonical_pip(name)
    return SAME_AS.get(key, key)


def package_name(spec: str) -> str:
    """The package that a checked conda spec is about."""
    found = PACKAGE_RE.fullmatch(spec)
    return found.group("name").lower() if found else spec


def pip_name(requirement: str) -> str:
    """The package that a checked pip requirement is about."""
    found = PIP_RE.fullmatch(requirement)
    return canonical_pip(found.group("name")) if found else requirement


def is_anaconda(channel: str) -> bool:
    """Whether a channel is one of those whose terms ask for a licence."""
    if "://" in channel:
        parts = urlsplit(channel)
        return (
            parts.hostname in ANACONDA_HOSTS or "/pkgs/" in parts.path or parts.path.rstrip("/").endswith("/anaconda")
        )
    return channel.lower() in ANACONDA_CHANNELS


# --- one value each ----------------------------------------------------------------------------------------------


def environment_name(value: Any) -> str:
    allowed = "1-64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit; not base or root"
    if not isinstance(value, str) or not value:
        raise InvalidError("is not a name", allowed)
    if "/" in value:
        raise InvalidError("is a path: environments live in the prefix under their name", allowed)
    if not NAME_RE.fullmatch(value) or value.lower() in ("base", "root"):
        raise InvalidError("is not a name for an environment", allowed)
    return value


def channel(value: Any, anaconda_allowed: bool) -> str:
    allowed = "a channel's name such as conda-forge, or an http(s) or file URL without user, password or query"
    if not isinstance(value, str) or not (CHANNEL_URL_RE if "://" in value else CHANNEL_RE).fullmatch(value):
        raise InvalidError("is not a channel", allowed)
    if is_anaconda(value) and not anaconda_allowed:
        raise InvalidError(f"is one of Anaconda's channels. {LICENCE}", "other channels, such as conda-forge")
    return value.rstrip("/")


def package(value: Any, anaconda_allowed: bool) -> str:
    allowed = "a conda package such as numpy, numpy=2.1 or 'conda-forge::numpy>=2,<3'"
    if not isinstance(value, str) or len(value) > 300:
        raise InvalidError("is not a package", allowed)
    found = PACKAGE_RE.fullmatch(value)
    if not found:
        raise InvalidError("is not a package", allowed)
    if found.group("channel"):
        channel(found.group("channel"), anaconda_allowed)
    return " ".join(value.split())


def index_url(value: Any) -> str:
    if not isinstance(value, str) or not INDEX_RE.fullmatch(value):
        raise InvalidError("is not a package index", "an http(s) or file URL without user, password or query")
    return value.rstrip("/")


def module_name(value: Any) -> str:
    if not isinstance(value, str) or not MODULE_RE.fullmatch(value):
        raise InvalidError("is not a Python module", "a name such as torch or torch.cuda")
    return value


def cuda_version(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,2}\.[0-9]{1,2}(\.[0-9]{1,2})?", value):
        raise InvalidError("is not a version", 'such as "12.8", in quotes')
    return value


def composed_name(project: Any, python: str, framework: Any) -> str:
    """The name of an environment by the convention: project, Python, framework, such as nlp-py311-torch28."""
    if not isinstance(project, str) or not PART_RE.fullmatch(project):
        raise InvalidError("is not a project", "letters, digits and . _ -, such as nlp")
    parts = [project, f"py{python.replace('.', '')}"] if python else [project]
    if framework:
        if not isinstance(framework, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9. _-]{0,40}", framework):
            raise InvalidError("is not a framework", "a name and perhaps a version, such as torch 2.8")
        parts.append(re.sub(r"[ ._-]", "", framework).lower())
    return environment_name("-".join(parts))


def requirement(value: Any) -> str:
    allowed = "a requirement such as rich, rich==14.0 or 'rich[jupyter]>=14'; no options (-r, --index-url, -e)"
    if isinstance(value, str) and value.startswith("-"):
        raise InvalidError("is an option, not a package", allowed)
    if not isinstance(value, str) or len(value) > 500 or not PIP_RE.fullmatch(value):
        raise InvalidError("is not a pip requirement", allowed)
    return " ".join(value.split())
