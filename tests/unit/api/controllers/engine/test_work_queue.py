"""The queue: each key once, one worker a key, retries that back off."""

import asyncio

import looptime  # noqa: F401 (its plugin gives the marker)
import pytest

from api.controllers.engine.work_queue import FIRST_BACKOFF, LONGEST_BACKOFF, WorkQueue

A, B = ("services", "default", "a"), ("services", "default", "b")
pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


async def test_a_key_added_twice_is_given_out_once() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.add(A)
    queue.add(B)
    assert [await queue.get(), await queue.get()] == [A, B]
    assert queue.idle is False
    queue.done(A)
    queue.done(B)
    assert queue.idle


async def test_a_key_added_while_it_is_worked_on_comes_again_afterwards() -> None:
    queue = WorkQueue()
    queue.add(A)
    key = await queue.get()
    queue.add(A)
    assert len(queue) == 0, "never two workers for one key"
    queue.done(key)
    assert await queue.get() == A


async def test_a_waiting_worker_is_woken() -> None:
    queue = WorkQueue()
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    assert await worker == A


async def test_a_worker_that_is_cancelled_hands_its_wake_up_on() -> None:
    queue = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    first.cancel()
    assert await second == A
    assert first.cancelled()


async def test_a_later_key_comes_when_it_is_due() -> None:
    queue, loop = WorkQueue(), asyncio.get_running_loop()
    start = loop.time()
    queue.add_after(A, 5)
    queue.add_after(A, 9)
    assert await queue.get() == A
    assert loop.time() - start == pytest.approx(5)


async def test_a_key_that_is_wanted_now_does_not_come_again_for_an_earlier_wish() -> None:
    queue = WorkQueue()
    queue.add_after(A, 5)
    queue.add(A)
    queue.done(await queue.get())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 60)


async def test_retries_back_off_up_to_a_minute_and_begin_afresh_after_a_success() -> None:
    queue = WorkQueue(jitter=lambda: 0.0)
    waits = []
    for _ in range(15):
        waits.append(queue.retry(A))
        queue.done(await queue.get())
    assert waits[:4] == pytest.approx([FIRST_BACKOFF, FIRST_BACKOFF * 2, FIRST_BACKOFF * 4, FIRST_BACKOFF * 8])
    assert waits[-1] == LONGEST_BACKOFF
    queue.succeeded(A)
    assert queue.retry(A) == FIRST_BACKOFF
    queue.close()


async def test_retries_are_spread() -> None:
    queue = WorkQueue(jitter=lambda: 1.0)
    assert queue.retry(A) == pytest.approx(FIRST_BACKOFF * 1.5)
    queue.close()


async def test_a_closed_queue_gives_nothing_out() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.add_after(B, 1)
    queue.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 60)


async def test_a_key_that_is_reconciled_with_another_one_is_not_handed_out() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.add(B)
    assert queue.hold(A)
    assert await queue.get() == B
    assert not queue.hold(B), "a worker has it"
    assert not queue.hold(A), "held already"
    queue.add(A)
    assert len(queue) == 0
    queue.done(A)
    assert await queue.get() == A, "it changed while it was held"
