"""Keeps the rules of one policy in the kernel: applies it, refreshes host names, restores removed rules."""

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
"""Interval of look-ups of all host names."""
LOOKUP_SECONDS = 5.0

Lookup = Callable[[str], Awaitable[tuple[str, ...]]]
"""From a host name to its IPv4 addresses; empty if it cannot be resolved at the moment."""


class Kernel(Protocol):
    """Access to the kernel's rules: `knoll.firewall.nft`."""

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
    """The rules of one platform. Rules of an earlier process stay until the first policy arrives."""

    def __init__(self, wiring: Wiring, kernel: Kernel = nft, lookup: Lookup = look_up) -> None:
        self._wiring, self._kernel, self._lookup = wiring, kernel, lookup
        self._policy: FirewallPolicy | None = None
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._text = self._listing = ""
        """The ruleset that was applied last, and how the kernel lists it."""
        self._turn, self._renew = asyncio.Lock(), asyncio.Event()
        self.problem = "no policy yet"
        """Why the policy is not applied; empty if it is."""

    async def begin(self) -> None:
        """Isolate builds from the start, unless there are rules of an earlier process.

        Raises: FirewallError.
        """
        if not await self._kernel.listing(self._wiring.table):
            await self._kernel.apply(ruleset(self._wiring, FirewallPolicy(), {}))

    async def apply(self, policy: FirewallPolicy) -> AppliedPolicy:
        """Apply a policy; returns when the kernel has it.

        Raises: FirewallError: the policy could not be applied; the previous rules stay in place.
        """
        hosts = _hosts(policy)
        async with self._turn:
            before, self._policy = self._policy, policy
            if before is None or hosts != _hosts(before):
                self._renew.set()  # not awaited: the start of an instance waits for this response
            await self._put()
        return AppliedPolicy(unresolved=tuple(sorted(hosts - self._resolved.keys())))

    async def run(self) -> None:
        """Restore removed rules and refresh host names until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repair())
            tasks.create_task(self._renew_hosts())

    async def remove(self) -> None:
        """Remove the rules. Raises: FirewallError."""
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
        """Apply the policy if the kernel does not have it yet."""
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
        """Look up every host name; one that cannot be resolved keeps its last addresses."""
        hosts = sorted(_hosts(policy))
        answers = await asyncio.gather(*(self._lookup(host) for host in hosts))
        self._resolved = {
            host: addresses
            for host, answer in zip(hosts, answers, strict=True)
            if (addresses := answer or self._resolved.get(host, ()))
        }


def _hosts(policy: FirewallPolicy) -> set[str]:
    """Host names to look up."""
    return {each.host for each in policy.destinations() if not each.network}
