"""The history of a store on Redis, read once for all watches of a process.

A watch starts or resumes after any resource version: it gets the events from the buffer in memory, older ones from the
stream in Redis, and ExpiredError (410 Gone) if neither reaches back to it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Set

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.redis.encryption import SEALED_KINDS, Keyring, SealedError, event_subject, is_sealed
from knoll.redis.streams import StreamEntry, entry_of, version_of
from knoll.store.event_buffer import EventBuffer
from knoll.store.protocol import EventType, WatchEvent
from knoll.store.rules import Record
from knoll.values.errors import ExpiredError, StoreUnavailableError

log = structlog.get_logger()

_BATCH = 256
_TYPES: dict[bytes, EventType] = {b"A": "ADDED", b"M": "MODIFIED", b"D": "DELETED"}


class EventFeed:
    """One reader of the event stream for all watches of a process. It reads while there is a watch."""

    def __init__(self, redis: RedisClient, size: int, keyring: Keyring) -> None:
        self._redis = redis
        self._keyring = keyring
        self._ring = EventBuffer(size)
        self._reader: asyncio.Task[None] | None = None
        self._watches = 0
        self._epoch = redis.epoch
        """The epoch of the events in the ring."""

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None

    async def watch(self, since: int, resources: Set[str] | None) -> AsyncIterator[WatchEvent]:
        ring, position, losses = self._ring, since, self._ring.losses
        self._watches += 1
        try:
            if since > ring.tip:
                # A version in the future: from a Redis that has lost its data since.
                await self._patiently(since)
            while True:
                records = ring.after(position)
                if ring.losses != losses:
                    raise _expired(position, "Redis has lost data")
                if records is None:
                    records = await self._patiently(position)
                    if not records:
                        self._begin(position)
                elif not records:
                    position = max(position, await ring.wait_for_change(resources))
                for record in records:
                    position = record.version
                    if resources is None or record.resource in resources:
                        try:
                            event = record.event()
                        except SealedError as error:
                            # Treated like a trimmed history: a new list shows what can be read.
                            log.error("event unreadable", resource=record.resource, error=str(error))
                            raise _expired(position, str(error)) from error
                        yield event
        finally:
            self._watches -= 1
            if not self._watches:
                self._end()

    def _record(self, entry: StreamEntry) -> Record:
        entry_id, fields = entry
        resource = fields[b"r"].decode()
        opens = self._opener(resource) if resource in SEALED_KINDS else None
        return Record(version_of(entry_id), _TYPES[fields[b"t"]], resource, fields[b"e"], opens)

    def _opener(self, resource: str) -> Callable[[bytes], bytes]:
        def opens(packed: bytes) -> bytes:
            key, _, envelope = packed.partition(b"\n")
            if not is_sealed(envelope):
                return packed
            return self._keyring.open(envelope, event_subject(resource, key.decode()))

        return opens

    async def _patiently(self, since: int) -> list[Record]:
        backoff = Backoff()
        while True:
            try:
                return await self._past(since)
            except StoreUnavailableError:
                await backoff.wait()

    async def _past(self, since: int) -> list[Record]:
        """The next events after `since` from Redis; empty if there is none yet. Raises: ExpiredError."""
        version, replied = await self._redis.transaction(
            ("GET", keys.RESOURCE_VERSION), ("XRANGE", keys.EVENTS, f"{since + 1}-0", "+", "COUNT", _BATCH)
        )
        entries = [entry_of(entry) for entry in replied]
        if version is None or int(version) < since:
            raise _expired(since, f"the newest version is {int(version or 0)}")
        if int(version) > since and not (entries and version_of(entries[0][0]) == since + 1):
            raise _expired(since, "the history no longer reaches back to it")
        records = [self._record(entry) for entry in entries]
        # There is a gap where another server became the primary: it may have other events than the previous one had.
        gap = next((at for at, record in enumerate(records) if record.version != since + 1 + at), len(records))
        return records[:gap]

    def _begin(self, position: int) -> None:
        if self._reader is not None and self._reader.done() and not self._reader.cancelled():
            self._reader.result()  # a bug becomes an error of the watches, not only a log line
        if self._reader is None or self._reader.done():
            self._ring.start(position)
            self._epoch = self._redis.epoch
            self._reader = asyncio.create_task(self._read(), name="store events")

    def _end(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        self._ring.stop()

    async def _read(self) -> None:
        try:
            await self._append_for_ever()
        finally:
            # Not when `_end` has cancelled this reader, and the ring may be another's by now.
            if self._reader is asyncio.current_task():
                self._ring.stop()

    async def _append_for_ever(self) -> None:
        """Append events; returns if some are missing."""
        ring, backoff, doubtful = self._ring, Backoff(), False
        reader = self._redis.streams.reader(keys.EVENTS, f"{ring.tip}-0")
        try:
            while True:
                try:
                    if doubtful and not await self._still_there():
                        log.warning("redis lost events", version=ring.tip)
                        ring.stop(lost=True)
                        return
                    entries = await reader.read()
                except StoreUnavailableError as error:
                    if not doubtful:
                        log.warning("event history interrupted", error=str(error))
                    doubtful = True
                    await backoff.wait()
                    continue
                backoff.reset()
                # No event may also mean that Redis was emptied and continues with other versions.
                doubtful = not entries
                if entries and not ring.append([self._record(entry) for entry in entries]):
                    return
        finally:
            reader.close()

    async def _still_there(self) -> bool:
        """Whether Redis still has the last event: it may have restarted with older data, or be another server."""
        tip, last = self._ring.tip, self._ring.last()
        version, replied = await self._redis.transaction(
            ("GET", keys.RESOURCE_VERSION), ("XRANGE", keys.EVENTS, f"{tip}-0", f"{tip + 1}-0")
        )
        if version is None or int(version) < tip or self._redis.epoch != self._epoch:
            return False
        fields_by_version = {version_of(entry_id): fields for entry_id, fields in map(entry_of, replied)}
        if tip in fields_by_version:
            return last is None or bool(fields_by_version[tip][b"e"] == last.packed)
        # Trimming keeps the newest events. A reader of an emptied Redis resets its version to the clock, so a higher
        # version does not prove that ours still exists, but its events do.
        return tip + 1 in fields_by_version or (last is None and int(version) == tip)


def _expired(since: int, why: str) -> ExpiredError:
    return ExpiredError(f"too old resource version: {since} ({why})")
