"""Reads and writes the Secrets with the platform's own credentials, which all API servers share."""

import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from api.resource import core_rules
from api.wire import metadata
from api.wire.metadata import Place
from knoll.store.protocol import Store
from knoll.values.errors import AlreadyExistsError, ConflictError, NotFoundError
from knoll.values.json import Json
from knoll.values.kinds import SECRET


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """The content of a Secret when it was read."""

    data: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    body: Json | None = field(default=None, repr=False)
    """The object; None if there is none."""


async def read(store: Store, namespace: str, name: str) -> StoredSecret:
    """Read a Secret, empty if it does not exist. Raises: StoreUnavailableError, SealedError."""
    try:
        body = await store.get(SECRET.id, namespace, name)
    except NotFoundError:
        return StoredSecret()
    data = {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}
    return StoredSecret(data, body)


async def write(
    store: Store, namespace: str, name: str, data: Mapping[str, bytes], before: StoredSecret, *, kind: str = "Opaque"
) -> None:
    """Create or replace a Secret, only if it has not changed since `before` was read.

    Args: kind: `type` of the Secret if it is created.

    Raises: ConflictError: another process changed it. StoreUnavailableError.
    """
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    if before.body is not None:
        body = {**before.body, "data": encoded}
        try:
            await store.update(SECRET.id, core_rules.admit(body, before.body, SECRET))
        except NotFoundError as error:
            raise ConflictError(f"the Secret {namespace}/{name} was deleted") from error
        return
    created: Json = {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {"name": name},
        "type": kind,
        "data": encoded,
    }
    metadata.for_create(
        created, Place(SECRET, SECRET.version, namespace), now=time.time(), uid=str(uuid.uuid4()), suffix=""
    )
    try:
        await store.create(SECRET.id, core_rules.admit(created, None, SECRET))
    except AlreadyExistsError as error:
        raise ConflictError(f"the Secret {namespace}/{name} already exists") from error
