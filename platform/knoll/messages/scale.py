"""The scale of each revision, as the autoscaler reports it to the API. Pure."""

from typing import Literal

import msgspec

SCALE = "scale"
"""Name of the table of `ScaleStatus`. Field: `namespace/name` of the Revision. Writer: the leading autoscaler."""


class StartFailure(msgspec.Struct, frozen=True):
    """Why a revision's instances do not come up, in the reasons of Knative's conditions."""

    condition: Literal["ContainerHealthy", "ResourcesAvailable"]
    """The Revision's condition that becomes False."""
    reason: str
    """`ExitCode<N>`, `ErrImagePull`, `ImagePullBackOff`, `Unschedulable`, `ProgressDeadlineExceeded` and others."""
    message: str
    final: bool = True
    """False while it may still come up (a restart is under way, the progress deadline has not passed)."""


class ScaleChange(msgspec.Struct, frozen=True):
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
    failure: StartFailure | None = None
    deploying_since: float = 0.0
    """Epoch seconds that the progress deadline counts from; 0 once the initial scale was reached."""
    by_load: int = 0
    """What its load alone wants of `desired`: without min-scale, warm windows and rollouts."""
    rollback: str = ""
    """Why it does worse than the Revision before it, by its `knoll.dev/rollback-on`; empty when it does not."""
    changes: tuple[ScaleChange, ...] = ()
    """The last changes of `desired`, oldest first; at most ten."""
    usage: UsageStatus | None = None
    """With the class `hpa.autoscaling.knative.dev` alone."""
