"""Keys that change several times in quick succession are handled once, and soon."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from api.controllers.pods.settling import SettlingKeys

QUIET, LONGEST = 0.3, 1.0
steps = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.5)), max_size=30)
"""Changes: the key, and the pause before it."""


def handled(changes: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    """When each key is handled by a loop that wakes up exactly when a key is due."""
    keys, now, times = SettlingKeys(LONGEST), 0.0, dict[str, list[float]]()

    def run(until: float) -> None:
        while (at := keys.next_due()) is not None and at <= until:
            for key in keys.take(at):
                times.setdefault(key, []).append(at)

    for key, pause in changes:
        now += pause
        run(now)
        keys.changed(key, now, QUIET)
    run(now + LONGEST)
    assert len(keys) == 0
    return times


def moments(changes: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    now, result = 0.0, dict[str, list[float]]()
    for key, pause in changes:
        now += pause
        result.setdefault(key, []).append(now)
    return result


@given(steps)
def test_each_change_is_handled_after_it_and_in_time(changes: Sequence[tuple[str, float]]) -> None:
    times = handled(changes)
    for key, at in moments(changes).items():
        for moment in at:
            after = min(each for each in times[key] if each >= moment)
            assert after - moment <= LONGEST + 1e-9


@given(steps)
def test_a_key_is_handled_only_when_it_was_quiet_or_waited_for_long(changes: Sequence[tuple[str, float]]) -> None:
    for key, at in handled(changes).items():
        before = 0.0
        for moment in at:
            covered = [each for each in moments(changes)[key] if before <= each < moment]
            assert covered, "handled without a change"
            assert moment - covered[-1] >= QUIET - 1e-9 or moment - covered[0] >= LONGEST - 1e-9
            before = moment


def test_a_burst_is_handled_once() -> None:
    assert len(handled([("a", 0.1)] * 5)["a"]) == 1


def test_a_key_that_was_handled_otherwise_is_not_due() -> None:
    keys = SettlingKeys(LONGEST)
    keys.changed("a", 0.0, QUIET)
    keys.forget("a")
    assert keys.next_due() is None
    assert keys.take(10.0) == []
