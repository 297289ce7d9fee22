"""Keeps the objects of a Revision that Knative's tools read up to date: one write each for one step of its scale."""

import asyncio
import time
from collections.abc import Callable

import structlog

from api.controllers.pods import knative_objects
from api.controllers.pods.knative_objects import ActivatorAddress, RevisionView
from api.controllers.pods.settling import SettlingKeys
from api.controllers.reconciler import objects
from knoll.concurrency.backoff import Backoff
from knoll.store.informer import Informers
from knoll.store.protocol import ObjectWrite, Store
from knoll.values.errors import AlreadyExistsError, ConflictError, KnollError, NotFoundError, StoreUnavailableError
from knoll.values.json import Json

log = structlog.get_logger()

QUIET_SECONDS, LONGEST_SECONDS = 0.3, 1.0
"""A Revision's objects are written when it has not changed for so long, or waited for so long: a start or a stop is
several changes of its instances, its scale and its status. New objects wait until the Revision has started, if it does
so in time."""
CONCURRENCY = 16
"""Revisions that are written concurrently."""


class ObjectSync:
    """Writes the objects of all Revisions; `run` ends when it is cancelled."""

    def __init__(
        self,
        store: Store,
        informers: Informers,
        gateway: ActivatorAddress,
        view: Callable[[str], RevisionView | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            informers: run by the caller; Revisions and `knative_objects.KINDS` must be among them.
            view: returns a Revision with its instances and scale by its `namespace/name`; None if it does not exist.
            clock: returns epoch seconds.
        """
        self._store, self._informers, self._gateway, self._clock = store, informers, gateway, clock
        self._view = view
        self._settling = SettlingKeys(LONGEST_SECONDS)
        self._changed = asyncio.Event()

    async def changed(self, key: str) -> None:
        """Called when a Revision, its instances or its scale changed.

        The objects of one that has just become ready are created at once: clients look for them when it is.

        Raises: KnollError: a new object was not written.
        """
        view = self._view(key)
        is_new = view is not None and not self._existing(view)
        if view is not None and is_new and view.has_started:
            self._settling.forget(key)
            await self._write(view)
        else:
            self._settle(key, LONGEST_SECONDS if is_new else QUIET_SECONDS)

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            due = await self._due()
            for start in range(0, len(due), CONCURRENCY):
                try:
                    await asyncio.gather(*(self._sync(key) for key in due[start : start + CONCURRENCY]))
                    backoff.reset()
                except StoreUnavailableError as error:
                    log.warning("objects of revisions not updated", error=str(error))
                    for key in due[start:]:
                        self._settle(key)
                    await backoff.wait()
                    break
                # A long list must not block the other tasks of this process.
                await asyncio.sleep(0)

    def _settle(self, key: str, quiet: float = QUIET_SECONDS) -> None:
        self._settling.changed(key, asyncio.get_running_loop().time(), quiet)
        self._changed.set()

    async def _due(self) -> list[str]:
        """Wait for keys that are due."""
        clock = asyncio.get_running_loop().time
        while True:
            due = self._settling.take(clock())
            if due:
                return due
            at = self._settling.next_due()
            if at is None:
                self._changed.clear()
                await self._changed.wait()
            else:
                await asyncio.sleep(max(0.0, at - clock()))

    async def _sync(self, key: str) -> None:
        view = self._view(key)
        if view is None:
            return
        try:
            await self._write(view)
        except StoreUnavailableError:
            raise
        except (ConflictError, AlreadyExistsError, NotFoundError):
            # The informers are behind the store, and will deliver the newer objects in a moment.
            self._settle(key)
        except KnollError as error:
            log.error("objects of revision not synchronized", revision=key, error=str(error))

    def _existing(self, view: RevisionView) -> dict[tuple[str, str], Json]:
        """The objects by resource id and name."""
        namespace = view.revision["metadata"]["namespace"]
        bodies = {
            (kind.id, name): self._informers[kind.id].peek(namespace, name)
            for kind, name in knative_objects.names(view.name)
        }
        return {place: body for place, body in bodies.items() if body is not None}

    async def _write(self, view: RevisionView) -> None:
        before = self._existing(view)
        writes = []
        for kind, desired in knative_objects.desired_objects(view, self._gateway, before, self._clock()):
            there = before.get((kind.id, desired["metadata"]["name"]))
            if there is None:
                writes.append(ObjectWrite(kind.id, objects.with_identity(desired, self._clock())))
            elif objects.is_controlled_by(there, view.revision) and there != desired:
                # An object of an earlier Revision of this name is garbage-collected, and then created again.
                writes.append(ObjectWrite(kind.id, desired, before=there))
        # Together, so that Redis syncs its file once.
        for result in await self._store.write_all(writes):
            if isinstance(result, KnollError):
                raise result
