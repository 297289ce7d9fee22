"""How many starts run at once."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.docker.limiter import Limiter, limit_for


class Crowd:
    """Tasks that hold a slot until they are released."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter, self.inside, self.order = limiter, dict[int, asyncio.Event](), list[int]()

    def enter(self, number: int) -> asyncio.Task[None]:
        return asyncio.create_task(self._hold(number))

    async def _hold(self, number: int) -> None:
        async with self.limiter.slot():
            self.order.append(number)
            go = self.inside[number] = asyncio.Event()
            await go.wait()
            del self.inside[number]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@given(limit=st.integers(1, 5), count=st.integers(0, 12))
async def test_calls_get_their_turns_in_order_and_never_too_many_at_once(limit: int, count: int) -> None:
    crowd = Crowd(Limiter(limit))
    tasks = [crowd.enter(number) for number in range(count)]
    await settle()
    while crowd.inside:
        assert len(crowd.inside) <= limit
        crowd.inside[min(crowd.inside)].set()
        await settle()
    assert crowd.order == list(range(count))
    await asyncio.gather(*tasks)


async def test_a_larger_limit_lets_more_in_at_once() -> None:
    crowd = Crowd(Limiter(1))
    tasks = [crowd.enter(number) for number in range(3)]
    await settle()
    assert len(crowd.inside) == 1
    crowd.limiter.resize(3)
    await settle()
    assert len(crowd.inside) == 3
    for release in list(crowd.inside.values()):
        release.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("ended_first", [True, False])
async def test_a_cancelled_waiter_takes_no_turn(ended_first: bool) -> None:
    crowd = Crowd(Limiter(1))
    tasks = [crowd.enter(number) for number in range(3)]
    await settle()
    if ended_first:  # the turn is given and taken back in one go of the loop
        crowd.inside[0].set()
        await asyncio.sleep(0)
    tasks[1].cancel()
    await settle()
    if not ended_first:
        crowd.inside[0].set()
        await settle()
    assert 2 in crowd.inside
    crowd.inside[2].set()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(("cores", "limit"), [(0.5, 2), (1, 2), (2, 4), (16, 32)])
def test_the_limit_follows_the_engines_cores(cores: float, limit: int) -> None:
    assert limit_for(cores) == limit
