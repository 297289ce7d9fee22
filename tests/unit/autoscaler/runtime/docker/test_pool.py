"""How many sandboxes are made ahead, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.docker.pool import (
    BASE,
    BURST_SECONDS,
    HUNGRY_SECONDS,
    MEMORY_SECONDS,
    QUIET_SECONDS,
    step,
    wanted,
)

starts = st.lists(st.floats(0, 1000), max_size=60).map(sorted)


@given(bound=st.integers(0, 64), at=starts)
def test_the_pool_stays_within_its_bound_and_never_below_its_base(bound: int, at: list[float]) -> None:
    assert min(bound, BASE) <= wanted(bound, at, 1000.0) <= bound


@given(at=starts)
def test_the_largest_burst_decides(at: list[float]) -> None:
    recent = [one for one in at if 1000.0 - one <= MEMORY_SECONDS]
    largest = max((sum(one <= other <= one + BURST_SECONDS for other in recent) for one in recent), default=0)
    assert wanted(1000, at, 1000.0) == max(BASE, largest)


@given(bound=st.integers(0, 64), at=starts, asleep=st.integers(0, 99))
def test_whoever_may_be_woken_finds_a_sandbox_within_the_bound(bound: int, at: list[float], asleep: int) -> None:
    assert wanted(bound, at, 1000.0, asleep) == max(wanted(bound, at, 1000.0), min(bound, asleep))


@given(bound=st.integers(0, 64), at=starts)
def test_old_bursts_are_forgotten(bound: int, at: list[float]) -> None:
    assert wanted(bound, at, 1000.0 + MEMORY_SECONDS + 1) == min(bound, BASE)


@given(
    spare=st.integers(0, 9),
    want=st.integers(0, 9),
    starting=st.integers(0, 9),
    quiet=st.floats(0, 10),
    short=st.floats(0, HUNGRY_SECONDS, exclude_max=True),
)
def test_no_sandbox_is_made_beside_a_start(spare: int, want: int, starting: int, quiet: float, short: float) -> None:
    what = step(spare=spare, want=want, starting=starting, quiet_for=quiet, short_for=short)
    if starting or quiet < QUIET_SECONDS:
        assert what != "make"


@given(spare=st.integers(0, 9), want=st.integers(0, 9))
def test_steps_lead_to_what_is_wanted_and_then_end(spare: int, want: int) -> None:
    for _ in range(20):
        match step(spare=spare, want=want, starting=0, quiet_for=QUIET_SECONDS, short_for=0.0):
            case "make":
                spare += 1
            case "drop":
                spare -= 1
            case "wait":
                break
    assert spare == want


@pytest.mark.parametrize(("short_for", "what"), [(0.0, "wait"), (HUNGRY_SECONDS, "make")])
def test_starts_that_never_pause_do_not_starve_the_pool(short_for: float, what: str) -> None:
    assert step(spare=0, want=2, starting=5, quiet_for=0.0, short_for=short_for) == what
