"""Which resting instances go down a rung."""

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.idle_policy import Descent, Resting, Timers, descend, wake_order

HOUR = Timers(3600.0, 3600.0)
MIB = 1024**2


def paused(name: str, since: float = 0.0, memory: int = MIB, timers: Timers = HOUR) -> Resting:
    return Resting(name, "paused", since, memory, timers)


def stopped(name: str, since: float = 0.0, timers: Timers = HOUR) -> Resting:
    return Resting(name, "stopped", since, 0, timers)


@st.composite
def resters(draw: st.DrawFn) -> list[Resting]:
    seconds = st.floats(0, 1000)
    timers = st.builds(Timers, seconds, seconds)
    count = draw(st.integers(0, 8))
    return [
        Resting(f"i{at}", draw(st.sampled_from(("paused", "stopped"))), draw(seconds), draw(st.integers(0, 100)),
                draw(timers))
        for at in range(count)
    ]  # fmt: skip


def test_without_timers_what_is_let_go_is_removed_as_knative_does() -> None:
    assert Timers().first is None


def test_each_rung_is_left_out_by_itself() -> None:
    assert Timers(10, 0).first == "paused"
    assert Timers(0, 10).first == "stopped"


def test_what_was_paused_for_its_time_is_stopped_and_then_removed() -> None:
    timers = Timers(10, 20)
    assert descend([paused("a", timers=timers)], MIB, 9.9) == []
    assert descend([paused("a", timers=timers)], MIB, 10.0) == [Descent("a", "stopped", "time")]
    assert descend([stopped("a", since=10, timers=timers)], MIB, 29.9) == []
    assert descend([stopped("a", since=10, timers=timers)], MIB, 30.0) == [Descent("a", "removed", "time")]


def test_without_a_stopped_rung_it_is_removed_after_its_pause() -> None:
    assert descend([paused("a", timers=Timers(10, 0))], MIB, 10.0) == [Descent("a", "removed", "time")]


def test_under_pressure_the_longest_paused_go_first() -> None:
    resting = [paused("new", since=3), paused("old", since=1), paused("middle", since=2)]
    assert descend(resting, MIB, 4.0) == [Descent("old", "stopped", "memory"), Descent("middle", "stopped", "memory")]


def test_what_serves_again_soonest_is_woken_first() -> None:
    assert wake_order([stopped("s", 9), paused("early", 1), paused("late", 5)]) == ["late", "early", "s"]


@given(resting=resters(), bound=st.integers(0, 500), now=st.floats(0, 3000))
def test_what_stays_paused_is_within_its_time_and_the_bound(resting: list[Resting], bound: int, now: float) -> None:
    steps = {one.name: one for one in descend(resting, bound, now)}
    assert len(steps) == len(descend(resting, bound, now))
    stays = [one for one in resting if one.name not in steps]
    assert sum(one.memory_bytes for one in stays if one.rung == "paused") <= bound
    for one in stays:
        kept = one.timers.paused_seconds if one.rung == "paused" else one.timers.stopped_seconds
        assert now - one.since < kept


@given(resting=resters(), bound=st.integers(0, 500), now=st.floats(0, 3000))
def test_for_memory_nobody_goes_before_one_that_was_paused_for_longer(
    resting: list[Resting], bound: int, now: float
) -> None:
    by_name = {one.name: one for one in resting}
    steps = descend(resting, bound, now)
    gone = {one.name for one in steps}
    for step in steps:
        if step.why != "memory":
            continue
        longer = [one for one in resting if one.rung == "paused" and one.since < by_name[step.name].since]
        assert all(one.name in gone or not one.memory_bytes for one in longer)
