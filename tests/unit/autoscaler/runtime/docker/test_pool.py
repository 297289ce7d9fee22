"""How many sandboxes are created ahead, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.docker.pool import (
    AFTER_START_SECONDS,
    BASE,
    BURST_SECONDS,
    MEMORY_SECONDS,
    OVERDUE_SECONDS,
    next_step,
    target_size,
)

starts = st.lists(st.floats(0, 1000), max_size=60).map(sorted)


@given(bound=st.integers(0, 64), at=starts)
def test_the_pool_stays_within_its_bound_and_never_below_its_base(bound: int, at: list[float]) -> None:
    assert min(bound, BASE) <= target_size(bound, at, 1000.0) <= bound


@given(at=starts)
def test_the_largest_burst_decides(at: list[float]) -> None:
    recent = [start for start in at if 1000.0 - start <= MEMORY_SECONDS]
    largest = max((sum(first <= start <= first + BURST_SECONDS for start in recent) for first in recent), default=0)
    assert target_size(1000, at, 1000.0) == max(BASE, largest)


@given(bound=st.integers(0, 64), at=starts, warm_demand=st.integers(0, 99))
def test_each_revision_that_may_wake_has_a_sandbox_within_the_bound(
    bound: int, at: list[float], warm_demand: int
) -> None:
    assert target_size(bound, at, 1000.0, warm_demand) == max(target_size(bound, at, 1000.0), min(bound, warm_demand))


@given(bound=st.integers(0, 64), at=starts)
def test_old_bursts_are_forgotten(bound: int, at: list[float]) -> None:
    assert target_size(bound, at, 1000.0 + MEMORY_SECONDS + 1) == min(bound, BASE)


@given(
    spare=st.integers(0, 9),
    target=st.integers(0, 9),
    starting=st.integers(0, 9),
    quiet=st.floats(0, 10),
    short=st.floats(0, OVERDUE_SECONDS, exclude_max=True),
)
def test_no_sandbox_is_created_beside_a_start(
    spare: int, target: int, starting: int, quiet: float, short: float
) -> None:
    action = next_step(spare=spare, target=target, starting=starting, quiet_for=quiet, short_for=short)
    if starting or quiet < AFTER_START_SECONDS:
        assert action != "create"


@given(spare=st.integers(0, 9), target=st.integers(0, 9))
def test_steps_lead_to_the_target_and_then_end(spare: int, target: int) -> None:
    for _ in range(20):
        match next_step(spare=spare, target=target, starting=0, quiet_for=AFTER_START_SECONDS, short_for=0.0):
            case "create":
                spare += 1
            case "remove":
                spare -= 1
            case "wait":
                break
    assert spare == target


@pytest.mark.parametrize(("short_for", "action"), [(0.0, "wait"), (OVERDUE_SECONDS, "create")])
def test_starts_that_never_pause_do_not_starve_the_pool(short_for: float, action: str) -> None:
    assert next_step(spare=0, target=2, starting=5, quiet_for=0.0, short_for=short_for) == action
