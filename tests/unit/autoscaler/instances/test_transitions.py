"""The transition table of an instance, as a table."""

import itertools

import pytest

from autoscaler.instances.transitions import (
    ENDING,
    IDLE,
    TRANSITIONS,
    Command,
    IllegalTransitionError,
    LifecycleState,
    Observation,
    label_of,
    next_state,
    stage_of,
)

# One row a state, one column an event; "." is "has no effect" (observations) or "raises" (commands).
COLUMNS = [*Observation, *Command]
TABLE = """
state       PROBES_PASSED PROBES_FAILED SANDBOX_LOST KEEP_SERVING GO_IDLE    PAUSE  STOP    STEP_DOWN WAKE     DRAIN    EVICT   REMOVE
STARTING    READY         .             LOST         READY        .          .      .       .         .        DRAINING LOST    .
READY       .             UNREADY       LOST         .            GOING_IDLE .      .       .         .        DRAINING LOST    .
UNREADY     READY         .             LOST         .            .          .      .       .         .        DRAINING LOST    .
GOING_IDLE  .             .             LOST         .            .          PAUSED STOPPED .         .        DRAINING LOST    .
PAUSED      .             .             LOST         .            .          .      .       STOPPING  STARTING DRAINING LOST    .
STOPPING    .             .             LOST         .            .          .      STOPPED STOPPING  STARTING DRAINING LOST    .
STOPPED     .             .             LOST         .            .          .      .       .         STARTING DRAINING LOST    .
DRAINING    .             .             LOST         .            .          .      .       .         .        DRAINING LOST    REMOVED
LOST        .             .             LOST         .            .          .      .       .         .        LOST     LOST    REMOVED
REMOVED     .             .             .            .            .          .      .       .         .        REMOVED  REMOVED .
"""  # noqa: E501
HEADER, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [
    pytest.param(
        LifecycleState[state], event, None if cell == "." else LifecycleState[cell], id=f"{state}-{event.name}"
    )
    for state, *cells in ROWS
    for event, cell in zip(COLUMNS, cells, strict=True)
]


def test_the_table_of_this_test_is_complete() -> None:
    assert HEADER[1:] == [event.name for event in COLUMNS]
    assert [row[0] for row in ROWS] == [state.name for state in LifecycleState]


@pytest.mark.parametrize(("state", "event", "following"), CELLS)
def test_each_transition(state: LifecycleState, event: Command | Observation, following: LifecycleState | None) -> None:
    if following is not None:
        assert next_state(state, event) is following
    elif isinstance(event, Observation):
        assert next_state(state, event) is state
    else:
        with pytest.raises(IllegalTransitionError, match=f"an instance that is {state.value} cannot "):
            next_state(state, event)


def test_every_state_leads_to_removal_and_is_reached_from_the_start() -> None:
    reached, frontier = set(), {LifecycleState.STARTING}
    while frontier:
        reached |= frontier
        frontier = {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached
    assert reached == set(LifecycleState)
    for state in LifecycleState:
        assert next_state(state, Command.DRAIN) in ENDING


def test_ending_states_are_never_left() -> None:
    for (before, _), after in TRANSITIONS.items():
        assert before not in ENDING or after in ENDING


@pytest.mark.parametrize("events", list(itertools.product(Observation, repeat=3)), ids=str)
@pytest.mark.parametrize("state", LifecycleState)
def test_observations_never_raise(state: LifecycleState, events: tuple[Observation, ...]) -> None:
    for event in events:
        state = next_state(state, event)


def test_idle_states_have_their_own_stages_and_labels() -> None:
    assert {stage_of(state) for state in IDLE} == {"paused", "stopped"}
    assert {stage_of(state) for state in ENDING} == {"draining"}
    assert {label_of(state) for state in LifecycleState if state is not LifecycleState.REMOVED} == {
        "starting", "ready", "unready", "resting", "paused", "stopped", "draining",
    }  # fmt: skip
