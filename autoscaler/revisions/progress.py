"""The deployment of one Revision: whether its initial scale was reached, or the progress deadline has passed."""

from collections.abc import Callable

from autoscaler.instances.failures import MISSING_SOURCE, deadline_exceeded
from knoll.messages.scale import ScaleStatus, StartFailure
from knoll.resources.scaling import ScalingSpec

TIMED_OUT = "TimedOut"
"""Active's reason when the progress deadline has passed; the next leader then does not try again."""


class DeploymentProgress:
    """The deadline counts from the first decision, and again from each instance that becomes ready."""

    def __init__(self, before: ScaleStatus | None, now: float) -> None:
        """
        Args:
            before: what an earlier leader published of this Revision.
            now: epoch seconds.
        """
        self.initial_reached = bool(before and before.initial_reached)
        self.gave_up = bool(before and before.active_reason == TIMED_OUT)
        self.failure = before.failure if before else None
        """Why it gave up."""
        self.since = (before.deploying_since if before else 0.0) or now
        """When the deployment began, or made progress last."""
        self._most_ready = before.actual if before else 0

    def update(self, spec: ScalingSpec, ready: int, failure: Callable[[], StartFailure | None], now: float) -> bool:
        """Compare the ready instances with the initial scale, and the time with the deadline.

        Args:
            ready: instances that are ready.
            failure: returns the failure of an instance that is not ready; called when the deadline is over.
            now: epoch seconds.

        Returns:
            Whether the initial scale has just been reached.
        """
        reached = not self.initial_reached and ready >= spec.initial_scale
        if reached:
            self.initial_reached, self.gave_up, self.failure = True, False, None
        if ready > self._most_ready:
            self._most_ready, self.since = ready, now
        deadline = spec.progress_deadline_seconds
        if not self.initial_reached and not self.gave_up and now - self.since > deadline:
            self.gave_up = True
            self.failure = deadline_exceeded(failure(), ready, spec.initial_scale, deadline)
        return reached

    def sources_changed(self, now: float) -> None:
        """An object changed that its containers refer to: a deployment that gave up without it tries again."""
        if self.gave_up and self.failure and self.failure.reason == MISSING_SOURCE:
            self.gave_up, self.failure, self.since = False, None, now
