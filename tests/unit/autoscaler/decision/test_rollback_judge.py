"""Whether a new Revision does worse than the old one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.rollback_judge import Outcome, Outcomes, evaluate
from knoll.messages.reports import latency_bounds, latency_bucket
from knoll.resources.annotations.rollback import RollbackPolicy, parse_policy

POLICY = parse_policy("error-rate>5%, p95>2x")
TIMES = st.lists(st.floats(1e-5, 1000), min_size=1, max_size=200)


def outcome(answers: int, errors: int = 0, seconds: float = 0.01) -> Outcome:
    return Outcome(answers, errors, {latency_bucket(seconds): answers} if answers else {})


def of(times: list[float]) -> Outcome:
    latency: dict[int, int] = {}
    for seconds in times:
        latency[latency_bucket(seconds)] = latency.get(latency_bucket(seconds), 0) + 1
    return Outcome(len(times), 0, latency)


@pytest.mark.parametrize(
    ("new", "old", "worse"),
    [
        (outcome(100, 6), outcome(100), True),
        (outcome(100, 5), outcome(100), False),
        (outcome(100, 14), outcome(100, 10), False),
        (outcome(100, 16), outcome(100, 10), True),
        (outcome(19, 19), outcome(100), False),
        (outcome(20, 20), outcome(100), True),
        (outcome(100, 10), outcome(0), True),
        (outcome(100, 10), outcome(5, 5), True),
        (outcome(100, seconds=0.03), outcome(100), True),
        (outcome(100, seconds=0.015), outcome(100), False),
        (outcome(100, seconds=9.0), outcome(10), False),
        (outcome(100), outcome(100, 50, 3.0), False),
    ],
)
def test_worse_is_more_than_the_margin_with_requests_enough(new: Outcome, old: Outcome, worse: bool) -> None:
    assert bool(evaluate(POLICY, new, old, "old")) == worse


def test_the_reason_has_both_figures() -> None:
    assert evaluate(POLICY, outcome(50, 6), outcome(400), "hello-00001") == (
        "12.0 % of 50 requests failed, compared with 0.0 % of 400 of hello-00001; limit: +5 percentage points"
    )
    slow = evaluate(POLICY, outcome(50, seconds=0.4), outcome(400), "hello-00001")
    assert "p95 is" in slow
    assert "over 400 of hello-00001; limit: factor 2" in slow


@given(st.floats(1e-5, 3600))
def test_a_time_is_within_its_bucket(seconds: float) -> None:
    low, high = latency_bounds(latency_bucket(seconds))
    assert low * (1 - 1e-9) <= seconds <= high * (1 + 1e-9)


@given(TIMES, st.integers(1, 99))
def test_a_percentile_is_within_a_fifth_of_the_real_one(times: list[float], percent: int) -> None:
    ranked = sorted(times)
    exact = ranked[max(0, -(-len(ranked) * percent // 100) - 1)]
    assert exact / 1.2 - 1e-4 <= of(times).percentile(percent) <= exact * 1.2 + 1e-4


@given(TIMES, TIMES)
def test_the_same_or_faster_is_never_worse(times: list[float], errors: list[float]) -> None:
    both = of(times)
    policy = RollbackPolicy(0.0, ((50, 1.0), (95, 1.0)), requests=1)
    assert evaluate(policy, both, both, "old") == ""
    assert evaluate(policy, of([seconds / 2 for seconds in times]), both, "old") == ""


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 50)), max_size=50), st.floats(1, 60))
def test_a_window_counts_what_is_in_it(steps: list[tuple[float, int]], window: float) -> None:
    outcomes, now = Outcomes(60.0), 0.0
    rows = []
    for seconds, answers in steps:
        now += seconds
        rows.append((now, answers))
        outcomes.record(now, outcome(answers))
    total = outcomes.over(now, window)
    assert total.answers == sum(answers for at, answers in rows if now - at <= window) == sum(total.latency.values())


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("error-rate>5%", RollbackPolicy(5.0)),
        (" p95 > 2x , error-rate>0.5% ", RollbackPolicy(0.5, ((95, 2.0),))),
        ("p99>1.5x,p50>3x,requests>=100,window=5m", RollbackPolicy(None, ((50, 3.0), (99, 1.5)), 100, 300.0)),
    ],
)
def test_a_policy_is_read(text: str, policy: RollbackPolicy) -> None:
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not one of"),
        ("requests>=5", "must contain error-rate>N% or pNN>Fx"),
        ("error-rate>5", "is not one of"),
        ("error-rate>500%", "not between 0 and 100"),
        ("p0>2x", "not between 1 and 99"),
        ("p95>0.5x", "not between 1 and 1000"),
        ("error-rate>5%,window=1s", "not between 5 and 3600"),
        ("error-rate>5%,window=long", "is not a duration"),
        ("error-rate>5%,requests>=0", "is not one of"),
    ],
)
def test_an_invalid_policy_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_policy(text)
