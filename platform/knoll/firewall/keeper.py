"""Keeps the rules of one policy in the kernel: applies it, looks host names up again, repairs what vanished."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import structlog

from knoll.firewall import nft
from knoll.firewall.nft import FirewallError
from knoll.firewall.policy import AppliedPolicy, FirewallPolicy
from knoll.firewall.ruleset import Wiring, removal, ruleset

log = structlog.get_logger()

LOOK_SECONDS = 30.0
"""Between two look-ups of all host names."""
LOOKUP_SECONDS = 5.0

Lookup = Callable[[str], Awaitable[tuple[str, ...]]]
"""From a host name to its IPv4 addresses; none when there is no such name just now."""


class Kernel(Protocol):
    """What holds the rules: `knoll.firewall.nft`."""

    async def apply(self, text: str) -> None: ...
    async def listing(self, table: str) -> str: ...
    def changes(self) -> AsyncIterator[None]: ...


async def look_up(host: str) -> tuple[str, ...]:
    """The IPv4 addresses of a host name."""
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            answers = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET)
    except (OSError, TimeoutError):
        return ()
    return tuple(sorted({str(address[0]) for *_, address in answers}))


class Keeper:
    """The rules of one platform. Nothing is changed before the first policy comes: an earlier process left its own."""

    def __init__(self, wiring: Wiring, kernel: Kernel = nft, lookup: Lookup = look_up) -> None:
        self._wiring, self._kernel, self._lookup = wiring, kernel, lookup
        self._policy: FirewallPolicy | None = None
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._text = self._listing = ""
        """What was applied last, and how the kernel shows that."""
        self._turn, self._renew = asyncio.Lock(), asyncio.Event()
        self.problem = "no policy yet"
        """Why the policy is not in force; empty when it is."""

    async def begin(self) -> None:
        """Close builds off from the first moment, unless an earlier process left rules.

        Raises: FirewallError.
        """
        if not await self._kernel.listing(self._wiring.table):
            await self._kernel.apply(ruleset(self._wiring, FirewallPolicy(), {}))

    async def apply(self, policy: FirewallPolicy) -> AppliedPolicy:
        """Have the kernel hold a policy; returns when it does.

        Raises: FirewallError: it does not, and holds what it held before.
        """
        hosts = _hosts(policy)
        async with self._turn:
            before, self._policy = self._policy, policy
            if before is None or hosts != _hosts(before):
                self._renew.set()  # not waited for: a start of an instance waits for this answer
            await self._put()
        return AppliedPolicy(unresolved=tuple(sorted(hosts - self._resolved.keys())))

    async def run(self) -> None:
        """Repair for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repair())
            tasks.create_task(self._renew_hosts())

    async def remove(self) -> None:
        """Take the rules away. Raises: FirewallError."""
        async with self._turn:
            self._policy = None
            await self._kernel.apply(removal(self._wiring))

    async def _repair(self) -> None:
        async for _ in self._kernel.changes():
            if self._policy is None:
                continue
            async with self._turn:
                try:
                    if await self._kernel.listing(self._wiring.table) != self._listing:
                        log.warning("firewall rules were changed by another program, restoring them")
                        self._text = ""
                    await self._put()
                except FirewallError as error:
                    log.error("firewall rules not applied", error=str(error))

    async def _renew_hosts(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._renew.wait()
            self._renew.clear()
            if self._policy is None:
                continue
            await self._resolve(self._policy)
            async with self._turn:
                try:
                    await self._put()
                except FirewallError as error:
                    log.error("firewall rules not applied", error=str(error))

    async def _put(self) -> None:
        """Apply the policy, where the kernel does not hold it yet."""
        assert self._policy is not None
        text = ruleset(self._wiring, self._policy, self._resolved)
        if text == self._text:
            return
        try:
            await self._kernel.apply(text)
            self._listing = await self._kernel.listing(self._wiring.table)
        except FirewallError as error:
            self._text, self.problem = "", str(error)
            raise
        self._text, self.problem = text, ""

    async def _resolve(self, policy: FirewallPolicy) -> None:
        """Look up every host name; one that cannot be keeps its last addresses."""
        hosts = sorted(_hosts(policy))
        answers = await asyncio.gather(*(self._lookup(host) for host in hosts))
        self._resolved = {
            host: addresses
            for host, answer in zip(hosts, answers, strict=True)
            if (addresses := answer or self._resolved.get(host, ()))
        }


def _hosts(policy: FirewallPolicy) -> set[str]:
    """Names to look up."""
    return {each.host for each in policy.destinations() if not each.network}
