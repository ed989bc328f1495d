# SPDX-License-Identifier: GPL-3.0-or-later
"""The China profile: every source of every role, as it is with docs/mirrors/china.yml."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible_collections.devnode.gpu.plugins.module_utils import conda_settings, workspace_conda
from unit.playbook import ROOT, inventory, play

PROFILE = yaml.safe_load((ROOT / "docs/mirrors/china.yml").read_text())
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
# What the profile leaves where it is, and why.
STAYS = {
    "pytorch_sshd_base_image": "Docker Hub has no public mirror that lasts; the profile says who names one",
    "nvidia_driver_repository": "no mirror of NVIDIA's driver repository is known; distro or preinstalled needs none",
}
# An image without a registry's name comes from Docker Hub.
HUB = re.compile(r"[a-z0-9_-]+(?:/[a-z0-9._-]+)*:[\w.-]+(?:@sha256:[0-9a-f]{64})?")
URL = re.compile(r"https?://[^\s\"'|}\])]+")


def defaults(role: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text()) or {}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def test_every_variable_of_the_profile_is_one() -> None:
    known = {name for role in ROLES for name in defaults(role)}
    assert set(PROFILE) <= known


def test_no_check_is_weakened() -> None:
    weaker = re.compile("fingerprint|sha256|checksum|terms|tls|verify|insecure")
    assert not [name for name in PROFILE if weaker.search(name)]


def test_no_source_is_left_at_its_default() -> None:
    """A role that gets another download has to say here where it comes from in China."""
    for role in ROLES:
        for name, value in {**defaults(role), **PROFILE}.items():
            hosts = {urlsplit(url).hostname for text in strings(value) for url in URL.findall(text)}
            abroad = {host for host in hosts if host and not host.endswith(".cn")}
            abroad |= {"Docker Hub" for text in strings(value) if HUB.fullmatch(text)}
            assert not abroad or name in STAYS, f"{role}: {name} still comes from {abroad}"


# Addresses in the code, by file: why none of them is where something comes from with the profile.
IN_CODE = {
    "plugins/module_utils/conda_pytorch.py": "PyTorch's own wheels have no mirror: `source: conda` (docs/mirrors.md)",
    "plugins/module_utils/conda_settings.py": "for what a set of miniconda_mirrors lacks; test_conda_and_pip compares",
    "plugins/module_utils/driver_plan.py": "by which entries of apt are known; STAYS says why the source stays",
    "plugins/module_utils/engine_inputs.py": "the default, to tell whether a variable differs from it",
    "plugins/module_utils/preflight.py": "an example in a message",
    "plugins/module_utils/workspace_conda.py": "the default of its installer_url; the profile names another",
    "plugins/module_utils/workspace_image.py": "a label of the image",
    "roles/miniconda/vars/main.yml": "the sets to choose from; the profile chooses tuna",
    "roles/nvidia_container_toolkit/vars/main.yml": "entries of others to take over",
}


def _constants(path: Path) -> Iterator[str]:
    """The texts of a program: neither comments nor documentation."""
    tree = ast.parse(path.read_text())
    documentation = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.Assign) and {getattr(one, "id", "") for one in node.targets} & documentation:
            node.value = ast.Constant("")
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant("")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_source_stands_in_the_code_that_could_not_be_replaced() -> None:
    found = set()
    texts = [(path, _constants(path)) for path in ROOT.glob("plugins/**/*.py")]
    texts += [(path, strings(yaml.safe_load(path.read_text()))) for path in ROOT.glob("roles/*/vars/*.yml")]
    for path, said in texts:
        if any(_fetches(line) for text in said for line in text.splitlines()):
            found.add(str(path.relative_to(ROOT)))
    assert found == set(IN_CODE)


def commented() -> dict[str, Any]:
    """What the profile shows as comments, to be filled in."""
    text = (ROOT / "docs/mirrors/china.yml").read_text()
    blocks = re.findall(r"^# (\w+:.*(?:\n#   .*)*)", text, re.MULTILINE)
    found: dict[str, Any] = {}
    for block in blocks:
        if re.match(r"(pytorch_sshd|docker_engine|miniconda)_\w+:", block):
            found |= yaml.safe_load(block.replace("\n# ", "\n"))
    return found


def test_what_has_to_be_filled_in_has_names_that_exist_and_sources_in_china() -> None:
    known = {name for role in ROLES for name in defaults(role)}
    assert set(commented()) == {
        "pytorch_sshd_base_image",
        "docker_engine_registry_mirrors",
        "pytorch_sshd_conda",
        "miniconda_environments",
    }
    assert set(commented()) <= known
    found, errors = workspace_conda.files(commented()["pytorch_sshd_conda"], lambda given, final: f"{given} {final}")
    assert errors == []
    # The installer's checksum is the maker's, whoever it comes from.
    assert workspace_conda.SHA256 in found["settings"]
    hosts = {urlsplit(url).hostname or "" for text in found.values() for url in URL.findall(text)}
    assert hosts == {"mirrors.tuna.tsinghua.edu.cn", "pypi.tuna.tsinghua.edu.cn"}


def test_the_chinese_page_says_what_nobody_else_can_do_for_you() -> None:
    page = (ROOT / "README.zh-CN.md").read_text()
    loud = page.partition("## 中国大陆的镜像")[2].strip().splitlines()[0]
    assert loud.startswith("> **必须")
    assert "pytorch_sshd_base_image" in page
    assert defaults("pytorch_sshd")["pytorch_sshd_base_image"] in page


def test_no_source_stands_in_a_task_or_template() -> None:
    """A URL there could not be replaced. Names of entries to take over, and units' documentation, fetch nothing."""
    found = []
    for pattern in ("tasks/*.yml", "handlers/*.yml", "templates/**/*.j2", "files/**/*"):
        for path in ROOT.glob(f"roles/*/{pattern}"):
            lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
            found += [f"{path}: {line}" for line in lines if _fetches(line)]
    assert not found


def _fetches(line: str) -> bool:
    if line.strip().startswith(("replaces:", "Documentation=")):
        return False
    code = line.split("#")[0]
    hosts = {urlsplit(url).hostname or "" for url in URL.findall(code)}
    return any(re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host) and not host.startswith("127.") for host in hosts)


# Every source in the form in which a host uses it.
EXPECTED = {
    "docker": (
        "https://mirrors.ustc.edu.cn/docker-ce/linux/debian",
        "https://mirrors.ustc.edu.cn/docker-ce/linux/debian/gpg",
    ),
    "nvidia-container-toolkit": (
        "https://mirrors.ustc.edu.cn/libnvidia-container/stable/deb/$(ARCH)",
        "https://mirrors.ustc.edu.cn/libnvidia-container/gpgkey",
    ),
}


def rendered(tmp_path: Path, variables: dict[str, Any], **values: Any) -> dict[str, Any]:
    """What Ansible makes of these, on a node with these variables."""
    task = {"content": "{{ made | to_json }}", "dest": f"{tmp_path}/made.json", "mode": "0644"}
    book = {
        "hosts": "gpu-01",
        "gather_facts": False,
        "vars": {**variables, "made": values},
        "tasks": [{"ansible.builtin.copy": task}],
    }
    inventory(tmp_path)
    (tmp_path / "book.yml").write_text(yaml.safe_dump([book]))
    done = play(tmp_path, tmp_path / "book.yml")
    assert done.returncode == 0, done.stdout
    return yaml.safe_load((tmp_path / "made.json").read_text())


def facts(family: str, distribution: str, release: str) -> dict[str, Any]:
    return {"os_family": family, "distribution": distribution, "distribution_release": release}


def test_apt_sources_as_the_tasks_render_them(tmp_path: Path) -> None:
    """The very arguments of the tasks, taken out of the roles, rendered by Ansible."""
    arguments = {}
    for role in ("docker_engine", "nvidia_container_toolkit"):
        for file in sorted((ROOT / "roles" / role / "tasks").glob("*.yml")):
            for task in yaml.safe_load(file.read_text()):
                if "devnode.gpu.apt_source" in task:
                    source = task["devnode.gpu.apt_source"]
                    arguments[source["name"]] = {key: source[key] for key in ("uris", "key", "key_url", "fingerprints")}
    assert set(arguments) == set(EXPECTED)
    variables = {
        **defaults("docker_engine"),
        **defaults("nvidia_container_toolkit"),
        **PROFILE,
        **yaml.safe_load((ROOT / "roles/nvidia_container_toolkit/vars/main.yml").read_text()),
        "ansible_facts": facts("Debian", "Debian", "trixie"),
    }
    made = rendered(tmp_path, variables, **arguments)
    assert {name: (one["uris"][0], one["key_url"]) for name, one in made.items()} == EXPECTED
    assert made["docker"]["fingerprints"] == defaults("docker_engine")["docker_engine_repository_fingerprints"]
    assert all(one["key"] == "" for one in made.values())


def test_the_toolkits_repository_on_rhel(tmp_path: Path) -> None:
    """The task's own arguments; apt's address would be no repository for dnf."""
    tasks = yaml.safe_load((ROOT / "roles/nvidia_container_toolkit/tasks/rpm.yml").read_text())
    [source] = [one["ansible.builtin.yum_repository"] for one in tasks if "ansible.builtin.yum_repository" in one]
    [key] = [one["ansible.builtin.get_url"] for one in tasks if "ansible.builtin.get_url" in one]
    variables = {
        **defaults("nvidia_container_toolkit"),
        **PROFILE,
        **yaml.safe_load((ROOT / "roles/nvidia_container_toolkit/vars/main.yml").read_text()),
        "ansible_facts": facts("RedHat", "Rocky", "Blue Onyx"),
    }
    assert rendered(tmp_path, variables, source=source["baseurl"], key=key["url"]) == {
        "source": "https://mirrors.ustc.edu.cn/libnvidia-container/stable/rpm/$basearch",
        "key": "https://mirrors.ustc.edu.cn/libnvidia-container/gpgkey",
    }


def test_conda_and_pip() -> None:
    role = yaml.safe_load((ROOT / "roles/miniconda/vars/main.yml").read_text())
    values = {name.removeprefix("miniconda_"): value for name, value in {**defaults("miniconda"), **PROFILE}.items()}
    values = {name: value for name, value in values.items() if name in conda_settings.Settings.__dataclass_fields__}
    values |= {"checksums": role["__miniconda_checksums"], "mirrors": role["__miniconda_mirrors"]}
    made = conda_settings.plan_of(conda_settings.Settings(**values))
    assert made.errors == []
    assert made.installer_url == "https://mirrors.tuna.tsinghua.edu.cn/anaconda/miniconda/{file}"
    assert made.condarc["default_channels"] == ["https://mirrors.tuna.tsinghua.edu.cn/anaconda/cloud/conda-forge"]
    assert made.condarc["custom_channels"] == {"conda-forge": "https://mirrors.tuna.tsinghua.edu.cn/anaconda/cloud"}
    assert made.pip_index_url == "https://pypi.tuna.tsinghua.edu.cn/simple"
    # Wheels of PyTorch have no mirror that is an index: docs/mirrors.md says to take conda-forge's builds.
    assert "pytorch" not in role["__miniconda_mirrors"]["tuna"]


def dockerfile(tmp_path: Path, variables: dict[str, Any]) -> str:
    """As the role renders it."""
    template = ROOT / "roles/pytorch_sshd/templates/Dockerfile.j2"
    text = f"{{{{ lookup('ansible.builtin.template', '{template}') }}}}"
    return rendered(tmp_path, {**defaults("pytorch_sshd"), **variables}, text=text)["text"]


def test_the_image(tmp_path: Path) -> None:
    """With the profile and what it asks to be filled in; a base image that has Python, and one that has none."""
    mine = commented()
    conda = mine.pop("pytorch_sshd_conda")
    for more in ({}, {"pytorch_sshd_conda": conda}):
        text = dockerfile(tmp_path, {**PROFILE, **mine, **more})
        code = "\n".join(line for line in text.splitlines() if not line.strip().startswith("#"))
        assert re.findall(r"^FROM (.*)", code, re.MULTILINE) == [mine["pytorch_sshd_base_image"]]
        assert re.findall(r"--index-url '(.*)'", code) == ["https://pypi.tuna.tsinghua.edu.cn/simple"]
        assert set(URL.findall(code)) == {"https://pypi.tuna.tsinghua.edu.cn/simple"}
        assert ("RUN sh /tmp/devnode/conda.sh" in code) == bool(more)


def test_the_image_without_a_base_of_your_own_comes_from_docker_hub(tmp_path: Path) -> None:
    """So the pages say, and so nobody takes the profile alone for enough."""
    [base] = re.findall(r"^FROM (.*)", dockerfile(tmp_path, PROFILE), re.MULTILINE)
    assert HUB.fullmatch(base)
    assert not HUB.fullmatch(commented()["pytorch_sshd_base_image"])
    assert "Docker Hub" in (ROOT / "docs/mirrors.md").read_text()
