"""The store on Redis.

Each write is one script: compare, increment the version, set, index owners, append the event. One reader in each
process feeds all of its watches.

Secrets and their events are encrypted in Redis (`knoll.redis.encryption`); other objects are not.

A Redis that restarts without its data continues with a version above all previous ones (the clock's milliseconds, which
writes cannot overtake). Watches then end with ExpiredError, as after the history was trimmed beyond them. The same
happens when a replica became the primary: it may lack the last writes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence, Set
from datetime import UTC, datetime
from typing import Any

import structlog

from knoll.redis import keys
from knoll.redis.client import RedisClient, Script
from knoll.redis.connection import Argument
from knoll.redis.encryption import PLAIN, SEALED_KINDS, Keyring, SealedError, event_subject, object_subject
from knoll.store import rules
from knoll.store.event_feed import EventFeed
from knoll.store.protocol import Listing, ObjectWrite, PackedListing, PackedObject, WatchEvent
from knoll.store.rules import Write, describe, key_of
from knoll.values.errors import (
    AlreadyExistsError,
    KnollError,
    NotFoundError,
    StoreForbiddenError,
    StoreUnavailableError,
)
from knoll.values.json import Json

log = structlog.get_logger()

HISTORY = 20_000
"""Events kept in Redis."""
BUFFERED_EVENTS = 1024
"""Minimum number of events kept in memory for watches (the maximum is twice as many)."""
FEW_BUFFERED_EVENTS = 128
"""The same for a process without clients that watch: a watch that falls further behind reads from Redis again."""
_DECODE_BATCH = 200
_Found = tuple[int, list[tuple[bytes, bytes]]]
"""A version, and keys with their stored values."""
_Call = tuple[list[str], list[Argument]]
"""KEYS and ARGV of a script."""
_Plan = tuple[Write, _Call] | KnollError | None
"""A write with its script call, the error that prevents it, or None if it changes nothing."""

# Lua would format a number of this size as "1.76e+12".
_VERSION = """
local function newest(key)
  local found = redis.call('GET', key)
  if found then return found end
  local time = redis.call('TIME')
  local first = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('SET', key, first)
  return first
end
"""
# KEYS: revision. Returns the newest version.
_NEWEST = Script(_VERSION + "return newest(KEYS[1])")
# KEYS: objects, revision. ARGV: prefix of the fields. Returns the newest version, then field and value in turn.
_LIST = Script(
    _VERSION
    + """
local found, wanted = {newest(KEYS[2])}, {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, #ARGV[1]) == ARGV[1] then wanted[#wanted + 1] = field end
end
for from = 1, #wanted, 1000 do
  local to = math.min(from + 999, #wanted)
  local values = redis.call('HMGET', KEYS[1], unpack(wanted, from, to))
  for i = from, to do
    found[#found + 1] = wanted[i]
    found[#found + 1] = values[i - from + 1]
  end
end
return found
"""
)
# KEYS: objects, revision, events, owner sets to leave and to join.
# ARGV: field, expected version or '' for none, JSON, initial of the event's type, resource, packed event, length of the
# history, how many owner sets to leave. Returns {1, new version} or {0, version found or ''}.
_WRITE = Script(
    _VERSION
    + """
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local at = stored and string.match(stored, '^%d+') or ''
if at ~= ARGV[2] then return {0, at} end
newest(KEYS[2])
local version = string.format('%.0f', redis.call('INCR', KEYS[2]))
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[7], version .. '-0', 't', ARGV[4], 'r', ARGV[5], 'e', ARGV[6])
if ARGV[4] == 'D' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], version .. '\\n' .. ARGV[3])
end
local member = ARGV[5] .. ' ' .. ARGV[1]
for i = 4, #KEYS do
  redis.call(i < 4 + ARGV[8] and 'SREM' or 'SADD', KEYS[i], member)
end
return {1, version}
""",
    writes=True,
    counter=2,
)


class RedisStore:
    """See `protocol.Store`.

    While Redis is unavailable, calls raise StoreUnavailableError (the write may have happened), and watches wait.
    """

    def __init__(
        self,
        redis: RedisClient,
        *,
        history: int = HISTORY,
        ring: int = BUFFERED_EVENTS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        keyring: Keyring = PLAIN,
    ) -> None:
        """
        Args:
            redis: made by `client.connect`; stays the caller's.
            history: events kept in Redis.
            ring: events kept in memory for watches.
            clock: for deletionTimestamp.
            keyring: seals and opens Secrets.
        """
        self._redis = redis
        self._keyring = keyring
        self._history = history
        self._clock = clock
        self._feed = EventFeed(redis, ring, keyring)
        self._epoch = redis.epoch

    async def close(self) -> None:
        """Stop reading events; must be called after all watches ended."""
        await self._feed.close()

    async def version(self) -> int:
        """The newest resource version."""
        return int(await self._redis.run(_NEWEST, [keys.RESOURCE_VERSION], []))

    async def get(self, resource: str, namespace: str, name: str) -> Json:
        version, data = await self._stored(resource, key_of(namespace, name))
        return rules.decode(data, version)

    async def list(self, resource: str, namespace: str | None = None) -> Listing:
        await self._enter_epoch()
        if namespace is None:
            version, stored = await self._read_all(resource)
        else:
            version, stored = await self._read_some(resource, f"{namespace}/")
        stored.sort(key=lambda pair: rules.sort_key(pair[0].decode()))
        items: list[Json] = []
        for begin in range(0, len(stored), _DECODE_BATCH):
            batch = stored[begin : begin + _DECODE_BATCH]
            items += rules.decode_all(self._parse(resource, field.decode(), value) for field, value in batch)
            # A long list must not block the other tasks of this process.
            await asyncio.sleep(0)
        return Listing(items, version)

    async def list_packed(self, resource: str) -> PackedListing:
        await self._enter_epoch()
        version, stored = await self._read_all(resource)
        items = []
        for field, value in stored:
            key = field.decode()
            try:
                items.append(PackedObject(key, *self._parse(resource, key, value)))
            except SealedError as error:
                # An unreadable object must not prevent informers from reading the others.
                log.error("object unreadable", resource=resource, key=key, error=str(error))
        return PackedListing(items, version)

    async def create(self, resource: str, body: Json) -> Json:
        write = rules.plan_create(resource, body)
        done, version = await self._try(write)
        if not done:
            raise _exists(resource, write.key)
        return rules.written(write, version)

    async def update(self, resource: str, body: Json, *, before: Json | None = None) -> Json:
        key = rules.key_in(body)
        if before is not None:
            write = _plan_update(resource, body, before)
            if write is not None:
                done, version = await self._try(write)
                if done:
                    return rules.written(write, version)
            # Nothing to write, or not the newest any more: the stored object decides.
        return await self._settle(resource, key, lambda version, data: rules.plan_update(resource, version, data, body))

    async def write_all(self, writes: Sequence[ObjectWrite]) -> Sequence[Json | KnollError]:
        plans = [self._plan(each) for each in writes]
        replies = iter(await self._redis.run_all(_WRITE, [plan[1] for plan in plans if isinstance(plan, tuple)]))
        return [
            await self._conclude(each, plan, next(replies) if isinstance(plan, tuple) else None)
            for each, plan in zip(writes, plans, strict=True)
        ]

    def _plan(self, each: ObjectWrite) -> _Plan:
        try:
            if each.before is None:
                write: Write | None = rules.plan_create(each.resource, each.body)
            else:
                write = _plan_update(each.resource, each.body, each.before)
            return None if write is None else (write, self._call(write))
        except KnollError as error:
            return error

    async def _conclude(self, each: ObjectWrite, plan: _Plan, reply: Any) -> Json | KnollError:
        """The result of a write. Args: reply: of Redis, or an error; None if the plan contains no write."""
        if isinstance(plan, KnollError):
            return plan
        if isinstance(reply, KnollError):
            return reply
        if plan is not None and reply[0]:
            return rules.written(plan[0], int(reply[1]))
        if each.before is None:
            return _exists(each.resource, rules.key_in(each.body))
        try:
            # Nothing to write, or not the newest any more: the stored object decides.
            return await self.update(each.resource, each.body)
        except KnollError as error:
            return error

    async def delete(self, resource: str, namespace: str, name: str, *, uid: str = "", version: str = "") -> Json:
        key, now = key_of(namespace, name), self._clock()
        return await self._settle(
            resource,
            key,
            lambda at, data: rules.plan_delete(resource, key, at, data, uid=uid, wanted_version=version, now=now),
        )

    async def owned_by(self, uid: str) -> Sequence[tuple[str, str, str]]:
        members: Sequence[bytes] = await self._redis.execute("SMEMBERS", keys.owned(uid))
        owned = []
        for member in sorted(members):
            resource, _, key = member.decode().partition(" ")
            namespace, _, name = key.partition("/")
            owned.append((resource, namespace, name))
        return owned

    def watch(self, since: int, resources: Set[str] | None = None) -> AsyncIterator[WatchEvent]:
        """See `Store.watch`. Events are shared by all watchers and must not be mutated."""
        return self._feed.watch(since, resources)

    async def _settle(self, resource: str, key: str, plan: Callable[[int, bytes], Write | None]) -> Json:
        while True:
            version, data = await self._stored(resource, key)
            write = plan(version, data)
            if write is None:
                return rules.decode(data, version)
            done, now_at = await self._try(write)
            if done:
                return rules.written(write, now_at)

    async def _stored(self, resource: str, key: str) -> tuple[int, bytes]:
        value: bytes | None = await self._redis.execute("HGET", keys.objects(resource), key)
        if value is None:
            raise NotFoundError(f"{describe(resource, key)} not found")
        return self._parse(resource, key, value)

    def _parse(self, resource: str, key: str, value: bytes) -> tuple[int, bytes]:
        """Version and JSON of a stored value. Raises: SealedError."""
        version, _, data = value.partition(b"\n")
        if resource in SEALED_KINDS:
            data = self._keyring.open(data, object_subject(resource, key))
        return int(version), data

    def _sealed(self, write: Write) -> tuple[bytes, bytes]:
        """The object and its event as stored in Redis. Raises: SealedError."""
        data, event = b"" if write.removes else write.data, rules.pack(write)
        if write.resource not in SEALED_KINDS or not self._keyring.seals:
            return data, event
        # The key is put in front of the event's envelope, which is bound to it.
        sealed = self._keyring.seal(event, event_subject(write.resource, write.key))
        event = write.key.encode() + b"\n" + sealed
        return data and self._keyring.seal(data, object_subject(write.resource, write.key)), event

    async def _try(self, write: Write) -> tuple[bool, int]:
        done, version = await self._redis.run(_WRITE, *self._call(write))
        return bool(done), int(version or 0)

    def _call(self, write: Write) -> _Call:
        """KEYS and ARGV of the script that carries out a write. Raises: SealedError."""
        leave, join = write.owners_before - write.owners, write.owners - write.owners_before
        owner_sets = [keys.owned(uid) for uid in (*sorted(leave), *sorted(join))]
        data, event = self._sealed(write)
        return [keys.objects(write.resource), keys.RESOURCE_VERSION, keys.EVENTS, *owner_sets], [
            write.key,
            "" if write.at is None else write.at,
            data,
            write.type[0],
            write.resource,
            event,
            self._history,
            len(leave),
        ]

    async def _enter_epoch(self) -> None:
        """Raise the version when another server became the primary, so that it is not the version of a lost event."""
        while self._epoch != self._redis.epoch:
            epoch = self._redis.epoch
            # Only the API may do this; other processes rely on the first write of the API.
            with contextlib.suppress(StoreForbiddenError):
                await self._redis.raise_counter(keys.RESOURCE_VERSION)
            self._epoch = epoch

    async def _read_all(self, resource: str) -> _Found:
        version, stored = await self._redis.transaction(
            ("GET", keys.RESOURCE_VERSION), ("HGETALL", keys.objects(resource))
        )
        if version is None:
            # Initialize the version of an empty Redis, and include concurrent writes in the listing.
            try:
                await self.version()
            except StoreForbiddenError as error:
                raise StoreUnavailableError("Redis is empty, and the API has not written to it yet") from error
            return await self._read_all(resource)
        return int(version), list(stored.items())

    async def _read_some(self, resource: str, prefix: str) -> _Found:
        version, *flat = await self._redis.run(_LIST, [keys.objects(resource), keys.RESOURCE_VERSION], [prefix])
        return int(version), list(zip(flat[::2], flat[1::2], strict=True))


def _plan_update(resource: str, body: Json, before: Json) -> Write | None:
    """A replacement of an object that the caller has read. Raises: ConflictError."""
    return rules.plan_update(resource, int(before["metadata"]["resourceVersion"]), rules.encode(before), body, before)


def _exists(resource: str, key: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"{describe(resource, key)} already exists")
