# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is noted beside a conda environment, and what has to be done so that it is as declared. Pure."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass, field

from ansible_collections.devnode.gpu.plugins.module_utils import cuda_compat
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import SPEC_KEYS, Environment
from ansible_collections.devnode.gpu.plugins.module_utils.conda_lock import Lock
from ansible_collections.devnode.gpu.plugins.module_utils.conda_values import canonical_pip, pip_name

STATE_FORMAT = 1


@dataclass(frozen=True)
class State:
    """What we wrote beside an environment when we last finished (or began) work on it."""

    digest: str
    spec: dict[str, list[str]] = field(default_factory=dict)
    contents: tuple[str, ...] = ()
    pending: bool = False

    def dump(self) -> str:
        data = {
            "made_by": "devnode.gpu.conda_envs",
            "format": STATE_FORMAT,
            "digest": self.digest,
            "spec": self.spec,
            "contents": list(self.contents),
            "pending": self.pending,
        }
        return json.dumps(data, indent=1, sort_keys=True) + "\n"

    @classmethod
    def load(cls, text: str) -> State | None:
        """The state, or None for a file that is not ours or is damaged."""
        try:
            data = json.loads(text)
            spec = {key: [str(item) for item in data["spec"][key]] for key in SPEC_KEYS if key in data["spec"]}
            if data["made_by"] != "devnode.gpu.conda_envs" or data["format"] != STATE_FORMAT:
                return None
            return cls(str(data["digest"]), spec, tuple(map(str, data["contents"])), bool(data["pending"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True)
class Found:
    """An environment's directory as it is on the host."""

    state: State | None = None
    contents: tuple[str, ...] = ()
    half_made: bool = False  # we began to create it and never finished


@dataclass(frozen=True)
class Step:
    """One thing to do. The reason is for people."""

    name: str
    action: str  # create | recreate | replace | update | remove | refuse
    reason: str
    uninstall: tuple[str, ...] = ()  # pip packages to take away first


def differences(old: list[str] | tuple[str, ...], new: list[str] | tuple[str, ...]) -> str:
    gone = [f"-{item}" for item in old if item not in new]
    come = [f"+{item}" for item in new if item not in old]
    items = [*gone, *come]
    return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "")


def _pip_of(contents: tuple[str, ...]) -> dict[str, str]:
    """Name → entry of what pip installed."""
    entries = [item for item in contents if item.startswith("pip:")]
    return {canonical_pip(item[4:].partition("==")[0]): item for item in entries}


def _step(wanted: Environment, found: Found | None) -> Step | None:
    if found is None:
        return Step(wanted.name, "create", "is declared and not there") if wanted.present else None
    if not wanted.present:
        return Step(wanted.name, "remove", "is declared absent")
    if found.half_made:
        return Step(wanted.name, "recreate", "was never finished: an earlier run was interrupted")
    # A lock file says all that is in it: there is nothing to update, only another one to make.
    change = "replace" if wanted.exact else "update"
    if found.state is None:
        if not wanted.adopt:
            return Step(wanted.name, "refuse", "was not made by this role")
        return Step(wanted.name, change, "is taken over (adopt: true)")
    wanted_pip = {pip_name(item) for item in wanted.pip}
    by_pip = _pip_of(found.contents)
    unwanted = {pip_name(item) for item in found.state.spec.get("pip", [])}
    strangers = {name for name, entry in by_pip.items() if entry not in found.state.contents}
    uninstall = tuple(sorted(((unwanted | strangers) - wanted_pip) & set(by_pip)))
    if found.state.digest != wanted.digest():
        old = [item for key in SPEC_KEYS for item in found.state.spec.get(key, [])]
        new = [item for key in SPEC_KEYS for item in wanted.spec().get(key, [])]
        reason = f"its declaration changed: {differences(old, new) or 'another order'}"
        return Step(wanted.name, change, reason, uninstall)
    if found.state.pending:
        return Step(wanted.name, change, "an earlier update did not finish", uninstall)
    if found.state.contents != found.contents:
        reason = f"somebody changed it by hand: {differences(found.state.contents, found.contents)}"
        return Step(wanted.name, change, reason, uninstall)
    return None


def plan(declared: list[Environment], found: dict[str, Found]) -> list[Step]:
    """What to do, in the order of names; removals first, so that they free their space."""
    steps = [
        Step(name, "remove", "is no longer declared")
        for name, there in sorted(found.items())
        if (there.state is not None or there.half_made) and name not in {wanted.name for wanted in declared}
    ]
    for wanted in sorted(declared, key=lambda environment: environment.name):
        step = _step(wanted, found.get(wanted.name))
        if step is not None:
            steps.append(step)
    return sorted(steps, key=lambda step: (step.action != "remove", step.name))


def unfit(wanted: Environment, driver: str, capabilities: list[str]) -> list[str]:
    """Why this host's driver or GPUs cannot run an environment. Nothing is known of a host without a driver."""
    if not wanted.cuda or not driver:
        return []
    try:
        verdict = cuda_compat.check(driver, capabilities, cuda=wanted.cuda, torch=wanted.torch)
    except cuda_compat.CompatError:
        return []  # a driver whose version is none: not ours to judge
    return [] if verdict.runs else [f"{wanted.title}: {verdict.reason} {verdict.remedy}".strip()]


def unlike(lock: Lock, contents: tuple[str, ...]) -> str:
    """How what is installed differs from a lock file; empty when it does not. Of a package from a URL only the name."""
    urls = {f"pip:{item.name}==" for item in lock.pip if item.url}
    return differences(
        lock.contents(),
        [name if (name := item.partition("==")[0] + "==") in urls else item for item in contents],
    )


def unexpected(wanted: Environment, contents: tuple[str, ...]) -> list[str]:
    """What should have come of a build and did not."""
    return [pattern for pattern in wanted.expect if not fnmatch.filter(contents, pattern)]


def refusals(steps: list[Step]) -> list[str]:
    return [
        f"{step.name}: an environment of this name is there already and {step.reason}. Bringing it to its declaration "
        "would take away what its owner put into it. Choose another name, remove it, or set adopt: true."
        for step in steps
        if step.action == "refuse"
    ]


def _as_text(name: str, spec: dict[str, list[str]]) -> str:
    lists = ((key, items) for key, items in sorted(spec.items()) if items)
    return f"{name}:\n" + "".join(f"  {key}:\n" + "".join(f"    - {item}\n" for item in items) for key, items in lists)


def diff(steps: list[Step], declared: dict[str, Environment], found: dict[str, Found]) -> dict[str, str]:
    """What the steps change, for people."""
    before, after = [], []
    for step in sorted(steps, key=lambda item: item.name):
        there = found.get(step.name)
        if there is not None:
            title = declared[step.name].title if step.name in declared else step.name
            before.append(_as_text(title, there.state.spec if there.state else {}))
        if step.action != "remove":
            wanted = declared[step.name]
            after.append(_as_text(wanted.title, wanted.spec()) + f"  # {step.action}: {step.reason}\n")
    return {"before": "".join(before), "after": "".join(after)}
