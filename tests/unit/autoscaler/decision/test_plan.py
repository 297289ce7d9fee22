"""From how many to which."""

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.plan import Candidate, Plan, plan

candidates = st.lists(
    st.builds(Candidate, st.uuids().map(str), st.booleans(), st.integers(0, 9), st.floats(0, 100)),
    max_size=12,
    unique_by=lambda one: one.name,
)


def test_what_is_missing_is_started() -> None:
    assert plan(3, [Candidate("a", True, 0, 1.0)]) == Plan(start=2)


def test_what_is_not_ready_goes_first_then_the_least_loaded_then_the_youngest() -> None:
    there = [
        Candidate("old", True, 0, 1.0),
        Candidate("young", True, 0, 2.0),
        Candidate("busy", True, 5, 9.0),
        Candidate("booting", False, 0, 0.0),
    ]
    assert plan(0, there).let_go == ("booting", "young", "old", "busy")


@given(want=st.integers(0, 12), there=candidates)
def test_a_plan_carried_out_leaves_an_empty_plan(want: int, there: list[Candidate]) -> None:
    steps = plan(want, there)
    left = [one for one in there if one.name not in steps.let_go]
    left += [Candidate(f"new-{number}", False, 0, 200.0) for number in range(steps.start)]
    assert len(left) == want
    assert plan(want, left) == Plan()


@given(want=st.integers(0, 12), there=candidates)
def test_nothing_is_started_and_let_go_at_once(want: int, there: list[Candidate]) -> None:
    steps = plan(want, there)
    assert not (steps.start and steps.let_go)
