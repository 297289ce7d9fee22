"""From a number of instances to the instances."""

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.plan import Candidate, Plan, plan

candidates = st.lists(
    st.builds(Candidate, st.uuids().map(str), st.booleans(), st.integers(0, 9), st.floats(0, 100)),
    max_size=12,
    unique_by=lambda candidate: candidate.name,
)


def test_what_is_missing_is_started() -> None:
    assert plan(3, [Candidate("a", True, 0, 1.0)]) == Plan(start=2)


def test_unready_instances_are_removed_first_then_the_least_loaded_then_the_youngest() -> None:
    instances = [
        Candidate("old", True, 0, 1.0),
        Candidate("young", True, 0, 2.0),
        Candidate("busy", True, 5, 9.0),
        Candidate("booting", False, 0, 0.0),
    ]
    assert plan(0, instances).release == ("booting", "young", "old", "busy")


@given(desired=st.integers(0, 12), instances=candidates)
def test_a_plan_carried_out_leaves_an_empty_plan(desired: int, instances: list[Candidate]) -> None:
    steps = plan(desired, instances)
    left = [instance for instance in instances if instance.name not in steps.release]
    left += [Candidate(f"new-{number}", False, 0, 200.0) for number in range(steps.start)]
    assert len(left) == desired
    assert plan(desired, left) == Plan()


@given(desired=st.integers(0, 12), instances=candidates)
def test_nothing_is_started_and_released_at_once(desired: int, instances: list[Candidate]) -> None:
    steps = plan(desired, instances)
    assert not (steps.start and steps.release)
