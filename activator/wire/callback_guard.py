"""No exception leaves a protocol's callback: a bug ends the connection or stream that it concerns, and is logged."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import structlog

log = structlog.get_logger()


class GuardedProtocol(Protocol):
    """A protocol of asyncio's that can be ended."""

    def abort_on_error(self) -> None:
        """A bug of ours showed: end the connection."""
        ...


S = TypeVar("S", bound=GuardedProtocol)
P = ParamSpec("P")


def guarded(callback: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Decorate a callback of a protocol."""

    @functools.wraps(callback)
    def guarded(self: S, /, *args: P.args, **options: P.kwargs) -> None:
        try:
            callback(self, *args, **options)
        except Exception as error:
            report_error(self, callback.__qualname__, error)

    return guarded


def report_error(protocol: GuardedProtocol, place: str, error: Exception) -> None:
    """End a connection that a bug showed on. Called in an `except`."""
    log.exception("bug in a connection", place=place, error=repr(error))
    try:
        protocol.abort_on_error()
    except Exception as again:
        log.exception("bug while ending a connection", place=place, error=repr(again))
