# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workspaces as data. workspace_parse reads and checks them, workspace_container says what their containers are made
of, workspace_activity who works in them. Nothing there looks at a host: workspace_engine does, and workspace_keeper
makes it so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.workspace_web import Web

CONFIG_DIR = "/etc/devnode/workspaces"
STATE_DIR = "/var/lib/devnode/workspaces"
LABEL = "devnode.workspace"
LABEL_SHAPE = "devnode.shape"

GPU_RE = re.compile(r"(?P<kind>[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9_-]*)=(?P<device>[A-Za-z0-9][A-Za-z0-9_.:-]*)")


@dataclass(frozen=True)
class Login:
    """Somebody with an account in a workspace."""

    name: str
    uid: int


@dataclass(frozen=True)
class Mount:
    """A directory of the host in a workspace."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Workspace:
    """One container that people live in. Everything here has been checked."""

    name: str
    port: int
    bind_address: str
    owner: Login
    members: Tuple[Login, ...] = ()
    keys: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    user_ca_keys: Tuple[str, ...] = ()
    revoked_keys: Tuple[str, ...] = ()
    gpus: Tuple[str, ...] = ()
    gpu_shared: bool = False
    cpus: str = ""
    memory: str = ""
    pids: int = 4096
    shm_size: str = "8g"
    stop_grace: int = 1
    ulimits: Dict[str, str] = field(default_factory=dict)
    sudo: bool = False
    tmux: bool = False
    mounts: Tuple[Mount, ...] = ()
    env: Dict[str, str] = field(default_factory=dict)
    jupyter: bool = True
    web: Optional[Web] = None
    agent_forwarding: bool = False
    known_hosts: Tuple[str, ...] = ()
    exempt_networks: Tuple[str, ...] = ()
    project: str = ""
    host_key_alias: str = ""
    image: str = ""

    @property
    def container(self) -> str:
        """The container's name; also that of its network."""
        return f"devnode-{self.name}"

    @property
    def unit(self) -> str:
        """The unit that starts it."""
        return f"devnode-workspace@{self.name}.service"

    @property
    def home_volume(self) -> str:
        """The volume that holds the homes. It survives everything but a purge."""
        return f"devnode-{self.name}-home"


@dataclass(frozen=True)
class Options:
    """What is the same for all workspaces of a host."""

    image: str = ""
    environment_allow: Tuple[str, ...] = ()
    algorithms: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    extra_hosts: Dict[str, str] = field(default_factory=dict)
    config_dir: str = CONFIG_DIR
    state_dir: str = STATE_DIR
