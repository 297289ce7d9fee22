"""Waking the watchers of recent events: all of them, a bounded number in each turn of the loop."""

import asyncio
from itertools import pairwise

import pytest

from knoll.store import event_buffer
from knoll.store.event_buffer import EventBuffer
from knoll.store.rules import Record


def record(version: int, resource: str = "configmaps") -> Record:
    return Record(version, "ADDED", resource, b"{}")


async def test_every_watcher_is_woken_and_others_get_their_turn_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_buffer, "WAKE_BATCH", 10)
    events = EventBuffer(100)
    events.start(0)
    woken: list[int] = []

    async def watch(number: int) -> None:
        await events.wait_for_change()
        woken.append(number)

    watchers = [asyncio.create_task(watch(number)) for number in range(95)]
    await asyncio.sleep(0)
    events.append([record(1)])
    seen = []
    while len(woken) < 95:
        await asyncio.sleep(0)
        seen.append(len(woken))
    assert woken == list(range(95))
    assert max(after - before for before, after in pairwise(seen)) <= 10
    await asyncio.gather(*watchers)


async def test_a_watcher_that_comes_while_others_are_woken_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_buffer, "WAKE_BATCH", 1)
    events = EventBuffer(100)
    events.start(0)
    positions = dict.fromkeys(range(20), 0)

    async def watch(number: int) -> None:
        while positions[number] < 5:
            if not events.after(positions[number]):
                await events.wait_for_change()
            for record in events.after(positions[number]) or ():
                assert record.version == positions[number] + 1
                positions[number] = record.version

    watchers = [asyncio.create_task(watch(number)) for number in positions]
    for version in range(1, 6):
        await asyncio.sleep(0)
        events.append([record(version)])
    await asyncio.wait_for(asyncio.gather(*watchers), 10)


async def test_a_watcher_that_leaves_is_forgotten() -> None:
    events = EventBuffer(100)
    waiting = asyncio.create_task(events.wait_for_change())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not events._waiting


async def test_a_watcher_is_woken_by_the_kinds_it_waits_for_only_and_may_skip_the_others() -> None:
    events = EventBuffer(2)
    events.start(0)
    waiting = asyncio.create_task(events.wait_for_change({"secrets"}))
    await asyncio.sleep(0)
    for version in range(1, 10):
        events.append([record(version)])
        await asyncio.sleep(0)
    assert not waiting.done()
    events.append([record(10), record(11, "secrets")])
    assert await waiting == 9
    assert [each.version for each in events.after(9) or ()] == [10, 11]


async def test_a_buffer_that_stops_wakes_all_watchers() -> None:
    events = EventBuffer(100)
    events.start(3)
    waiting = [asyncio.create_task(events.wait_for_change(kinds)) for kinds in (None, {"secrets"})]
    await asyncio.sleep(0)
    events.stop()
    assert await asyncio.gather(*waiting) == [3, 3]
