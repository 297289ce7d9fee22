"""The subresource `eviction` of Pods: `kubectl drain` moves instances with it.

An eviction is accepted at once and not delayed by a budget: the Pod stays, Terminating, until another instance has
replaced its own and its requests have ended.

Source: Kubernetes, pkg/registry/core/pod/storage/eviction.go.
"""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.http import body_reader
from api.resource.write import Writes
from api.wire import options
from api.wire.paths import ResourcePath
from knoll.resources.disruption import DISRUPTION_TARGET, EVICTED
from knoll.store.protocol import Store
from knoll.values.errors import BadRequestError, ConflictError
from knoll.values.json import Json
from knoll.values.kinds import POD
from knoll.values.timestamps import timestamp

SUBRESOURCE = "eviction"
VERSIONS = ("policy/v1", "policy/v1beta1")
ACCEPTED = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class Evictions:
    """Evicts Pods."""

    def __init__(self, store: Store, writes: Writes, clock: Callable[[], float]) -> None:
        """Args: clock: epoch seconds."""
        self._store, self._writes, self._clock = store, writes, clock

    async def evict(self, request: Request, target: ResourcePath) -> Response:
        """POST an Eviction. Raises: BadRequestError, NotFoundError, ConflictError."""
        parsed = await body_reader.parsed_body(request, duplicates=False)
        deletion = options.delete_options(request.query_params, _deletion(parsed.value, target.place.name))
        # A dry run, and preconditions that fail, change nothing.
        if not deletion.dry_run:
            await self._mark(target, deletion)
        await self._writes.delete(target, deletion)
        return JSONResponse(ACCEPTED, 201)

    async def _mark(self, target: ResourcePath, deletion: options.DeleteOptions) -> None:
        """Add the condition that has the leader replace the instance before it ends."""
        place = target.place
        while True:
            body = await self._store.get(POD.id, place.namespace, place.name)
            if deletion.uid and deletion.uid != body["metadata"]["uid"]:
                return  # the deletion reports it
            status: Json = body.get("status") or {}
            others = [each for each in status.get("conditions", ()) if each["type"] != DISRUPTION_TARGET]
            if len(others) != len(status.get("conditions", ())):
                return
            condition = {**EVICTED, "lastTransitionTime": timestamp(int(self._clock()))}
            body["status"] = {**status, "conditions": [*others, condition]}
            try:
                await self._store.update(POD.id, body)
                return
            except ConflictError:
                continue


def _deletion(body: Any, name: str) -> Json | None:
    """Return the DeleteOptions of an Eviction. Raises: BadRequestError."""
    if not isinstance(body, dict) or body.get("kind") != "Eviction" or body.get("apiVersion") not in VERSIONS:
        raise BadRequestError("the body must be an Eviction of policy/v1")
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict) or metadata.get("name", name) != name:
        raise BadRequestError("name in URL does not match name in Eviction object")
    deletion = body.get("deleteOptions")
    if deletion is not None and not isinstance(deletion, dict):
        raise BadRequestError("deleteOptions must be a DeleteOptions object")
    return deletion
