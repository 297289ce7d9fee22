"""Ends a process in good order at SIGTERM or SIGINT."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine


async def until_stopped(work: Coroutine[object, object, None]) -> None:
    """Run the work of a process; SIGTERM and SIGINT cancel it. Raises: what `work` raises."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
