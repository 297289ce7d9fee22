"""Pauses before a container is started again."""

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.instances.restart_backoff import RESET_SECONDS, RESTART_PAUSES, Restarts, ended


def test_the_first_start_is_at_once_and_each_further_one_later_up_to_five_minutes() -> None:
    restarts, now, pauses = Restarts(), 1e9, []
    for _ in range(9):
        pause, restarts = ended(restarts, now)
        pauses.append(pause)
        now += pause
    assert pauses == [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


def test_the_back_off_of_a_steady_container_starts_again() -> None:
    _, restarts = ended(Restarts(), 1000.0)
    _, restarts = ended(restarts, 1001.0)
    pause, after = ended(restarts, restarts.last + RESET_SECONDS)
    assert (pause, after.count) == (0.0, 1)


@given(st.lists(st.floats(0, 700), max_size=30))
def test_pauses_are_those_of_the_table_and_never_shrink_without_a_steady_time(lives: list[float]) -> None:
    restarts, now, before = Restarts(), 1e9, -1.0
    for life in lives:
        now += life
        pause, restarts = ended(restarts, now)
        assert pause in RESTART_PAUSES
        assert life >= RESET_SECONDS or pause >= before
        before, now = pause, now + pause
