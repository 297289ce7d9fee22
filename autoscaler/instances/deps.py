"""What instances are given by the loop that looks after all of them."""

import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoscaler.decision.capacity import Room
from autoscaler.probes.checks import Checker
from autoscaler.runtime.protocol import InstanceSpec, Runtime
from knoll.resources.models.revision import Revision

if TYPE_CHECKING:
    from autoscaler.instances.instance import Member


@dataclass(frozen=True, slots=True)
class World:
    """What members share."""

    runtime: Runtime
    checker: Checker
    changed: Callable[["Member"], None]
    """Told whenever a member's stage or failure is another."""
    drained: Callable[["Member"], Coroutine[Any, Any, bool]]
    """Waits until nobody sends requests to a member any more and none is left in it; see `Draining.drained`."""
    room: Room
    """What the machine has; members take of it."""
    crowded: Callable[[], None]
    """Told when a member does not fit: what rests may make room."""
    pull: Callable[[str, str], Awaitable[None]]
    """Has the image of a Revision, `namespace/name`, on the engine; see `Pulling.ensure`."""
    admit: Callable[[str, str, str], Awaitable[None]]
    """Has the network policy in force for an instance (name, namespace, address); see `Isolation.admit`."""
    prepare: Callable[[Revision, str], Awaitable[InstanceSpec]]
    """Has an instance's volumes and variables at hand; see `Delivery.prepare`."""
    clock: Callable[[], float] = time.time
    on_loopback: set[str] = field(default_factory=set)
    """uids of Revisions whose program was found to listen on loopback alone."""
