"""Events of an instance: repeated ones are counted, and there are never too many."""

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.instances.events import BURST, MAX_KEPT, REFILL_SECONDS, InstanceEvents
from knoll.messages.instances import InstanceEvent


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


def test_a_repeated_event_is_counted_and_listed_last() -> None:
    events = InstanceEvents(Clock())
    events.unhealthy("Readiness probe failed: a")
    events.killing("app", "liveness")
    events.unhealthy("Readiness probe failed: a")
    assert events.kept == (
        InstanceEvent("Normal", "Killing", "Container app failed liveness probe, will be restarted"),
        InstanceEvent("Warning", "Unhealthy", "Readiness probe failed: a", 2),
    )


@given(gaps=st.lists(st.floats(0, 400), max_size=80))
def test_a_burst_is_let_through_and_then_one_in_five_minutes(gaps: list[float]) -> None:
    clock = Clock()
    events = InstanceEvents(clock)
    accepted = 0
    for gap in gaps:
        clock.now += gap
        accepted += events.unhealthy("Readiness probe failed: a")
    assert accepted <= BURST + sum(gaps) / REFILL_SECONDS
    assert accepted >= min(len(gaps), BURST)
    assert sum(event.count for event in events.kept) == accepted


@given(st.lists(st.integers(0, 30), max_size=25))
def test_the_newest_messages_are_kept(numbers: list[int]) -> None:
    events = InstanceEvents(Clock())
    for number in numbers:
        events.unhealthy(str(number))
    newest = list(dict.fromkeys(reversed(numbers)))[:MAX_KEPT]
    assert [event.message for event in reversed(events.kept)] == [str(number) for number in newest]
