"""Enforces the ResourceQuotas of a namespace when clients create objects."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.wire.metadata import Place
from knoll.resources import quota
from knoll.store.protocol import Store
from knoll.values.errors import ForbiddenError
from knoll.values.json import Json
from knoll.values.kinds import RESOURCE_QUOTA


class Quotas:
    """Counts the objects of a namespace for each creation that a quota limits; other creations cost one look-up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def allowing(self, place: Place, body: Json) -> AsyncIterator[None]:
        """Context in which the object is created; other creations that a quota limits wait until it ends.

        Raises: ForbiddenError: a quota of the namespace does not allow it.
        """
        kind = place.kind.id
        asked = quota.of_object(kind, body)
        quotas = (await self._store.list(RESOURCE_QUOTA.id, place.namespace)).items if place.namespace else []
        if not quota.bounds(quotas, asked):
            yield
            return
        async with self._one_at_a_time:
            there = (await self._store.list(kind, place.namespace)).items
            now = quota.total(quota.of_object(kind, existing) for existing in there)
            if why := quota.refusal(quotas, now, asked, {}):
                raise ForbiddenError(f'{kind} "{body["metadata"]["name"]}" is forbidden: {why}')
            yield
