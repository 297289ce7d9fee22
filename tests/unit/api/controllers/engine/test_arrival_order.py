"""Services become ready in the order in which they arrive."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.controllers.engine.arrival_order import ArrivalOrder, Rank, root_of
from api.controllers.engine.work_queue import WorkQueue
from api.controllers.reconciler.actions import ObjectKey
from knoll.values import kinds

STEPS = (kinds.SERVICE.id, kinds.REVISION.id, kinds.CONFIGURATION.id, kinds.ROUTE.id, kinds.SERVICE.id)
"""The objects whose reconciliations take a Service to Ready, each adding the next."""


async def finished(arrivals: Sequence[int]) -> list[str]:
    """Names of Services in the order in which they are done.

    Args: arrivals: for each Service, how many reconciliations took place before it was applied.
    """
    order = ArrivalOrder()

    def rank(key: ObjectKey, in_background: bool) -> Rank:
        return order.rank(root_of(key, key[2]), in_background=in_background)

    queue = WorkQueue(rank=rank)
    waiting = sorted(zip(arrivals, (f"s{number:03d}" for number in range(len(arrivals))), strict=True))
    progress: dict[str, int] = {}
    done: list[str] = []
    turn = 0
    while waiting or len(queue):
        while waiting and (waiting[0][0] <= turn or not len(queue)):
            queue.add((STEPS[0], "default", waiting.pop(0)[1]))
        key = await queue.get()
        turn += 1
        name = key[2]
        progress[name] = progress.get(name, 0) + 1
        if progress[name] == len(STEPS):
            done.append(name)
            order.settled(root_of(key, name))
        else:
            queue.add((STEPS[progress[name]], "default", name))
        queue.done(key)
    assert len(order) == 0
    return done


@pytest.mark.asyncio
async def test_with_a_backlog_the_oldest_service_is_finished_first() -> None:
    burst = [0] * 50
    assert await finished(burst) == [f"s{number:03d}" for number in range(50)]


@pytest.mark.asyncio
async def test_an_early_service_is_ready_long_before_the_backlog_is_empty() -> None:
    arrivals = list(range(100))
    ordered = await finished(arrivals)
    assert ordered == sorted(ordered)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_services_are_finished_in_the_order_of_their_arrival(arrivals: Sequence[int]) -> None:
    done = asyncio.run(finished(arrivals))
    by_name = {f"s{number:03d}": at for number, at in enumerate(arrivals)}
    assert done == sorted(by_name, key=lambda name: (by_name[name], name))


def test_a_settled_service_arrives_anew_with_its_next_change() -> None:
    order = ArrivalOrder()
    first, second = order.rank(("default", "a")), order.rank(("default", "b"))
    assert first < second
    assert order.rank(("default", "a")) == first
    order.settled(("default", "a"))
    assert order.rank(("default", "a")) > second


def test_what_is_only_checked_comes_after_everything_that_changed() -> None:
    order = ArrivalOrder()
    checked = order.rank(("default", "old"), in_background=True)
    assert order.rank(("default", "new")) < checked
    assert len(order) == 1, "a check is no arrival"


@pytest.mark.asyncio
async def test_a_check_that_becomes_a_change_moves_forward() -> None:
    order = ArrivalOrder()
    queue = WorkQueue(rank=lambda key, in_background: order.rank(root_of(key, key[2]), in_background=in_background))
    a, b, c = ((kinds.SERVICE.id, "default", name) for name in "abc")
    queue.add(a, in_background=True)
    queue.add(b)
    queue.add(c, in_background=True)
    queue.add(c)
    assert [await queue.get() for _ in range(3)] == [b, c, a]
    assert len(queue) == 0
