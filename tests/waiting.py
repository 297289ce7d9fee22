"""Waiting for a condition with a deadline; no test waits for a duration."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")
_PAUSE = 0.02


@overload
async def eventually(
    check: Callable[[], Awaitable[T]], within: float = 30.0, condition: str = "the condition"
) -> T: ...
@overload
async def eventually(check: Callable[[], T], within: float = 30.0, condition: str = "the condition") -> T: ...
async def eventually(
    check: Callable[[], Awaitable[T]] | Callable[[], T], within: float = 30.0, condition: str = "the condition"
) -> T:
    """Call `check` until it returns a truthy value without raising AssertionError.

    Args:
        check: plain or async function.
        within: seconds after which the test fails with the last AssertionError or value.
        condition: what the failure says did not hold.

    Returns:
        The truthy value.
    """
    deadline = time.monotonic() + within
    while True:
        last: object
        try:
            outcome = check()
            value = await outcome if isinstance(outcome, Awaitable) else outcome
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{condition} did not hold within {within} s; last: {last!r}")
        await asyncio.sleep(_PAUSE)


def eventually_sync(check: Callable[[], T], within: float = 30.0, condition: str = "the condition") -> T:
    """Like `eventually`, for tests without an event loop."""
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
            raise AssertionError(f"{condition} did not hold within {within} s; last: {last!r}")
        time.sleep(_PAUSE)
