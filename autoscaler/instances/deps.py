"""What the instances of a platform share. At the bottom of this package: it imports none of its modules."""

import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from autoscaler.decision.capacity import Reservations
from autoscaler.probes.checks import Checker
from autoscaler.runtime.model import InstanceSpec
from autoscaler.runtime.protocol import Runtime
from knoll.resources.models.revision import Revision


@dataclass(frozen=True, slots=True)
class InstanceDeps:
    """Services and callbacks of all instances."""

    runtime: Runtime
    checker: Checker
    on_change: Callable[[str], None]
    """Called with the Revision, `namespace/name`, whenever one of its instances changes state or fails."""
    on_removed: Callable[[str], None]
    """Called with the name of an instance that is gone, before `on_change`."""
    wait_until_drained: Callable[[str, str, float], Coroutine[Any, Any, bool]]
    """Waits for the requests in an instance (name, Revision, grace in seconds); see `Draining.wait_until_drained`."""
    reservations: Reservations
    on_capacity_short: Callable[[], None]
    """Called while an instance does not fit on the machine: an idle instance may have to be removed."""
    pull: Callable[[str, str], Awaitable[None]]
    """Pulls an image of a Revision, `namespace/name`, when it is missing; see `ImagePuller.ensure`."""
    admit: Callable[[str, str, str], Awaitable[None]]
    """Applies the network policy to an instance (name, namespace, address); see `Isolation.admit`."""
    prepare: Callable[[Revision, str], Awaitable[InstanceSpec]]
    """Provides the volumes and variables of an instance; see `VolumeSync.prepare`."""
    clock: Callable[[], float] = time.time
    node: str = ""
    """Name of the node; empty on a single machine."""
    loopback_revisions: set[str] = field(default_factory=set)
    """uids of Revisions whose program listens on the loopback address only."""
