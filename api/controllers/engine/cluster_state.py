"""The state of the cluster on which reconcilers base their decisions. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from api.controllers.engine.cache import Cache
from api.controllers.engine.routing_mirror import RoutingMirror
from api.controllers.reconciler import objects
from api.controllers.route import hosts
from knoll.config.platform import PlatformConfig
from knoll.messages.builds import BuildProgress, Resolution
from knoll.messages.scale import ScaleStatus
from knoll.values.json import Json


@dataclass(slots=True)
class ClusterState:
    """Everything that reconcilers base their decisions on. The loop keeps it up to date."""

    cache: Cache = field(default_factory=Cache)
    resolutions: dict[str, Resolution] = field(default_factory=dict)
    """By `namespace/name` of the Revision."""
    scale: dict[str, ScaleStatus] = field(default_factory=dict)
    builds: dict[str, BuildProgress] = field(default_factory=dict)
    routing: RoutingMirror = field(default_factory=RoutingMirror)
    """The routing table as this process wrote it."""
    acknowledged: dict[str, int] = field(default_factory=dict)
    """By path of a routing entry, the version that every live activator has acknowledged."""
    activators: int = 0
    """Live followers of the routing table."""
    build_order: Sequence[str] = ()
    """Uids of the Builds in the builder's queue, next first."""
    asked: dict[str, float] = field(default_factory=dict)
    """By uid, epoch seconds of the last request to the builder."""
    shown: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By uid of a Service, the last generation shown as Unknown, and when that was, in epoch seconds."""
    config: PlatformConfig = field(default_factory=PlatformConfig)
    naming: hosts.Naming = field(default_factory=hosts.Naming)
    """How hosts are named, according to `config` and the ports of the activator."""


def note_shown(body: Json, state: ClusterState, now: float) -> None:
    """Remember when a generation of a Service was first shown as Unknown. Mutates `state.shown`.

    Args:
        body: a Service that was just written.
    """
    uid, generation = body["metadata"]["uid"], objects.generation(body)
    if objects.condition_status(body) != "Unknown":
        state.shown.pop(uid, None)
    elif objects.observed(body) and state.shown.get(uid, (0, 0.0))[0] != generation:
        state.shown[uid] = (generation, now)
