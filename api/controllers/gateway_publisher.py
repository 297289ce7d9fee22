"""Publishes the objects that the data path needs: see `knoll.tables.gateway_objects`."""

import asyncio

import structlog

from knoll.concurrency.backoff import Backoff
from knoll.messages.gateway_objects import GatewayObject
from knoll.redis.encryption import Keyring
from knoll.store.informer import Informers, ObjectChange
from knoll.tables.gateway_objects import KINDS, field_of, is_current, pack, published_objects
from knoll.tables.protocol import Table
from knoll.values import kinds
from knoll.values.errors import KnollError
from knoll.values.json import Json
from knoll.values.labels import SYSTEM_NAMESPACE

log = structlog.get_logger()

RESYNC_SECONDS = 30.0
"""Interval at which the table is compared with the objects, in seconds: restores what Redis lost."""


class GatewayPublisher:
    """Keeps the table equal to the objects."""

    def __init__(self, informers: Informers, table: Table[GatewayObject], keyring: Keyring) -> None:
        """
        Args:
            informers: of all `KINDS`; run by the caller.
            keyring: encrypts the objects for the gateway.
        """
        self._informers = informers
        self._table = table
        self._keyring = keyring
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled; retries while Redis is unavailable."""
        for kind in KINDS:
            await self._informers[kind].synced()
        ends = [self._informers[kind].subscribe(self._note, existing=False) for kind in KINDS]
        backoff = Backoff()
        try:
            while True:
                self._changed.clear()
                try:
                    await self._publish()
                except KnollError as error:
                    log.warning("gateway objects not published", error=str(error))
                    await backoff.wait()
                    continue
                backoff.reset()
                try:
                    async with asyncio.timeout(RESYNC_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            for end in ends:
                end()

    def _note(self, _: ObjectChange) -> None:
        self._changed.set()

    async def _publish(self) -> None:
        _, entries = await self._table.snapshot()
        chosen = self._objects()
        for field in entries.keys() - {field_of(*place) for place in chosen}:
            await self._table.remove(field)
        for place, body in chosen.items():
            entry = entries.get(field_of(*place))
            if entry is None or not is_current(*place, entry[1], body, self._keyring):
                await self._table.put(field_of(*place), pack(*place, body, self._keyring))

    def _objects(self) -> dict[tuple[str, str], Json]:
        mappings = self._informers[kinds.DOMAIN_MAPPING.id].list()
        named = {
            (body["metadata"]["namespace"], name)
            for body in mappings
            if (name := ((body.get("spec") or {}).get("tls") or {}).get("secretName"))
        }
        secrets = self._informers[kinds.SECRET.id]
        bodies = {f"{namespace}/{name}": secrets.get(namespace, name) for namespace, name in named}
        config_maps = self._informers[kinds.CONFIG_MAP.id].list(SYSTEM_NAMESPACE)
        return published_objects(config_maps, mappings, {key: body for key, body in bodies.items() if body is not None})
