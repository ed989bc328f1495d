# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change of a set looks like to a person: owners and modes, then contents."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from ansible_collections.devnode.gpu.plugins.module_utils.fileset_disk import sha256
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_plan import Change, State
from ansible_collections.devnode.gpu.plugins.module_utils.fileset_states import read_file

DIFF_LIMIT = 100 * 1024


def _attributes(state: State) -> str:
    if state["type"] == "absent":
        return ""
    if state["type"] == "link":
        return f"link to {state['target']}\n"
    if "mode" not in state:
        return f"{state['type']}\n"
    return f"{state['type']}, owner {state['uid']}, group {state['gid']}, mode {state['mode']:04o}\n"


def _text(data: Optional[bytes]) -> str:
    if data is None:
        return ""
    if b"\0" in data or len(data) > DIFF_LIMIT:
        return f"[{len(data)} bytes, sha256 {sha256(data)}]\n"
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"[{len(data)} bytes, sha256 {sha256(data)}]\n"


def _contents(change: Change, new: Optional[bytes]) -> Tuple[str, str]:
    old_data = None
    if change.before["type"] == "file":
        old_data = read_file(change.path)
    new_data = new if change.after["type"] == "file" else None
    if old_data == new_data:
        return "", ""
    if change.sensitive:
        return (
            "[sensitive]\n" if old_data is not None else "",
            "[sensitive, different]\n" if new_data is not None else "",
        )
    return _text(old_data), _text(new_data)


def difference(change: Change, new: Optional[bytes]) -> List[Dict[str, str]]:
    header = {"before_header": change.path, "after_header": change.path}
    diffs = []
    before, after = _attributes(change.before), _attributes(change.after)
    if before != after:
        diffs.append({**header, "before": before, "after": after})
    before, after = _contents(change, new)
    if before != after:
        diffs.append({**header, "before": before, "after": after})
    return diffs
