# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host key in three stages, so that no login breaks: publish the next one, serve it, drop the old one. Pure.

On disk the served key is `key`; beside it may lie `next` (made, not served) and `old` (was served). Every step is one
operation that happens or does not, and `key` is there after each of them: whoever is interrupted runs the stage again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

STAGES = ("look", "publish", "serve", "drop", "cancel")

# make: a new key as `next`. keep: `key` copied to `old`. swap: `next` moved to `key`. reload: sshd reads `key`.
# forget: `old` removed. discard: `next` removed.
Steps = Tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What is there: public keys, as texts; None is a file that is not there."""

    key: str
    next: Optional[str] = None
    old: Optional[str] = None
    served: Optional[str] = None  # by the sshd that runs; None: it does not answer
    next_age: float = 0.0  # seconds

    @property
    def published(self) -> List[str]:
        """What everybody has to know as long as it is like this."""
        return [key for key in dict.fromkeys((self.key, self.next, self.old)) if key]


class RefusedError(ValueError):
    """The stage does not fit; the text says what does."""


def steps(stage: str, state: State, wait: float = 0.0) -> Steps:
    """What has to be done to get through a stage from here; nothing when it is done already."""
    if stage == "look":
        return ()
    if stage == "publish":
        return () if state.next or state.old else ("make",)
    if stage == "serve":
        return _serve(state, wait)
    if stage == "drop":
        if state.next:
            raise RefusedError("the next key is not served yet. First: devnode_rotate=serve (or cancel, to give it up)")
        return (*_reload(state), "forget") if state.old else ()
    if state.old:
        raise RefusedError("the new key is served already. Go on with: devnode_rotate=drop")
    return ("discard",) if state.next else ()


def _serve(state: State, wait: float) -> Steps:
    if state.next:
        if not state.old and state.next_age < wait:
            hours = (wait - state.next_age) / 3600
            raise RefusedError(
                f"the next key was published {state.next_age / 3600:.1f} h ago, and people need time to fetch their "
                f"kits. Wait {hours:.1f} h more, or say that all have them: devnode_rotate_wait_hours=0"
            )
        return ("keep", "swap", "reload") if state.old != state.key else ("swap", "reload")
    if not state.old:
        raise RefusedError("no next key has been published. First: devnode_rotate=publish")
    return _reload(state)


def _reload(state: State) -> Steps:
    return () if state.served == state.key else ("reload",)
