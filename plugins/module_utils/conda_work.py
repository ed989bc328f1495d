# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out the steps of a plan in one place of environments. It drives conda by its documented commands only."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.devnode.gpu.plugins.module_utils import (
    conda_bundle,
    conda_host,
    conda_lock,
    conda_places,
    conda_state,
    conda_values,
)
from ansible_collections.devnode.gpu.plugins.module_utils.conda_env import Environment
from ansible_collections.devnode.gpu.plugins.module_utils.conda_host import HostError, Ran
from ansible_collections.devnode.gpu.plugins.module_utils.conda_places import ENVIRONMENT_STATE, Place
from ansible_collections.devnode.gpu.plugins.module_utils.conda_state import Found, State, Step
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError

# Beside the environment: what is written back to the controller, so that a later run need not start conda for it.
LOCK, EXPORT = "conda-meta/devnode-lock", "conda-meta/devnode-export"
# The lock file of the bundle that it was built from: conda's own records only know where that was unpacked.
ORIGIN = "conda-meta/devnode-origin"
OLD = ".devnode-old-"  # an environment that is being replaced, until the new one is complete


@dataclass(frozen=True)
class Options:
    """What is the same for all environments of a run."""

    prefix: Path
    timeout: int
    variables: dict[str, str] = field(default_factory=dict)  # environment variables for conda and pip
    pip_options: tuple[str, ...] = ()  # for what a lock file lists
    offline: bool = False  # everything comes from a bundle
    export: bool = False


@contextmanager
def _file(name: str, text: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="devnode-conda-") as temporary:
        path = Path(temporary) / name
        path.write_text(text, encoding="utf-8")
        yield str(path)


class Worker:
    """Works in one place, with the rights of its process."""

    def __init__(self, options: Options, place: Place) -> None:
        self.options = options
        self.place = place
        self.runs = 0
        self.found: dict[str, Found] = {}

    # --- commands ----------------------------------------------------------------------------------------------------

    def conda(self, *arguments: str, cuda: str = "") -> Ran:
        """Start conda. A host without a driver has no CUDA that conda could see, so what is asked for stands in."""
        self.runs += 1
        argv = [str(self.options.prefix / "bin/conda"), *arguments]
        override = {"CONDA_OVERRIDE_CUDA": cuda} if cuda and not conda_host.gpus()["driver"] else {}
        return conda_host.run(argv, self.options.timeout, {**self.options.variables, **override})

    def pip(self, name: str, *arguments: str) -> Ran:
        """Base's pip, because an environment need not have (or no longer has) one of its own."""
        python = str(self.directory(name) / "bin/python")
        argv = [str(self.options.prefix / "bin/python"), "-m", "pip", "--python", python, *arguments]
        return conda_host.run(argv, self.options.timeout, self.options.variables)

    def directory(self, name: str) -> Path:
        return self.place.environments / name

    # --- building ----------------------------------------------------------------------------------------------------

    def build(self, wanted: Environment) -> Ran:
        """Lay a new environment down."""
        target = ["--prefix", str(self.directory(wanted.name)), "--quiet"]
        if not wanted.exact:
            with _file("environment.yml", wanted.environment_file()) as path:
                return self.conda("env", "create", "--yes", *target, "--file", path, cuda=wanted.cuda)
        exact = wanted.bundled.unpacked(conda_bundle.PLACE) if wanted.bundled else wanted.lock
        with _file("lock.txt", exact.explicit()) as path:
            offline = ["--offline"] if self.options.offline else []
            ran = self.conda("create", "--yes", *offline, *target, "--file", path)
        if ran.code or not exact.pip:
            return ran
        with _file("requirements.txt", exact.requirements()) as path:
            options = ["--no-deps", "--require-hashes", *self.options.pip_options]
            return self.pip(wanted.name, "install", "--quiet", *options, "--requirement", path)

    def finish(self, wanted: Environment) -> None:
        """Note that the environment is as declared."""
        directory = self.directory(wanted.name)
        for name in (LOCK, EXPORT):
            (directory / name).unlink(missing_ok=True)
        if wanted.bundled:
            conda_host.write(directory / ORIGIN, wanted.bundled.text())
        state = State(wanted.digest(), wanted.spec(), conda_places.contents(directory))
        conda_host.write(directory / ENVIRONMENT_STATE, state.dump())

    def create(self, wanted: Environment, step: Step) -> None:
        """Make it anew. What is to be replaced stands aside until the new one is complete."""
        name, directory, aside = (
            wanted.name,
            self.directory(wanted.name),
            self.place.environments / f"{OLD}{wanted.name}",
        )
        conda_places.note_creating(self.place, conda_places.creating(self.place) | {name})
        if step.action == "replace":
            directory.rename(aside)
        conda_host.remove_tree(directory)
        ran = self.build(wanted)
        if not ran.code:
            ran = self.compare(wanted)
        if ran.code:
            conda_host.remove_tree(directory)
            if step.action == "replace":
                aside.rename(directory)
        else:
            self.finish(wanted)
            conda_host.remove_tree(aside)
        conda_places.note_creating(self.place, conda_places.creating(self.place) - {name})
        if ran.code:
            what = "updated; it stays as it was" if step.action == "replace" else "created, and nothing of it is left"
            raise HostError(f"{wanted.title}: could not be {what}. conda said:\n{ran.tail()}")

    def compare(self, wanted: Environment) -> Ran:
        """What was asked for must have come of it; an environment from a lock file holds exactly what that lists."""
        missing = conda_state.unexpected(wanted, conda_places.contents(self.directory(wanted.name)))
        if missing:
            indexes = ", ".join(wanted.pip_extra_index_urls)
            return Ran(1, "", f"{', '.join(missing)} did not come of it. Is {indexes or 'its channel'} reachable?")
        if not wanted.exact:
            return Ran(0, "", "")
        different = conda_state.unlike(wanted.exact, conda_places.contents(self.directory(wanted.name)))
        return Ran(1, "", f"What it made is not what the lock file lists: {different}") if different else Ran(0, "", "")

    def recover(self) -> None:
        """After a run that was killed while it replaced an environment: the new one if it is complete, else the old."""
        if not self.place.environments.is_dir():
            return
        for aside in sorted(self.place.environments.glob(f"{OLD}*")):
            directory = self.directory(aside.name[len(OLD) :])
            if State.load(conda_host.read(directory / ENVIRONMENT_STATE)) is None:
                conda_host.remove_tree(directory)
                aside.rename(directory)
            conda_host.remove_tree(aside)

    # --- changing ----------------------------------------------------------------------------------------------------

    def uninstall(self, wanted: Environment, packages: list[str]) -> None:
        if packages and (self.directory(wanted.name) / "bin/python").exists():
            ran = self.pip(wanted.name, "uninstall", "--yes", *packages)
            if ran.code:
                raise HostError(
                    f"{wanted.title}: pip could not take away {', '.join(packages)}. It said:\n{ran.tail()}"
                )

    def put_state_back(self, name: str) -> None:
        """After an update that changed nothing."""
        path, old = self.directory(name) / ENVIRONMENT_STATE, self.found[name].state
        if old is None:
            path.unlink()
        else:
            conda_host.write(path, old.dump())

    def update(self, wanted: Environment, step: Step) -> None:
        name, directory = wanted.name, self.directory(wanted.name)
        old = self.found[name].state or State("", {})
        conda_host.write(directory / ENVIRONMENT_STATE, replace(old, pending=True).dump())
        # A package that moves from pip to conda must go first: pip would take conda's files with it afterwards.
        by_conda = {conda_values.package_key(conda_values.package_name(item)) for item in wanted.packages}
        first = [item for item in step.uninstall if conda_values.package_key(item) in by_conda]
        self.uninstall(wanted, first)
        with _file("environment.yml", wanted.environment_file()) as path:
            target = ["--prefix", str(directory), "--quiet"]
            ran = self.conda("env", "update", "--prune", *target, "--file", path, cuda=wanted.cuda)
        if not ran.code:
            ran = self.compare(wanted)
        if ran.code:
            after = "part of the update is done; the next run goes on with it"
            if conda_places.contents(directory) == self.found[name].contents:
                self.put_state_back(name)
                after = "it stays as it was"
            raise HostError(f"{wanted.title}: could not be updated ({step.reason}); {after}. conda said:\n{ran.tail()}")
        self.uninstall(wanted, [item for item in step.uninstall if item not in first])
        self.finish(wanted)

    def remove(self, name: str) -> None:
        directory = self.directory(name)
        if (directory / "conda-meta/history").is_file():
            ran = self.conda("env", "remove", "--prefix", str(directory), "--yes", "--quiet")
            if ran.code:
                raise HostError(f"{name}: could not be removed. conda said:\n{ran.tail()}")
        conda_host.remove_tree(directory)
        conda_places.note_creating(self.place, conda_places.creating(self.place) - {name})

    # --- writing back ------------------------------------------------------------------------------------------------

    def locked(self, wanted: Environment) -> conda_lock.Lock:
        """The environment as a lock file."""
        directory = self.directory(wanted.name)
        there = conda_places.contents(directory)
        origin = self.origin(wanted)
        if origin and not conda_state.unlike(origin, there):
            return origin
        ran = self.conda("list", "--explicit", "--sha256", "--prefix", str(directory))
        if ran.code:
            raise HostError(f"{wanted.title}: could not be listed. conda said:\n{ran.tail()}")
        try:
            lock = conda_lock.parse(ran.out.splitlines())
        except InvalidError as error:
            raise HostError(f"{wanted.title}: cannot be written as a lock file: {error}") from None
        lock, unknown = lock.before(conda_bundle.PLACE, origin)
        if unknown:
            raise HostError(
                f"{wanted.title}: cannot be written as a lock file: {', '.join(unknown)} came from a bundle, "
                "and it is not known where that had it from. Remove the environment; the next run makes it again."
            )
        missing = sorted({item for item in there if item.startswith("conda:")} - set(lock.contents()))
        if missing:
            raise HostError(
                f"{wanted.title}: cannot be written as a lock file: {', '.join(missing)} came from no channel."
            )
        by_pip = dict(item[len("pip:") :].split("==", 1) for item in there if item.startswith("pip:"))
        return replace(
            lock, pip=self.locked_pip(wanted, by_pip), indexes=wanted.pip_extra_index_urls or wanted.exact.indexes
        )

    def origin(self, wanted: Environment) -> conda_lock.Lock:
        """The lock file of the bundle that it was built from, if it was."""
        if wanted.bundled:
            return wanted.bundled
        try:
            return conda_lock.parse(conda_host.read(self.directory(wanted.name) / ORIGIN).splitlines())
        except InvalidError:
            return conda_lock.Lock()

    def locked_pip(self, wanted: Environment, installed: dict[str, str]) -> tuple[conda_lock.PipPackage, ...]:
        """What pip installed, with the sha256 that the package index gives for it."""
        if not installed:
            return ()
        known = {item.name: item for item in wanted.exact.pip}
        if set(known) == set(installed):
            return wanted.exact.pip
        urls = {conda_values.pip_name(item): item for item in wanted.pip if "@" in item.partition(";")[0]}
        lines = [f"--extra-index-url {url}" for url in wanted.pip_extra_index_urls]
        lines += [urls.get(name, f"{name}=={version}") for name, version in sorted(installed.items())]
        with _file("requirements.txt", "\n".join(lines) + "\n") as path:
            ran = self.pip(
                wanted.name,
                *("install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-"),
                *(*self.options.pip_options, "--requirement", path),
            )
        if ran.code:
            raise HostError(f"{wanted.title}: pip could not tell the sha256 of its packages. It said:\n{ran.tail()}")
        packages, unknown = conda_lock.from_pip_report(installed, json.loads(ran.out))
        if unknown:
            raise HostError(
                f"{wanted.title}: cannot be written as a lock file: pip knows no sha256 for {', '.join(unknown)}. A "
                "repository or a directory has none, and some package indexes give none. Take it as a wheel from an "
                "index that does."
            )
        return tuple(packages)

    def exported(self, wanted: Environment) -> dict[str, str]:
        """The texts that are written back: a lock file, and an environment.yml without builds and prefix."""
        directory = self.directory(wanted.name)
        if not (directory / EXPORT).is_file():
            conda_host.write(directory / LOCK, self.locked(wanted).text())
            ran = self.conda("env", "export", "--no-builds", "--prefix", str(directory))
            if ran.code:
                raise HostError(f"{wanted.title}: could not be exported. conda said:\n{ran.tail()}")
            lines = [line for line in ran.out.splitlines() if not line.startswith(("prefix:", "name:"))]
            lines = conda_bundle.channels_before(lines, self.origin(wanted))
            conda_host.write(directory / EXPORT, "\n".join([f"name: {wanted.name}", *lines]).rstrip() + "\n")
        return {"lock": conda_host.read(directory / LOCK), "environment": conda_host.read(directory / EXPORT)}

    def wheels(self, wanted: Environment) -> str:
        """A new directory with the wheels of what pip installed."""
        folder = tempfile.mkdtemp(prefix="devnode-conda-")
        with _file(
            "requirements.txt", conda_lock.parse(self.exported(wanted)["lock"].splitlines()).requirements()
        ) as path:
            exact = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet"]
            ran = self.pip(wanted.name, "download", *exact, "--dest", folder, "--requirement", path)
        if ran.code:
            conda_host.remove_tree(Path(folder))
            raise HostError(f"{wanted.title}: its wheels could not be fetched. pip said:\n{ran.tail()}")
        return folder

    # --- all of it ---------------------------------------------------------------------------------------------------

    def do(self, step: Step, wanted: Environment | None) -> None:
        if step.action == "remove" or wanted is None:
            self.remove(step.name)
        elif step.action == "update":
            self.update(wanted, step)
        else:
            self.create(wanted, step)

    def plan(self, environments: list[Environment]) -> list[Step]:
        self.found = conda_places.find_environments(self.place)
        return conda_state.plan(environments, self.found)

    def work(self, environments: list[Environment], check_mode: bool) -> dict[str, Any]:
        """Bring the place to its declaration. The answer fits into JSON."""
        declared = {environment.name: environment for environment in environments}
        if not check_mode:
            self.recover()
        steps = self.plan(environments)
        done: list[Step] = []
        errors: list[str] = []
        for step in steps if not check_mode else []:
            try:
                self.do(step, declared.get(step.name))
                done.append(step)
            except HostError as error:
                errors.append(str(error))
        shown = steps if check_mode else done
        ready = {name for name, item in declared.items() if item.present} - {
            step.name for step in steps if step not in done
        }
        exports: dict[str, dict[str, str]] = {}
        for name in sorted(ready) if self.options.export and not check_mode else []:
            try:
                exports[name] = self.exported(declared[name])
            except HostError as error:
                errors.append(str(error))
        return {
            "steps": [{"name": step.name, "action": step.action, "reason": step.reason} for step in shown],
            "unchanged": sorted(set(declared) - {step.name for step in steps}),
            "runs": self.runs,
            "errors": errors,
            "exports": exports,
            **conda_state.diff(shown, declared, self.found),
        }


def in_place(options: Options, owner: str, act: Callable[[Worker], Any], check_mode: bool = False) -> Any:
    """Call `act` with a worker for all users' environments, or for one person's, with that person's rights."""
    if not owner:
        return act(Worker(options, conda_places.shared(options.prefix)))
    if check_mode and not conda_host.has_account(owner):
        return act(Worker(options, conda_places.private(Path("/nonexistent"))))  # the account is still to come
    return conda_host.as_user(owner, lambda home: act(Worker(options, conda_places.private(home))))
