"""Fills new namespaces and empties deleted ones.

A new namespace gets the objects that Kubernetes creates in each: the ServiceAccount `default` and, with TLS, the
certificate of the API's authority. A deleted namespace is held by a finalizer until this loop has emptied it. Several
processes may run the loop at once, because its actions are idempotent.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import structlog

from api.resource import bootstrap
from knoll.store.protocol import Store, WatchEvent
from knoll.values.errors import ConflictError, ExpiredError, NotFoundError, StoreUnavailableError
from knoll.values.json import Json
from knoll.values.kinds import CONFIG_MAP, KINDS, NAMESPACE, SERVICE_ACCOUNT

log = structlog.get_logger()

CONTENTS = "knoll.dev/contents"
"""Finalizer of a namespace that may still contain objects."""
AUTHORITY = "kube-root-ca.crt"
"""ConfigMap of every namespace with the certificate of the API's authority, as on Kubernetes."""
CHECK_SECONDS = 0.5
"""Interval at which a namespace is checked while its objects are being deleted, in seconds."""
_FIRST = ("services.serving.knative.dev", "domainmappings.serving.knative.dev", "routes.serving.knative.dev")
"""Deleted first, so that their controllers do not create the other objects again."""


class Namespaces:
    """Follows all namespaces."""

    def __init__(self, store: Store, authority: str = "") -> None:
        """Args: authority: PEM of the authority that clients of the API trust; empty without TLS."""
        self._store = store
        self._authority = authority
        self._begun: set[str] = set()
        """Uids of the namespaces that were filled."""
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            while True:
                try:
                    await self._follow()
                except (ConflictError, ExpiredError, NotFoundError, StoreUnavailableError) as error:
                    log.info("namespaces listed again", reason=str(error))
                    await asyncio.sleep(CHECK_SECONDS)
        finally:
            for task in self._ending.values():
                task.cancel()
            await asyncio.gather(*self._ending.values(), return_exceptions=True)

    async def _follow(self) -> None:
        listing = await self._store.list(NAMESPACE.id)
        for body in listing.items:
            await self._look(body)
        events = cast("AsyncGenerator[WatchEvent, None]", self._store.watch(listing.version, {NAMESPACE.id}))
        async with aclosing(events):
            async for event in events:
                if event.type != "DELETED":
                    await self._look(event.body)
                else:
                    self._begun.discard(event.body["metadata"]["uid"])

    async def _look(self, body: Json) -> None:
        metadata = body["metadata"]
        name = metadata["name"]
        if not metadata.get("deletionTimestamp"):
            if metadata["uid"] not in self._begun:
                await self._begin(name)
                self._begun.add(metadata["uid"])
        elif CONTENTS in (metadata.get("finalizers") or ()) and name not in self._ending:
            task = self._ending[name] = asyncio.create_task(self._end(name), name=f"end of namespace {name}")
            task.add_done_callback(lambda _: self._ending.pop(name, None))

    async def _begin(self, name: str) -> None:
        await bootstrap.create_missing(self._store, SERVICE_ACCOUNT, name, "default", {})
        if self._authority:
            await bootstrap.create_or_update(
                self._store, CONFIG_MAP, name, AUTHORITY, {"data": {"ca.crt": self._authority}}
            )

    async def _end(self, name: str) -> None:
        while True:
            try:
                if not await self._empty(name):
                    await self._release(name)
                    return
            except NotFoundError:
                return
            except (StoreUnavailableError, ConflictError) as error:
                log.info("namespace not emptied yet", namespace=name, reason=str(error))
            await asyncio.sleep(CHECK_SECONDS)

    async def _empty(self, name: str) -> int:
        """Delete the objects of a namespace; returns how many there were."""
        count = 0
        kinds = sorted((kind.id for kind in KINDS if kind.namespaced), key=lambda resource: resource not in _FIRST)
        for resource in kinds:
            for body in (await self._store.list(resource, name)).items:
                count += 1
                try:
                    await self._store.delete(resource, name, body["metadata"]["name"], uid=body["metadata"]["uid"])
                except (NotFoundError, ConflictError):
                    continue
        return count

    async def _release(self, name: str) -> None:
        body = await self._store.get(NAMESPACE.id, "", name)
        body["metadata"]["finalizers"] = [held for held in body["metadata"].get("finalizers") or () if held != CONTENTS]
        if not body["metadata"]["finalizers"]:
            del body["metadata"]["finalizers"]
        await self._store.update(NAMESPACE.id, body)
        log.info("namespace deleted", namespace=name)
