"""Two hundred watchers and fifty writers at once: no watcher misses an event, and the API does not grow."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lib.crowd import Crowd
from tests.component.api.processes import ApiProcess
from tests.waiting import eventually

pytestmark = pytest.mark.redis

WATCHERS, WRITERS, SECONDS, ROUNDS = 200, 50, 2.0, 4
GROWTH_MIB = 40
"""For what a window of history and allocators keep; each round sends some 200,000 events, which no leak hides in."""


@pytest.fixture
def process(redis_url: str, tmp_path: Path) -> Iterator[ApiProcess]:
    with ApiProcess(redis_url, tmp_path) as running:
        yield running


async def test_every_watcher_sees_every_event_in_order_and_memory_stays_flat(process: ApiProcess) -> None:
    with Crowd(process.url).closing() as crowd:
        await crowd.watch(WATCHERS)
        resident = []
        for _ in range(ROUNDS):
            await crowd.write(WRITERS, SECONDS)
            await eventually(lambda: crowd.behind() <= 0, within=60, condition="the watchers")
            resident.append(await asyncio.to_thread(process.rss_mib))
        assert len(crowd.written) > WRITERS * ROUNDS
        assert crowd.faults() == []
        assert resident[-1] < resident[0] + GROWTH_MIB, resident
