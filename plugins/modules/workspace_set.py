#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workspace_set
short_description: All workspaces of a host, in one round trip
version_added: "0.1.0"
author: The devnode.gpu authors (@devnode)
description:
  - Creates, changes, starts and removes the containers that people live in. What the inventory no longer declares is
    removed when nobody is in it (see O(recreate)); its volumes are kept.
  - A container is made again only when its making changed (image, GPUs, port, limits, mounts, variables) and nobody is
    in it. Otherwise the change is reported as pending, with what is running. Accounts, keys, known hosts, forwarding
    and JupyterLab change in the running container.
  - The files that the containers read come from M(devnode.gpu.file_set), by way of the filter
    P(devnode.gpu.workspace_files#filter). The image comes from M(devnode.gpu.workspace_image).
attributes:
  check_mode:
    support: full
    description: Also on a host that has no engine yet.
  diff_mode:
    support: full
    description: Shows each container's options.
  platform:
    support: full
    platforms: posix
    description: Linux with systemd and the docker command.
options:
  workspaces:
    description: The workspaces, as described for C(pytorch_sshd_workspaces) of the role C(pytorch_sshd).
    type: list
    elements: dict
    required: true
  image:
    description: The image of those workspaces that name none. Not needed for a preflight.
    type: str
    default: ""
  environment_allow:
    description: Which variables of the container every kind of session gets; shell patterns.
    type: list
    elements: str
    default: []
  algorithms:
    description: >-
      Lists by sshd option (C(KexAlgorithms), C(Ciphers), C(MACs)); what an image's sshd does not know is left out.
    type: dict
    default: {}
  extra_hosts:
    description: Names that the workspaces' C(/etc/hosts) gets, with their addresses.
    type: dict
    default: {}
  recreate:
    description: >-
      When a container whose making changed is made again: when V(idle), V(always) (ends what runs in it), or V(never).
      One that is no longer declared is removed when idle, and with V(always) at once.
    type: str
    choices: [idle, always, never]
    default: idle
  window:
    description: >-
      Time of the host's day (C(HH:MM-HH:MM)) in which V(idle) of O(recreate) means V(always). Empty for none.
    type: str
    default: ""
  purge:
    description: Names of workspaces that are no longer declared, of which homes and host keys go for good.
    type: list
    elements: str
    default: []
  base:
    description: >-
      What the image is made from. If its name says its PyTorch and CUDA, it is refused where they do not run on the
      driver and the GPUs.
    type: str
    default: ""
  people:
    description: >-
      Names of everybody who may still have something running here. Who is not among them has left: what they left
      behind does not keep a workspace that is no longer declared. By default nobody is taken to have left.
    type: list
    elements: str
  web_passwords:
    description: For O(preflight), hashes of passwords by login, of which those are looked at that C(web.users) name.
    type: dict
    default: {}
  preflight:
    description: >-
      Change nothing; refuse what cannot work on this host (a port that something else holds, a GPU, a mount or an
      address that is not there, a container of the same name, a CUDA version that the driver does not run).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Have the workspaces
  devnode.gpu.workspace_set:
    image: devnode/pytorch-sshd:2.8.0-3f1d0c9b2a77
    workspaces:
      - name: nlp
        port: 2201
        bind_address: 10.0.0.11
        owner: {name: ada, uid: 2001}
        keys: {ada: ["ssh-ed25519 AAAA... ada"]}
        gpus: ["nvidia.com/gpu=0"]
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  type: list
  elements: str
  returned: always
pending:
  description: Workspaces that keep their old container, why it should change, and what is running in it.
  type: list
  elements: dict
  returned: always
kept:
  description: Volumes of removed workspaces.
  type: list
  elements: str
  returned: always
host_keys:
  description: The workspaces' public host keys, by the alias that known_hosts files use.
  type: dict
  returned: always
  sample: {nlp.gpu-01: ["ssh-ed25519 AAAA..."]}
certificates:
  description: >-
    Paths of the certificates of host keys that are there (M(devnode.gpu.workspace_host_keys)), also those of workspaces
    that are no longer declared.
  type: list
  elements: str
  returned: always
web:
  description: >-
    Of JupyterLab over HTTPS, whether there is something of it on this host or to be (C(here)), what people open
    (C(addresses)) and the SHA-256 of the certificates (C(fingerprints)), by workspace.
  type: dict
  returned: always
  sample:
    here: true
    addresses: {nlp: "https://nlp.example.com:8443/"}
    fingerprints: {nlp: "0F:…"}
"""

import json
import os
import time
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devnode.gpu.plugins.module_utils import workspace as model
from ansible_collections.devnode.gpu.plugins.module_utils import (
    workspace_activity,
    workspace_container,
    workspace_engine,
    workspace_host_keys,
    workspace_keeper,
    workspace_parse,
    workspace_web,
)
from ansible_collections.devnode.gpu.plugins.module_utils import workspace_certificate as certificate
from ansible_collections.devnode.gpu.plugins.module_utils.validators import InvalidError, show
from ansible_collections.devnode.gpu.plugins.module_utils.workspace_preflight import Preflight

ARGUMENTS: Dict[str, Any] = {
    "workspaces": {"type": "list", "elements": "dict", "required": True, "no_log": False},
    "image": {"type": "str", "default": ""},
    "environment_allow": {"type": "list", "elements": "str", "default": []},
    "algorithms": {"type": "dict", "default": {}},
    "extra_hosts": {"type": "dict", "default": {}},
    "recreate": {"type": "str", "choices": ["idle", "always", "never"], "default": "idle"},
    "window": {"type": "str", "default": ""},
    "purge": {"type": "list", "elements": "str", "default": []},
    "base": {"type": "str", "default": ""},
    "people": {"type": "list", "elements": "str"},
    "web_passwords": {"type": "dict", "default": {}, "no_log": True},
    "preflight": {"type": "bool", "default": False},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        module.exit_json(**run(module))
    except (workspace_engine.HostError, certificate.CertificateError) as exc:
        module.fail_json(msg=str(exc))


def run(module: AnsibleModule) -> Dict[str, Any]:
    """Refuse, or do it and say what was done."""
    workspaces, problems = workspace_parse.parse(module.params["workspaces"])
    webs = {item.name: item.web for item in workspaces if item.web}
    if module.params["preflight"]:
        problems += workspace_web.password_problems(webs, module.params["web_passwords"])
    if problems:
        raise workspace_engine.HostError("\n".join(problems))
    options = model.Options(
        image=module.params["image"],
        environment_allow=tuple(module.params["environment_allow"]),
        algorithms={name: tuple(values) for name, values in module.params["algorithms"].items()},
        extra_hosts=dict(module.params["extra_hosts"]),
    )
    recreate, purge, people = (module.params[name] for name in ("recreate", "purge", "people"))
    now = time.localtime()
    try:
        if recreate == "idle" and workspace_activity.in_window(module.params["window"], now.tm_hour * 60 + now.tm_min):
            recreate = "always"
    except InvalidError as exc:
        raise workspace_engine.HostError(f"window: {show(module.params['window'])} {exc}.") from exc
    keeper = workspace_keeper.Keeper(module.run_command, options, recreate, module.check_mode, people)
    found = keeper.engine.look(
        image for image in (workspace_container.image_of(item, options) for item in workspaces) if image
    )
    if not (found.engine or module.check_mode or module.params["preflight"]):
        raise workspace_engine.HostError("no container engine answers on this host. Run the role docker_engine first.")
    preflight = Preflight(
        module.run_command, keeper.engine, found, recreate, module.params["base"], module.check_mode, people
    )
    verdict = preflight.judge(workspaces, purge)
    if verdict.refused:
        raise workspace_engine.HostError("\n".join(verdict.refused))
    for text in verdict.warnings if module.params["preflight"] else ():
        module.warn(text)
    result = workspace_keeper.Result() if module.params["preflight"] else keeper.bring(workspaces, found, purge)
    here = bool(webs) or os.path.isdir(workspace_web.CONFIG_DIR) or os.path.isdir(workspace_web.STATE_DIR)
    prints: Dict[str, str] = {}
    if here and not module.params["preflight"]:
        result.actions += certificate.ensure(module.run_command, workspaces, module.check_mode)
        prints = certificate.fingerprints(module.run_command, workspaces)
    for entry in result.pending:
        module.warn(workspace_keeper.pending_text(entry))
    return {
        "changed": bool(result.actions),
        "actions": result.actions,
        "pending": result.pending,
        "kept": result.kept,
        "host_keys": workspace_host_keys.published(workspaces, options),
        "certificates": workspace_host_keys.certificates(options),
        "web": {
            "here": here,
            "addresses": {name: workspace_web.address(web) for name, web in webs.items()},
            "fingerprints": prints,
        },
        "diff": {"before": _text(result.before), "after": _text(result.after)},
    }


def _text(states: Dict[str, Any]) -> str:
    return json.dumps(states, indent=2, sort_keys=True) + "\n" if states else ""


if __name__ == "__main__":
    main()
