# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: miniconda_plan
short_description: What the variables of the role miniconda mean
version_added: 0.1.0
author:
  - The devnode.gpu authors (@devnode)
description:
  - Checks the variables of the role P(devnode.gpu.miniconda#role) against each other and returns what they mean, in the
    form that M(devnode.gpu.conda_prefix), M(devnode.gpu.conda_envs) and the role's templates take.
  - Everything that is wrong is reported at once, before anything is changed. No connection to the host is opened.
  - Each option is the role's variable of the same name; see there.
options:
  prefix:
    description: Where conda lives.
    type: raw
    required: true
  distribution:
    description: Which installer.
    type: str
    choices: [miniconda, miniforge]
    default: miniconda
  version:
    description: Version and build of the installer.
    type: raw
    required: true
  python:
    description: Python of base.
    type: raw
    default: "3.11"
  installer_url:
    description: URL of an installer of one's own.
    type: raw
    default: ''
  installer_src:
    description: File on the controller that is the installer.
    type: raw
    default: ''
  installer_sha256:
    description: Its sha256.
    type: raw
    default: ''
  checksums:
    description: Known sha256 by file name.
    type: dict
    default: {}
  mirror:
    description: Name of the set of sources.
    type: raw
    default: upstream
  mirrors:
    description: The sets of sources by name.
    type: dict
    required: true
  channels:
    description: Channels, first one first.
    type: raw
    default: [conda-forge]
  anaconda_terms_accepted:
    description: Whether Anaconda's channels may be used.
    type: bool
    default: false
  pip_index_url:
    description: Package index for pip.
    type: raw
    default: ''
  condarc:
    description: More settings for conda.
    type: dict
    default: {}
  condarc_final:
    description: Settings that users cannot override.
    type: list
    elements: raw
    default: []
  proxies:
    description: Proxies by scheme.
    type: dict
    default: {}
  ca_bundle:
    description: Certificates to trust, a file on the host.
    type: raw
    default: ''
  environments:
    description: The declared environments.
    type: raw
    default: []
  bundle:
    description: A bundle on the controller. Everything comes from it then.
    type: str
    default: ''
  environment_python:
    description: Python for environments that name none.
    type: raw
    default: ''
attributes:
  check_mode:
    description: Can run in check mode and returns the same.
    support: full
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
seealso:
  - module: devnode.gpu.conda_prefix
  - module: devnode.gpu.conda_envs
"""

EXAMPLES = r"""
- name: What the variables mean
  devnode.gpu.miniconda_plan:
    prefix: /opt/miniconda
    version: 26.5.3-1
    checksums:
      Miniconda3-py311_26.5.3-1-Linux-x86_64.sh: f1d308a450763ce617f4e4f1609521358f663b2d1c097cfcc11a1c1f09baf680
    mirrors:
      upstream: {miniconda: "https://repo.anaconda.com/miniconda"}
    environments:
      - name: nlp-py311
        packages: [numpy=2.1]
  register: plan
"""

RETURN = r"""
installer_url:
  description: Where the installer is; V({file}) stands for its name on the host's architecture.
  returned: success
  type: str
installer_sha256:
  description: Its sha256, when it is not in the table.
  returned: success
  type: str
copies:
  description: Files of the controller that the host needs (src), and the directories they go to (dest).
  returned: success
  type: list
  elements: dict
bundle:
  description: Where the bundle is on the host then; empty without one.
  returned: success
  type: str
channels:
  description: Channels, checked.
  returned: success
  type: list
  elements: str
condarc:
  description: The text of the system-wide configuration of conda.
  returned: success
  type: str
variables:
  description: Environment variables for downloads, conda and pip.
  returned: success
  type: dict
checks:
  description: Commands that import what each environment should have (name, argv).
  returned: success
  type: list
  elements: dict
pip_index_url:
  description: Package index for pip; empty for pip's own.
  returned: success
  type: str
environments:
  description: The declared environments in their normal form, with the contents of their files.
  returned: success
  type: list
  elements: dict
"""
