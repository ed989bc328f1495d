# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Miniconda and one declared environment in an image whose base has no Python: what the image is built from. Pure.

The declaration is the one of the role miniconda, read by the same code.
"""

from __future__ import annotations

import os
import shlex
from typing import Any, Callable

from ansible_collections.devnode.gpu.plugins.module_utils import conda_env, conda_install, conda_settings
from ansible_collections.devnode.gpu.plugins.module_utils.validators import show

PREFIX = "/opt/conda"
NAME = "workspace"
KEYS = ("installer_url", "installer_sha256", "mirror", "environment")
NOT_HERE = ("name", "project", "framework", "owner", "state", "adopt")
VERSION = "26.5.3-1"
INSTALLER = f"https://repo.anaconda.com/miniconda/Miniconda3-py311_{VERSION}-Linux-x86_64.sh"
# As its maker publishes it; the same as in the role miniconda's table (a test compares).
SHA256 = "f1d308a450763ce617f4e4f1609521358f663b2d1c097cfcc11a1c1f09baf680"
VARIABLE = "pytorch_sshd_conda"


def files(given: Any, condarc: Callable[[dict[str, Any], list[str]], str]) -> tuple[dict[str, str], list[str]]:
    """The files that the build reads (by name), and everything that is wrong with the declaration.

    `condarc` writes conda's configuration.
    """
    if not isinstance(given, dict) or not isinstance(given.get("environment"), dict) or not given["environment"]:
        return {}, [f"{VARIABLE}: {show(given)} has no environment. Allowed: a mapping of {', '.join(KEYS)}."]
    errors = [
        f"{VARIABLE}.{key}: is unknown. Allowed: {', '.join(KEYS)}." for key in sorted(map(str, set(given) - set(KEYS)))
    ]
    errors += [
        f"{VARIABLE}.environment.{key}: has no meaning here: the image has one environment, for everybody."
        for key in NOT_HERE
        if key in given["environment"]
    ]
    url = str(given.get("installer_url") or INSTALLER)
    said = conda_install.parse_installer_name(os.path.basename(url))
    settings = conda_settings.Settings(
        prefix=PREFIX,
        distribution=said.get("distribution", "miniconda"),
        version=said.get("version", VERSION),
        python=said.get("python") or "3.11",
        installer_url=url,
        installer_src="",
        installer_sha256=given.get("installer_sha256") or "",
        checksums={os.path.basename(INSTALLER): SHA256},
        mirror="given",
        mirrors={"given": given.get("mirror") or {}},
        channels=["conda-forge"],
        anaconda_terms_accepted=False,
        pip_index_url="",
        condarc={},
        environments=[{**given["environment"], "name": NAME}],
        environment_python="3.11",
    )
    plan = conda_settings.plan_of(settings)
    errors += [_here(error) for error in plan.errors]
    if errors:
        return {}, errors
    (wanted,), _dummy = conda_env.parse_environments(plan.environments, channels=tuple(plan.channels))
    pip = {"PIP_INDEX_URL": plan.pip_index_url} if plan.pip_index_url else {}
    variables = {"URL": plan.installer_url, "SHA256": plan.installer_sha256 or SHA256, "CUDA": wanted.cuda, **pip}
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in variables.items()]
    found = {"settings": "".join(lines), "condarc": condarc(plan.condarc, plan.final) + "\n"}
    if not wanted.exact:
        return {**found, "environment.yml": wanted.environment_file()}, []
    found["lock.txt"] = wanted.exact.explicit()
    return {**found, **({"requirements.txt": wanted.exact.requirements()} if wanted.exact.pip else {})}, []


def _here(error: str) -> str:
    """The role miniconda's words, with the names that this role's input has."""
    for theirs, ours in (("miniconda_environments[0]", "environment"), ("miniconda_mirrors.given", "mirror")):
        error = error.replace(theirs, f"{VARIABLE}.{ours}")
    return error.replace("miniconda_", f"{VARIABLE}.")
