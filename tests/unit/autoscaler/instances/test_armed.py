"""The states of an armed instance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.instances.armed import TRANSITIONS, ArmedEvent, ArmedInstance, ArmedState
from autoscaler.spec.instance_spec import instance_spec, probes
from tests.unit.autoscaler.sample_revisions import revision


def instance() -> ArmedInstance:
    return ArmedInstance(instance_spec(revision(), "hello-1"), probes(revision()))


@given(st.lists(st.sampled_from(ArmedEvent), max_size=12))
def test_it_is_released_only_if_it_was_armed_and_nothing_has_changed_since(events: list[ArmedEvent]) -> None:
    armed = instance()
    for event in events:
        armed.apply(event)
    if armed.state is ArmedState.TAKEN:
        assert ArmedEvent.INVALIDATE not in events
        assert ArmedEvent.END not in events
        assert events.index(ArmedEvent.ARMED) < len(events) - 1 - events[::-1].index(ArmedEvent.TAKE)


@given(st.lists(st.sampled_from(ArmedEvent), max_size=12), st.lists(st.sampled_from(ArmedEvent), max_size=12))
def test_one_that_is_stale_or_gone_is_never_taken(before: list[ArmedEvent], after: list[ArmedEvent]) -> None:
    armed = instance()
    for event in [*before, ArmedEvent.INVALIDATE, *after]:
        armed.apply(event)
    assert armed.state in (ArmedState.STALE, ArmedState.GONE)


@pytest.mark.parametrize("state", ArmedState)
def test_every_state_can_end(state: ArmedState) -> None:
    assert TRANSITIONS[state, ArmedEvent.END] is ArmedState.GONE
