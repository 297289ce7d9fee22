"""Writes core/v1 Events: counts repeated ones and deletes old ones, without delaying reconciliations."""

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable

import structlog

from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import Emit
from knoll.store.protocol import ObjectWrite, Store
from knoll.values import kinds
from knoll.values.errors import AlreadyExistsError, KnollError, NotFoundError
from knoll.values.json import Json
from knoll.values.timestamps import timestamp

log = structlog.get_logger()

SOURCE = "knoll-controller"
MAX_EVENTS = 5_000
"""Limit of stored Events; the oldest are deleted first."""
MAX_QUEUED = 10_000
"""Limit of Events waiting to be written; more are dropped, which is logged."""
MESSAGE_LENGTH = 1024
"""Longest message, in characters; the rest is cut off."""
BATCH = 16
"""Events that are written in one round trip to Redis."""
WRITE_DELAY_SECONDS = 0.1
"""Delay before Events are written, in seconds."""


def place_of(emit: Emit) -> tuple[str, str]:
    """Namespace and name of an Event: the same if the same thing happens to the same object again."""
    meta = emit.about["metadata"]
    same = "\n".join((emit.about["kind"], meta["uid"], emit.type, emit.reason, emit.message))
    digest = hashlib.sha256(same.encode()).hexdigest()[:16]
    return meta.get("namespace") or "default", f"{meta['name']}.{digest}"


def event(place: tuple[str, str], emit: Emit, before: Json | None, now: float) -> Json:
    """The Event to write: a new one, or `before` with a higher count."""
    stamp = timestamp(now)
    if before is not None:
        return {**before, "count": int(before.get("count", 1)) + emit.count, "lastTimestamp": stamp}
    about, meta = emit.about, emit.about["metadata"]
    namespace, name = place
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": meta.get("namespace", ""),
            "name": meta["name"],
            "uid": meta["uid"],
            "resourceVersion": meta.get("resourceVersion", ""),
        },
        "type": emit.type,
        "reason": emit.reason,
        "message": emit.message[:MESSAGE_LENGTH],
        "source": {"component": SOURCE},
        "reportingComponent": SOURCE,
        "reportingInstance": "",
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "eventTime": None,
        "count": emit.count,
    }


class Recorder:
    """Writes Events in the background."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._waiting: deque[tuple[tuple[str, str], Emit]] = deque()
        self._more = asyncio.Event()
        self._written: OrderedDict[tuple[str, str], None] = OrderedDict()

    def emit(self, emit: Emit) -> None:
        """Queue an Event."""
        if len(self._waiting) >= MAX_QUEUED:
            log.warning("event dropped: queue is full", reason=emit.reason, name=emit.about["metadata"]["name"])
            return
        self._waiting.append((place_of(emit), emit))
        self._more.set()

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            listing = await self._store.list(kinds.EVENT.id)
            for body in sorted(listing.items, key=lambda item: str(item.get("lastTimestamp") or "")):
                self._written[objects.key_of(kinds.EVENT.id, body)[1:]] = None
        except KnollError as error:
            log.warning("events not listed", error=str(error))
        while True:
            await self._more.wait()
            self._more.clear()
            # The first reconciliations of a Service are more urgent than the Events about them.
            await asyncio.sleep(WRITE_DELAY_SECONDS)
            while self._waiting:
                await self._write(self._next())

    def _next(self) -> dict[tuple[str, str], Emit]:
        """Events of different names, which can be written together."""
        events: dict[tuple[str, str], Emit] = {}
        while self._waiting and len(events) < BATCH and self._waiting[0][0] not in events:
            place, emit = self._waiting.popleft()
            events[place] = emit
        return events

    async def _write(self, emits: dict[tuple[str, str], Emit]) -> None:
        repeated = [place for place in emits if place in self._written]
        before = dict(zip(repeated, await asyncio.gather(*map(self._stored, repeated)), strict=True))
        writes = {}
        for place, emit in emits.items():
            stored = before.get(place)
            if isinstance(stored, KnollError):
                _warn(emit, stored)
            else:
                writes[place] = self._write_of(place, emit, stored)
        for place, result in zip(writes, await self._store.write_all(list(writes.values())), strict=True):
            # After AlreadyExistsError, another leader wrote it: the next occurrence is counted.
            if isinstance(result, KnollError) and not isinstance(result, AlreadyExistsError):
                _warn(emits[place], result)
            else:
                self._written[place] = None
                self._written.move_to_end(place)
        try:
            await self._delete_oldest()
        except KnollError as error:
            log.warning("old events not deleted", error=str(error))

    async def _stored(self, place: tuple[str, str]) -> Json | KnollError | None:
        try:
            return await self._store.get(kinds.EVENT.id, *place)
        except NotFoundError:
            return None
        except KnollError as error:
            return error

    def _write_of(self, place: tuple[str, str], emit: Emit, before: Json | None) -> ObjectWrite:
        now = self._clock()
        body = event(place, emit, before, now)
        return ObjectWrite(kinds.EVENT.id, body if before is not None else objects.with_identity(body, now), before)

    async def _delete_oldest(self) -> None:
        while len(self._written) > MAX_EVENTS:
            oldest, _ = self._written.popitem(last=False)
            try:
                await self._store.delete(kinds.EVENT.id, *oldest)
            except NotFoundError:
                continue


def _warn(emit: Emit, error: KnollError) -> None:
    log.warning("event not written", reason=emit.reason, message=emit.message, error=str(error))
