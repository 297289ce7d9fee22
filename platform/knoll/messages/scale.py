"""What the autoscaler tells the others: endpoints for activators, state of each revision for the API. Pure."""

from typing import Literal

import msgspec

ENDPOINTS = "endpoints"
"""Name of the table of `RevisionEndpoints`. Field: `namespace/name` of the Revision. Writer: the leading autoscaler."""

SCALE = "scale"
"""Name of the table of `ScaleStatus`. Field: `namespace/name` of the Revision. Writer: the leading autoscaler."""


class StartTiming(msgspec.Struct, frozen=True):
    """When an instance went through its start; epoch seconds on the autoscaler's clock."""

    wanted: float
    """The decision (or poke) that asked for it arrived."""
    scheduled: float
    """A sandbox was in hand and the engine was asked for the container."""
    started: float
    """The engine said that the app's process runs."""
    ready: float
    """The readiness probe succeeded."""


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instance that can take requests, or is finishing them."""

    id: str
    """Instance name: the emulated Pod's name and the container's hostname."""
    host: str
    """IP address on the instance network."""
    port: int
    state: Literal["ready", "draining"] = "ready"
    """`draining`: pick it no more; requests in flight may end."""
    timing: StartTiming | None = None


class RevisionEndpoints(msgspec.Struct, frozen=True):
    """Every instance of a revision that activators must know of; an empty list is scale zero."""

    endpoints: tuple[Endpoint, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """Why a revision's instances do not come up, in the reasons of Knative's conditions."""

    condition: Literal["ContainerHealthy", "ResourcesAvailable"]
    """The Revision's condition that becomes False."""
    reason: str
    """`ExitCode<N>`, `ErrImagePull`, `ImagePullBackOff`, `Unschedulable`, `ProgressDeadlineExceeded` and others."""
    message: str
    final: bool = True
    """False while it may still come up (a restart is under way, the progress deadline has not passed)."""


class Change(msgspec.Struct, frozen=True):
    """A decision that changed how many instances are wanted."""

    at: float
    """Epoch seconds."""
    want: int
    why: str
    """In words."""


class UsageStatus(msgspec.Struct, frozen=True):
    """How a Revision stands that is scaled by CPU or memory, for its HorizontalPodAutoscaler."""

    metric: str
    """`cpu` or `memory`."""
    target: float
    """Percent of the requested CPU, or bytes in one instance."""
    average: int | None
    """The same; None while it is not known."""
    problem: str
    """Why it is not known; empty when it is, and before the first look."""
    least: int
    most: int
    """0 is no limit."""


class ScaleStatus(msgspec.Struct, frozen=True):
    """What a revision's scale is, for its conditions and `actualReplicas`/`desiredReplicas`."""

    uid: str
    """uid of the Revision object it speaks of; another uid means a stale entry of an earlier object of that name."""
    desired: int
    actual: int
    """Ready instances."""
    initial_reached: bool
    """The initial scale was ready once."""
    active: Literal["True", "False", "Unknown"]
    active_reason: str = ""
    """`NoTraffic`, `Queued`, `Deploying`, `TimedOut`; empty when active."""
    active_message: str = ""
    failure: Failure | None = None
    deploying_since: float = 0.0
    """Epoch seconds that the progress deadline counts from; 0 once the initial scale was reached."""
    by_load: int = 0
    """What its load alone wants of `desired`: without min-scale, warm windows and rollouts."""
    rollback: str = ""
    """Why it does worse than the Revision before it, by its `knoll.dev/rollback-on`; empty when it does not."""
    changes: tuple[Change, ...] = ()
    """The last changes of `desired`, oldest first; at most ten."""
    usage: UsageStatus | None = None
    """With the class `hpa.autoscaling.knative.dev` alone."""
