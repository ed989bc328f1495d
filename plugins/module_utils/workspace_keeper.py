# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a host's workspaces what is declared: removed ones go, missing ones are made, changed ones made again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils import (
    workspace_activity,
    workspace_container,
    workspace_host_keys,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import write_atomic
from ansible_collections.devnode.gpu.plugins.module_utils.workspace import LABEL, LABEL_SHAPE, Options, Workspace
from ansible_collections.devnode.gpu.plugins.module_utils.workspace_engine import (
    Container,
    Engine,
    Found,
    HostError,
    Run,
    tail,
)

READY_SECONDS = 40.0


@dataclass
class Result:
    """What was done, or in check mode would be."""

    actions: List[str] = field(default_factory=list)
    pending: List[Dict[str, Any]] = field(default_factory=list)
    kept: List[str] = field(default_factory=list)
    before: Dict[str, Any] = field(default_factory=dict)
    after: Dict[str, Any] = field(default_factory=dict)


class Keeper:
    """Brings the workspaces of a host to what is declared."""

    def __init__(
        self, run: Run, options: Options, recreate: str, check: bool, people: "Sequence[str] | None" = None
    ) -> None:
        self._run = run
        self.engine = Engine(run)
        self.options = options
        self.recreate = recreate
        self.check = check
        self.people = people  # everybody who is still here; None: not known
        self.result = Result()
        self._to_start: List[Workspace] = []

    def bring(self, workspaces: Sequence[Workspace], found: Found, purge: Iterable[str] = ()) -> Result:
        """Removed ones go and changed ones are made again if nobody is in them; missing ones are made, all started."""
        self._remove_undeclared({item.name for item in workspaces}, found)
        self._purge(sorted(set(purge) - {entry["workspace"] for entry in self.result.pending}))
        for item in workspaces:
            self._bring_one(item, found)
        self._start(found)
        if not self.check:
            for item in self._to_start:
                self._wait_until_ready(item)
        return self.result

    # Removal

    def _remove_undeclared(self, wanted: "set[str]", found: Found) -> None:
        networks = {name[len("devnode-") :] for name in found.networks}
        undeclared = sorted(({*found.containers, *found.enabled, *networks}) - wanted)
        gone = [name for name in undeclared if not self._still_busy(name, found)]
        for name in gone:
            self.result.actions.append(f"remove {name}")
            self.result.before[name] = _state_of(found.containers.get(name), name in found.enabled)
            self.result.after[name] = None
            if self.check:
                continue
            unit = f"devnode-workspace@{name}.service"
            self._systemctl("disable", "--now", unit)
            if name in found.containers:
                self.engine.ask("rm", "--force", found.containers[name].id)
            self.engine.try_("network", "rm", f"devnode-{name}")
        if gone and not self.check:
            names = self.engine.ask("volume", "ls", "--format", "{{.Name}}").split()
            self.result.kept = [f"devnode-{name}-home" for name in gone if f"devnode-{name}-home" in names]
        elif gone:
            self.result.kept = [f"devnode-{name}-home" for name in gone]

    def _purge(self, names: Sequence[str]) -> None:
        """What removed workspaces left behind, for those named: homes and host keys. There is no way back."""
        for name in names:
            code, out = self.engine.try_("volume", "ls", "--quiet", "--filter", f"label={LABEL}={name}")
            volumes = out.split() if code == 0 else []
            folder = f"{self.options.state_dir}/{name}"
            left = [f"volume {volume}" for volume in volumes] + (["its host keys"] if os.path.isdir(folder) else [])
            if not left:
                continue
            self.result.actions.append(f"purge {name}: {', '.join(left)}")
            self.result.kept = [volume for volume in self.result.kept if volume not in volumes]
            self.result.before.setdefault(name, {"left behind": left})
            self.result.after[name] = None
            if not self.check:
                if volumes:
                    self.engine.ask("volume", "rm", *volumes)
                shutil.rmtree(folder, ignore_errors=True)

    def _still_busy(self, name: str, found: Found) -> bool:
        """Whether a workspace that is no longer declared has to wait for what runs in it; noted as pending."""
        container = found.containers.get(name)
        if container is None or self.recreate == "always":
            return False
        logins = self.engine.logins_in(container)
        # Its keys are gone, and what they opened goes with them. Jobs of people who are here may end by themselves.
        if container.running and not self.check:
            self.engine.try_("exec", container.id, "/usr/local/sbin/devnode-workspace", "close")
        running = self.engine.doing(container, logins, workspace_activity.who_left(logins, self.people))
        if running and name in found.enabled:
            # Its description goes with this run, so it could not start again; and after a boot nobody is in it.
            self.result.actions.append(f"do not start {name} at boot any more")
            if not self.check:
                self._systemctl("disable", f"devnode-workspace@{name}.service")
        if running:
            reason = f"no longer declared, but {'; '.join(running)} runs"
            self.result.pending.append({"workspace": name, "reasons": [reason], "running": running, "undeclared": True})
        return bool(running)

    # One workspace

    def _bring_one(self, item: Workspace, found: Found) -> None:
        container = found.containers.get(item.name)
        enabled = item.name in found.enabled
        wanted = workspace_container.shape(item, self.options)
        before = _state_of(container, enabled)
        after = {"container": workspace_container.shape_lines(wanted), "running": True, "starts at boot": True}
        done = len(self.result.actions)
        self._ensure_host_key(item)
        if container is None:
            self.result.actions.append(f"create {item.name}")
            self._create(item, found)
            self._to_start.append(item)
        else:
            after = self._bring_existing(item, container, enabled, wanted, found, after)
        if len(self.result.actions) > done and before != after:
            self.result.before[item.name], self.result.after[item.name] = before, after

    def _bring_existing(
        self, item: Workspace, container: Container, enabled: bool, wanted: str, found: Found, after: Dict[str, Any]
    ) -> Dict[str, Any]:
        image_id = found.image_ids.get(workspace_container.image_of(item, self.options), container.image_id)
        reasons = _reasons(container, wanted, image_id)
        logins = {login.uid: login.name for login in (item.owner, *item.members)}
        running = self.engine.doing(container, logins) if reasons and self.recreate != "always" else []
        if reasons and (self.recreate == "never" or running):
            self.result.pending.append({"workspace": item.name, "reasons": reasons, "running": running})
            after = {**after, "container": workspace_container.shape_lines(container.shape)}
        elif reasons:
            self.result.actions.append(f"recreate {item.name}")
            if image_id != container.image_id:
                after = {**after, "image": image_id}
            if not self.check:
                self._systemctl("stop", item.unit)
                self.engine.ask("rm", "--force", container.id)
                self._create(item, found)
            self._to_start.append(item)
            return after
        if not (container.running and enabled):
            self.result.actions.append(f"start {item.name}")
            self._to_start.append(item)
        else:
            applied = self._apply(item, container)
            after = {**after, "changed in the running container": applied} if applied else after
        return after

    def _create(self, item: Workspace, found: Found) -> None:
        if self.check:
            return
        image = workspace_container.image_of(item, self.options)
        if image not in found.image_ids:
            raise HostError(f"workspace {item.name}: image {image} is not on this host. Build, pull or load it first.")
        label = f"{LABEL}={item.name}"
        if item.container not in found.networks:
            self.engine.ask("network", "create", "--driver", "bridge", "--label", label, item.container)
        self.engine.ask("volume", "create", "--label", label, item.home_volume)
        shape = f"{LABEL_SHAPE}={workspace_container.shape(item, self.options)}"
        words = ["--name", item.container, "--label", label, "--label", shape]
        number = self.engine.ask(
            "container", "create", "--pull", "never", *words, *workspace_container.create_arguments(item, self.options)
        ).strip()
        self._remember(item, number)

    def _ensure_host_key(self, item: Workspace) -> None:
        """Made here once, so that a new container is the same host to people."""
        folder = workspace_host_keys.folder(item.name, self.options)
        path = f"{folder}/ssh_host_ed25519_key"
        if os.path.exists(path) or self.check:
            return
        os.makedirs(folder, mode=0o700, exist_ok=True)
        comment = item.host_key_alias or item.name
        code, out, err = self._run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])
        if code != 0:
            raise HostError(f"ssh-keygen could not make the host key of workspace {item.name}: {tail(err or out)}")
        self.result.actions.append(f"make host key of {item.name}")
        # A container that runs goes on with the key that it has read, until it is told.
        if os.path.exists(self._note(item)):
            os.unlink(self._note(item))

    # What the running container has read

    def _note(self, item: Workspace) -> str:
        return f"{self.options.state_dir}/{item.name}/applied.json"

    def _remember(self, item: Workspace, container: str) -> None:
        note = {"container": container, "config": workspace_container.config_digest(item, self.options)}
        write_atomic(self._note(item), json.dumps(note).encode(), 0o644)

    def _apply(self, item: Workspace, container: Container) -> List[str]:
        """What that changed, in words."""
        wanted = {"container": container.id, "config": workspace_container.config_digest(item, self.options)}
        try:
            with open(self._note(item), encoding="utf-8") as source:
                if json.load(source) == wanted:
                    return []
        except (OSError, ValueError):
            pass
        if self.check:
            self.result.actions.append(f"apply {item.name}")
            return []
        out = self.engine.ask("exec", container.id, "/usr/local/sbin/devnode-workspace", "apply")
        changed = [str(one) for one in json.loads(out)["changed"]]
        if changed:
            self.result.actions.append(f"apply {item.name}: {', '.join(changed)}")
        self._remember(item, container.id)
        return changed

    # Starting

    def _start(self, found: Found) -> None:
        if not self._to_start or self.check:
            return
        units = [item.unit for item in self._to_start]
        self._systemctl("enable", *units)
        for item in self._to_start:
            # The unit may think that it runs (a container that ended by itself): restart makes both agree. A container
            # that does run is left alone.
            container = found.containers.get(item.name)
            made_again = f"recreate {item.name}" in self.result.actions
            left_alone = container is not None and container.running and not made_again
            code, out, err = self._systemctl("start" if left_alone else "restart", item.unit)
            if code != 0:
                said = self.engine.try_("start", item.container)[1]
                raise HostError(f"workspace {item.name} does not start: {tail(said) or tail(err or out)}")

    def _systemctl(self, *words: str) -> Tuple[int, str, str]:
        return self._run(["systemctl", *words])

    def _wait_until_ready(self, item: Workspace) -> None:
        end = time.monotonic() + READY_SECONDS
        while not answers_ssh(item.bind_address, item.port):
            state = self.engine.try_("inspect", "--format", "{{.State.Running}}", item.container)[1].strip()
            if state != "true" or time.monotonic() > end:
                said = tail(self.engine.try_("logs", "--tail", "20", item.container)[1], 20)
                raise HostError(
                    f"workspace {item.name}: no sshd answers on {item.bind_address} port {item.port}. "
                    f"The container said:\n{said}"
                )
            time.sleep(0.1)


def pending_text(entry: Mapping[str, Any]) -> str:
    """One entry of `pending`, for people."""
    running = "; ".join(entry["running"]) or "nothing (recreate is set to never)"
    if entry.get("undeclared"):
        return (
            f'workspace "{entry["workspace"]}" is no longer declared, but is left running until nobody is in it: '
            f"running in it: {running}. Its people's keys are gone, so nobody new gets in. A later run removes it, at "
            "once with recreate: always."
        )
    return f'workspace "{entry["workspace"]}" keeps its old container: running in it: {running}'


def _reasons(container: Container, wanted: str, image_id: str) -> List[str]:
    old, new = workspace_container.shape_lines(container.shape), workspace_container.shape_lines(wanted)
    reasons = [f"- {line}" for line in old if line not in new] + [f"+ {line}" for line in new if line not in old]
    if not reasons and image_id != container.image_id:
        reasons = ["the image's tag means another image now"]
    return reasons


def _state_of(container: "Container | None", enabled: bool) -> Any:
    if container is None:
        return None
    return {
        "container": workspace_container.shape_lines(container.shape),
        "running": container.running,
        "starts at boot": enabled,
    }


def answers_ssh(address: str, port: int) -> bool:
    """Whether an sshd greets there."""
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            connection.settimeout(2)
            return connection.recv(8).startswith(b"SSH-2.0")
    except OSError:
        return False
