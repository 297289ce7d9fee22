"""Which idle instances step down."""

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision.idle_policy import IdleInstance, Retention, StepDown, step_down, wake_order

HOUR = Retention(3600.0, 3600.0)
MIB = 1024**2


def paused(name: str, since: float = 0.0, memory: int = MIB, retention: Retention = HOUR) -> IdleInstance:
    return IdleInstance(name, "paused", since, memory, retention)


def stopped(name: str, since: float = 0.0, retention: Retention = HOUR) -> IdleInstance:
    return IdleInstance(name, "stopped", since, 0, retention)


@st.composite
def idle_instances(draw: st.DrawFn) -> list[IdleInstance]:
    seconds = st.floats(0, 1000)
    retention = st.builds(Retention, seconds, seconds)
    count = draw(st.integers(0, 8))
    return [
        IdleInstance(f"i{at}", draw(st.sampled_from(("paused", "stopped"))), draw(seconds), draw(st.integers(0, 100)),
                draw(retention))
        for at in range(count)
    ]  # fmt: skip


def test_without_retention_an_instance_is_removed_as_in_knative() -> None:
    assert Retention().first is None


def test_each_idle_state_can_be_skipped() -> None:
    assert Retention(10, 0).first == "paused"
    assert Retention(0, 10).first == "stopped"


def test_what_was_paused_for_its_time_is_stopped_and_then_removed() -> None:
    retention = Retention(10, 20)
    assert step_down([paused("a", retention=retention)], MIB, 9.9) == []
    assert step_down([paused("a", retention=retention)], MIB, 10.0) == [StepDown("a", "stopped", "time")]
    assert step_down([stopped("a", since=10, retention=retention)], MIB, 29.9) == []
    assert step_down([stopped("a", since=10, retention=retention)], MIB, 30.0) == [StepDown("a", "removed", "time")]


def test_without_stopped_retention_it_is_removed_after_its_pause() -> None:
    assert step_down([paused("a", retention=Retention(10, 0))], MIB, 10.0) == [StepDown("a", "removed", "time")]


def test_under_pressure_the_longest_paused_go_first() -> None:
    idle = [paused("new", since=3), paused("old", since=1), paused("middle", since=2)]
    assert step_down(idle, MIB, 4.0) == [StepDown("old", "stopped", "memory"), StepDown("middle", "stopped", "memory")]


def test_the_fastest_to_wake_is_woken_first() -> None:
    assert wake_order([stopped("s", 9), paused("early", 1), paused("late", 5)]) == ["late", "early", "s"]


@given(idle=idle_instances(), bound=st.integers(0, 500), now=st.floats(0, 3000))
def test_what_stays_paused_is_within_its_time_and_the_bound(idle: list[IdleInstance], bound: int, now: float) -> None:
    steps = {step.name: step for step in step_down(idle, bound, now)}
    assert len(steps) == len(step_down(idle, bound, now))
    stays = [instance for instance in idle if instance.name not in steps]
    assert sum(instance.memory_bytes for instance in stays if instance.state == "paused") <= bound
    for instance in stays:
        kept = instance.retention.paused_seconds if instance.state == "paused" else instance.retention.stopped_seconds
        assert now - instance.since < kept


@given(idle=idle_instances(), bound=st.integers(0, 500), now=st.floats(0, 3000))
def test_for_memory_the_instance_paused_for_longest_is_stopped_first(
    idle: list[IdleInstance], bound: int, now: float
) -> None:
    by_name = {instance.name: instance for instance in idle}
    steps = step_down(idle, bound, now)
    gone = {step.name for step in steps}
    for step in steps:
        if step.reason != "memory":
            continue
        longer = [
            instance for instance in idle if instance.state == "paused" and instance.since < by_name[step.name].since
        ]
        assert all(instance.name in gone or not instance.memory_bytes for instance in longer)
