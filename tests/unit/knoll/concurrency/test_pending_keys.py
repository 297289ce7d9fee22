"""Marks coalesce: a key that is marked several times before its turn is processed once."""

import asyncio

from knoll.concurrency.pending_keys import PendingKeys


async def test_a_batch_has_each_marked_key_once_in_order() -> None:
    pending = PendingKeys[str]()
    pending.mark("b")
    pending.mark("a", "b")
    assert await pending.batch() == ["b", "a"]
    assert not len(pending)


async def test_marks_while_a_batch_gathers_belong_to_it() -> None:
    pending = PendingKeys[str](0.01)
    pending.mark("a")
    taking = asyncio.create_task(pending.batch())
    await asyncio.sleep(0)
    pending.mark("b")
    assert await taking == ["a", "b"]


async def test_a_batch_waits_for_a_mark() -> None:
    pending = PendingKeys[str]()
    pending.mark()
    taking = asyncio.create_task(pending.batch())
    await asyncio.sleep(0)
    assert not taking.done()
    pending.mark("a")
    assert await taking == ["a"]


async def test_a_mark_after_a_batch_starts_another() -> None:
    pending = PendingKeys[str]()
    pending.mark("a")
    await pending.batch()
    pending.mark("a")
    assert await pending.batch() == ["a"]


async def test_keys_that_failed_come_before_later_ones() -> None:
    pending = PendingKeys[str]()
    pending.mark("c", "b")
    pending.mark_first(["a", "b"])
    assert await pending.batch() == ["a", "b", "c"]


async def test_keys_are_taken_one_at_a_time() -> None:
    pending = PendingKeys[str]()
    pending.mark("a", "b")
    assert [await pending.next(), await pending.next()] == ["a", "b"]
    taking = asyncio.create_task(pending.next())
    await asyncio.sleep(0)
    assert not taking.done()
    pending.mark("c")
    assert await taking == "c"
