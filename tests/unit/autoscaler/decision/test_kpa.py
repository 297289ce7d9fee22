"""How many instances a Revision should run."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.kpa import DecisionState, RevisionMetrics, decide, explain, initial_state
from knoll.config.platform import PlatformConfig
from knoll.resources.models.revision import Revision
from knoll.resources.scaling import ScalingSpec, scaling_spec

SPEC = scaling_spec(Revision(), PlatformConfig())
"""Knative's defaults: 100 requests an instance, 70 % aimed for, windows of 60 and 6 s."""
TEN = replace(SPEC, total=10.0, target=10.0, utilization=1.0)
BUSY, IDLE = 0.0, 1e6

loads = st.floats(0, 5000)
observations = st.builds(
    RevisionMetrics, st.integers(0, 50), loads, loads, st.integers(0, 100), st.sampled_from([0.0, 30.0, 120.0])
)
specs = st.builds(
    lambda target, least, room, activation, delay, reachable: replace(
        SPEC, total=target, target=target, min_scale=least, max_scale=(least + room) if room else 0,
        activation_scale=activation, scale_down_delay_seconds=delay, reachable=reachable,
    ),
    st.floats(0.01, 200), st.integers(0, 5), st.integers(0, 20), st.integers(1, 4), st.sampled_from([0.0, 60.0]),
    st.booleans(),
)  # fmt: skip


START = DecisionState()


def desired(spec: ScalingSpec, metrics: RevisionMetrics, state: DecisionState = START, now: float = 1000.0) -> int:
    return decide(spec, metrics, state, now)[0].desired


@pytest.mark.parametrize(
    ("stable", "ready", "expected"),
    [
        pytest.param(1.0, 1, 1, id="a little load needs one"),
        pytest.param(10.0, 1, 1, id="exactly the target"),
        pytest.param(10.1, 2, 2, id="a little above it"),
        pytest.param(95.0, 9, 10, id="rounded up"),
        pytest.param(10.0, 4, 2, id="down by half at most"),
        pytest.param(0.0, 9, 4, id="also without load"),
    ],
)
def test_the_stable_load_determines_the_number(stable: float, ready: int, expected: int) -> None:
    assert desired(TEN, RevisionMetrics(ready, stable, stable, 0, BUSY)) == expected


def test_the_target_is_the_aimed_for_part_of_what_an_instance_can_take() -> None:
    assert desired(SPEC, RevisionMetrics(10, 700.0, 700.0, 0, BUSY)) == 10
    assert desired(SPEC, RevisionMetrics(10, 701.0, 701.0, 0, BUSY)) == 11


def test_the_first_request_needs_an_instance() -> None:
    assert desired(SPEC, RevisionMetrics(0, 0.0, 0.0, 1, BUSY)) == 1


def test_requests_that_wait_without_an_instance_get_as_many_as_they_need() -> None:
    assert desired(replace(SPEC, target=5.0), RevisionMetrics(0, 0.0, 0.0, 50, BUSY)) == 10


def test_growth_is_bounded_by_the_rate() -> None:
    slow = replace(TEN, max_scale_up_rate=2.0)
    assert desired(slow, RevisionMetrics(3, 500.0, 500.0, 0, BUSY)) == 6
    assert desired(slow, RevisionMetrics(0, 500.0, 500.0, 0, BUSY)) == 2


def test_panic_begins_at_twice_what_the_ready_instances_can_take() -> None:
    assert not decide(TEN, RevisionMetrics(2, 10.0, 30.0, 0, BUSY), DecisionState(), 0.0)[0].panicking
    decision, _ = decide(TEN, RevisionMetrics(2, 10.0, 31.0, 0, BUSY), DecisionState(), 0.0)
    assert (decision.panicking, decision.desired) == (True, 4)


def test_panic_ends_a_stable_window_after_the_load_was_last_above_the_threshold() -> None:
    _, state = decide(TEN, RevisionMetrics(1, 5.0, 50.0, 0, BUSY), DecisionState(), 0.0)
    during, state = decide(TEN, RevisionMetrics(5, 5.0, 5.0, 0, BUSY), state, 59.0)
    assert (during.panicking, during.desired) == (True, 5)
    just, state = decide(TEN, RevisionMetrics(5, 5.0, 5.0, 0, BUSY), state, 60.0)
    assert just.panicking, "Knative ends it when more than a window has gone by"
    after, state = decide(TEN, RevisionMetrics(5, 5.0, 5.0, 0, BUSY), state, 60.5)
    assert (after.panicking, after.desired) == (False, 2)
    assert state.panic_since is None


def test_an_autoscaler_that_begins_with_several_instances_removes_none() -> None:
    state = initial_state(4, 0.0)
    decision, state = decide(TEN, RevisionMetrics(4, 0.0, 0.0, 0, BUSY), state, 2.0)
    assert decision.desired == 4
    assert desired(TEN, RevisionMetrics(4, 0.0, 0.0, 0, BUSY), state, 61.0) == 2


def test_an_autoscaler_that_begins_beside_one_instance_does_not_panic() -> None:
    assert initial_state(1, 0.0) == DecisionState()


def test_activation_scale_raises_any_number_but_zero() -> None:
    spec = replace(TEN, activation_scale=3)
    assert desired(spec, RevisionMetrics(0, 0.0, 0.0, 1, BUSY)) == 3
    assert desired(spec, RevisionMetrics(0, 0.0, 0.0, 0, IDLE)) == 0
    assert desired(spec, RevisionMetrics(3, 45.0, 45.0, 0, BUSY)) == 5


def test_activation_scale_does_not_keep_instances_that_only_the_rate_keeps() -> None:
    assert desired(replace(TEN, activation_scale=2), RevisionMetrics(2, 0.0, 0.0, 0, IDLE)) == 1


def test_what_a_panic_was_activated_with_stays_until_its_end() -> None:
    spec = replace(TEN, activation_scale=5)
    first, state = decide(spec, RevisionMetrics(1, 15.0, 25.0, 0, BUSY), DecisionState(), 0.0)
    assert (first.panicking, first.desired) == (True, 5)
    quiet, _ = decide(spec, RevisionMetrics(5, 0.0, 0.0, 0, BUSY), state, 2.0)
    assert (quiet.panicking, quiet.desired) == (True, 5)


def test_scale_down_delay_keeps_the_most_that_was_desired_lately() -> None:
    spec = replace(TEN, scale_down_delay_seconds=30.0)
    _, state = decide(spec, RevisionMetrics(4, 40.0, 40.0, 0, BUSY), DecisionState(), 0.0)
    kept, state = decide(spec, RevisionMetrics(4, 20.0, 20.0, 0, BUSY), state, 28.0)
    assert kept.desired == 4
    assert decide(spec, RevisionMetrics(4, 20.0, 20.0, 0, BUSY), state, 30.0)[0].desired == 2


def test_scale_down_delay_does_not_apply_to_unreachable_revisions() -> None:
    spec = replace(TEN, scale_down_delay_seconds=30.0, reachable=False)
    _, state = decide(spec, RevisionMetrics(4, 40.0, 40.0, 0, BUSY), DecisionState(), 0.0)
    assert decide(spec, RevisionMetrics(4, 20.0, 20.0, 0, BUSY), state, 2.0)[0].desired == 2


def test_bounds_hold() -> None:
    spec = replace(TEN, min_scale=2, max_scale=4)
    assert desired(spec, RevisionMetrics(2, 0.0, 0.0, 0, IDLE)) == 2
    assert desired(spec, RevisionMetrics(2, 90.0, 90.0, 0, BUSY)) == 4


def test_min_scale_does_not_apply_to_unreachable_revisions() -> None:
    assert desired(replace(TEN, min_scale=2, reachable=False), RevisionMetrics(2, 0.0, 0.0, 0, IDLE)) == 0


def test_the_last_instance_stays_until_a_whole_stable_window_was_idle() -> None:
    assert desired(TEN, RevisionMetrics(1, 0.0, 0.0, 0, 59.9)) == 1
    assert desired(TEN, RevisionMetrics(1, 0.0, 0.0, 0, 60.0)) == 0


def test_the_last_instance_is_retained_as_long_as_asked_for() -> None:
    spec = replace(TEN, retention_seconds=40.0)
    kept, state = decide(spec, RevisionMetrics(1, 0.0, 0.0, 0, 60.0), DecisionState(), 0.0)
    assert kept.desired == 1
    kept, state = decide(spec, RevisionMetrics(1, 0.0, 0.0, 0, 99.0), state, 39.0)
    assert kept.desired == 1
    assert decide(spec, RevisionMetrics(1, 0.0, 0.0, 0, 100.0), state, 40.0)[0].desired == 0


def test_retention_starts_again_after_a_request() -> None:
    spec = replace(TEN, retention_seconds=40.0)
    _, state = decide(spec, RevisionMetrics(1, 0.0, 0.0, 0, 60.0), DecisionState(), 0.0)
    _, state = decide(spec, RevisionMetrics(1, 1.0, 1.0, 0, 0.0), state, 10.0)
    assert decide(spec, RevisionMetrics(1, 0.0, 0.0, 0, 60.0), state, 70.0)[0].desired == 1


def test_scale_to_zero_can_be_off() -> None:
    assert desired(replace(TEN, scale_to_zero=False), RevisionMetrics(1, 0.0, 0.0, 0, IDLE)) == 1


def test_an_instance_that_is_being_started_is_not_given_up_for_a_silent_moment() -> None:
    assert desired(TEN, RevisionMetrics(0, 0.0, 0.0, 0, 3.0, starting=1)) == 1
    assert desired(TEN, RevisionMetrics(0, 0.0, 0.0, 0, 60.0, starting=1)) == 0


@pytest.mark.parametrize(
    ("tbc", "ready", "panic", "expected"),
    [
        pytest.param(211.0, 3, 10.0, 79.0, id="room left"),
        pytest.param(211.0, 1, 10.0, -121.0, id="none left"),
        pytest.param(0.0, 1, 500.0, 0.0, id="0 is only at zero"),
        pytest.param(-1.0, 9, 0.0, -1.0, id="-1 is always"),
    ],
)
def test_excess_burst_capacity(tbc: float, ready: int, panic: float, expected: float) -> None:
    spec = replace(SPEC, target_burst_capacity=tbc)
    assert (
        decide(spec, RevisionMetrics(ready, panic, panic, 0, BUSY), DecisionState(), 0.0)[0].excess_burst_capacity
        == expected
    )


def test_a_decision_explains_itself() -> None:
    decision, _ = decide(replace(TEN, max_scale=4), RevisionMetrics(2, 90.0, 95.0, 7, BUSY), DecisionState(), 0.0)
    text = explain(decision)
    for part in ("desired 4 (panic)", "90.00", "95.00", "2 ready", "7 waiting", "max-scale 4"):
        assert part in text


@given(spec=specs, metrics=observations)
def test_bounds_hold_for_all_metrics(spec: ScalingSpec, metrics: RevisionMetrics) -> None:
    count = desired(spec, metrics)
    assert count >= 0
    assert not spec.max_scale or count <= spec.max_scale
    assert not spec.reachable or count >= spec.min_scale


@given(spec=specs, metrics=observations, more=st.floats(0, 1000))
def test_more_load_never_needs_fewer(spec: ScalingSpec, metrics: RevisionMetrics, more: float) -> None:
    heavier = replace(metrics, stable=metrics.stable + more, panic=metrics.panic + more)
    assert desired(spec, heavier) >= desired(spec, metrics)


@given(spec=specs, steps=st.lists(observations, min_size=1, max_size=30))
def test_panic_never_scales_down(spec: ScalingSpec, steps: list[RevisionMetrics]) -> None:
    state, before, now = DecisionState(), None, 0.0
    for metrics in steps:
        decision, state = decide(spec, metrics, state, now)
        if decision.panicking and before is not None:
            assert decision.desired >= before
        before = decision.desired if decision.panicking else None
        now += 2.0


@given(spec=specs, metrics=observations)
def test_an_idle_revision_ends_at_its_least(spec: ScalingSpec, metrics: RevisionMetrics) -> None:
    state, ready, now = DecisionState(), metrics.ready, 0.0
    for _ in range(200):
        decision, state = decide(spec, RevisionMetrics(ready, 0.0, 0.0, 0, now), state, now)
        ready, now = decision.desired, now + 2.0
    assert ready == (spec.min_scale if spec.reachable else 0)


@given(metrics=observations)
def test_rates_bound_a_step_outside_of_panic(metrics: RevisionMetrics) -> None:
    spec = replace(SPEC, max_scale_up_rate=3.0)
    decision, _ = decide(spec, metrics, DecisionState(), 0.0)
    if not decision.panicking and metrics.ready:
        assert metrics.ready // 2 <= max(decision.desired, 1)
        assert decision.desired <= 3 * metrics.ready
