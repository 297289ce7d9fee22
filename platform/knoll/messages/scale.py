"""The scale of each revision, as the autoscaler reports it to the API. Pure."""

from typing import Literal

import msgspec

SCALE = "scale"
"""Name of the table of `ScaleStatus`. Field: `namespace/name` of the Revision. Writer: the leading autoscaler."""


class StartFailure(msgspec.Struct, frozen=True):
    """Why a revision's instances fail to start, with the reasons of Knative's conditions."""

    condition: Literal["ContainerHealthy", "ResourcesAvailable"]
    """The Revision's condition that becomes False."""
    reason: str
    """`ExitCode<N>`, `ErrImagePull`, `ImagePullBackOff`, `Unschedulable`, `ProgressDeadlineExceeded` and others."""
    message: str
    final: bool = True
    """False if it may still start (a restart is in progress, or the progress deadline has not passed)."""


class ScaleChange(msgspec.Struct, frozen=True):
    """A decision that changed the desired number of instances."""

    at: float
    """Epoch seconds."""
    want: int
    why: str
    """Explanation for users."""


class UsageStatus(msgspec.Struct, frozen=True):
    """Resource usage of a Revision that is scaled by CPU or memory, for its HorizontalPodAutoscaler."""

    metric: str
    """`cpu` or `memory`."""
    target: float
    """Percent of the requested CPU, or bytes per instance."""
    average: int | None
    """In the same unit; None if it is unknown."""
    problem: str
    """Why it is unknown; empty if it is known, and before the first measurement."""
    least: int
    most: int
    """0 is no limit."""


class ScaleStatus(msgspec.Struct, frozen=True):
    """The scale of a revision, for its conditions and `actualReplicas`/`desiredReplicas`."""

    uid: str
    """uid of the Revision object; another uid means a stale entry of an earlier object of that name."""
    desired: int
    actual: int
    """Ready instances."""
    initial_reached: bool
    """Whether the initial scale was ever ready."""
    active: Literal["True", "False", "Unknown"]
    active_reason: str = ""
    """`NoTraffic`, `Queued`, `Deploying`, `TimedOut`; empty if active."""
    active_message: str = ""
    failure: StartFailure | None = None
    deploying_since: float = 0.0
    """Start of the progress deadline, epoch seconds; 0 once the initial scale was reached."""
    by_load: int = 0
    """The part of `desired` that is due to load: without min-scale, warm windows and rollouts."""
    rollback: str = ""
    """Why it performs worse than its predecessor, by its `knoll.dev/rollback-on`; empty if it does not."""
    changes: tuple[ScaleChange, ...] = ()
    """The last changes of `desired`, oldest first; at most ten."""
    usage: UsageStatus | None = None
    """For the class `hpa.autoscaling.knative.dev` only."""
