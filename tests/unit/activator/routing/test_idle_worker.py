"""A worker without connections and instances has no timer."""

import asyncio
from typing import Any, cast

from activator.routing.proxy_state import ProxyState
from activator.sync.reporter import Reporter
from knoll.messages.endpoints import Endpoint, RevisionEndpoints
from knoll.redis.client import connect


def timers() -> int:
    loop = cast(Any, asyncio.get_running_loop())
    return sum(not handle.cancelled() for handle in loop._scheduled)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_idle_worker_has_no_timers_until_there_is_something_to_check() -> None:
    proxy = ProxyState("worker")
    reporting = asyncio.create_task(Reporter(proxy, connect("redis://localhost"), 1.0).run())
    proxy.start()
    await settle()
    assert timers() == 0
    proxy.change_endpoints("default/app", RevisionEndpoints((Endpoint("i", "127.0.0.1", 1),)))
    await settle()
    assert timers() == 2, "idle connections to it are closed, and its load is reported"
    reporting.cancel()
    await proxy.stop()
    await asyncio.gather(reporting, return_exceptions=True)
