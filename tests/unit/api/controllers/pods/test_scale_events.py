"""Changes of scale become Events, at a bounded rate."""

from hypothesis import given
from hypothesis import strategies as st

from api.controllers.pods.scale_events import BURST, REFILL_SECONDS, ScaleEvents
from knoll.messages.scale import ScaleChange, ScaleStatus

KEY = "default/hello-00001"


def status(*wants: int, uid: str = "u") -> ScaleStatus:
    changes = tuple(ScaleChange(float(index), want, f"{want} wanted") for index, want in enumerate(wants))
    return ScaleStatus(uid, wants[-1] if wants else 0, 0, True, "True", changes=changes)


def test_each_change_after_the_initial_scale_is_reported_once() -> None:
    events = ScaleEvents()
    assert events.next_message(KEY, status(1), 0.0) is None
    assert events.next_message(KEY, status(1, 4), 1.0) == "Scaled from 1 to 4 instances: 4 wanted"
    assert events.next_message(KEY, status(1, 4), 2.0) is None
    assert events.next_message(KEY, status(1, 4, 0), 3.0) == "Scaled from 4 to 0 instances: 0 wanted"


def test_an_earlier_scale_is_not_reported_again() -> None:
    events = ScaleEvents()
    events.mark_reported(KEY, status(1, 4), 0.0)
    assert events.next_message(KEY, status(1, 4), 0.0) is None
    assert events.next_message(KEY, status(1, 4, 2), 0.0) == "Scaled from 4 to 2 instances: 2 wanted"


def test_another_revision_of_the_same_name_starts_over() -> None:
    events = ScaleEvents()
    events.mark_reported(KEY, status(1, 4), 0.0)
    assert events.next_message(KEY, status(1, uid="other"), 1.0) is None
    events.forget(KEY)
    assert events.next_message(KEY, status(1), 1.0) is None


def test_unreported_changes_are_counted_in_the_next_event() -> None:
    events = ScaleEvents()
    events.mark_reported(KEY, status(0), 0.0)
    messages = [events.next_message(KEY, status(*range(count + 2)), 0.0) for count in range(BURST + 3)]
    assert [message is not None for message in messages] == [True] * BURST + [False] * 3
    last = events.next_message(KEY, status(*range(BURST + 5)), REFILL_SECONDS)
    assert last is not None
    assert last.endswith("(3 earlier changes were not reported)")


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 5)), max_size=80))
def test_never_more_than_the_burst_and_what_time_refills(steps: list[tuple[float, int]]) -> None:
    events, now, emitted, wants = ScaleEvents(), 0.0, 0, [0]
    events.mark_reported(KEY, status(0), now)
    for seconds, want in steps:
        now += seconds
        wants.append(want)
        emitted += events.next_message(KEY, status(*wants), now) is not None
    assert emitted <= BURST + now / REFILL_SECONDS
