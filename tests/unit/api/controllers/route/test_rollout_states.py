"""The transition table of a rollout: every transition once, and none that the table lacks."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.controllers.route.rollout import RolloutClock, state_of, step
from api.controllers.route.rollout_instances import WAIT_SECONDS, RevisionLoad
from api.controllers.route.rollout_states import TRANSITIONS, RolloutEvent, RolloutState
from api.controllers.route.traffic import RouteTarget

NOW = 1_000_000.0
TARGET = RouteTarget("new", 100, latest=True, configuration="hello")
OLD = [("old", 100)]
SHARED = [("old", 75), ("new", 25)]
ALMOST = [("old", 10), ("new", 90)]
STARTED = RolloutClock("hello", "new", start=NOW - 10)
STEPPING = RolloutClock("hello", "new", start=NOW - 50, next_step=NOW - 1, step_seconds=25, step_percent=25)
CLOCKS = {
    RolloutState.NONE: None,
    RolloutState.STARTED: STARTED,
    RolloutState.STEPPING: STEPPING,
    RolloutState.HELD_BEFORE_START: msgspec.structs.replace(STARTED, waits_since=NOW - 5),
    RolloutState.HELD: msgspec.structs.replace(STEPPING, waits_since=NOW - 5),
}
BUSY = RevisionLoad(10, 1.0, "concurrency", 10, 0)
READY = {"old": BUSY, "new": RevisionLoad(0, 1.0, "concurrency", 10, 0)}
STARTING = {"old": BUSY, "new": RevisionLoad(0, 1.0, "concurrency", 0, 0)}


def situation(state: RolloutState, event: RolloutEvent) -> dict[str, object]:
    """What a reconciliation sees when `event` happens in `state`."""
    seen: dict[str, object] = {"before": SHARED, "acknowledged": True, "loads": READY}
    match event:
        case RolloutEvent.BEGIN:
            seen["before"] = OLD
        case RolloutEvent.FINISH:
            seen["before"] = ALMOST if state in (RolloutState.STEPPING, RolloutState.HELD) else [("new", 100)]
        case RolloutEvent.WAIT:
            seen["acknowledged"] = False
        case RolloutEvent.HOLD:
            seen["before"] = SHARED if state in (RolloutState.STEPPING, RolloutState.HELD) else OLD
            seen["loads"] = STARTING
        case RolloutEvent.ACKNOWLEDGE | RolloutEvent.STEP:
            pass
    return seen


@pytest.mark.parametrize(
    ("state", "event"),
    [(state, event) for state, events in TRANSITIONS.items() for event in events],
    ids=lambda value: value.name.lower(),
)
def test_every_transition_of_the_table_happens(state: RolloutState, event: RolloutEvent) -> None:
    assert state_of(CLOCKS[state]) is state
    taken = step(TARGET, clock=CLOCKS[state], duration=100.0, now=NOW, **situation(state, event))  # type: ignore[arg-type]
    assert taken.event is event
    assert state_of(taken.clock) is TRANSITIONS[state][event]


@pytest.mark.parametrize("state", RolloutState)
def test_every_state_can_be_left_and_finishes(state: RolloutState) -> None:
    reached, waiting = {state}, [state]
    while waiting:
        for following in TRANSITIONS[waiting.pop()].values():
            if following not in reached:
                reached.add(following)
                waiting.append(following)
    assert reached == set(RolloutState)
    assert TRANSITIONS[state][RolloutEvent.FINISH] is RolloutState.NONE


@pytest.mark.parametrize(("state", "before"), [(RolloutState.HELD_BEFORE_START, OLD), (RolloutState.HELD, SHARED)])
def test_a_rollout_is_held_no_longer_than_the_limit(state: RolloutState, before: list[tuple[str, int]]) -> None:
    clock = CLOCKS[state]
    assert clock is not None
    waited = msgspec.structs.replace(clock, waits_since=NOW - WAIT_SECONDS)
    taken = step(TARGET, before, waited, 100.0, True, STARTING, NOW)
    assert taken.event in (RolloutEvent.BEGIN, RolloutEvent.STEP)
    assert taken.shares != before


shares = st.integers(1, 99).map(lambda percent: [("old", 100 - percent), ("new", percent)])
clocks = st.none() | st.builds(
    RolloutClock,
    configuration=st.just("hello"),
    revision=st.just("new"),
    start=st.floats(NOW - 1000, NOW),
    next_step=st.just(0.0) | st.floats(NOW - 1000, NOW + 1000),
    step_seconds=st.floats(1, 100),
    step_percent=st.integers(1, 99),
    waits_since=st.just(0.0) | st.floats(NOW - 1000, NOW),
)
loads = st.builds(
    RevisionLoad, st.integers(0, 20), st.floats(0.1, 10), st.just("concurrency"), st.integers(0, 20), st.integers(0, 5)
)


@given(
    shares | st.sampled_from([[], OLD, [("new", 100)], [("new", 60), ("other", 40)]]),
    clocks,
    st.sampled_from([0.0, 1.0, 100.0]),
    st.booleans(),
    st.dictionaries(st.sampled_from(["old", "new"]), loads),
)
def test_nothing_happens_that_the_table_does_not_list(
    before: list[tuple[str, int]],
    clock: RolloutClock | None,
    duration: float,
    acknowledged: bool,
    loads: dict[str, RevisionLoad],
) -> None:
    taken = step(TARGET, before, clock, duration, acknowledged, loads, NOW)
    assert state_of(taken.clock) is TRANSITIONS[state_of(clock)][taken.event]
    assert sum(percent for _, percent in taken.shares) == 100
    if taken.event in (RolloutEvent.WAIT, RolloutEvent.HOLD):
        assert taken.shares == before
