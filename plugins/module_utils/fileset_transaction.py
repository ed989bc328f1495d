# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of a set, on disk: written in full before a live file is touched, so that whoever comes next, after whatever
happened, can finish the change or take it back.

Part of the guard's program, so: the standard library and its other parts only (see `plugin_utils/guard_program.py`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any, Dict, List, Optional

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_commands import (
    Command,
    Outcome,
    failed,
    insist,
    masked,
    run_all,
    secrets_of,
    verify_all,
    wanted_commands,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import (
    BASE,
    FileSetError,
    fsync_dir,
    make_private,
    read_json,
    sweep,
    write_atomic,
    write_json,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_manifest import (
    manifest_path,
    original_path,
    save_manifest,
)
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_states import depth, put

BACKUPS_KEPT = 10
# Seconds between tries to activate the old files again. What failed once may have met somebody's connection.
PAUSES = (1.0, 2.0, 4.0, 8.0)


class Transaction:
    """One change of a set, on disk: ``transaction.json`` and the contents in ``old/`` and ``new/``."""

    def __init__(self, data: Dict[str, Any], base: str = BASE) -> None:
        self.data = data
        self.base = base

    @property
    def name(self) -> str:
        return str(self.data["name"])

    @property
    def directory(self) -> str:
        return os.path.join(self.base, "transaction", self.name)

    @property
    def superseded(self) -> str:
        """Where the interrupted change that this one takes over is for a moment. (No set's name begins with a dot.)"""
        return os.path.join(self.base, "transaction", ".earlier-" + self.name)

    @property
    def building(self) -> str:
        return os.path.join(self.base, "transaction", ".new-" + self.name)

    @classmethod
    def load(cls, name: str, base: str = BASE) -> Optional[Transaction]:
        empty = cls({"name": name}, base)
        if not os.path.isdir(empty.directory) and os.path.isdir(empty.superseded):
            os.rename(empty.superseded, empty.directory)
        data = read_json(os.path.join(empty.directory, "transaction.json"))
        return None if data is None else cls(data, base)

    def install(self) -> None:
        """Move what was built into its place; what is there is always complete."""
        shutil.rmtree(self.superseded, ignore_errors=True)
        if os.path.isdir(self.directory):
            os.rename(self.directory, self.superseded)
        os.rename(self.building, self.directory)
        fsync_dir(os.path.dirname(self.directory))
        shutil.rmtree(self.superseded, ignore_errors=True)

    def save(self) -> None:
        write_json(os.path.join(self.directory, "transaction.json"), self.data)

    @property
    def touched_live_files(self) -> bool:
        return bool(self.data["phase"] != "prepared")

    def discard(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def write_new(self) -> None:
        """Write the new side. From here on an interruption leaves something to finish or take back."""
        self.data["phase"] = "written"
        self.save()
        sweep(state["path"] for state in self.data["old"])
        self.data["kept"] = put(self.data["new"], self.directory)

    def activate(self) -> List[Outcome]:
        return masked(run_all(wanted_commands(self.data["activate"], self.data["changed"])), self._secrets())

    def verify(self) -> List[Outcome]:
        return masked(verify_all(self.data["verify"]), self._secrets())

    def _secrets(self) -> List[str]:
        """What a command of this change must not show: of both sides, the longest first."""
        found: Dict[str, None] = {}
        for state in [*self.data["old"], *self.data["new"]]:
            if state.get("sensitive") and state.get("blob"):
                with contextlib.suppress(OSError), open(os.path.join(self.directory, state["blob"]), "rb") as stream:
                    found.update(dict.fromkeys(secrets_of(stream.read())))
        return sorted(found, key=len, reverse=True)

    def apply(self) -> Optional[Dict[str, Any]]:
        """Write, activate, verify. What went wrong, or None."""
        try:
            self.write_new()
        except FileSetError as error:
            return {"reason": "write", "msg": str(error)}
        outcomes = self.data["outcomes"] = []
        for reason, step in (("activate", self.activate), ("verify", self.verify)):
            done = step()
            outcomes += done
            bad = failed(done)
            if bad:
                return {"reason": reason, "command": bad}
        return None

    def rollback(self, at_boot: bool = False) -> Dict[str, Any]:
        """Put the old side back and activate it. What is marked ``never_restore`` stays as it is now: a key or a
        person that was taken away does not come back because something else went wrong."""
        left = sorted(s["path"] for s in self.data["old"] if s.get("never_restore"))
        old = [s for s in self.data["old"] if not s.get("never_restore")]
        report: Dict[str, Any] = {"restored": sorted(s["path"] for s in old), "not_restored": left, "errors": []}
        secret = self._secrets()
        # The disk may be full. The new contents have had their use.
        shutil.rmtree(os.path.join(self.directory, "new"), ignore_errors=True)
        try:
            put(old, self.directory)
        except FileSetError as error:
            # One path that cannot be written must not keep the others from being put back; first what needs no space.
            report["errors"].append(str(error))
            gone = sorted((s for s in old if s["type"] == "absent"), key=depth, reverse=True)
            for state in gone + sorted((s for s in old if s["type"] != "absent"), key=depth):
                with contextlib.suppress(FileSetError, OSError):
                    put([state], self.directory)
        if at_boot:
            # Services start by themselves after this, from the old files. Asking for them now would wait for ever.
            units = any(path.startswith(("/etc/systemd/", "/usr/lib/systemd/")) for path in report["restored"])
            commands: List[Command] = [{"argv": ["systemctl", "daemon-reload"]}] if units else []
            commands += [command for command in self._reactivation() if command.get("at_boot")]
        else:
            commands = self._reactivation()
        # Services start by themselves after a restart; nothing is gained by waiting for them there.
        report["commands"] = masked(insist(commands, () if at_boot else PAUSES), secret)
        report["errors"] += [
            "%s: exit %d: %s" % (" ".join(o["argv"]), o["rc"], o["output"]) for o in report["commands"] if o["rc"]
        ]
        manifest = self._manifest_after_rollback()
        try:
            save_manifest(manifest, base=self.base)
            self.discard()
        except OSError:
            self.discard()  # makes room
            try:
                save_manifest(manifest, base=self.base)
            except OSError as error:
                report["errors"].append(f"could not write {manifest_path(self.name, base=self.base)}: {error.strerror}")
        return report

    def _reactivation(self) -> List[Command]:
        commands = self.data["activate"] if self.data["reactivate"] is None else self.data["reactivate"]
        return wanted_commands(commands, self.data["changed"])

    def _manifest_after_rollback(self) -> Dict[str, Any]:
        before: Dict[str, Any] = dict(self.data["manifest_before"])
        after: Dict[str, Any] = self.data["manifest_after"]
        entries = dict(before["entries"])
        for state in self.data["old"]:
            if state.get("never_restore"):
                entries.pop(state["path"], None)
        for path, entry in after["entries"].items():
            ours_still = entry["type"] == "directory" and os.path.isdir(path)
            if path not in entries and (entry.get("never_restore") or ours_still):
                entries[path] = entry
        before["entries"] = entries
        return before

    def finish(self) -> Optional[str]:
        """The change stands: it is in the manifest, and its old side becomes the backup."""
        after = dict(self.data["manifest_after"])
        entries = dict(after["entries"])
        for path in self.data.get("kept", []):
            # Somebody else's files are in it. It stays ours, and goes when they are gone.
            if path in self.data["manifest_before"]["entries"]:
                entries[path] = self.data["manifest_before"]["entries"][path]
        after["entries"] = entries
        self._keep_originals(entries)
        save_manifest(after, base=self.base)
        if not self.data["backup"]:
            self.discard()
            return None
        shutil.rmtree(os.path.join(self.directory, "new"), ignore_errors=True)
        target: str = self.data["backup"]
        make_private(os.path.dirname(target))
        os.rename(self.directory, target)
        # Never this one, whatever older ones are called: the clock may have been ahead.
        others = sorted(name for name in os.listdir(os.path.dirname(target)) if name != os.path.basename(target))
        for stamp in others[: 1 - BACKUPS_KEPT]:
            shutil.rmtree(os.path.join(os.path.dirname(target), stamp), ignore_errors=True)
        return target

    def _keep_originals(self, entries: Dict[str, Any]) -> None:
        old = {state["path"]: state for state in self.data["old"]}
        for path, entry in entries.items():
            digest = entry.get("original", {}).get("sha256")
            state = old.get(path, {})
            if digest and state.get("blob") and state.get("sha256") == digest:
                with open(os.path.join(self.directory, state["blob"]), "rb") as stream:
                    data = stream.read()
                place = original_path(self.name, digest, self.base)
                make_private(os.path.dirname(place))
                write_atomic(place, data, 0o600)
