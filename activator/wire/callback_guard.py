"""Handles exceptions in callbacks of protocols: they are logged, end the connection, and never reach the event loop."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import structlog

log = structlog.get_logger()


class GuardedProtocol(Protocol):
    """A protocol of asyncio that can be ended."""

    def abort_on_error(self) -> None:
        """An unexpected exception was raised: end the connection."""
        ...


S = TypeVar("S", bound=GuardedProtocol)
P = ParamSpec("P")


def guarded(callback: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Decorate a callback of a protocol."""

    @functools.wraps(callback)
    def wrapper(self: S, /, *args: P.args, **options: P.kwargs) -> None:
        try:
            callback(self, *args, **options)
        except Exception as error:
            report_error(self, callback.__qualname__, error)

    return wrapper


def report_error(protocol: GuardedProtocol, place: str, error: Exception) -> None:
    """Log an exception and end its connection. Called in an `except`."""
    log.exception("connection callback failed", place=place, error=repr(error))
    try:
        protocol.abort_on_error()
    except Exception as again:
        log.exception("connection clean-up failed", place=place, error=repr(again))
