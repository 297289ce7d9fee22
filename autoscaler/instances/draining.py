"""Waits until an instance may be told to end: nobody picks it any more, and no request is in it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import structlog

from knoll.messages.endpoints import RevisionEndpoints
from knoll.messages.reports import Report
from knoll.tables.protocol import Table
from knoll.values.errors import StoreUnavailableError

if TYPE_CHECKING:
    from autoscaler.instances.instance import Member

log = structlog.get_logger()

ACK_SECONDS = 30.0
"""How long a living activator may take to acknowledge that an instance drains."""
SILENT_SECONDS = 5.0
"""Five reports without a word of a draining instance: the activator has never heard of it."""
LOOK_SECONDS = 0.05
QUIET_SECONDS = 30.0
"""As long as Knative's queue-proxy keeps SIGTERM back after the last new request: a WebSocket that is about to end
ends, and one that would not can be closed by the app, which knows what to say to its peer."""


class Left(NamedTuple):
    """What one activator has in an instance."""

    at: float
    """When it said so, epoch seconds."""
    requests: int
    tunnels: int
    """Upgraded connections."""


NOTHING_SAID = Left(0.0, 0, 0)


class Draining:
    """All instances that drain just now, and what activators say of them."""

    def __init__(
        self,
        endpoints: Table[RevisionEndpoints],
        publish: Callable[[str], Awaitable[int]],
        clock: Callable[[], float],
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        """
        Args:
            publish: puts the endpoints of a Revision, `namespace/name`, however long it takes; gives their version.
            quiet_seconds: how long upgraded connections are waited for, at least 0; never more than half the grace.
        """
        self._endpoints, self._publish, self._clock, self._quiet_seconds = endpoints, publish, clock, quiet_seconds
        self._left: dict[str, dict[str, Left]] = {}
        """Draining instance to activator to what it has there."""
        self._followers: tuple[float, asyncio.Future[dict[str, int]] | None] = (0.0, None)
        """The newest answer, or question, of `_living`, and when it was asked."""
        self.listening_since = float("inf")
        """Epoch seconds since when reports are heard without a gap; inf while they are not."""

    def heard(self, report: Report, now: float) -> None:
        """Take note of what an activator says of draining instances."""
        for instance, requests in report.draining.items():
            if instance in self._left:
                self._left[instance][report.activator] = Left(now, requests, report.tunnels.get(instance, 0))

    async def drained(self, member: "Member") -> bool:
        """Wait for every living activator's acknowledgement and for the requests in flight there afterwards.

        Requests may take all of the grace; upgraded connections have a quiet time, then SIGTERM tells the app.

        Returns:
            Whether nothing is left in it.
        """
        grace = member.spec.grace_seconds
        deadline = self._clock() + grace
        self._left[member.name] = {}
        try:
            await self._acknowledged(await self._publish(member.revision), min(deadline, self._clock() + ACK_SECONDS))
            acknowledged_at = self._clock()
            quiet_until = acknowledged_at + min(self._quiet_seconds, grace / 2)
            while self._clock() < deadline:
                requests, tunnels = await self._count(member.name, acknowledged_at)
                if not requests and not tunnels:
                    return True
                if not requests and self._clock() >= quiet_until:
                    log.info("instance ends with tunnels in it, which it may close", instance=member.name, open=tunnels)
                    return False
                await asyncio.sleep(LOOK_SECONDS * 2)
            log.warning("instance ends with requests in it: its grace is over", instance=member.name)
            return False
        finally:
            self._left.pop(member.name, None)

    async def _acknowledged(self, version: int, until: float) -> None:
        while self._clock() < until:
            living = await self._living()
            if living is not None and all(acknowledged >= version for acknowledged in living.values()):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _count(self, instance: str, acknowledged_at: float) -> tuple[int, int]:
        """Requests and tunnels in a draining instance; what an activator has not said yet counts as a request.

        It repeats how many while it knows of the instance; where it says nothing of it for long, it never knew.
        """
        living = await self._living()
        if living is None:
            return 1, 0
        said = [self._left[instance].get(one, NOTHING_SAID) for one in living]
        silence_is_none = self._clock() - max(acknowledged_at, self.listening_since) >= SILENT_SECONDS
        unsaid = 0 if silence_is_none else sum(one.at < acknowledged_at for one in said)
        now = [one for one in said if one.at >= acknowledged_at]
        return unsaid + sum(one.requests for one in now), sum(one.tunnels for one in now)

    async def _living(self) -> dict[str, int] | None:
        """Who follows the endpoints, and up to which version; None while Redis is away.

        However many instances drain, Redis is asked every `LOOK_SECONDS` at most.
        """
        asked_at, asking = self._followers
        if asking is None or self._clock() - asked_at >= LOOK_SECONDS:
            asking = asyncio.ensure_future(self._endpoints.followers())
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # also when nobody waits
            self._followers = (self._clock(), asking)
        try:
            return await asyncio.shield(asking)
        except StoreUnavailableError:
            return None
