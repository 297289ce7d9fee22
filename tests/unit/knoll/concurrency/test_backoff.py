"""Pauses grow with each failure in a row, and start again after a success."""

from itertools import pairwise

import looptime  # noqa: F401 (its plugin gives the marker)
import pytest

from knoll.concurrency.backoff import PAUSES, Backoff, until_available
from knoll.values.errors import ConflictError, StoreUnavailableError


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


@pytest.mark.asyncio
@pytest.mark.looptime
async def test_a_call_is_repeated_until_it_succeeds() -> None:
    outcomes: list[Exception | str] = [StoreUnavailableError("Redis is away"), ConflictError("changed"), "done"]

    async def call() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert await until_available(call) == "done"
    assert not outcomes


async def test_an_error_that_is_not_expected_is_raised() -> None:
    calls = []

    async def call() -> None:
        calls.append(1)
        raise ConflictError("changed")

    with pytest.raises(ConflictError):
        await until_available(call, errors=(StoreUnavailableError,))
    assert len(calls) == 1
