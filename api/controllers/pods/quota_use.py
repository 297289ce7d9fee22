"""Keeps `status.used` of ResourceQuotas up to date."""

from collections.abc import Iterable
from fractions import Fraction

import structlog

from api.controllers.pods.pods import RESTING
from knoll.concurrency.pending_keys import PendingKeys
from knoll.resources import quota
from knoll.store.informer import Informers, ObjectChange
from knoll.store.protocol import Store
from knoll.values import kinds
from knoll.values.errors import ConflictError, NotFoundError
from knoll.values.json import Json
from knoll.values.kinds import Kind

log = structlog.get_logger()

BATCH_SECONDS = 0.2
"""How long changes are collected before they are counted, in seconds."""
WAITS = "FailedCreate"
"""Reason of an instance that a quota does not allow yet; on a cluster, it would have no Pod."""


def of_pod(pod: Json) -> quota.Amounts:
    """What a Pod uses: nothing while it is idle or waits for a quota."""
    status = pod.get("status", {})
    reasons = {condition.get("reason") for condition in status.get("conditions") or ()}
    states = [container.get("state", {}) for container in status.get("containerStatuses") or ()]
    waiting = {state.get("waiting", {}).get("reason") for state in states}
    if WAITS in waiting or not reasons.isdisjoint(RESTING.values()):
        return {}
    return quota.of_pod(pod["spec"])


class QuotaUse:
    """Counts in all namespaces while this process leads; `run` ends when it is cancelled."""

    def __init__(self, store: Store, informers: Informers, counted: Iterable[Kind]) -> None:
        """
        Args:
            informers: run by the caller; ResourceQuotas and `counted` must be among them.
        """
        self._store, self._informers = store, informers
        self._counted = [kind for kind in counted if kind.namespaced]
        self._pending = PendingKeys[str](BATCH_SECONDS)

    async def run(self) -> None:
        await self._informers.synced()
        for kind in self._counted:
            self._informers[kind.id].subscribe(self._changed)
        while True:
            due = await self._pending.batch()
            for namespace in due:
                await self._count(namespace)

    def _changed(self, notice: ObjectChange) -> None:
        namespace = notice.key.partition("/")[0]
        if self._informers[kinds.RESOURCE_QUOTA.id].keys(namespace):
            self._pending.mark(namespace)

    async def _count(self, namespace: str) -> None:
        quotas = self._informers[kinds.RESOURCE_QUOTA.id].list(namespace)
        bounded = {quota.resource(name) for body in quotas for name in quota.hard(body)}
        used = self._used(namespace, bounded)
        for body in quotas:
            status = {"hard": dict(quota.hard(body)), "used": quota.used(body, used)}
            if body.get("status") != status:
                await self._write({**body, "status": status})

    def _used(self, namespace: str, bounded: set[str]) -> dict[str, Fraction]:
        """What a namespace uses of the resources that its quotas limit."""
        amounts: list[quota.Amounts] = []
        if bounded.intersection(("pods", *quota.COMPUTE)):
            amounts += [of_pod(pod) for pod in self._informers[kinds.POD.id].list(namespace)]
        for kind in self._counted:
            if f"count/{kind.id}" in bounded:
                amounts.append({f"count/{kind.id}": Fraction(len(self._informers[kind.id].keys(namespace)))})
        if "requests.storage" in bounded:
            claims = self._informers[kinds.VOLUME_CLAIM.id].list(namespace)
            storage = [quota.of_object(kinds.VOLUME_CLAIM.id, claim)["requests.storage"] for claim in claims]
            amounts.append({"requests.storage": sum(storage, Fraction(0))})
        return quota.total(amounts)

    async def _write(self, body: Json) -> None:
        try:
            await self._store.update(kinds.RESOURCE_QUOTA.id, body)
        except (ConflictError, NotFoundError):
            # The change by another writer causes the next count.
            log.debug("quota changed by another writer", quota=body["metadata"]["name"])
