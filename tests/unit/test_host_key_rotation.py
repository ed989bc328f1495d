# SPDX-License-Identifier: GPL-3.0-or-later
"""Host keys in stages: no stage leaves out another, and an interruption anywhere is made good by running it again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.devnode.gpu.plugins.module_utils.host_key_rotation import RefusedError, State, steps
from hypothesis import given
from hypothesis import strategies as st


def do(state, step):
    """What a step does, on a state."""
    return {
        "make": lambda: replace(state, next=f"{state.key}+"),
        "keep": lambda: replace(state, old=state.key),
        "swap": lambda: replace(state, key=state.next, next=None),
        "reload": lambda: replace(state, served=state.key),
        "forget": lambda: replace(state, old=None),
        "discard": lambda: replace(state, next=None),
    }[step]()


def through(state, stage):
    for step in steps(stage, state):
        state = do(state, step)
    return state


START = State("a", served="a")


def test_a_whole_rotation():
    published = through(START, "publish")
    assert published == State("a", "a+", served="a")
    served = through(published, "serve")
    assert served == State("a+", old="a", served="a+")
    assert served.published == ["a+", "a"]
    assert through(served, "drop") == State("a+", served="a+")


@pytest.mark.parametrize("stage", ["publish", "serve", "drop"])
def test_a_stage_that_is_done_changes_nothing(stage):
    state = START
    for one in ("publish", "serve", "drop"):
        state = through(state, one)
        if one == stage:
            break
    if stage != "drop":
        assert steps(stage, state) == ()
    assert steps("drop", START) == ()


@pytest.mark.parametrize(
    ("stage", "state", "says"),
    [
        ("serve", START, "devnode_rotate=publish"),
        ("drop", State("a", "b", served="a"), "devnode_rotate=serve"),
        ("cancel", State("b", old="a", served="b"), "devnode_rotate=drop"),
        ("serve", State("a", "b", served="a", next_age=3600), "Wait 23.0 h more"),
    ],
)
def test_refused_with_what_fits(stage, state, says):
    with pytest.raises(RefusedError, match=says):
        steps(stage, state, wait=24 * 3600)


def test_a_next_key_can_be_given_up():
    assert through(through(START, "publish"), "cancel") == START


@given(st.lists(st.tuples(st.sampled_from(["publish", "serve", "drop", "cancel"]), st.integers(0, 4)), max_size=12))
def test_interrupted_anywhere(runs):
    """Runs that stop after some steps: what is served is always published, and a rotation can always be completed."""
    state, known = START, {"a"}
    for stage, stop_after in runs:
        try:
            todo = steps(stage, state)
        except RefusedError:
            continue
        if stage == "serve":
            known |= set(state.published)  # the playbook records before it serves
        for step in todo[:stop_after]:
            state = do(state, step)
            assert state.key
            assert state.served in state.published
            assert state.served in known | set(state.published)
        if stop_after >= len(todo) and stage != "serve":
            known = set(state.published)
    for stage in ("publish", "serve", "drop"):
        state = through(state, stage)
    assert (state.next, state.old, state.served) == (None, None, state.key)
