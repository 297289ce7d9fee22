"""Taking over instances: all of them when this process begins to lead, and later those without a scaler."""

from collections.abc import Mapping
from functools import partial

import structlog

from autoscaler.leader.armed_pool import ArmedPool
from autoscaler.leader.registry import RevisionRegistry
from autoscaler.leader.revision_watch import RevisionWatch, Spawn
from autoscaler.leader.scaling_queue import ScalingQueue
from autoscaler.node.isolation import Isolation
from autoscaler.runtime.model import Instance
from autoscaler.runtime.protocol import Runtime
from knoll.concurrency.backoff import until_available
from knoll.messages.endpoints import Endpoint
from knoll.messages.instances import InstanceRow

log = structlog.get_logger()


class Takeover:
    """Adopts instances of Revisions that exist, and removes the others.

    One parameter more than the style allows: it connects everything that a new leader must fill.
    """

    def __init__(
        self,
        runtime: Runtime,
        registry: RevisionRegistry,
        revisions: RevisionWatch,
        queue: ScalingQueue,
        isolation: Isolation,
        armed: ArmedPool,
        spawn: Spawn,
    ) -> None:
        self._runtime, self._registry, self._revisions = runtime, registry, revisions
        self._queue, self._isolation, self._armed, self._spawn = queue, isolation, armed, spawn

    async def adopt_all(self, endpoints: Mapping[str, Endpoint], rows: Mapping[str, InstanceRow]) -> None:
        """Adopt the running instances.

        Args:
            endpoints: the endpoints that were last published, by instance.
            rows: the status rows that were last published, by instance.
        """
        for instance in await until_available(self._runtime.instances):
            self.adopt(instance, endpoints.get(instance.name), rows.get(instance.name))
        for scaler in self._registry.by_uid.values():
            scaler.adopted()

    def adopt(self, instance: Instance, endpoint: Endpoint | None = None, row: InstanceRow | None = None) -> None:
        """Adopt an instance, or remove it when its Revision is gone."""
        if self._armed.knows(instance.name):
            return
        self._isolation.add(instance.name, instance.revision.partition("/")[0], instance.address)
        scaler = self._registry.by_uid.get(instance.uid)
        if instance.state == "armed" and self._armed.adopt(instance):
            return
        # The start of an instance that is `starting` ended with its process.
        if scaler is not None and instance.state in ("running", "exited", "paused"):
            log.info("instance adopted", instance=instance.name, revision=instance.revision)
            scaler.adopt(instance, endpoint, row)
            self._queue.mark(scaler.key)
        elif scaler is None and self._revisions.exists(instance.revision, instance.uid):
            # Its Revision cannot be scaled right now: its images are not resolved, or it is not readable.
            log.info("instance kept without a scaler", instance=instance.name, revision=instance.revision)
        else:
            self._spawn(self._remove(instance, instance.state if scaler else "its Revision was deleted"))

    async def _remove(self, instance: Instance, reason: str) -> None:
        if self._revisions.is_empty():
            await self._revisions.wait_for_objects()
            if instance.uid in self._registry.by_uid:
                self.adopt(instance)
                return
        log.info("instance removed", instance=instance.name, revision=instance.revision, reason=reason)
        await until_available(partial(self._runtime.remove, instance.name))
        self._isolation.remove(instance.name)
