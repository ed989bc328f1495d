#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the documentation as a small site: the pages by hand, the roles' READMEs, and what ansible-doc knows.

Everything is laid out in .cache/site as it lies in the repository, so links between pages lead where they do there.
Links to other files lead to the repository's web page. A warning of Sphinx fails the build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".cache" / "site"
PAGES = ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md")
FOLDERS = ("docs/*.md", "roles/*/README.md", "tests/lab/*.md", "tests/lab/*/*.md", "bench/README.md")
LINK = re.compile(r"(?P<label>\[[^\]]*\])\((?!https?://|#|mailto:)(?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")
CONF = """\
project = "devnode.gpu"
copyright = "The devnode.gpu authors, GPL-3.0-or-later"
extensions = ["myst_parser"]
html_theme = "alabaster"
html_theme_options = {"fixed_sidebar": True, "page_width": "75em", "sidebar_width": "15em"}
html_sidebars = {"**": ["about.html", "searchbox.html", "navigation.html"]}
html_copy_source = False
myst_heading_anchors = 3
# The pages of plugins are linked from their index, not from a toctree.
suppress_warnings = ["misc.highlighting_failure", "toc.not_included"]
"""


def pages() -> list[Path]:
    return [*(ROOT / name for name in PAGES), *(page for folder in FOLDERS for page in sorted(ROOT.glob(folder)))]


def with_links(page: Path, text: str, taken: set[Path], web: str) -> str:
    """Links to pages stay; a folder is its README; anything else is at the repository."""

    def one(found: re.Match[str]) -> str:
        target = (page.parent / found["target"]).resolve()
        if (target / "README.md") in taken:
            return f"{found['label']}({os.path.relpath(target / 'README.md', page.parent)})"
        if target in taken or not target.is_relative_to(ROOT):
            return found[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"{found['label']}({web}/{kind}/main/{target.relative_to(ROOT)})"

    return LINK.sub(one, text)


def toctree(caption: str, entries: list[str]) -> str:
    return "\n".join(["```{toctree}", ":maxdepth: 1", f":caption: {caption}", "", *entries, "```", ""])


def lay_out(source: Path) -> None:
    web = yaml.safe_load((ROOT / "galaxy.yml").read_text())["repository"]
    taken = set(pages())
    for page in sorted(taken):
        copy = source / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(with_links(page, page.read_text(), taken, web))
    names = {folder: [str(page.relative_to(ROOT)) for page in sorted(ROOT.glob(folder))] for folder in FOLDERS}
    index = [
        "# devnode.gpu",
        "",
        toctree("Start", ["README.md", "README.zh-CN.md"]),
        toctree("Pages", names["docs/*.md"]),
        toctree("Roles", names["roles/*/README.md"]),
        toctree("Modules, plugins and roles in full", ["reference/index"]),
        toctree("Project", [*PAGES[2:], *(name for folder in FOLDERS[2:] for name in names[folder])]),
    ]
    (source / "index.md").write_text("\n".join(index))
    (source / "conf.py").write_text(CONF)


def main() -> int:
    shutil.rmtree(PLACE, ignore_errors=True)
    source = PLACE / "source"
    # antsibull-docs writes only into a folder that nobody else may write to.
    (source / "reference").mkdir(parents=True, mode=0o700)
    lay_out(source)
    bin_ = Path(sys.executable).parent
    reference = "collection --use-current --squash-hierarchy --fail-on-error --output-format simplified-rst --dest-dir"
    sphinx = "-W --keep-going -q -j auto -b html"
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": f"{bin_}:{os.environ['PATH']}"}
    commands: list[list[str | Path]] = [
        [bin_ / "antsibull-docs", *reference.split(), source / "reference", "devnode.gpu"],
        [bin_ / "sphinx-build", *sphinx.split(), source, PLACE / "html"],
    ]
    for argv in commands:
        status = subprocess.run(argv, cwd=ROOT, env=env, check=False).returncode
        if status:
            return status
    print(f"{(PLACE / 'html' / 'index.html').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
