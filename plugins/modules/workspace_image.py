#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workspace_image
short_description: The image that workspaces run, built, pulled or loaded
version_added: "0.1.0"
author: The devnode.gpu authors (@devnode)
description:
  - Names the image after what it is made from (Dockerfile, files, base), so that the same inputs give the same tag on
    every host, and nothing is built twice. There is no C(latest).
  - Builds with the classic builder, which every engine has. What goes into the context becomes part of the image, so it
    must not be a secret.
attributes:
  check_mode:
    support: full
    description: Also on a host that has no engine yet. The image's name is exact.
  diff_mode:
    support: none
    description: The name of the image says whether it changes.
  platform:
    support: full
    platforms: posix
    description: Linux with the docker command.
options:
  name:
    description: The image's name, without registry and tag.
    type: str
    required: true
  base:
    description: The image that the Dockerfile begins from; with a tag other than C(latest), or a digest.
    type: str
    required: true
  dockerfile:
    description: The text of the Dockerfile.
    type: str
    required: true
  files:
    description: Name of a folder among the role's files; its files are below C(files/) in the context.
    type: str
    default: ""
  extra_ca:
    description: Certificates (PEM) that become C(ca/devnode-extra.crt) in the context.
    type: str
    default: ""
  conda:
    description: >-
      Miniconda and an environment, as described for C(pytorch_sshd_conda) of the role C(pytorch_sshd); the files that
      its making reads go to C(files/conda/) in the context.
    type: dict
    default: {}
  source:
    description:
      - V(build) builds it here if it is not here; with O(registry), if it is not there either, and then pushes it.
      - V(pull) takes it from O(registry).
      - V(load) takes it from O(archive).
    type: str
    choices: [build, pull, load]
    default: build
  registry:
    description: C(HOST), C(HOST:PORT) or C(HOST:PORT/PATH) of a registry. The engine must trust its certificate.
    type: str
    default: ""
  registry_username:
    description: Account at the registry; empty if it needs none, or if the engine's root is logged in already.
    type: str
    default: ""
  registry_password:
    description: Password or token of that account. It is not kept on the host.
    type: str
    default: ""
  archive:
    description: For V(load), the path on the host of what C(docker save) wrote.
    type: path
    default: ""
  lock_file:
    description: >-
      File on the controller (relative to the inventory) in which the digest of each image is recorded when it is first
      pulled. One that differs later is refused. Empty for none.
    type: str
    default: ""
  min_free:
    description: Free space that the engine's directory must have before an image is pulled, built or loaded.
    type: str
    default: ""
  scan_command:
    description: >-
      Command (a list of words, C({image}) stands for the name) that a new image must pass, before it is pushed or used.
      One that fails refuses the image.
    type: list
    elements: str
    default: []
  sbom_command:
    description: Command that writes the list of a new image's contents to its standard output.
    type: list
    elements: str
    default: []
  sbom_dir:
    description: Where the lists go, one file for each tag.
    type: path
    default: /var/lib/devnode/sbom
  save:
    description: Path on the host to which the image is saved as an archive, if that does not hold it already.
    type: path
    default: ""
  others:
    description: Further images to pull if they are not here.
    type: list
    elements: str
    default: []
  _locked:
    description: Internal. What the lock file says.
    type: dict
  _context:
    description: Internal. What the controller gathered.
    type: str
"""

EXAMPLES = r"""
- name: Have the image
  devnode.gpu.workspace_image:
    name: devnode/pytorch-sshd
    base: pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel
    dockerfile: "{{ lookup('ansible.builtin.template', 'Dockerfile.j2') }}"
    files: image
"""

RETURN = r"""
image:
  description: The image's full name.
  type: str
  returned: always
  sample: devnode/pytorch-sshd:2.8.0-cuda12.8-cudnn9-devel-3f1d0c9b2a77
digests:
  description: Digests of the images here that have one, by name.
  type: dict
  returned: always
actions:
  description: What was done, or would be.
  type: list
  elements: str
  returned: always
"""

import base64
import json
import os
import shutil
import tempfile
import zlib
from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import validators
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_image as model

VERSION = "0.1.0"
ARGUMENTS: Dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "base": {"type": "str", "required": True},
    "source": {"type": "str", "choices": ["build", "pull", "load"], "default": "build"},
    "registry": {"type": "str", "default": ""},
    "registry_username": {"type": "str", "default": ""},
    "registry_password": {"type": "str", "default": "", "no_log": True},
    "archive": {"type": "path", "default": ""},
    "lock_file": {"type": "str", "default": ""},
    "min_free": {"type": "str", "default": ""},
    "scan_command": {"type": "list", "elements": "str", "default": []},
    "sbom_command": {"type": "list", "elements": "str", "default": []},
    "sbom_dir": {"type": "path", "default": "/var/lib/devnode/sbom"},
    "save": {"type": "path", "default": ""},
    "_locked": {"type": "dict"},
    "others": {"type": "list", "elements": "str", "default": []},
    "_context": {"type": "str"},
    # These are the action's; it makes the context of them.
    "dockerfile": {"type": "str", "required": True},
    "files": {"type": "str", "default": ""},
    "extra_ca": {"type": "str", "default": ""},
    "conda": {"type": "dict", "default": {}},
}


class ImageError(Exception):
    """What is wrong, why it matters, what to do."""


class Images:
    """Has the images here, and says what that took."""

    def __init__(self, module: AnsibleModule, config: str) -> None:
        self.module = module
        self.given = module.params
        self.context: Dict[str, str] = json.loads(zlib.decompress(base64.b64decode(self.given["_context"])))
        self.image = model.reference(self.given["registry"], self.given["name"], self.given["base"], self.context)
        self.actions: List[str] = []
        self.warnings: List[str] = []
        self.digests: Dict[str, str] = {}
        # The classic builder everywhere; credentials in a folder that is gone afterwards.
        self.environment = {"DOCKER_BUILDKIT": "0", **({"DOCKER_CONFIG": config} if config else {})}

    def ensure(self) -> None:
        """The image itself and all others."""
        if not self._engine():
            if not self.module.check_mode:
                raise ImageError("no container engine answers on this host. Run the role docker_engine first.")
            self.actions = [f"{self.given['source']} {self.image}"]
            return
        getattr(self, f"_{self.given['source']}")()
        for other in sorted(set(self.given["others"])):
            if not self._inspect(other):
                self._fetch(other)
            self._compare(other)
        self._save()

    def _build(self) -> None:
        found = self._inspect(self.image) or self._pulled()
        if not found:
            self._do(f"build {self.image}", None)
            if self.module.check_mode:
                return
            self._room()
            if not self._inspect(self.given["base"]):
                self._docker(["pull", "--quiet", self.given["base"]], what=self.given["base"])
            self._compare(self.given["base"])
            base_id = self._inspect(self.given["base"])["Id"]
            words = ["build", "--quiet", "--tag", self.image]
            digest = self.digests.get(self.given["base"], "")
            for name, value in model.labels(self.given["base"], base_id, self.context, VERSION, digest).items():
                words += ["--label", f"{name}={value}"]
            self._docker([*words, "-"], data=model.pack(self.context))
            self._accept()
            found = self._inspect(self.image)
        else:
            self._check_base(found)
        repository = self.image.rpartition(":")[0]
        pushed = [item for item in found.get("RepoDigests") or [] if item.startswith(f"{repository}@")]
        if self.given["registry"] and not pushed:
            self._do(f"push {self.image}", ["push", "--quiet", self.image])
        # Made here: what the lock file says of it is out of date, not wrong.
        self._note(self.image)

    def _pulled(self) -> Dict[str, Any]:
        """The image from the registry, if somebody has built it already."""
        if not self.given["registry"] or self.module.check_mode:
            return {}
        if self._run(["pull", "--quiet", self.image])[0] != 0:
            return {}
        self.actions.append(f"pull {self.image}")
        self._compare(self.image)
        self._accept()
        return self._inspect(self.image)

    def _check_base(self, found: Dict[str, Any]) -> None:
        built_from = (found["Config"].get("Labels") or {}).get("devnode.image.base-id", "")
        base = self._inspect(self.given["base"])
        if base and built_from and base["Id"] != built_from:
            self.warnings.append(
                f"the tag of the base image {self.given['base']} means another image now than when {self.image} was "
                "built. The built image is kept; pin the base by its digest to choose."
            )

    def _pull(self) -> None:
        if not self.given["registry"]:
            raise ImageError("source is pull, but registry is empty: there is nowhere to pull from.")
        if not self._inspect(self.image):
            self._fetch(self.image)
            self._compare(self.image)
            self._accept()
        else:
            self._compare(self.image)

    def _load(self) -> None:
        if self._inspect(self.image):
            return
        if not os.path.isfile(self.given["archive"]) and not self.module.check_mode:
            raise ImageError(f"archive: {self.given['archive'] or '(empty)'} is not a file on this host.")
        self._room()
        self._do(f"load {self.image}", ["load", "--quiet", "--input", self.given["archive"]])
        if not self.module.check_mode and not self._inspect(self.image):
            archive = self.given["archive"]
            raise ImageError(f"archive {archive} does not hold {self.image}: it was made from other inputs.")
        self._accept()

    def _fetch(self, image: str) -> None:
        self._room()
        self._do(f"pull {image}", ["pull", "--quiet", image], image)

    def _room(self) -> None:
        """A full disk in the middle of an image leaves an engine that does nothing any more: refused before."""
        if not self.given["min_free"]:
            return
        code, out, _dummy = self._run(["info", "--format", "{{.DockerRootDir}}"])
        folder = out.strip()
        if code == 0 and os.path.isdir(folder):
            free, wanted = shutil.disk_usage(folder).free, validators.size_bytes(self.given["min_free"])
            if free < wanted:
                raise ImageError(
                    f"{folder} has {free >> 20} MiB free, and {self.image} may need {wanted >> 20} MiB (min_free). "
                    "Make room (docker image prune), or lower min_free if your base image is smaller."
                )

    def _note(self, image: str) -> str:
        """The digest that a registry gave this image; one that was built or loaded here has none."""
        digest = model.digest_of(image, self._inspect(image).get("RepoDigests") or [])
        if digest:
            self.digests[image] = digest
        return digest

    def _compare(self, image: str) -> None:
        digest, locked = self._note(image), (self.given["_locked"] or {}).get(image, "")
        if digest and locked and digest != locked:
            raise ImageError(
                f"{image} is {digest} here, but {locked} in the lock file {self.given['lock_file']}, from when it was "
                "first pulled: its tag was moved. Nothing was made from it. Pin the one that you mean by its digest, "
                "or take the line out of the lock file to accept the new one."
            )

    def _accept(self) -> None:
        """What the site's own scanner says of a new image; and the list of what is in it."""
        if self.module.check_mode:
            return
        if self.given["scan_command"]:
            code, out, err = self._site(self.given["scan_command"])
            if code != 0:
                self._run(["image", "rm", self.image])
                said = "\n".join((out + "\n" + err).strip().splitlines()[-25:])
                raise ImageError(f"{self.image} was refused by {self.given['scan_command'][0]} (exit {code}):\n{said}")
        if self.given["sbom_command"]:
            code, out, err = self._site(self.given["sbom_command"])
            if code != 0:
                raise ImageError(f"{self.given['sbom_command'][0]} failed (exit {code}): {err.strip()[-500:]}")
            os.makedirs(self.given["sbom_dir"], mode=0o755, exist_ok=True)
            path = os.path.join(self.given["sbom_dir"], self.image.rpartition(":")[2])
            with open(f"{path}.new", "w", encoding="utf-8") as target:
                target.write(out)
            os.replace(f"{path}.new", path)

    def _site(self, words: List[str]) -> Tuple[int, str, str]:
        argv = [word.replace("{image}", self.image) for word in words]
        if not shutil.which(argv[0]):
            raise ImageError(f"{argv[0]} is not a program on this host. Install it, or empty the list that names it.")
        found: Tuple[int, str, str] = self.module.run_command(argv, errors="replace")
        return found

    def _save(self) -> None:
        path = self.given["save"]
        if not path or model.archive_holds(path, self.image):
            return
        self.actions.append(f"save {self.image} to {path}")
        if not self.module.check_mode:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._docker(["save", "--output", f"{path}.new", self.image])
            os.replace(f"{path}.new", path)

    def _do(self, action: str, words: "List[str] | None", what: str = "") -> None:
        self.actions.append(action)
        if words and not self.module.check_mode:
            self._docker(words, what=what)

    def _engine(self) -> bool:
        return bool(shutil.which("docker")) and self._run(["version", "--format", "{{.Server.Version}}"])[0] == 0

    def _inspect(self, image: str) -> Dict[str, Any]:
        code, out, _dummy = self._run(["image", "inspect", image])
        found: Dict[str, Any] = json.loads(out)[0] if code == 0 else {}
        return found

    def login(self) -> None:
        """Credentials for what follows."""
        words = ["login", "--username", self.given["registry_username"], "--password-stdin"]
        host, password = self.given["registry"].partition("/")[0], self.given["registry_password"].encode()
        self._docker([*words, host], data=password, what=f"{host} as {self.given['registry_username']}")

    def _docker(self, words: List[str], data: "bytes | None" = None, what: str = "") -> None:
        code, out, err = self._run(words, data)
        if code != 0:
            said = "\n".join((out + "\n" + err).strip().splitlines()[-25:])
            raise ImageError(f"docker {words[0]} of {what or self.image} failed:\n{said}")

    def _run(self, words: List[str], data: "bytes | None" = None) -> Tuple[int, str, str]:
        found: Tuple[int, str, str] = self.module.run_command(
            ["docker", *words], data=data, binary_data=True, environ_update=self.environment, errors="replace"
        )
        return found


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    if not given["_context"]:
        module.fail_json(msg="workspace_image has to be called as an action (devnode.gpu.workspace_image).")
    try:
        validators.size_bytes(given["min_free"] or "1g")
    except validators.InvalidError as exc:
        module.fail_json(msg=f"min_free: {validators.show(given['min_free'])} {exc}.")
    wrong = model.problems(given["name"], given["base"], given["registry"], given["others"])
    if wrong:
        module.fail_json(msg="\n".join(wrong))
    config = tempfile.mkdtemp(prefix="devnode-docker-") if given["registry_username"] else ""
    images = Images(module, config)
    try:
        if config and not module.check_mode:
            images.login()
        images.ensure()
    except ImageError as exc:
        module.fail_json(msg=str(exc))
    finally:
        if config:
            shutil.rmtree(config, ignore_errors=True)
    for text in images.warnings:
        module.warn(text)
    module.exit_json(changed=bool(images.actions), image=images.image, actions=images.actions, digests=images.digests)


if __name__ == "__main__":
    main()
