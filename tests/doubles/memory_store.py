"""The store in memory, for tests of code that uses a store. Passes the same suite as the one on Redis."""

import time
from collections.abc import AsyncIterator, Callable, Sequence, Set
from datetime import UTC, datetime

from knoll.store import rules
from knoll.store.event_buffer import EventBuffer
from knoll.store.protocol import Listing, ObjectWrite, PackedListing, PackedObject, WatchEvent
from knoll.store.rules import Record, Write, describe, key_of
from knoll.values.errors import AlreadyExistsError, ExpiredError, KnollError, NotFoundError
from knoll.values.json import Json


class MemoryStore:
    """See `knoll.store.protocol.Store`. Lives in one event loop and is gone with it."""

    def __init__(self, *, history: int = 20_000, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """
        Args:
            history: events kept.
            clock: for deletionTimestamp.
        """
        self._objects: dict[str, dict[str, tuple[int, bytes]]] = {}
        self._owned: dict[str, set[tuple[str, str]]] = {}
        self._clock = clock
        # Versions begin high, as on Redis, so that no code comes to rely on small ones.
        self._buffer = EventBuffer(history, limit=history)
        self._buffer.start(int(time.time() * 1000))

    async def close(self) -> None:
        """Nothing to do."""

    async def version(self) -> int:
        """The newest resource version."""
        return self._buffer.tip

    async def get(self, resource: str, namespace: str, name: str) -> Json:
        version, data = self._stored(resource, key_of(namespace, name))
        return rules.decode(data, version)

    async def list(self, resource: str, namespace: str | None = None) -> Listing:
        objects = self._objects.get(resource, {})
        keys = [key for key in objects if namespace is None or key.startswith(f"{namespace}/")]
        keys.sort(key=rules.sort_key)
        return Listing([rules.decode(objects[key][1], objects[key][0]) for key in keys], self._buffer.tip)

    async def list_packed(self, resource: str) -> PackedListing:
        objects = self._objects.get(resource, {})
        return PackedListing(
            [PackedObject(key, version, data) for key, (version, data) in objects.items()], self._buffer.tip
        )

    async def create(self, resource: str, body: Json) -> Json:
        write = rules.plan_create(resource, body)
        if write.key in self._objects.get(resource, {}):
            raise AlreadyExistsError(f"{describe(resource, write.key)} already exists")
        return self._do(write)

    async def update(self, resource: str, body: Json, *, before: Json | None = None) -> Json:
        version, data = self._stored(resource, rules.key_in(body))
        write = rules.plan_update(resource, version, data, body)
        return rules.decode(data, version) if write is None else self._do(write)

    async def write_all(self, writes: Sequence[ObjectWrite]) -> Sequence[Json | KnollError]:
        return [await self._result_of(write) for write in writes]

    async def _result_of(self, write: ObjectWrite) -> Json | KnollError:
        try:
            if write.before is None:
                return await self.create(write.resource, write.body)
            return await self.update(write.resource, write.body, before=write.before)
        except KnollError as error:
            return error

    async def delete(self, resource: str, namespace: str, name: str, *, uid: str = "", version: str = "") -> Json:
        key = key_of(namespace, name)
        at, data = self._stored(resource, key)
        write = rules.plan_delete(resource, key, at, data, uid=uid, wanted_version=version, now=self._clock())
        return rules.decode(data, at) if write is None else self._do(write)

    async def owned_by(self, uid: str) -> Sequence[tuple[str, str, str]]:
        owned = []
        for resource, key in sorted(self._owned.get(uid, ())):
            namespace, _, name = key.partition("/")
            owned.append((resource, namespace, name))
        return owned

    async def watch(self, since: int, resources: Set[str] | None = None) -> AsyncIterator[WatchEvent]:
        """See `Store.watch`. Events are shared by all watchers, which must not change them."""
        buffer, position = self._buffer, since
        if since > buffer.tip:
            raise ExpiredError(f"too old resource version: {since} (the newest version is {buffer.tip})")
        while True:
            records = buffer.after(position)
            if records is None:
                raise ExpiredError(f"too old resource version: {position} (the history no longer reaches back to it)")
            if not records:
                position = max(position, await buffer.wait_for_change(resources))
            for record in records:
                position = record.version
                if resources is None or record.resource in resources:
                    yield record.event()

    def _stored(self, resource: str, key: str) -> tuple[int, bytes]:
        stored = self._objects.get(resource, {}).get(key)
        if stored is None:
            raise NotFoundError(f"{describe(resource, key)} not found")
        return stored

    def _do(self, write: Write) -> Json:
        version = self._buffer.tip + 1
        kind = self._objects.setdefault(write.resource, {})
        if write.removes:
            del kind[write.key]
        else:
            kind[write.key] = (version, write.data)
        for uid in write.owners_before - write.owners:
            self._owned[uid].discard((write.resource, write.key))
        for uid in write.owners - write.owners_before:
            self._owned.setdefault(uid, set()).add((write.resource, write.key))
        self._buffer.append([Record(version, write.type, write.resource, rules.pack(write))])
        return rules.decode(write.data, version)
