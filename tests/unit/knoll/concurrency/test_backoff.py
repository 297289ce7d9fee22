"""Pauses grow with each failure in a row, and start again after a success."""

from itertools import pairwise

from knoll.concurrency.backoff import PAUSES, Backoff


def test_pauses_grow_and_the_last_one_repeats() -> None:
    backoff = Backoff((0.1, 0.5, 2.0))
    assert [backoff.next_pause() for _ in range(5)] == [0.1, 0.5, 2.0, 2.0, 2.0]


def test_a_success_starts_again_with_the_shortest_pause() -> None:
    backoff = Backoff((0.1, 0.5))
    backoff.next_pause()
    backoff.next_pause()
    backoff.reset()
    assert backoff.next_pause() == 0.1


def test_the_default_pauses_grow() -> None:
    assert all(shorter < longer for shorter, longer in pairwise(PAUSES))
