"""Watches whether the serving port of an instance is reached, and finds the reason if it is not.

On Knative the queue-proxy shares the network of the Pod, so it reaches a program that listens on 127.0.0.1 only. Here
that takes a forwarder, which is started when it is needed. A program on another port is a common mistake that nothing
else reports.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from autoscaler.probes.checks import connect
from autoscaler.runtime.protocol import Runtime
from autoscaler.runtime.sockets import hint, loopback_family
from knoll.values.errors import KnollError, NotFoundError

log = structlog.get_logger()

FIRST_SECONDS, FIRST_LOOPBACK_SECONDS = 1.0, 0.05
"""Time for a program to begin listening before the first check; the second value applies if another instance of its
Revision needed a forwarder. A check takes the engine some ten milliseconds."""
SHARE, LONGEST_SECONDS = 0.25, 15.0
"""Later checks wait this share of the elapsed time, and at most this long."""
CONNECT_SECONDS = 1.0


def pause(elapsed: float, first: float) -> float:
    """Return the seconds until the next check.

    Args:
        elapsed: since the program was started, >= 0.
        first: seconds until the first check.
    """
    return min(LONGEST_SECONDS, max(first, elapsed * SHARE))


class ServingPort:
    """The port of one instance. Owned by its `Upkeep`."""

    def __init__(self, runtime: Runtime, instance: str, port: int, *, on_hint: Callable[[str], None]) -> None:
        """
        Args:
            on_hint: called with a hint for the user, whenever it changes.
        """
        self._runtime, self._instance, self._port, self._on_hint = runtime, instance, port, on_hint
        self._hint = ""
        self.forwarded = False
        """Whether a forwarder was needed."""

    async def watch(self, address: str, *, loopback_before: bool) -> None:
        """Check until connections to the port are accepted, with a forwarder if needed.

        Args:
            address: of the instance.
            loopback_before: another instance of its Revision needed one.
        """
        first = FIRST_LOOPBACK_SECONDS if loopback_before else FIRST_SECONDS
        elapsed = 0.0
        while True:
            wait = pause(elapsed, first)
            await asyncio.sleep(wait)
            elapsed += wait
            if await self._accepts(address):
                return
            try:
                await self._check()
            except NotFoundError:
                return
            except KnollError as error:
                log.warning("listening sockets not checked", instance=self._instance, error=str(error))

    async def close(self) -> None:
        """The program ends: stop the forwarder, which would accept connections in its place."""
        with contextlib.suppress(KnollError):
            await self._runtime.unforward(self._instance)

    async def _accepts(self, address: str) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await connect(address, self._port)
                return True
        return False

    async def _check(self) -> None:
        listeners = await self._runtime.listening(self._instance)
        if family := loopback_family(self._port, listeners):
            log.info("forwarder started for a program on loopback", instance=self._instance, port=self._port)
            await self._runtime.forward(self._instance, self._port, family)
            self.forwarded = True
            return
        text = hint(self._port, listeners) if all(listener.port != self._port for listener in listeners) else ""
        if text != self._hint:
            self._hint = text
            self._on_hint(text)
