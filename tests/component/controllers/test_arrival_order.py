"""A backlog on a real Redis: Services become ready in the order in which they arrived."""

import asyncio
import random

import pytest

from api.controllers.reconciler import objects
from tests.component.controllers.test_controllers import CONFIGURATION, SERVICE, Platform, platform
from tests.waiting import eventually

pytestmark = pytest.mark.redis
__all__ = ["platform"]

SERVICES = 80
DISPLACEMENT = 20
"""How far a Service may be from its place: others may overtake one that waits for the builder or an activator."""


async def test_a_backlog_is_finished_in_the_order_of_its_arrival(platform: Platform) -> None:
    platform.edge.start()
    await platform.apply("first")
    await eventually(lambda: platform.is_ready("first"))
    since = (await platform.store.list(SERVICE.id)).version
    names = [f"s{number:03d}" for number in range(SERVICES)]
    random.Random(0).shuffle(names)  # so that the order of arrival differs from every other order
    ready: list[str] = []
    begun: dict[str, int] = {}
    """By name: how many Services were ready when the controllers began with this one."""

    async def follow() -> None:
        async for event in platform.store.watch(since, {SERVICE.id, CONFIGURATION.id}):
            name = event.body["metadata"]["name"]
            if event.resource == CONFIGURATION.id:
                begun.setdefault(name, len(ready))
            elif objects.is_ready(event.body) and name not in ready:
                ready.append(name)
                if len(ready) == len(names):
                    return

    following = asyncio.create_task(follow())
    await asyncio.gather(*(platform.apply(name) for name in names))
    async with asyncio.timeout(60):
        await following
    displaced = [abs(place - ready.index(name)) for place, name in enumerate(names)]
    assert max(displaced) <= DISPLACEMENT, ready
    assert begun[names[-1]] > 0, "the first was ready before anything was done for the last"
