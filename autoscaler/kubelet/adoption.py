"""Adopting instances that the engine runs: all of them when this process starts, later those not managed yet."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from autoscaler.decision.idle_policy import IdleState
from autoscaler.instances.deps import InstanceDeps
from autoscaler.instances.instance import ManagedInstance
from autoscaler.kubelet.armed_pool import ArmedPool
from autoscaler.node.isolation import Isolation
from autoscaler.runtime.model import Instance
from autoscaler.spec.instance_spec import instance_spec, probes
from autoscaler.spec.revision_catalog import RevisionCatalog
from knoll.concurrency.backoff import until_available
from knoll.messages.endpoints import Endpoint
from knoll.messages.instances import InstanceRow

log = structlog.get_logger()

Spawn = Callable[[Coroutine[Any, Any, None]], object]


@dataclass(frozen=True, slots=True)
class LastPublished:
    """The last published endpoints and rows of this node's instances, by instance name."""

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    rows: Mapping[str, InstanceRow] = field(default_factory=dict)


class Adoption:
    """Adopts instances of Revisions that exist, and removes the others."""

    def __init__(
        self,
        deps: InstanceDeps,
        catalog: RevisionCatalog,
        isolation: Isolation,
        armed: ArmedPool,
        spawn: Spawn,
        on_adopted: Callable[[ManagedInstance], None],
    ) -> None:
        self._deps, self._catalog, self._isolation, self._armed = deps, catalog, isolation, armed
        self._spawn, self._on_adopted = spawn, on_adopted

    async def adopt_all(self, published: LastPublished) -> None:
        """Adopt the running instances."""
        for instance in await until_available(self._deps.runtime.instances):
            self.adopt(instance, published)

    def adopt(self, instance: Instance, published: LastPublished | None = None) -> None:
        """Adopt an instance, or remove it when its Revision is gone."""
        if self._armed.knows(instance.name):
            return
        self._isolation.add(instance.name, instance.revision.partition("/")[0], instance.address)
        has_revision = self._catalog.current(instance.uid) is not None
        if instance.state == "armed" and self._armed.adopt(instance):
            return
        # The start of a `starting` instance was aborted when the process that ran it ended.
        if has_revision and instance.state in ("running", "exited", "paused"):
            log.info("instance adopted", instance=instance.name, revision=instance.revision)
            self._manage(instance, published or LastPublished())
        elif not has_revision and self._catalog.exists(instance.revision, instance.uid):
            # It cannot be scaled right now: its images are not resolved, or it is not readable.
            log.info("instance kept without a scaler", instance=instance.name, revision=instance.revision)
        else:
            self._spawn(self._remove(instance, instance.state if has_revision else "its Revision was deleted"))

    def _manage(self, instance: Instance, published: LastPublished) -> None:
        compressed = self._catalog.get(instance.uid)
        assert compressed is not None
        revision = compressed.revision()
        endpoint, row = published.endpoints.get(instance.name), published.rows.get(instance.name)
        if row and instance.armed:
            instance = _since_release(instance, row)
        managed = ManagedInstance(
            self._deps,
            instance_spec(revision, instance.name),
            probes(revision),
            requested_at=instance.created,
            adopted=instance,
            idle=_idle_state(instance, endpoint, row, self._deps.clock()),
        )
        if endpoint and endpoint.state == "ready":
            managed.keep_serving(endpoint.timing)
        self._on_adopted(managed)
        managed.start()
        if endpoint and endpoint.state == "draining":
            managed.drain()

    async def _remove(self, instance: Instance, reason: str) -> None:
        if self._catalog.is_empty():
            await self._catalog.wait_for_objects()
            if self._catalog.current(instance.uid) is not None:
                self.adopt(instance)
                return
        log.info("instance removed", instance=instance.name, revision=instance.revision, reason=reason)
        await until_available(partial(self._deps.runtime.remove, instance.name))
        self._isolation.remove(instance.name)


def _since_release(instance: Instance, row: InstanceRow) -> Instance:
    """Return an instance with the times since its release, which users see; the engine reports those of the arming."""
    started = {container.name: container.started for container in row.containers}
    containers = tuple(
        replace(container, started_at=max(container.started_at, started.get(container.name, 0.0)))
        for container in instance.containers
    )
    return replace(instance, created=max(instance.created, row.created), containers=containers)


def _idle_state(
    instance: Instance, endpoint: Endpoint | None, row: InstanceRow | None, now: float
) -> tuple[IdleState, float] | None:
    """Return the idle state of an adopted instance and its start in epoch seconds; None when it is not idle.

    An instance is paused only after the activators have acknowledged that it is not ready. A paused instance whose
    endpoint is still ready was therefore paused by another program, and is not idle.
    """
    since = row.since if row and row.since else now
    if instance.state == "paused" and not (endpoint and endpoint.state == "ready"):
        return "paused", since
    if instance.state == "exited" and row and row.stage in ("paused", "stopped") and not endpoint:
        return "stopped", since
    return None
