"""Leader election: a duty that at most one process performs at a time, through a lease in Redis.

The lease expires unless its holder renews it. The holder measures the time on its own monotonic clock, from before it
sent the request, so that it stops before another process can start, whatever delays occur.

Where another server may become the primary (`knoll.redis.replicated`), a lease belongs to the epoch in which it was
acquired. Its holder gives it up when the epoch ends, and may acquire it again at once. Other processes can acquire it
only when every lease of the previous epoch has expired by its holder's clock: the new primary may not have the last
renewal, and its clock may differ. Writes of the duty are refused once its lease is no longer the stored one.
"""

import asyncio
import contextvars
import uuid
from collections.abc import Awaitable, Callable

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.redis import keys
from knoll.redis.client import RedisClient, Script
from knoll.redis.fence import FENCE, Fence
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()

TTL = 5.0
"""Seconds after which a standby takes over from a leader that has disappeared."""
_RENEWALS = 3
"""Number of attempts to renew a lease before it expires."""
_MARGIN = 0.1
"""Fraction of the TTL before expiry at which the duty is cancelled, so that it has ended when the lease expires."""

# KEYS: lease. ARGV: holder, milliseconds. Returns -1 when it is ours now, else the milliseconds the other has left.
_ACQUIRE = Script("""
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return -1 end
return math.max(redis.call('PTTL', KEYS[1]), 0)
""")
# KEYS: lease, epoch. ARGV: holder, milliseconds. Returns the same, and the replication id of the epoch.
_ACQUIRE_IN_EPOCH = Script(
    """
local stored, record, time = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]), redis.call('TIME')
local id, began = string.match(record, '^(%w+) (%d+)$')
if not stored then
  local left = tonumber(ARGV[2]) - (time[1] * 1000 + math.floor(time[2] / 1000) - began)
  if left > 0 then return {left, id} end
elseif string.sub(stored, 1, #ARGV[1]) ~= ARGV[1] then
  -- The expiry was set by the clock of another server.
  if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return {math.max(redis.call('PTTL', KEYS[1]), 0), id}
end
redis.call('SET', KEYS[1], ARGV[1] .. '.' .. id, 'PX', ARGV[2])
return {-1, id}
""",
    writes=True,
)
# KEYS: lease. ARGV: holder, milliseconds. Returns 1 when it is still ours.
_RENEW = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""",
    writes=True,
)
# KEYS: lease. ARGV: holder, channel on which standbys wait.
_RELEASE = Script(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[2], '')
end
""",
    writes=True,
)


class Lease:
    """One contender for one lease."""

    def __init__(self, redis: RedisClient, name: str, holder: str, *, ttl: float = TTL) -> None:
        """
        Args:
            redis: made by `client.connect`; stays the caller's.
            name: of the duty.
            holder: name of this process for users; need not be unique.
            ttl: seconds, > 0.
        """
        self._redis = redis
        self._name = name
        self._key = keys.lease(name)
        self._freed = keys.lease_freed(name)
        self._holder = f"{holder} {uuid.uuid4().hex}"
        self._value, self._epoch = self._holder, ""
        """The value that is stored while the lease is held, and the epoch in which it was acquired."""
        self._ttl = ttl
        self.leading = False

    async def holder(self) -> str:
        """Return the holder of the lease, "" without one. Raises: StoreUnavailableError."""
        holder: bytes | None = await self._redis.execute("GET", self._key)
        return (holder or b"").decode().rpartition(" ")[0]

    async def lead(self, duty: Callable[[], Awaitable[None]]) -> None:
        """Run `duty` while this process leads, until it returns or raises; then release the lease.

        The duty is cancelled when the lease is lost, and started again once it is reacquired. It must end promptly when
        cancelled: another process may start a tenth of `ttl` later.
        """
        while True:
            until = await self._acquired()
            self.leading = True
            log.info("leadership acquired", lease=self._name)
            try:
                if await self._hold(duty, until):
                    return
            finally:
                self.leading = False
                await self._give_back()
            log.warning("leadership lost", lease=self._name)

    async def _hold(self, duty: Callable[[], Awaitable[None]], until: float) -> bool:
        """Return whether the duty ended before the lease was lost."""
        working = self._begin(duty)
        renewing = asyncio.create_task(self._renew_until_lost(until), name=f"lease {self._name}")
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
                return True
            return False
        finally:
            try:
                await _end(working)
            finally:
                await _end(renewing)

    def _begin(self, duty: Callable[[], Awaitable[None]]) -> "asyncio.Future[None]":
        if not self._epoch:
            return asyncio.ensure_future(duty())

        async def fenced() -> None:
            await duty()

        context = contextvars.copy_context()
        context.run(FENCE.set, Fence(self._key, self._value, self._epoch))
        return asyncio.get_running_loop().create_task(fenced(), context=context)

    async def _renew_until_lost(self, until: float) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            if await self._redis.epoch_ended(self._epoch, min(self._ttl / _RENEWALS, max(until - clock(), 0))):
                return
            asked = clock()
            if asked >= until:
                return
            try:
                async with asyncio.timeout_at(until):
                    if not await self._redis.run(_RENEW, [self._key], [self._value, self._milliseconds]):
                        return
            except TimeoutError:
                return
            except StoreUnavailableError as error:
                log.warning("lease not renewed", lease=self._name, error=str(error))
                continue
            until = asked + self._life

    async def _acquired(self) -> float:
        """Wait until this process has the lease; return when it ends, on the loop's clock."""
        backoff = Backoff()
        while True:
            try:
                async with self._redis.subscribe(self._freed) as freed:
                    while True:
                        asked = asyncio.get_running_loop().time()
                        left = await self._ask()
                        if left < 0:
                            return asked + self._life
                        backoff.reset()
                        # Returns early when the lease is released.
                        await freed.next(min(left / 1000 + 0.01, self._ttl))
            except StoreUnavailableError:
                await backoff.wait()

    async def _ask(self) -> int:
        """Try to acquire the lease; return -1 when it is ours, else the milliseconds after which to try again."""
        arguments = (self._holder, self._milliseconds)
        if not self._redis.is_replicated:
            return int(await self._redis.run(_ACQUIRE, [self._key], arguments))
        left, epoch = await self._redis.run(_ACQUIRE_IN_EPOCH, [self._key, keys.EPOCH], arguments)
        self._epoch = epoch.decode()
        self._value = f"{self._holder}.{self._epoch}"
        return int(left)

    async def _give_back(self) -> None:
        if self._redis.epoch != self._epoch:
            return  # in the new epoch this process may acquire it again at once, others have to wait
        try:
            async with asyncio.timeout(1.0):
                await self._redis.run(_RELEASE, [self._key], [self._value, self._freed])
        except (StoreUnavailableError, TimeoutError) as error:
            log.warning("lease not released", lease=self._name, error=str(error))

    @property
    def _milliseconds(self) -> int:
        return round(self._ttl * 1000)

    @property
    def _life(self) -> float:
        return self._ttl * (1 - _MARGIN)


async def _end(task: "asyncio.Future[None]") -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled() and task.exception() is not None:
        raise task.exception()  # type: ignore[misc]
