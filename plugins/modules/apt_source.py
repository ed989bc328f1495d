#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: One deb822 source with a checked key, and no other entry for that repository
version_added: 0.1.0
description:
  - Puts a repository in place as one deb822 source, with its key beside it. Every key in the key file has to have one
    of the fingerprints that were given, else nothing is written. Needs no gpg and no python3-debian on the host.
  - Other entries for the same repository, in C(.list) and C(.sources) files, are taken out (with a backup), because apt
    refuses to work with two entries of different C(Signed-By).
  - Packages can be taken from this repository only, whatever other repositories offer under their names.
author: The devnode.gpu authors (@devnode)
attributes:
  check_mode:
    description: Says what would change. A key that is yet to be fetched is fetched and checked, too.
    support: full
  diff_mode:
    description: Shows every file.
    support: full
  platform:
    description: Debian and Ubuntu.
    support: full
    platforms: debian
options:
  name:
    description: Names the files, C(/etc/apt/sources.list.d/NAME.sources) and the like.
    type: str
    required: true
  state:
    description: V(absent) takes the source, its key and its pin away.
    type: str
    choices: [present, absent]
    default: present
  uris:
    description: Where the repository is. C($(ARCH\)) stands for the host's architecture.
    type: list
    elements: str
    default: []
  suites:
    description: Its suites; V(/) for a flat repository.
    type: list
    elements: str
    default: ["/"]
  components:
    description: Its components; none for a flat repository.
    type: list
    elements: str
    default: []
  architectures:
    description: Only these; none means the host's own.
    type: list
    elements: str
    default: []
  key:
    description: The key itself, ASCII-armored.
    type: str
    default: ""
  key_url:
    description: Where to fetch the key. Fetched only when the host does not have a key with exactly these fingerprints.
    type: str
    default: ""
  fingerprints:
    description: Full fingerprints of the primary keys that are allowed.
    type: list
    elements: str
    default: []
  replaces:
    description: More addresses by which this repository is known; entries that begin with one are taken out, too.
    type: list
    elements: str
    default: []
  only_here:
    description: Packages that come from this repository and from no other.
    type: list
    elements: str
    default: []
  state_dir:
    description: Where backups are kept.
    type: path
    default: /var/lib/devnode
"""

EXAMPLES = r"""
- name: NVIDIA's repository
  devnode.gpu.apt_source:
    name: nvidia-container-toolkit
    uris: ["https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)"]
    key_url: https://nvidia.github.io/libnvidia-container/gpgkey
    fingerprints: [C95B321B61E88C1809C4F759DDCAE044F796ECB0]
    replaces: ["https://nvidia.github.io/libnvidia-container/"]
    only_here: [nvidia-container-toolkit, libnvidia-container1]
"""

RETURN = r"""
taken_over:
  description: Files that had entries for this repository.
  type: list
  elements: str
  returned: always
changed_paths:
  description: Files that were written or removed (in check mode, would be).
  type: list
  elements: str
  returned: always
"""

import glob
import os
import re
from typing import Any, Dict, List, Optional
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.devnode.gpu.plugins.module_utils import apt_sources, openpgp, whole_file

APT = "/etc/apt"
COMMENT = "Managed by Ansible (devnode.gpu.apt_source); changes here are lost."


class SourceError(Exception):
    """Cannot go on; the text is for people."""


class Source:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        name = self.params["name"]
        self.paths = {
            "source": f"{APT}/sources.list.d/{name}.sources",
            "armored": f"{APT}/keyrings/{name}.asc",
            "binary": f"{APT}/keyrings/{name}.gpg",
            "pin": f"{APT}/preferences.d/{name}.pref",
        }
        self.taken_over: List[str] = []

    def wanted(self) -> Dict[str, Optional[bytes]]:
        """Every file of ours and of others as it should be; None: not there."""
        files: Dict[str, Optional[bytes]] = dict.fromkeys(self.paths.values())
        if self.params["state"] == "absent":
            return files
        key = self._key()
        ring = self.paths["armored" if openpgp.is_armored(key) else "binary"]
        files[ring] = key
        source = apt_sources.render_source(
            self.params["uris"],
            self.params["suites"],
            self.params["components"],
            ring,
            self.params["architectures"],
            COMMENT,
        )
        files[self.paths["source"]] = source.encode()
        if self.params["only_here"]:
            origin = urlsplit(self.params["uris"][0]).hostname or ""
            files[self.paths["pin"]] = apt_sources.render_pin(self.params["only_here"], origin, 900, COMMENT).encode()
        files.update(self._others())
        return files

    def _others(self) -> Dict[str, Optional[bytes]]:
        prefixes = [*self.params["uris"], *self.params["replaces"]]
        out: Dict[str, Optional[bytes]] = {}
        found = [f"{APT}/sources.list", *sorted(glob.glob(f"{APT}/sources.list.d/*"))]
        for path in found:
            if path == self.paths["source"] or not path.endswith((".list", ".sources")):
                continue
            data = read(path)
            text = (data or b"").decode("utf-8", "surrogateescape")
            left = apt_sources.without(text, prefixes, path.endswith(".sources"))
            if left is not None:
                self.taken_over.append(path)
                keep = left or path.endswith("/sources.list")
                out[path] = left.encode("utf-8", "surrogateescape") if keep else None
        return out

    def _key(self) -> bytes:
        allowed = [openpgp.normal(one) for one in self.params["fingerprints"]]
        if self.params["key"]:
            return self._checked(self.params["key"].strip().encode() + b"\n", "key", allowed)
        for path in (self.paths["armored"], self.paths["binary"]):
            data = read(path)
            try:
                if data and sorted(openpgp.fingerprints(data)) == sorted(allowed):
                    return data
            except openpgp.OpenPGPError:
                pass  # damaged: fetched again
        url = self.params["key_url"]
        try:
            data = open_url(url, timeout=30).read()
        except Exception as error:  # whatever the many layers below raise, people need one sentence
            raise SourceError(
                f"The key of the repository could not be fetched from {url} ({error}). Nothing was changed. Check the "
                "address and the host's way out, or give the key itself."
            ) from error
        return self._checked(data, url, allowed)

    @staticmethod
    def _checked(data: bytes, where: str, allowed: List[str]) -> bytes:
        try:
            found = openpgp.fingerprints(data)
        except openpgp.OpenPGPError as error:
            raise SourceError(
                f"The key of the repository ({where}) cannot be used: {error}. Nothing was changed."
            ) from error
        wrong = [one for one in found if one not in allowed]
        if wrong:
            raise SourceError(
                f"The key of the repository ({where}) has the fingerprint {', '.join(wrong)}, but only "
                f"{', '.join(allowed)} is allowed. Somebody may have exchanged it. Nothing was changed. Compare it "
                "with what the publisher says before you allow another fingerprint."
            )
        return data

    def apply(self, files: Dict[str, Optional[bytes]]) -> Dict[str, Any]:
        changed: List[str] = []
        diff: List[Dict[str, str]] = []
        for path, data in files.items():
            before = read(path)
            if before == data:
                continue
            changed.append(path)
            diff.append(
                {
                    "before_header": path,
                    "after_header": path,
                    "before": shown(before),
                    "after": shown(data),
                }
            )
        if changed and not self.module.check_mode:
            self._backup([path for path in changed if path in self.taken_over])
            # Keys before sources, what others say about the repository before what we say.
            for path in sorted(changed, key=lambda one: (one == self.paths["source"], one == self.paths["pin"])):
                put(path, files[path])
        return {
            "changed": bool(changed),
            "changed_paths": sorted(changed),
            "taken_over": self.taken_over,
            "diff": diff,
        }

    def _backup(self, paths: List[str]) -> None:
        if paths:
            whole_file.keep_together(paths, os.path.join(self.params["state_dir"], "backup", "apt_source"))


def read(path: str) -> Optional[bytes]:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def shown(data: Optional[bytes]) -> str:
    if data is None:
        return ""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"({len(data)} bytes)\n"


def put(path: str, data: Optional[bytes]) -> None:
    if data is None:
        os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    whole_file.write(path, data)


def check(params: Dict[str, Any]) -> List[str]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", params["name"]):
        return [
            f'name: "{params["name"]}" cannot be a file name here. Allowed: lower-case letters, digits, dots, dashes.'
        ]
    if params["state"] == "absent":
        return []
    errors = []
    for key in ("uris", "suites", "fingerprints"):
        if not params[key]:
            errors.append(f"{key}: is empty; a source needs at least one.")
    if bool(params["key"]) == bool(params["key_url"]):
        errors.append("key, key_url: give exactly one of them.")
    for key in ("uris", "suites", "components", "architectures", "replaces", "only_here"):
        for value in params[key]:
            if not re.fullmatch(r"[!-~]+", value):
                errors.append(
                    f"{key}: {value!r} has spaces, line breaks or other characters that a source cannot hold."
                )
    for value in params["uris"]:
        if not re.match(r"(https?|file)://?[^/]*/", value):
            errors.append(f'uris: "{value}" is not an address. Allowed: https://…/, http://…/, file:/….')
    for value in params["fingerprints"]:
        try:
            openpgp.normal(value)
        except openpgp.OpenPGPError as error:
            errors.append(f"fingerprints: {error}.")
    return errors


def main() -> None:
    texts = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "uris": texts,
            "suites": {**texts, "default": ["/"]},
            "components": texts,
            "architectures": texts,
            "key": {"type": "str", "default": "", "no_log": False},
            "key_url": {"type": "str", "default": "", "no_log": False},
            "fingerprints": texts,
            "replaces": texts,
            "only_here": texts,
            "state_dir": {"type": "path", "default": "/var/lib/devnode"},
        },
        supports_check_mode=True,
    )
    errors = check(module.params)
    if not os.path.isdir(APT):
        errors.append("This host has no apt, so it is neither Debian nor Ubuntu. Others are not supported here yet.")
    if errors:
        module.fail_json(msg="\n".join(errors))
    source = Source(module)
    try:
        result = source.apply(source.wanted())
    except SourceError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
