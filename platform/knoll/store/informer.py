"""A copy in memory of all objects of some kinds, kept up to date by a watch, for reconcilers.

Objects are stored as compressed JSON and decoded on each read, which takes a tenth of the memory and gives every reader
its own copy. The most recently used ones are also kept decoded, for readers that share them.
"""

import asyncio
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.store.compression import compress, decompress
from knoll.store.protocol import PackedListing, Source, WatchEvent
from knoll.store.rules import decode, decode_all, key_in, key_of, owners_in, sort_key
from knoll.values.errors import ExpiredError, StoreUnavailableError
from knoll.values.json import Json

log = structlog.get_logger()
K = TypeVar("K")
_Keys = list[str]
_DECODE_BATCH = 200
"""Number of objects that are decoded before other tasks can run."""


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """A change of an object. The bodies are shared and must not be mutated."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: str
    key: str
    """`namespace/name`."""
    old: Json | None
    """None for ADDED."""
    new: Json | None
    """None for DELETED."""
    seen: bool = True
    """False if it was deleted during a gap of the watch, and was missing in the next list."""


ObjectSubscriber = Callable[[ObjectChange], object]
"""Called in the event loop, in the order of the changes; must not block. `queue.put_nowait` is one."""


class _Kept:
    __slots__ = ("data", "is_deleting", "labels", "owners", "uid", "version")

    def __init__(self, version: int, data: bytes, body: Json, labels: Iterable[str]) -> None:
        meta = body["metadata"]
        own = meta.get("labels") or {}
        self.version = version
        self.data = data
        # An object's uid and name are also in its dependents: all share one string.
        self.uid = sys.intern(meta.get("uid") or "")
        self.is_deleting = bool(meta.get("deletionTimestamp"))
        self.labels = tuple((name, own[name]) for name in labels if name in own)
        self.owners = tuple(map(sys.intern, owners_in(body)))

    def body(self, resource: str) -> Json:
        return decode(decompress(resource, self.data), self.version)


class Informer:
    """The objects of one kind."""

    def __init__(self, store: Source, resource: str, *, labels: Sequence[str] = (), decoded: int = 0) -> None:
        """
        Args:
            labels: names of labels that `list` often selects by; they are indexed.
            decoded: how many objects are kept decoded as well, for `peek` and subscribers.
        """
        self.resource = resource
        self._store = store
        self._labels = tuple(labels)
        self._kept: dict[str, _Kept] = {}
        self._decoded: OrderedDict[str, Json] = OrderedDict()
        self._max_decoded = decoded
        self._by_label: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._by_owner: dict[str, tuple[str, ...]] = {}
        """Tuples, because nearly every owner has one object of a kind, and a set takes four times the memory."""
        self._subscribers: list[ObjectSubscriber] = []
        self._synced = asyncio.Event()
        self._seen = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, namespace: str, name: str) -> Json | None:
        """A copy of one object; None if it does not exist."""
        kept = self._kept.get(key_of(namespace, name))
        return None if kept is None else kept.body(self.resource)

    def peek(self, namespace: str, name: str) -> Json | None:
        """One object, shared with other readers, so it must not be mutated; None if it does not exist."""
        key = key_of(namespace, name)
        kept = self._kept.get(key)
        return None if kept is None else self._body(key, kept)

    def uid(self, namespace: str, name: str) -> str | None:
        """An object's uid, without decoding the object; None if it does not exist."""
        kept = self._kept.get(key_of(namespace, name))
        return None if kept is None else kept.uid

    def has(self, namespace: str, name: str, uid: str) -> bool:
        """Whether an object with this uid exists and is not being deleted, without decoding it."""
        kept = self._kept.get(key_of(namespace, name))
        return kept is not None and kept.uid == uid and not kept.is_deleting

    def list(
        self, namespace: str | None = None, *, labels: Mapping[str, str] | None = None, owner: str = ""
    ) -> Sequence[Json]:
        """Copies of all objects that match every given argument, sorted by namespace and name.

        Args:
            labels: name to value.
            owner: uid that an ownerReference must have.
        """
        matching = [self._kept[key] for key in self.keys(namespace, labels=labels, owner=owner)]
        return decode_all((kept.version, decompress(self.resource, kept.data)) for kept in matching)

    def keys(self, namespace: str | None = None, *, labels: Mapping[str, str] | None = None, owner: str = "") -> _Keys:
        """`namespace/name` of the objects that `list` would return."""
        if not self._kept or (owner and owner not in self._by_owner):
            return []
        selector = labels or {}
        sets = [self._by_label.get(pair, set()) for pair in selector.items() if pair[0] in self._labels]
        if owner:
            sets.append(set(self._by_owner.get(owner, ())))
        matching: Iterable[str] = set.intersection(*sets) if sets else self._kept
        if namespace is not None:
            matching = [key for key in matching if key.startswith(f"{namespace}/")]
        others = [pair for pair in selector.items() if pair[0] not in self._labels]
        if others:
            matching = [key for key in matching if self._has(key, others)]
        return sorted(matching, key=sort_key)

    def subscribe(self, subscriber: ObjectSubscriber, *, existing: bool = True) -> Callable[[], None]:
        """Call the subscriber after every change from now on.

        Args:
            existing: begin with an ADDED for each existing object.

        Returns: a function that ends the subscription.
        """
        for key in self.keys() if existing else ():
            subscriber(ObjectChange("ADDED", self.resource, key, None, self._kept[key].body(self.resource)))
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    async def synced(self) -> None:
        """Wait until the objects were listed once."""
        await self._synced.wait()

    async def run(self) -> None:
        """Keep up to date until cancelled."""
        await Informers(self._store, [self]).run()

    async def replace(self, listing: PackedListing) -> None:
        """Replace all objects with a list; subscribers get the differences."""
        items = sorted(listing.items, key=lambda item: sort_key(item.key))
        there = {item.key for item in items}
        for key in [key for key in self._kept if key not in there]:
            self._drop(key, seen=False)
        for index, item in enumerate(items):
            old = self._kept.get(item.key)
            if old is None or old.version != item.version:
                self._put(item.key, item.version, compress(self.resource, item.data), decode(item.data, item.version))
            if index % _DECODE_BATCH == _DECODE_BATCH - 1:
                await asyncio.sleep(0)
        self._seen = listing.version
        self._synced.set()

    def apply(self, event: WatchEvent) -> None:
        """Apply an event; one that is already contained in a list changes nothing."""
        if event.version <= self._seen:
            return
        self._seen = event.version
        key = key_in(event.body)
        if event.type == "DELETED":
            self._drop(key)
        else:
            self._put(key, event.version, event.data, event.body)

    def _put(self, key: str, version: int, data: bytes, body: Json) -> None:
        old = self._kept.get(key)
        new = _Kept(version, data, body, self._labels)
        if old is not None and old.uid != new.uid:
            # Deleted and recreated during a gap of the watch: a different object.
            self._drop(key)
            old = None
        before = None
        if old is None:
            key = sys.intern(key)
        else:
            self._unindex(key, old)
            before = self._body(key, old) if self._subscribers else None
        self._kept[key] = new
        self._remember(key, body)
        for pair in new.labels:
            self._by_label[pair].add(key)
        for uid in new.owners:
            self._by_owner[uid] = (*self._by_owner.get(uid, ()), key)
        if self._subscribers:
            self._tell(ObjectChange("ADDED" if old is None else "MODIFIED", self.resource, key, before, body))

    def _drop(self, key: str, *, seen: bool = True) -> None:
        old = self._kept.pop(key, None)
        if old is None:
            return
        self._unindex(key, old)
        if self._subscribers:
            self._tell(ObjectChange("DELETED", self.resource, key, self._body(key, old), None, seen))
        self._decoded.pop(key, None)

    def _body(self, key: str, kept: _Kept) -> Json:
        """The body of a stored object, which must not be mutated."""
        body = self._decoded.get(key)
        if body is None:
            body = kept.body(self.resource)
            self._remember(key, body)
        return body

    def _remember(self, key: str, body: Json) -> None:
        self._decoded[key] = body
        self._decoded.move_to_end(key)
        if len(self._decoded) > self._max_decoded:
            self._decoded.popitem(last=False)

    def _unindex(self, key: str, old: _Kept) -> None:
        for pair in old.labels:
            _discard(self._by_label, pair, key)
        for uid in old.owners:
            others = tuple(other for other in self._by_owner[uid] if other != key)
            if others:
                self._by_owner[uid] = others
            else:
                del self._by_owner[uid]

    def _tell(self, notice: ObjectChange) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber(notice)

    def _has(self, key: str, labels: Iterable[tuple[str, str]]) -> bool:
        own = self._kept[key].body(self.resource)["metadata"].get("labels") or {}
        return all(own.get(name) == value for name, value in labels)


def _discard(index: defaultdict[K, set[str]], at: K, key: str) -> None:
    index[at].discard(key)
    if not index[at]:
        del index[at]


class Informers:
    """Several informers fed by one watch, so that all of them see the changes of all kinds in one order."""

    def __init__(self, store: Source, informers: Sequence[Informer]) -> None:
        self._store = store
        self._informers = {informer.resource: informer for informer in informers}

    def __getitem__(self, resource: str) -> Informer:
        return self._informers[resource]

    def __iter__(self) -> Iterator[Informer]:
        return iter(self._informers.values())

    async def synced(self) -> None:
        for informer in self._informers.values():
            await informer.synced()

    async def run(self) -> None:
        """Keep all of them up to date until cancelled, also while the store is unavailable or loses data."""
        backoff = Backoff()
        while True:
            try:
                since = await self._list()
                backoff.reset()
                await self._follow(since)
            except ExpiredError as error:
                log.info("objects listed again", kinds=len(self._informers), reason=str(error))
            except StoreUnavailableError:
                pass
            await backoff.wait()

    async def _list(self) -> int:
        versions = []
        for informer in self._informers.values():
            listing = await self._store.list_packed(informer.resource)
            await informer.replace(listing)
            versions.append(listing.version)
        return min(versions)

    async def _follow(self, since: int) -> None:
        async for event in self._store.watch(since, self._informers.keys()):
            self._informers[event.resource].apply(event)
