"""Looking after the port that takes an instance's requests: is it reached, and if not, why not?

On Knative the queue-proxy shares the network of the Pod, so that a program which listens on 127.0.0.1 alone is served.
Here that takes a forwarder, which is started when it is needed. A program on another port is a mistake that users make
often and that nothing else says.
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

FIRST_SECONDS, FIRST_KNOWN_SECONDS = 1.0, 0.05
"""Time for a program to begin listening before it is looked at; the second where another instance of its Revision was
forwarded to already. A look costs the engine some ten milliseconds."""
SHARE, LONGEST_SECONDS = 0.25, 15.0
"""Later looks wait this share of the time so far, and no longer than that."""
CONNECT_SECONDS = 1.0


def pause(elapsed: float, first: float) -> float:
    """Seconds to the next look.

    Args:
        elapsed: since the program was started, >= 0.
        first: seconds to the first look.
    """
    return min(LONGEST_SECONDS, max(first, elapsed * SHARE))


class ServingPort:
    """The port of one instance. Owned by its member."""

    def __init__(self, runtime: Runtime, instance: str, port: int, *, hinted: Callable[[str], None]) -> None:
        """
        Args:
            hinted: called with what to tell the user, each time that is something else.
        """
        self._runtime, self._instance, self._port, self._hinted = runtime, instance, port, hinted
        self._hint = ""
        self.forwarded = False
        """A forwarder was needed."""

    async def watch(self, address: str, *, loopback_before: bool) -> None:
        """Look until connections to the port are accepted, with a forwarder if need be.

        Args:
            address: the instance's.
            loopback_before: another instance of its Revision needed one.
        """
        first = FIRST_KNOWN_SECONDS if loopback_before else FIRST_SECONDS
        elapsed = 0.0
        while True:
            wait = pause(elapsed, first)
            await asyncio.sleep(wait)
            elapsed += wait
            if await self._accepts(address):
                return
            try:
                await self._look()
            except NotFoundError:
                return
            except KnollError as error:
                log.warning("listening sockets not looked at", instance=self._instance, error=str(error))

    async def close(self) -> None:
        """The program ends: nothing may accept connections in its place."""
        with contextlib.suppress(KnollError):
            await self._runtime.unforward(self._instance)

    async def _accepts(self, address: str) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await connect(address, self._port)
                return True
        return False

    async def _look(self) -> None:
        listeners = await self._runtime.listening(self._instance)
        if family := loopback_family(self._port, listeners):
            log.info("instance listens on loopback alone: forwarding to it", instance=self._instance, port=self._port)
            await self._runtime.forward(self._instance, self._port, family)
            self.forwarded = True
            return
        text = hint(self._port, listeners) if all(one.port != self._port for one in listeners) else ""
        if text != self._hint:
            self._hint = text
            self._hinted(text)
