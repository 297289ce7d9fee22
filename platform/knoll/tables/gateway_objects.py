"""The objects that the activator needs, published by the API so that the activator reads no objects itself.

The table holds the platform's ConfigMaps, DomainMappings with TLS, and the certificates that they name, each reduced to
the fields that the activator uses. Content of Secrets is encrypted with the gateway's own key. `GatewaySource` is the
source of informers that read the table.
"""

import base64
from collections.abc import AsyncIterator, Iterable, Mapping, Set
from functools import partial

import orjson

from knoll.config.platform import NAMES
from knoll.messages.gateway_objects import GatewayObject
from knoll.redis.encryption import SEALED_KINDS, Keyring, SealedError, key_id, object_subject
from knoll.store.compression import compress
from knoll.store.protocol import PackedListing, PackedObject, WatchEvent
from knoll.store.rules import decode, key_of, sort_key
from knoll.tables.protocol import Reset, Table
from knoll.values import kinds
from knoll.values.errors import ExpiredError
from knoll.values.json import Json
from knoll.values.labels import SYSTEM_NAMESPACE

KINDS = (kinds.CONFIG_MAP.id, kinds.DOMAIN_MAPPING.id, kinds.SECRET.id)
"""Resource ids of the kinds in the table."""
_CLAIMED = "DomainClaimed"
"""Condition that is True if the host belongs to the DomainMapping's namespace."""
_CERTIFICATE = ("tls.crt", "tls.key")


def field_of(resource: str, key: str) -> str:
    """Args: key: `namespace/name`."""
    return f"{resource} {key}"


def parse_field(field: str) -> tuple[str, str]:
    """Resource id and `namespace/name`."""
    resource, _, key = field.partition(" ")
    return resource, key


def published_objects(
    config_maps: Iterable[Json], mappings: Iterable[Json], secrets: Mapping[str, Json]
) -> dict[tuple[str, str], Json]:
    """Return the content of the table, by resource id and `namespace/name`.

    Args: secrets: by `namespace/name`; only those that a DomainMapping names are published.
    """
    chosen: dict[tuple[str, str], Json] = {}
    for body in config_maps:
        meta = body["metadata"]
        if meta["namespace"] == SYSTEM_NAMESPACE and meta["name"] in NAMES:
            chosen[kinds.CONFIG_MAP.id, key_of(SYSTEM_NAMESPACE, meta["name"])] = _part(body, "data")
    for body in mappings:
        meta = body["metadata"]
        secret_name = ((body.get("spec") or {}).get("tls") or {}).get("secretName")
        if not secret_name:
            continue
        conditions = (body.get("status") or {}).get("conditions") or ()
        claimed = [
            {"type": condition["type"], "status": condition["status"]}
            for condition in conditions
            if condition["type"] == _CLAIMED
        ]
        chosen[kinds.DOMAIN_MAPPING.id, key_of(meta["namespace"], meta["name"])] = {
            **_part(body), "spec": {"tls": {"secretName": secret_name}}, "status": {"conditions": claimed},
        }  # fmt: skip
        key = key_of(meta["namespace"], secret_name)
        if key in secrets:
            data = secrets[key].get("data") or {}
            chosen[kinds.SECRET.id, key] = {
                **_part(secrets[key]), "data": {name: data[name] for name in _CERTIFICATE if name in data},
            }  # fmt: skip
    return chosen


def pack(resource: str, key: str, body: Json, keyring: Keyring) -> GatewayObject:
    """Encode an object for the table. Raises: SealedError."""
    data = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    if resource in SEALED_KINDS and keyring.seals:
        sealed = keyring.seal(data, object_subject(resource, key))
        return GatewayObject(base64.b64encode(sealed).decode())
    return GatewayObject(data.decode())


def unpack(resource: str, key: str, entry: GatewayObject, keyring: Keyring) -> bytes:
    """Return the object as JSON. Raises: SealedError."""
    if entry.body.startswith("{"):
        return entry.body.encode()
    return keyring.open(base64.b64decode(entry.body), object_subject(resource, key))


def is_current(resource: str, key: str, entry: GatewayObject, body: Json, keyring: Keyring) -> bool:
    """Return whether an entry has this content, encrypted with the current key. Raises: SealedError (no keyring)."""
    plain = entry.body.startswith("{")
    seals = resource in SEALED_KINDS and keyring.seals
    if plain is seals or (seals and key_id(base64.b64decode(entry.body)) != keyring.current):
        return False
    try:
        return unpack(resource, key, entry, keyring) == orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except SealedError:
        return False  # the entry was changed or moved


class GatewaySource:
    """The table as a `Source` of informers; versions are those of the table."""

    def __init__(self, table: Table[GatewayObject], keyring: Keyring) -> None:
        self._table = table
        self._keyring = keyring

    async def list_packed(self, resource: str) -> PackedListing:
        version, entries = await self._table.snapshot()
        items = []
        for field, (at, entry) in entries.items():
            kind, key = parse_field(field)
            if kind == resource:
                items.append(PackedObject(key, at, unpack(kind, key, entry, self._keyring)))
        return PackedListing(items, version)

    async def watch(self, since: int, resources: Set[str] | None = None) -> AsyncIterator[WatchEvent]:
        async for change in self._table.follow():
            if isinstance(change, Reset):
                if change.version != since:
                    raise ExpiredError(f"the table is at {change.version}, the listing was at {since}")
                continue
            since = change.version
            kind, key = parse_field(change.field)
            if resources is not None and kind not in resources:
                continue
            if change.value is None:
                namespace, name = sort_key(key)
                yield WatchEvent("DELETED", kind, since, {"metadata": {"namespace": namespace, "name": name}})
            else:
                data = unpack(kind, key, change.value, self._keyring)
                yield WatchEvent("MODIFIED", kind, since, decode(data, since), data=partial(compress, kind, data))


def _part(body: Json, *fields: str) -> Json:
    namespace, name = sort_key(key_of(body["metadata"].get("namespace") or "", body["metadata"]["name"]))
    meta = {"namespace": namespace, "name": name, "uid": body["metadata"].get("uid") or ""}
    return {"metadata": meta, **{field: body[field] for field in fields if field in body}}
