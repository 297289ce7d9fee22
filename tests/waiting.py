"""Waiting for a condition with a deadline; no test waits for a duration."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE = 0.02


async def eventually(check: Callable[[], Awaitable[T] | T], within: float = 30.0, what: str = "the condition") -> T:
    """Call `check` until it returns something truthy without raising AssertionError; return that.

    Args:
        check: plain or async function.
        within: seconds after which the test fails with the last AssertionError or value.
    """
    deadline = time.monotonic() + within
    while True:
        last: object
        try:
            found = check()
            value = await found if isinstance(found, Awaitable) else found
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {within} s; last: {last!r}")
        await asyncio.sleep(_PAUSE)


def eventually_sync(check: Callable[[], T], within: float = 30.0, what: str = "the condition") -> T:
    """The same for tests without an event loop."""
    deadline = time.monotonic() + within
    while True:
        last: object
        try:
            value = check()
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {within} s; last: {last!r}")
        time.sleep(_PAUSE)
